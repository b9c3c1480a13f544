"""Helpers of the tests: an embedder that counts, and small corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pgseek import EmbedderIdentity
from pgseek.db.connection import connect
from pgseek.embedders.base import PROBES


class CountingEmbedder:
    """Deterministic unit vectors from a hash of the text; remembers what it was asked.

    ``given`` maps a text to the vector it shall have.
    """

    def __init__(
        self, dimensions: int = 8, model: str = "hash", given: dict[str, Sequence[float]] | None = None
    ) -> None:
        self.identity = EmbedderIdentity("tests", model, dimensions, normalized=True)
        self.model_id = str(self.identity)
        self.documents: list[str] = []
        self.queries: list[str] = []
        self.given = given or {}

    def embed_documents(self, texts: Sequence[str]) -> Any:
        self.documents += [text for text in texts if text not in PROBES]
        rows = [self._vector(text) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), self.identity.dimensions)

    def embed_query(self, text: str) -> Any:
        if text not in PROBES:
            self.queries.append(text)
        return np.asarray(self._vector(text), dtype=np.float32)

    def _vector(self, text: str) -> Any:
        if text in self.given:
            return self.given[text]
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).normal(size=self.identity.dimensions)
        return vector / np.linalg.norm(vector)


def rows(dsn: str, statement: str, parameters: Any = None) -> list[dict[str, Any]]:
    """Execute a statement on a connection of its own and return its rows."""
    with connect(dsn) as connection:
        cursor = connection.execute(statement, parameters)
        return cursor.fetchall() if cursor.description is not None else []


def create_database(server_dsn: str, name: str, template: str | None = None) -> None:
    """Create a database; without a template in UTF-8 with a locale that knows letters."""
    with connect(server_dsn) as connection:
        version = connection.info.server_version
        locale = (
            "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8'" if version >= 170000 else ""
        )
        source = f"TEMPLATE {template}" if template else f"TEMPLATE template0 ENCODING 'UTF8' {locale}"
        if version >= 150000:
            # Files copied as they are: the other way writes each page to the log as well.
            source += " STRATEGY file_copy"
        connection.execute(f"CREATE DATABASE {name} {source}")


def drop_database(server_dsn: str, name: str) -> None:
    """Drop a database, whoever is still connected."""
    with connect(server_dsn) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def snapshot(dsn: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything pgseek stores except times and ids that count up, for comparing two states."""
    spaces = [row["space_id"] for row in rows(dsn, "SELECT space_id FROM pgseek.embedding_spaces ORDER BY 1")]
    statements = {
        "documents": "SELECT document_id, external_id, title, body, language, metadata, content_hash"
        " FROM pgseek.documents ORDER BY 1",
        "chunks": "SELECT document_id, ordinal, kind, title, text, language, char_start, char_end,"
        " text_hash, provenance::text, section_start, section_end, of_ordinal, lexemes::text"
        " FROM pgseek.chunks ORDER BY 1, 2",
        "queue": "SELECT document_id, content_hash FROM pgseek.ingest_queue ORDER BY 1",
    }
    for space in spaces:
        statements[f"embeddings {space}"] = (
            f"SELECT document_id, ordinal, embedding::text FROM pgseek.embeddings_{space} ORDER BY 1, 2"
        )
    return {
        name: [tuple(map(repr, row.values())) for row in rows(dsn, statement)]
        for name, statement in statements.items()
    }


CORPUS = [
    {
        "id": "lru_cache",
        "title": "functools.lru_cache",
        "text": "Least-recently-used cache decorator. A memoizing"
        " decorator saves the results of a function, so that a later call with the same arguments is fast.",
        "metadata": {"module": "functools", "year": 2010, "tags": ["cache", "function"]},
    },
    {
        "id": "reduce",
        "title": "functools.reduce",
        "text": "Apply a function of two arguments cumulatively to the"
        " items of an iterable, from left to right.",
        "metadata": {"module": "functools", "year": 1994},
    },
    {
        "id": "heapq.merge",
        "title": "heapq.merge",
        "text": "Merge multiple sorted inputs into a single sorted"
        " output, returning an iterator over the sorted values.",
        "metadata": {"module": "heapq", "year": 2008},
    },
    {
        "id": "suppress",
        "title": "contextlib.suppress",
        "text": "Context manager to suppress specified exceptions."
        " After the exception is suppressed, execution proceeds with the next statement.",
        "metadata": {"module": "contextlib", "year": 2014},
    },
    {
        "id": "errno",
        "title": "errno",
        "text": "This module makes available standard errno system symbols, such as"
        " ENOENT, no such file or directory.",
        "metadata": {"module": "errno", "year": 1994},
    },
    {
        "id": "path.join",
        "title": "os.path.join",
        "text": "Join two or more pathname components, inserting a slash as needed.",
        "metadata": {"module": "os.path", "year": 1994, "quote": "O'Reilly; DROP TABLE x--"},
    },
]
