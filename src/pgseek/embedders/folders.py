"""Models of sentence-transformers in local folders: which weights they hold, and what pgseek trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

# What `pgseek finetune` writes beside a model.
RECORD = "pgseek.json"
# Where an unfinished training keeps its checkpoints, in the folder that the model shall be in.
TRAINING = "training"
# How a revision begins that is a hash of weights.
PREFIX = "weights:"
# What of a folder makes vectors; the rest describes it.
_WEIGHTS = ("*.safetensors", "*.bin", "modules.json", "tokenizer.json", "*_*/config.json")


def weights_revision(folder: str | Path) -> str:
    """Return ``weights:`` and the beginning of the SHA-256 of a folder's weights, '' if it is none with a
    model.

    Two trainings that end in the same folder are two models, and their vectors are never compared.
    """
    folder = Path(folder)
    if not (folder / "modules.json").is_file():
        return ""
    found = hashlib.sha256()
    for path in sorted({path for pattern in _WEIGHTS for path in folder.rglob(pattern) if path.is_file()}):
        if any(part == TRAINING or part.startswith("checkpoint-") for part in path.relative_to(folder).parts):
            continue
        with path.open("rb") as stream:
            of_file = hashlib.file_digest(stream, "sha256").hexdigest()
        found.update(f"{path.relative_to(folder).as_posix()} {of_file}\n".encode())
    return f"{PREFIX}{found.hexdigest()[:16]}"


def record_of(model: str) -> dict[str, Any]:
    """Return what pgseek noted when it trained the model in a folder; empty for every other model."""
    try:
        found = json.loads((Path(model) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
