"""BEIR folders: documents, queries, and judgements by split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgseek.errors import InvalidInput
from pgseek.evaluation.trec import Qrels, read_qrels
from pgseek.sources import read_sources
from pgseek.types import Document, Rejection


@dataclass(frozen=True, slots=True)
class Beir:
    """A judged collection as `read_beir` found it.

    ``queries`` maps ids to texts in the order of the file, judged or not; ``qrels`` are those of
    ``split``. The documents stay on disk: see `documents`.
    """

    folder: Path
    split: str
    queries: Mapping[str, str]
    qrels: Qrels

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    def documents(self) -> Iterator[Document]:
        """Stream the documents of corpus.jsonl, as `Collection.ingest` takes them.

        A document without text has its title as its text. One with neither is yielded empty, for
        ingest to reject and count.

        Raises:
            InvalidInput: no such file; and, while reading, a malformed line with its number.
        """
        return _documents(_find(self.folder, "corpus.jsonl"))


def read_beir(folder: str | Path, split: str = "test") -> Beir:
    """Read the queries and judgements of a BEIR folder.

    The folder holds corpus.jsonl ({"_id", "title", "text"}), queries.jsonl ({"_id", "text"}) and
    qrels/<split>.tsv; each may be compressed and end in .gz.

    Raises:
        InvalidInput: a file is missing, or a line of it malformed; names the file and the line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidInput(
            f"there is no folder {folder}; give one with corpus.jsonl, queries.jsonl and qrels"
        )
    queries: dict[str, str] = {}
    for where, record in _records(_find(folder, "queries.jsonl")):
        name = _id(where, record)
        if name in queries:
            raise InvalidInput(f"{where}: query {name!r} occurred before; ids must differ")
        text = record.get("text")
        if not isinstance(text, str):
            raise InvalidInput(f'{where}: query {name!r} has no "text"')
        queries[name] = text
    return Beir(folder, split, queries, read_qrels(_find(folder, f"qrels/{split}.tsv")))


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    missing = f"there is no file {folder / name}, nor {Path(name).name}.gz beside it"
    if name.startswith("qrels/"):
        there = sorted(path.name.split(".")[0] for path in folder.glob("qrels/*.tsv*"))
        missing += f"; judged splits there: {', '.join(there) or 'none'}"
    raise InvalidInput(missing)


def _documents(path: Path) -> Iterator[Document]:
    for where, record in _records(path):
        name = _id(where, record)
        title, text = (record.get(field) or "" for field in ("title", "text"))
        if not isinstance(title, str) or not isinstance(text, str):
            raise InvalidInput(f"{where}: the title or the text of document {name!r} is not a text")
        yield Document(name, text if text.strip() else title, title)


def _records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a JSON-lines file, each with its place ``file:line``."""
    for found in read_sources([str(path)], "jsonl"):
        where = f"{found.source}:{found.position}"
        if isinstance(found, Rejection):
            raise InvalidInput(f"{where}: {found.reason}")
        yield where, found.record


def _id(where: str, record: Mapping[str, Any]) -> str:
    found = record.get("_id")
    # Ids are texts, as they are in the judgements; some collections have them as numbers here.
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if not isinstance(found, str) or not found:
        raise InvalidInput(f'{where}: the object has no "_id", or one that is not a text')
    return found
