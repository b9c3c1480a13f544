"""Parquet: a document a row, read by row groups in small batches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any

from pgseek.errors import InvalidInput
from pgseek.sources.columns import Columns, Layout, layout
from pgseek.sources.extra import required
from pgseek.types import Located, Rejection

# Rows, and about as many bytes, that are Python objects at one time.
BATCH = 500
BATCH_BYTES = 8 * 2**20


def parquet_rows(
    stream: IO[bytes], source: str, columns: Columns | None = None
) -> Iterator[Located | Rejection]:
    """Yield the rows of a Parquet file; the place of a row is its number from 1.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    arrow, parquet = required("parquet")
    with ExitStack() as stack:
        if source == "-" or source.endswith(".gz"):
            # Parquet is read from its end: a stream is set down first.
            stream = _set_down(stream, stack.enter_context(tempfile.TemporaryFile()))
        try:
            file = stack.enter_context(parquet.ParquetFile(stream))
            names = file.schema_arrow.names
            found = layout(columns or Columns(), names)
            needed = [n for n in names if n in _needed(found)]
        except (arrow.ArrowException, InvalidInput) as error:
            reason = str(error) if isinstance(error, InvalidInput) else f"not Parquet: {error}"
            yield Rejection(1, None, reason, source)
            return
        number = 1
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            size = max(1, min(BATCH, BATCH_BYTES * about.num_rows // (about.total_byte_size or 1)))
            try:
                for batch in file.iter_batches(size, row_groups=[group], columns=needed, use_threads=False):
                    yield from _located(arrow, batch, found, number, source)
                    number += batch.num_rows
            except (arrow.ArrowException, OSError) as error:
                rest = sum(file.metadata.row_group(g).num_rows for g in range(group + 1))
                reason = f"row group {group + 1} cannot be read from row {number} on: {error}"
                yield Rejection(number, None, reason, source)
                number = rest + 1


def _needed(found: Layout) -> set[str]:
    return {found.id, *found.texts, found.title, found.language, found.format, *found.metadata}


def _located(arrow: Any, batch: Any, found: Layout, first: int, source: str) -> Iterator[Located | Rejection]:
    for number, row in enumerate(_dictionaries(arrow, batch), first):
        if isinstance(row, str):
            yield Rejection(number, None, f"row {number} cannot be read: {row}", source)
            continue
        try:
            yield Located(found.record(row, f"row {number}"), number, source)
        except InvalidInput as error:
            given = row.get(found.id)
            yield Rejection(number, None if given is None else str(given), f"row {number}: {error}", source)


def _dictionaries(arrow: Any, batch: Any) -> Sequence[dict[str, Any] | str]:
    """Return the rows of a batch; for one that Python cannot hold, the reason."""
    for index, field in enumerate(batch.schema):
        # Python's times end at microseconds.
        if arrow.types.is_timestamp(field.type) and field.type.unit == "ns":
            coarse = batch.column(index).cast(arrow.timestamp("us", field.type.tz), safe=False)
            batch = batch.set_column(index, field.name, coarse)
        elif arrow.types.is_duration(field.type) and field.type.unit == "ns":
            batch = batch.set_column(
                index, field.name, batch.column(index).cast(arrow.duration("us"), safe=False)
            )
    try:
        rows: list[dict[str, Any] | str] = batch.to_pylist()
    except (ValueError, OverflowError, arrow.ArrowException) as error:
        if batch.num_rows == 1:
            return [str(error)]
        return [row for n in range(batch.num_rows) for row in _dictionaries(arrow, batch.slice(n, 1))]
    return rows


def _set_down(stream: IO[bytes], file: IO[bytes]) -> IO[bytes]:
    shutil.copyfileobj(stream, file)
    file.seek(0)
    return file
