"""``pgseek index``, and the options of vectors, from the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support import CountingEmbedder, rows

from pgseek import Client


@pytest.fixture
def pgseek(dsn, tmp_path):
    def run(*arguments):
        made = subprocess.run(
            [sys.executable, "-m", "pgseek", "--dsn", dsn, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=tmp_path,
            env=dict(os.environ),
            check=False,
        )
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def filled(dsn, count=3000, **more):
    with Client(dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder(32), **more)
        docs.ingest([{"id": str(n), "text": f"text number {n}"} for n in range(count)])


def indexes(dsn):
    found = rows(
        dsn,
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'embeddings_1' AND indexname !~ 'pkey'",
    )
    return {row["indexname"]: row["indexdef"] for row in found}


def test_an_index_is_changed_built_anew_and_dropped(pgseek, dsn):
    filled(dsn)
    assert "hnsw (embedding" in indexes(dsn)["embeddings_1_hnsw"]
    code, out, err = pgseek("index", "build", "docs", "--index", "binary")
    assert (code, "(hnsw,binary, in place of hnsw) of space 1 of docs: 3,000 rows" in out) == (0, True), err
    (definition,) = indexes(dsn).values()
    assert "bit_hamming_ops" in definition
    code, out, _ = pgseek("index", "build", "docs", "--index", "ivfflat,lists=20", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, events[-1]["event"], events[-1]["index"]["lists"]) == (0, "built", 20)
    assert list(indexes(dsn)) == ["embeddings_1_ivfflat"]
    code, out, _ = pgseek("index", "build", "docs")
    assert (code, "no index was built" in out) == (0, True)
    code, out, _ = pgseek("index", "drop", "docs")
    assert (code, indexes(dsn)) == (0, {})
    code, _, err = pgseek("index", "build", "docs", "--index", "hsnw")
    assert (code, "'hsnw' is none of hnsw, ivfflat" in err) == (2, True)


def test_tuning_finds_and_stores_the_smallest_value(pgseek, dsn):
    filled(dsn, 4000)
    code, out, err = pgseek("index", "tune", "docs", "--recall", "0.9", "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["held"]
    assert found["after"]["recall"] >= 0.9
    stored = rows(dsn, "SELECT searching FROM pgseek.embedding_spaces")[0]["searching"]
    assert found["after"]["settings"] == {"ef_search": stored["ef_search"]}
    assert (stored["tuned"]["recall"], stored["tuned"]["k"]) == (0.9, 10)
    # A smaller one that was tried does not hold it.
    smaller = [t for t in found["tried"] if t["settings"].get("ef_search", 1000) < stored["ef_search"]]
    assert all(one["recall"] < 0.9 for one in smaller)
    code, out, err = pgseek("index", "tune", "docs", "--recall", "1.5")
    assert (code, "recall is 1.5" in err) == (2, True)


def test_advice_names_what_to_do(pgseek, dsn):
    filled(dsn, 2000)
    code, out, err = pgseek("index", "advise", "docs", "--sample", 20)
    assert code == 0, err
    assert "by 20 stored vectors, each without itself (the cache holds too few queries" in out
    assert "exact search takes " in out
    assert "proposed: leave it as it is" in out
    assert "sizes and times are estimates, from builds by one process over 2,000 rows" in out
    code, out, _ = pgseek("index", "advise", "docs", "--sample", 20, "--json")
    found = json.loads(out)
    assert (found["rows"], found["queries"]) == (2000, 20)
    assert {option["storage"] for option in found["options"]} == {"vector", "halfvec"}


def test_an_index_is_shown_with_what_it_was_tuned_for(pgseek, dsn):
    filled(dsn, 2000)
    code, out, err = pgseek("index", "show", "docs")
    assert code == 0, err
    assert "2,000 of vector by cosine" in out
    assert "searched with  as pgseek chooses" in out
    assert "USING hnsw (embedding vector_cosine_ops)" in out
    assert pgseek("index", "tune", "docs", "--recall", "0.8", "--sample", 20)[0] == 0
    _, out, _ = pgseek("index", "show", "docs")
    assert "searched with  ef_search 10" in out
    assert "for 0.8 of the 10 nearest: " in out
    code, out, _ = pgseek("index", "show", "docs", "--json")
    found = json.loads(out)
    assert (code, found["built"], found["building"], found["rows"]) == (0, True, None, 2000)
    assert found["searching"]["tuned"]["rows"] == 2000
    code, out, _ = pgseek("index", "drop", "docs", "--json")
    assert (code, json.loads(out.splitlines()[-1])["index"]["method"]) == (0, "none")
    assert "none, not built" in pgseek("index", "show", "docs")[1]
    code, _, err = pgseek("index", "tune", "docs")
    assert (code, "has no index: every search is exact" in err) == (2, True)


def test_a_recall_that_no_value_holds_and_another_index_for_it(pgseek, dsn):
    filled(dsn, 2000, index="binary,m=4,ef_construction=8")
    code, out, err = pgseek("index", "tune", "docs", "--recall", 1, "--sample", 20)
    assert (code, "no value finds 1 of the 10 nearest: the best is 0." in err) == (4, True)
    assert "use it from now on" not in out
    assert rows(dsn, "SELECT searching FROM pgseek.embedding_spaces")[0]["searching"] == {}
    code, out, err = pgseek("index", "advise", "docs", "--recall", 1, "--sample", 20)
    assert code == 0, err
    (command,) = [
        line.removeprefix("proposed: ") for line in out.splitlines() if line.startswith("proposed: ")
    ]
    assert command.startswith(
        "pgseek index build docs --index hnsw,m=24,ef_construction=128 --maintenance-work-mem "
    )
    assert (
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS embeddings_1_next ON pgseek.embeddings_1 USING hnsw" in out
    )
    code, out, err = pgseek(*command.split()[1:])
    assert (code, "(hnsw,m=24,ef_construction=128, in place of hnsw,binary,m=4" in out) == (0, True), err


def test_searches_take_their_settings_from_the_command_line(pgseek, dsn):
    code, out, err = pgseek(
        "collections", "create", "docs", "--metric", "l2", "--storage", "halfvec", "--index", "hnsw,m=8"
    )
    assert code == 0, err
    rows(dsn, "SELECT pgseek.put_document('docs', 'a', 'a text')")
    assert pgseek("queue", "drain", "docs")[0] == 0
    arguments = ("search", "docs", "a text", "--json", "--ef-search", 200, "--probes", 3, "--rerank", 2)
    code, out, err = pgseek(*arguments, "--space", 1)
    assert code == 0, err
    (hit,) = json.loads(out)
    assert hit["dense_score"] == pytest.approx(1 / (1 + hit["dense_distance"]))
    code, out, _ = pgseek("collections", "show", "docs")
    assert ("l2" in out, "halfvec(256)" in out, "hnsw,m=8" in out) == (True, True, True)
    code, _, err = pgseek("search", "docs", "a text", "--ef-search", 2000)
    assert (code, "ef_search is 2000, but must be a whole number from 1 to 1,000" in err) == (2, True)
    code, _, err = pgseek("search", "docs", "a text", "--space", 5)
    assert (code, "has no embedding space 5" in err) == (2, True)


def test_a_metadata_field_is_indexed_and_no_longer(pgseek, dsn):
    filled(dsn, 3)
    assert pgseek("collections", "index-metadata", "docs", "year", "number") == (
        0,
        "docs: filters on year (number) use an index\n",
        "",
    )
    assert pgseek("collections", "index-metadata", "docs", '["a.b", "c"]', "date")[0] == 0
    assert "year (number), ['a.b', 'c'] (date)" in pgseek("collections", "show", "docs")[1]
    (found,) = json.loads(pgseek("collections", "list", "--json")[1])
    assert found["metadata_indexes"][1] == {"field": ["a.b", "c"], "type": "date"}
    assert pgseek("collections", "drop-metadata-index", "docs", "year")[:2] == (
        0,
        "docs: dropped the index of year\n",
    )
    for arguments, message in (
        (
            ("drop-metadata-index", "docs", "year"),
            "'year' has no index; those that have: ['a.b', 'c'] (date)",
        ),
        (("index-metadata", "docs", "year", "int"), "must be one of text, number, date"),
        (("index-metadata", "docs", "[a.b]", "text"), "is not a JSON array of keys"),
        (("index-metadata", "nodocs", "year", "text"), "did you mean 'docs'"),
    ):
        code, _, err = pgseek("collections", *arguments)
        assert code != 0
        assert message in err
