"""Searches of tenants of different sizes: recall under row-level security against exact search, and what it costs.

    python benchmarks/tenants.py [--rows 50000 10000 2000 500] [--dimensions 256] [--queries 100]

A reader, a login role that row-level security restricts, and the owner of the tables, whom it does not, execute the
same statements, interleaved in one run. Recall is of the 10 nearest of all vectors of the tenant (dense), of the 10
best of all its chunks by their BM25 scores (lexical), and of the owner's answer (hybrid). In the end search() is made
to run with the caller's rights, which shows why it does not.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from common import GivenVectors, corpus, database
from psycopg.conninfo import make_conninfo

from pgseek import Client
from pgseek.db.connection import connect

SEARCH = (
    "SELECT document_id FROM pgseek.search('docs', %(query)s, query_embedding => %(vector)s::vector, space_id => {space},"
    " alpha => {alpha}, snippets => false, budget => {budget}) ORDER BY rank"
)
STATEMENTS = {
    "dense": SEARCH.replace("{alpha}", "1").replace("{budget}", "50"),
    # All the time it takes: whether it is exact is the question.
    "lexical": SEARCH.replace("{alpha}", "0").replace("{budget}", "10000"),
    "hybrid": SEARCH.replace("{alpha}", "0.4").replace("{budget}", "50"),
    "ORDER BY <=>": "SELECT document_id FROM pgseek.embeddings_{space} ORDER BY embedding <=> %(vector)s::vector LIMIT 10",
}
EXACT = {
    "dense": "SELECT document_id FROM pgseek.nearest({space}, %(vector)s::vector, 10, true)",
    "lexical": "SELECT c.document_id FROM pgseek.bm25_bag('{{english}}', %(query)s) w,"
    " pgseek.bm25_terms({collection}, w.lexemes, w.frequencies) t, pgseek.chunks c WHERE c.collection_id = {collection}"
    " AND c.terms <#> pgseek.bm25_query(t.dimensions, t.weights) < 0"
    " ORDER BY c.terms <#> pgseek.bm25_query(t.dimensions, t.weights), c.document_id LIMIT 10",
}


def timed(connection, statement, parameters):
    """Execute a statement; return the ids and the milliseconds."""
    started = time.perf_counter()
    found = connection.execute(statement, parameters).fetchall()
    return [row["document_id"] for row in found], (time.perf_counter() - started) * 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, nargs="+", default=[50_000, 10_000, 2_000, 500])
    arguments.add_argument("--dimensions", type=int, default=256)
    arguments.add_argument("--queries", type=int, default=100)
    given = arguments.parse_args()
    texts, vectors = corpus(sum(given.rows), given.dimensions)
    rng = np.random.default_rng(7)
    role = f"pgseek_bench_{os.getpid()}"
    with database() as dsn:
        with connect(dsn) as owner:
            owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
            owner.execute(f"GRANT pgseek_reader TO {role}")
        try:
            first = 0
            places = {}
            for size in given.rows:
                tenant = f"tenant of {size:,}"
                with Client(dsn, tenant=tenant) as client:
                    docs = client.create_collection("docs", embedder=GivenVectors(vectors))
                    docs.ingest({"id": str(n), "text": texts[n]} for n in range(first, first + size))
                    places[tenant] = (docs._info.collection_id, docs._info.space_id, first, size)
                first += size
            with connect(dsn) as owner:
                owner.execute("VACUUM ANALYZE")
            print(
                f"{given.dimensions} dimensions, {given.queries} queries of up to 4 words a tenant, k = 10; milliseconds"
            )
            for tenant, place in places.items():
                measure(dsn, role, tenant, place, given.queries, texts, vectors, rng)
            with connect(dsn) as owner:
                # All overloads that there may be.
                (found,) = owner.execute(
                    "SELECT array_agg(oid::regprocedure::text) AS names FROM pg_proc WHERE proname = 'search'"
                    " AND pronamespace = 'pgseek'::regnamespace"
                ).fetchall()
                for name in found["names"]:
                    owner.execute(f"ALTER FUNCTION {name} SECURITY INVOKER")
            print("with the caller's rights:")
            for tenant, place in places.items():
                measure(
                    dsn,
                    role,
                    tenant,
                    place,
                    min(given.queries, 30),
                    texts,
                    vectors,
                    rng,
                    only=("lexical", "hybrid"),
                )
        finally:
            with connect(dsn) as owner:
                owner.execute(f"DROP OWNED BY {role}")
                owner.execute(f"DROP ROLE {role}")


def measure(dsn, role, tenant, place, queries, texts, vectors, rng, only=tuple(STATEMENTS)):
    """Print recall of the reader, and the times of both."""
    collection, space, first, size = place
    options = f"-c pgseek.tenant={tenant.replace(' ', chr(92) + ' ')}"
    times = {(name, who): [] for name in only for who in ("owner", "reader")}
    recall = {(name, who): [] for name in only for who in ("owner", "reader")}
    with (
        connect(make_conninfo(dsn, options=options)) as owner,
        connect(make_conninfo(dsn, options=options, user=role, password="x")) as reader,
    ):
        for connection in (owner, reader):
            connection.execute("SET hnsw.ef_search = 100")
        for number in range(-5, queries):
            words = texts[first + rng.integers(size)].split()[1:]
            query = " ".join(rng.choice(words, size=min(4, len(words)), replace=False))
            vector = vectors[first + rng.integers(size)] + 0.3 * rng.normal(size=vectors.shape[1])
            parameters = {"query": query, "vector": str(vector.tolist())}
            for name in only:
                found = {}
                order = [("owner", owner), ("reader", reader)]
                for who, connection in order if number % 2 else order[::-1]:
                    found[who], milliseconds = timed(
                        connection, STATEMENTS[name].format(space=space), parameters
                    )
                    if number >= 0:
                        times[name, who].append(milliseconds)
                kind = "dense" if name == "ORDER BY <=>" else name
                exact = found["owner"]
                if kind in EXACT:
                    exact, _ = timed(
                        owner, EXACT[kind].format(space=space, collection=collection), parameters
                    )
                if number >= 0 and exact:
                    for who, ids in found.items():
                        recall[name, who].append(len(set(ids[:10]) & set(exact)) / len(exact))
    for name in only:
        p50 = {who: float(np.median(times[name, who])) for who in ("owner", "reader")}
        p95 = {who: float(np.percentile(times[name, who], 95)) for who in ("owner", "reader")}
        print(
            f"{tenant:<18} {name:<13} recall@10 reader {np.mean(recall[name, 'reader']):.3f} owner {np.mean(recall[name, 'owner']):.3f}  reader p50 {p50['reader']:8.2f} p95 {p95['reader']:8.2f}"
            f"  owner p50 {p50['owner']:8.2f} p95 {p95['owner']:8.2f}  reader : owner {p50['reader'] / p50['owner']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
