"""An index in memory as one file: arrays as numpy writes them, everything else as JSON; no pickles."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from pgseek.errors import InvalidInput
from pgseek.memory.rows import Postings, Row, Rows

FORMAT = "pgseek memory index 1"


def write(path: Path, rows: Rows, postings: Postings, kept: Mapping[str, Any]) -> Path:
    """Write the file. Raises `InvalidInput` if that cannot be done."""
    if path.suffix != ".npz":
        raise InvalidInput(f"the file is {str(path)!r}, but must end in .npz")
    about = {"format": FORMAT, **kept, "identity": asdict(kept["identity"])}
    dimensions = sorted(postings)
    arrays = {
        "about": _bytes(about),
        "rows": _bytes([asdict(row) for row in rows.rows]),
        "vectors": rows.vectors,
        "dimensions": np.array(dimensions, dtype=np.int64),
        "sizes": np.array([len(postings[one][0]) for one in dimensions], dtype=np.int64),
        "places": _joined([postings[one][0] for one in dimensions], np.int64),
        "weights": _joined([postings[one][1] for one in dimensions], np.float32),
    }
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise InvalidInput(f"cannot write the index to {str(path)!r}: {error.strerror}") from error
    return path


def read(path: Path) -> tuple[Rows, Postings, dict[str, Any]]:
    """Return what `write` wrote. Raises `InvalidInput` if the file is not there or holds something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        kept = json.loads(arrays["about"].tobytes())
        given = json.loads(arrays["rows"].tobytes())
        known = isinstance(kept, dict) and kept.pop("format", None) == FORMAT
    except OSError as error:
        raise InvalidInput(f"cannot read the index {str(path)!r}: {error.strerror or error}") from error
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(f"{str(path)!r} is no index that MemoryIndex.save wrote: {error}") from error
    if not known:
        raise InvalidInput(f"{str(path)!r} is no index that this version can read, which is {FORMAT!r}")
    rows = tuple(Row(**{**one, "document_id": UUID(one["document_id"])}) for one in given)
    ends = np.cumsum(arrays["sizes"])
    postings = {
        int(dimension): (arrays["places"][end - size : end], arrays["weights"][end - size : end])
        for dimension, size, end in zip(arrays["dimensions"], arrays["sizes"], ends, strict=True)
    }
    documents = tuple(dict.fromkeys(row.document_id for row in rows))
    return Rows(rows, arrays["vectors"], documents), postings, kept


def _bytes(value: Any) -> Any:
    return np.frombuffer(json.dumps(value, default=str).encode(), dtype=np.uint8)


def _joined(arrays: list[Any], dtype: Any) -> Any:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=dtype)
