"""Ingest against hand-written COPY of the same rows with given vectors, in one run.

    python benchmarks/ingest.py [--rows 20000] [--dimensions 256]

Raw: COPY of documents, chunks (with a stored tsvector and its GIN index) and vectors, then HNSW.
"""

from __future__ import annotations

import argparse
import time

from common import GivenVectors, corpus, database

from pgseek import Client
from pgseek.db.connection import connect
from pgseek.prepare import document_id

RAW = """
CREATE TABLE raw_documents (id uuid PRIMARY KEY, external_id text, body text, metadata jsonb);
CREATE TABLE raw_chunks (id uuid, ordinal int, text text,
    lexemes tsvector GENERATED ALWAYS AS (to_tsvector('english', text)) STORED, PRIMARY KEY (id, ordinal));
CREATE TABLE raw_embeddings (id uuid, ordinal int, embedding vector({d}), PRIMARY KEY (id, ordinal));
"""


def raw(dsn: str, texts: list[str], vectors) -> float:
    from pgvector.psycopg import register_vector

    with connect(dsn) as connection:
        register_vector(connection)
        connection.execute(RAW.format(d=vectors.shape[1]))
        started = time.perf_counter()
        ids = [document_id(str(n)) for n in range(len(texts))]
        with connection.transaction(), connection.cursor() as cursor:
            with cursor.copy("COPY raw_documents FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["uuid", "text", "text", "jsonb"])
                for n, text in enumerate(texts):
                    copy.write_row((ids[n], str(n), text, "{}"))
            with cursor.copy("COPY raw_chunks (id, ordinal, text) FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["uuid", "int4", "text"])
                for n, text in enumerate(texts):
                    copy.write_row((ids[n], 0, text))
            with cursor.copy("COPY raw_embeddings FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["uuid", "int4", "vector"])
                for n, vector in enumerate(vectors):
                    copy.write_row((ids[n], 0, vector))
        connection.execute("SET maintenance_work_mem = '512MB'")
        connection.execute("CREATE INDEX ON raw_chunks USING gin (lexemes)")
        connection.execute("CREATE INDEX ON raw_embeddings USING hnsw (embedding vector_cosine_ops)")
        return time.perf_counter() - started


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=20_000)
    arguments.add_argument("--dimensions", type=int, default=256)
    given = arguments.parse_args()
    texts, vectors = corpus(given.rows, given.dimensions)
    documents = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    with database() as dsn:
        by_hand = raw(dsn, texts, vectors)
        with Client(dsn) as client:
            docs = client.create_collection("docs", embedder=GivenVectors(vectors))
            first = docs.ingest(documents).seconds
            again = docs.ingest(documents)
    assert again.unchanged == given.rows
    print(f"{given.rows:,} documents of {given.dimensions} dimensions")
    print(f"raw COPY and index build   {by_hand:7.2f} s  {given.rows / by_hand:9,.0f} documents/s  1.00x")
    print(
        f"pgseek, first ingest       {first:7.2f} s  {given.rows / first:9,.0f} documents/s  {first / by_hand:.2f}x"
    )
    print(
        f"pgseek, nothing changed    {again.seconds:7.2f} s  {given.rows / again.seconds:9,.0f} documents/s"
    )


if __name__ == "__main__":
    main()
