"""Every dimension, metric and way to index: the statement a search runs walks the index, and scores are right."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support import CountingEmbedder
from vectors import as_stored, clustered, distances, fill, nearest

from pgseek import Client, InvalidInput, VectorIndex, spaces
from pgseek.db.connection import connect
from pgseek.steps import transact
from pgseek.types import EmbedderIdentity
from pgseek.vectors import METRICS, index_for, storage_for

ROWS = 1000
DIMENSIONS = (64, 256, 384, 768, 1024, 1536, 3072, 4096)
OPERATORS = {"cosine": "<=>", "inner_product": "<#>", "l2": "<->", "l1": "<+>"}
# Poor graphs are built fast, and walked all the same.
QUICK = "m=4,ef_construction=8"


@pytest.fixture(scope="module")
def database(module_dsn):
    """A collection of a thousand documents, to which spaces are added."""
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder(4), index="none")
        docs.ingest({"id": str(n), "text": f"word{n % 7} number{n}"} for n in range(ROWS))
        with connect(module_dsn) as connection:
            found = connection.execute(
                "SELECT document_id FROM pgseek.documents ORDER BY external_id::integer"
            ).fetchall()
        yield client, docs, module_dsn, [row["document_id"] for row in found]


class Space:
    """A space of the collection with vectors of chance, and its index built."""

    def __init__(self, database, dimensions, metric, index=None, storage=None):
        client, docs, self.dsn, self.ids = database
        self.metric = metric
        self.storage = storage_for(dimensions, storage)
        self.index = index_for(dimensions, self.storage, metric, index)
        identity = EmbedderIdentity("tests", f"{metric} {index} {storage}", dimensions, normalized=False)

        def insert():
            return (
                yield from spaces.insert(
                    docs.info().collection_id, identity, metric, self.storage, self.index, "ready", {}
                )
            )

        self.id = client._run(transact(insert))
        rows, queries = clustered(ROWS, 3, dimensions, seed=dimensions, taper=0.3)
        # Of different lengths: else inner product, cosine and L2 all give the same order.
        lengths = np.random.default_rng(1).uniform(0.5, 2.0, size=(ROWS, 1)).astype(np.float32)
        self.rows = as_stored(rows * lengths, self.storage)
        self.queries = as_stored(queries * np.float32(1.5), self.storage)
        fill(self.dsn, self.id, self.storage, rows * lengths, self.ids)
        if self.index.method != "none":
            assert docs.build_index(space=self.id, concurrently=False).built
        self.name = f"embeddings_{self.id}_{self.index.method}"

    def search(self, query, options="", *, seqscan=False):
        """Return the rows of a dense search, and the plan of the statement that ranks."""
        seen = []
        with connect(self.dsn) as connection:
            connection.execute("LOAD 'auto_explain'")
            for setting in (
                "client_min_messages = log",
                "auto_explain.log_min_duration = 0",
                "auto_explain.log_nested_statements = on",
                # A scan of a thousand short vectors is cheaper than any walk, and the planner knows it.
                f"enable_seqscan = {'on' if seqscan else 'off'}",
            ):
                connection.execute(f"SET {setting}")
            connection.add_notice_handler(lambda notice: seen.append(notice.message_primary))
            found = connection.execute(
                "SELECT * FROM pgseek.search('docs', 'word1', k => 5, query_embedding => %(q)s::vector,"
                f" space_id => %(s)s, space => %(s)s{options or ', alpha => 1'})",
                {"q": str(query.tolist()), "s": self.id},
            ).fetchall()
            (after,) = connection.execute("SELECT current_setting('enable_seqscan') AS setting").fetchall()
        assert after["setting"] == ("on" if seqscan else "off")
        (plan,) = [plan for plan in seen if "FROM placed p" in plan]
        return found, plan


def cases():
    for dimensions in DIMENSIONS:
        for metric in METRICS:
            full = dimensions <= 4000
            yield dimensions, metric, f"hnsw,{QUICK}" if full else f"binary,{QUICK}"
        yield dimensions, "cosine", f"binary,{QUICK}"
        yield dimensions, "inner_product", f"prefix={dimensions // 4},{QUICK}"
    for metric in METRICS:
        yield 96, metric, f"binary,{QUICK}"
        yield 96, metric, f"prefix=32,{QUICK}"
        if metric != "l1":
            yield 96, metric, "ivfflat,lists=4"
    yield 96, "l1", "ivfflat,binary,lists=4"


@pytest.mark.parametrize(("dimensions", "metric", "index"), list(dict.fromkeys(cases())))
def test_a_search_walks_the_index_and_its_scores_are_right(database, dimensions, metric, index):
    space = Space(database, dimensions, metric, index)
    assert space.storage == ("vector" if dimensions <= 2000 else "halfvec")
    operator = OPERATORS[metric]
    for query in space.queries:
        # Of four lists one: else IVFFlat would read the whole table, and a sort of it be cheaper.
        found, plan = space.search(query, ", alpha => 1, probes => 1" if "ivfflat" in index else "")
        assert f"Index Scan using {space.name} on " in plan, plan
        assert len(found) == 5
        exact = distances(space.rows, query, metric)
        with connect(space.dsn) as connection:
            for row in found:
                place = space.ids.index(row["document_id"])
                assert row["dense_distance"] == pytest.approx(exact[place], rel=2e-3, abs=2e-3)
                (stored,) = connection.execute(
                    f"SELECT embedding {operator} %s::{space.storage} AS distance FROM pgseek.embeddings_{space.id}"
                    " WHERE document_id = %s",
                    [str(query.tolist()), row["document_id"]],
                ).fetchall()
                assert row["dense_distance"] == stored["distance"]
                assert row["dense_score"] == pytest.approx(score(metric, row["dense_distance"]), abs=1e-12)
        scores = [row["dense_score"] for row in found]
        assert scores == sorted(scores, reverse=True)


def score(metric, distance):
    """Return what a distance becomes: higher is nearer."""
    if metric == "cosine":
        return 1 - distance
    return -distance if metric == "inner_product" else 1 / (1 + distance)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", ["vector", "halfvec"])
def test_without_an_index_the_nearest_are_those_numpy_finds(database, metric, storage):
    space = Space(database, 48, metric, "none", storage)
    for query, best in zip(space.queries, nearest(space.rows, space.queries, 5, metric), strict=True):
        found, plan = space.search(query, seqscan=True)
        assert "Index Scan using embeddings" not in plan
        assert [space.ids.index(row["document_id"]) for row in found] == best
    # The four metrics do not agree on these vectors, so none stands in for another.
    orders = {tuple(nearest(space.rows, space.queries[:1], 20, other)[0]) for other in METRICS}
    assert len(orders) == len(METRICS)


@pytest.mark.parametrize(
    ("dimensions", "index", "walks"),
    [
        (64, f"hnsw,{QUICK}", False),
        (768, f"hnsw,{QUICK}", True),
        (1536, f"binary,{QUICK}", True),
        (3072, f"hnsw,{QUICK}", True),
        (4096, f"binary,{QUICK}", True),
        (1536, "none", False),
    ],
)
@pytest.mark.parametrize("options", [", alpha => 1, candidates => 400", ""])
def test_vectors_out_of_line_are_not_scanned_since_the_planner_takes_their_table_for_small(
    database, dimensions, index, walks, options
):
    space = Space(database, dimensions, "cosine", index)
    _, plan = space.search(space.queries[0], options or ", alpha => 0.5", seqscan=True)
    assert (f"Index Scan using {space.name} on " in plan) == walks, plan


# What a walk is given.


def settings_of(space, wanted, arguments=""):
    with connect(space.dsn) as connection, connection.transaction():
        connection.execute(
            f"SELECT pgseek.begin_walk(s, {wanted}{arguments}) FROM pgseek.embedding_spaces s WHERE space_id = %s",
            [space.id],
        )
        (row,) = connection.execute(
            "SELECT current_setting('hnsw.ef_search')::int AS ef_search, current_setting('ivfflat.probes')::int AS probes"
        ).fetchall()
    return row["ef_search"], row["probes"]


def test_ef_search_and_probes_by_default_stored_and_given(database):
    short, long = Space(database, 256, "cosine", "none"), Space(database, 257, "cosine", "none")
    assert settings_of(short, 10) == (250, 10)
    assert settings_of(long, 10) == (100, 10)
    assert settings_of(long, 300) == (300, 10)
    assert settings_of(long, 80_000) == (1000, 10)
    assert settings_of(long, 10, ", ef_search => 7, probes => 3") == (7, 3)
    lists = Space(database, 8, "l2", "ivfflat,lists=25")
    assert settings_of(lists, 10)[1] == 20
    with connect(lists.dsn) as connection:
        connection.execute(
            """UPDATE pgseek.embedding_spaces SET searching = '{"ef_search": 33, "probes": 5}' WHERE space_id = %s""",
            [lists.id],
        )
    assert settings_of(lists, 500) == (33, 5)
    assert settings_of(lists, 500, ", 44, 6") == (44, 6)


@pytest.mark.parametrize(
    ("dimensions", "index", "expected"),
    [
        (384, "hnsw", {10: 1, 1000: 1}),
        (384, "binary", {1: 32, 10: 32, 100: 11, 1000: 4}),
        (1024, "binary", {10: 16, 100: 6}),
        (2048, "binary", {10: 8, 100: 3, 10_000: 2}),
        (1536, "prefix=256", {10: 8, 40: 4}),
    ],
)
def test_a_sketch_is_compared_again_the_less_for_each_the_more_are_wanted(
    database, dimensions, index, expected
):
    _, docs, dsn, _ = database
    storage = storage_for(dimensions)
    indexing = index_for(dimensions, storage, "cosine", index).to_json()
    changed = {"dimensions": dimensions, "storage": storage, "indexing": indexing}
    with connect(dsn) as connection:
        for candidates, rerank in expected.items():
            (row,) = connection.execute(
                "SELECT p.rerank FROM pgseek.embedding_spaces s, pgseek.dense_parts(jsonb_populate_record(s, %s::jsonb),"
                " candidates => %s) p WHERE s.space_id = %s",
                [json(changed), candidates, docs.info().space_id],
            ).fetchall()
            assert row["rerank"] == rerank
        (given,) = connection.execute(
            "SELECT p.rerank FROM pgseek.embedding_spaces s, pgseek.dense_parts(jsonb_populate_record(s, %s::jsonb),"
            " candidates => 100, rerank => 50) p WHERE s.space_id = %s",
            [json(changed), docs.info().space_id],
        ).fetchall()
    assert given["rerank"] == (1 if index == "hnsw" else 50)


def json(value):
    from psycopg.types.json import Jsonb

    return Jsonb(value)


# What there is not.


@pytest.mark.parametrize(
    ("dimensions", "storage", "metric", "index", "says"),
    [
        (
            2001,
            "vector",
            "cosine",
            "hnsw",
            "takes 2,000 dimensions of vector, but these have 2,001; store them as",
        ),
        (
            4001,
            None,
            "cosine",
            "hnsw",
            "takes 4,000 dimensions of halfvec, but these have 4,001; index them as",
        ),
        (64, None, "cosine", "prefix=64", "prefix is 64, but must be below the 64 dimensions"),
        (64, None, "l1", "ivfflat", "IVFFlat has no l1 metric; use hnsw"),
        (64, None, "cosine", "none,binary", "without an index vectors are compared in full"),
        (64, None, "cosine", "hnsw,m=1", "m is 1, but must be a whole number from 2 to 100"),
        (64, None, "cosine", "hnsw,m=40", "ef_construction is 64, but must be at least twice m, which is 40"),
        (64, None, "cosine", "hnsw,lists=3", "lists is 3, but belongs to an index of method 'ivfflat'"),
        (64, None, "cosine", "tree", "'tree' is none of hnsw, ivfflat, none, full, binary, prefix"),
        (64, None, "hamming", None, "metric is 'hamming', but must be one of cosine, inner_product, l2, l1"),
        (64, "bit", "cosine", None, "storage is 'bit', but must be one of vector, halfvec"),
    ],
)
def test_what_pgvector_does_not_have_is_refused_with_what_would_do(
    dsn, dimensions, storage, metric, index, says
):
    with Client(dsn) as client:
        with pytest.raises(InvalidInput, match=re.escape(says)):
            client.create_collection(
                "other", embedder=CountingEmbedder(dimensions), storage=storage, metric=metric, index=index
            )
        assert client.list_collections() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ef_search": 1001}, "ef_search is 1001, but must be .* from 1 to 1,000"),
        ({"probes": 0}, "probes is 0"),
        ({"rerank": 101}, "rerank is 101"),
    ],
)
def test_settings_out_of_their_range_are_refused(database, options, says):
    _, docs, dsn, _ = database
    with pytest.raises(InvalidInput, match=says):
        docs.search("word1", **options)
    ((name, value),) = options.items()
    with connect(dsn) as connection, pytest.raises(Exception, match=f"{name} is {value}, but must be from"):
        connection.execute(f"SELECT pgseek.search('docs', 'word1', {name} => {value})")


def test_the_storage_and_the_index_are_chosen_by_the_dimension():
    for dimensions, storage, index in (
        (2000, "vector", VectorIndex()),
        (2001, "halfvec", VectorIndex()),
        (4000, "halfvec", VectorIndex()),
        (4001, "halfvec", VectorIndex(form="binary")),
        (16_000, "halfvec", VectorIndex(form="binary")),
    ):
        assert storage_for(dimensions) == storage
        assert index_for(dimensions, storage, "cosine") == index
