"""``pgseek cluster`` and ``pgseek similarity`` as a stranger would use them."""

from __future__ import annotations

import json

import pytest
from support import rows
from topics import corpus

from pgseek import Client


@pytest.fixture(scope="module")
def pgseek(commands, module_dsn):
    documents, embedder, _ = corpus(each=6)
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=embedder)
        docs.ingest(documents)
        docs.refresh_statistics()
        client.create_collection("empty", embedder=embedder)

    def run(*arguments):
        done = commands.run("--dsn", module_dsn, *map(str, arguments))
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def test_clusters_are_shown_drawn_and_written(pgseek, tmp_path, module_dsn):
    picture, page, curve = tmp_path / "map.svg", tmp_path / "map.html", tmp_path / "curve.png"
    code, out, err = pgseek(
        *("cluster", "docs", "-k", "2:5", "--plot", picture, "--html", page, "--curve", curve),
        *("--write", "topic", "--preview"),
    )
    assert code == 0, err
    assert "docs: 18 documents in 3 clusters; silhouette 0." in out
    assert "topic: 18 documents would get a value, 0 would lose theirs, 0 are as they were" in out
    assert all(file.stat().st_size > 5000 for file in (picture, page, curve))
    code, out, err = pgseek("cluster", "docs", "-k", 3, "--write", "topic", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [one["size"] for one in found["clusters"]] == [6, 6, 6]
    assert found["written"]["changed"] == 18
    assert "model" not in found
    (row,) = rows(module_dsn, "SELECT pgseek.facets('docs', NULL, '{topic}', 'filter') AS found")
    assert {value["documents"] for value in row["found"]["facets"]["topic"]["values"]} == {6}
    code, out, err = pgseek("cluster", "docs", "--method", "hdbscan", "--min-size", 4)
    assert (code, "18 documents in 3 clusters; 0 (0%) in none" in out) == (0, True), err


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        (("nobody",), "no collection 'nobody'", 3),
        (("empty",), "holds no documents", 2),
        (("docs", "-k", "100"), "k is 100, but collection 'docs' has 18 documents", 2),
        (("docs", "-k", "many"), "-k is 'many'", 2),
        (("docs", "-k", "9:3"), "k is (9, 3)", 2),
        (("docs", "--by", "word"), "by is 'word'", 2),
        (("docs", "--plot", "map.txt"), "ends in none of .png", 2),
        (("docs", "--plot", "nowhere/map.png"), "the folder 'nowhere'", 2),
        (("docs", "--html", "map.png"), "must end in .html", 2),
        (("docs", "--html", "nowhere/map.html"), "the folder 'nowhere'", 2),
        (("docs", "-k", "3", "--curve", "curve.png"), "--curve draws how k was chosen", 2),
        (("docs", "--projection", "tsne"), "projection is 'tsne'", 2),
        (("docs", "--points", "1"), "points is 1", 2),
        (("docs", "--write", "a.b"), "the field is 'a.b'", 2),
        (("docs", "--write", "a", "--by", "chunk"), "metadata is the documents'", 2),
        (("docs", "--preview"), "--preview is of --write", 2),
        (("docs", "--filter", "even=3"), "meets the filter", 2),
        (("docs", "--space", "99"), "has no embedding space '99'", 2),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else None,
)
def test_wrong_input_is_one_line_that_says_what_to_do(pgseek, arguments, message, status):
    code, out, err = pgseek("cluster", *arguments)
    assert (code, out) == (status, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_similarity(pgseek, tmp_path):
    code, out, err = pgseek("similarity", "distribution", "docs", "--plot", tmp_path / "spread.png")
    assert code == 0, err
    assert "docs: 18 chunks by cosine" in out
    assert "by chance" in out
    assert (tmp_path / "spread.png").stat().st_size > 5000
    code, out, err = pgseek("similarity", "outliers", "docs", "-k", 3, "--most", 2)
    assert (code, "18 of 18 chunks" in out) == (0, True), err
    assert "among the nearest of" in out
    code, out, err = pgseek("similarity", "between", "docs", "bread-0", "bread-1", "--metric", "l2", "--json")
    assert code == 0, err
    assert json.loads(out)["scores"][0][0] == 1
    assert "by cosine" in pgseek("similarity", "between", "docs", "bread-0", "violin-1")[1]
    for arguments, status in (
        (("distribution", "docs", "--plot", "spread.txt"), 2),
        (("distribution", "empty"), 2),
        (("outliers", "docs", "-k", 0), 2),
        (("between", "docs", "bread-0", "nobody"), 2),
        (("between", "nobody", "a", "b"), 3),
    ):
        code, out, err = pgseek("similarity", *arguments)
        assert (code, out, len(err.strip().splitlines())) == (status, "", 1), err
