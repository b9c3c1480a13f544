"""Evaluation on a real database, from Python and from the command line."""

from __future__ import annotations

import csv
import json
import math

import ir_measures
import pytest
from support import CountingEmbedder, rows

from pgseek import EmbedderError, InvalidInput
from pgseek.evaluation import (
    Mode,
    Plan,
    choose_modes,
    evaluate,
    per_query_rows,
    read_beir,
    summary,
    write_per_query,
    write_runs,
)

DOCUMENTS = {"a": "apple pie", "b": "apple tart", "c": "cherry cake", "d": "plum jam"}
QUERIES = {"q1": "tart", "q2": "cherry", "q3": "zzqqxx", "q4": "jam"}
QRELS = {"q1": {"b": 2, "d": 1}, "q2": {"c": 1}, "q3": {"a": 1, "b": 0}}
ANGLES = {
    "apple pie": 0,
    "apple tart": 30,
    "cherry cake": 60,
    "plum jam": 90,
    "tart": 0,
    "cherry": 90,
    "zzqqxx": 0,
}


def embedder():
    """Vectors of two dimensions, such that tart and zzqqxx find a, b, c, d and cherry d, c, b, a."""
    turned = {text: math.radians(angle) for text, angle in ANGLES.items()}
    return CountingEmbedder(2, given={text: (math.cos(x), math.sin(x)) for text, x in turned.items()})


@pytest.fixture
def docs(client):
    made = client.create_collection("docs", embedder=embedder())
    made.ingest({"id": name, "text": text} for name, text in DOCUMENTS.items())
    return made


def found_by(result, query):
    return [document for document, _ in result.run[query]]


def test_every_measure_is_what_it_is_by_hand(docs):
    found = evaluate(docs, QUERIES, QRELS, Plan(modes=choose_modes(["dense", "lexical"])))
    dense, lexical = found.modes
    assert [found_by(dense, query) for query in QRELS] == [list("abcd"), list("dcba"), list("abcd")]
    assert [found_by(lexical, query) for query in QRELS] == [["b"], ["c"], []]

    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    second = 1 / math.log2(3)
    by_hand = {
        "dense": {
            "nDCG@10": [(2 / math.log2(3) + 1 / math.log2(5)) / ideal, second, 1],
            "R@100": [1, 1, 1],
            "RR@10": [1 / 2, 1 / 2, 1],
            "AP": [(1 / 2 + 2 / 4) / 2, 1 / 2, 1],
        },
        "lexical": {
            "nDCG@10": [2 / ideal, 1, 0],
            "R@100": [1 / 2, 1, 0],
            "RR@10": [1, 1, 0],
            "AP": [1 / 2, 1, 0],
        },
    }
    for result in found.modes:
        for measure, values in by_hand[result.name].items():
            assert list(result.per_query[measure].values()) == pytest.approx(values)
            assert result.means[measure] == pytest.approx(sum(values) / 3)
        assert list(result.means) == ["nDCG@10", "R@100", "RR@10", "AP"]
    assert (dense.empty, lexical.empty) == (0, 1)

    assert (found.collection, found.documents, found.waiting, found.queries) == ("docs", 4, 0, 3)
    assert (found.unjudged_queries, found.lost_queries) == (1, 0)
    assert (found.judged_documents, found.missing_documents) == (4, 0)
    assert found.mode("lexical") is lexical
    with pytest.raises(InvalidInput, match="mode 'rrf' was not run; there are dense, lexical"):
        found.mode("rrf")


def test_modes_are_compared_query_by_query(docs):
    found = evaluate(
        docs, QUERIES, QRELS, Plan(modes=choose_modes(["dense", "lexical"]), measures=("RR@10", "R@100"))
    )
    first, second = found.comparisons
    # Both have 2/3 in the mean: the first of equal ones is the baseline.
    assert (first.measure, first.mode, first.baseline) == ("RR@10", "lexical", "dense")
    assert first.differences == pytest.approx({"q1": 0.5, "q2": 0.5, "q3": -1.0})
    # ±.5 ±.5 ±1 is at least 0 from 0, always.
    assert (first.better, first.equal, first.worse, first.p) == (2, 0, 1, 1.0)
    assert first.difference == pytest.approx(0)
    assert second.difference == pytest.approx(-0.5)
    assert (second.better, second.equal, second.worse) == (0, 1, 2)
    # Of ±.5 ±1 two lie as far from 0 as 1.5.
    assert (second.p, second.p_holm) == (pytest.approx(2 / 4), pytest.approx(2 / 4))


def test_the_four_modes_are_the_searches_they_say(docs):
    found = evaluate(docs, QUERIES, QRELS)
    arguments = {"dense": {"alpha": 1}, "lexical": {"alpha": 0}, "hybrid": {}, "rrf": {"fusion": "rrf"}}
    assert [result.name for result in found.modes] == list(arguments)
    assert len({tuple(map(str, result.run.values())) for result in found.modes}) == 4
    for result in found.modes:
        for query in QRELS:
            hits = docs.search(QUERIES[query], k=100, **arguments[result.name])
            assert dict(result.run[query]) == pytest.approx({hit.id: hit.score for hit in hits})
            assert found_by(result, query) == [hit.id for hit in hits]


def test_each_query_is_embedded_once_and_not_at_all_for_lexical_modes(client):
    counting = embedder()
    docs = client.create_collection("docs", embedder=counting)
    docs.ingest({"id": name, "text": text} for name, text in DOCUMENTS.items())
    evaluate(docs, QUERIES, QRELS, Plan(modes=choose_modes(["lexical"])))
    assert counting.queries == []
    evaluate(docs, QUERIES, QRELS)
    assert counting.queries == ["tart", "cherry", "zzqqxx"]


def test_signs_in_a_query_are_no_operators(docs):
    plan = Plan(modes=choose_modes(["lexical"]), measures=("R@100",))
    found = evaluate(docs, {"q": '-tart "cake cherry" +jam'}, {"q": {"b": 1, "c": 1, "d": 1}}, plan)
    assert found.modes[0].means == {"R@100": 1.0}


def test_the_querys_own_document_is_dropped_and_another_takes_its_place(docs):
    queries, qrels = {"a": "apple pie"}, {"a": {"b": 1}}
    dense = choose_modes(["dense"])
    kept = evaluate(docs, queries, qrels, Plan(modes=dense, measures=("RR",), depth=2))
    assert (found_by(kept.modes[0], "a"), kept.modes[0].means) == (["a", "b"], {"RR": 0.5})
    dropped = evaluate(docs, queries, qrels, Plan(modes=dense, measures=("RR",), depth=2, drop_self=True))
    assert (found_by(dropped.modes[0], "a"), dropped.modes[0].means) == (["b", "c"], {"RR": 1.0})


def test_chunks_are_collapsed_to_documents(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder(), chunk_size=12)
    docs.ingest(
        [
            {"id": "long", "text": "apple one. apple two. apple six. apple ten."},
            {"id": "other", "text": "apple"},
        ]
    )
    assert docs.info().chunks >= 5
    plan = Plan(modes=choose_modes(["dense", "lexical"]), measures=("P@2",), depth=2)
    found = evaluate(docs, {"q": "apple"}, {"q": {"long": 1, "other": 1}}, plan)
    for result in found.modes:
        assert sorted(found_by(result, "q")) == ["long", "other"]
        assert result.means == {"P@2": 1.0}


def test_what_is_missing_is_counted(docs, dsn):
    rows(dsn, "SELECT pgseek.put_document('docs', 'e', 'elder tea')")
    qrels = {**QRELS, "q2": {"c": 1, "gone": 1}, "lost": {"a": 1}, "lost, too": {"a": 1}}
    found = evaluate(docs, QUERIES, qrels)
    assert (found.documents, found.waiting) == (5, 1)
    assert (found.queries, found.unjudged_queries, found.lost_queries) == (3, 1, 2)
    assert (found.judged_documents, found.missing_documents) == (5, 1)
    assert found.mode("dense").per_query["R@100"]["q2"] == 0.5


def test_the_first_judged_queries_only(docs):
    told = []
    found = evaluate(
        docs,
        QUERIES,
        QRELS,
        Plan(modes=choose_modes(["dense"]), limit=2),
        progress=lambda *given: told.append(given),
    )
    assert list(found.modes[0].run) == ["q1", "q2"]
    assert (found.queries, found.judged_documents) == (2, 3)
    assert told == [("embedding", 1, 2), ("embedding", 2, 2), ("dense", 1, 2), ("dense", 2, 2)]


def test_a_run_that_means_nothing_is_refused(client, docs):
    empty = client.create_collection("empty", embedder=embedder())
    with pytest.raises(
        InvalidInput, match=r"'empty' holds no documents; .* pgseek eval empty --beir FOLDER --ingest"
    ):
        evaluate(empty, QUERIES, QRELS)
    with pytest.raises(InvalidInput, match="none of the 1 judged queries is among the 4 queries given"):
        evaluate(docs, QUERIES, {"other": {"a": 1}})
    with pytest.raises(InvalidInput, match="'docs' holds none of the 2 judged documents"):
        evaluate(docs, QUERIES, {"q1": {"A": 1, "B": 1}})


def test_a_query_that_cannot_be_searched_is_named(client, docs):
    with pytest.raises(InvalidInput, match="query 'q1' in mode 'embedding': the query is empty"):
        evaluate(docs, {"q1": " "}, QRELS)
    with pytest.raises(InvalidInput, match="query 'q1' in mode 'm': alpha is 2, but must lie in"):
        evaluate(docs, QUERIES, QRELS, Plan(modes=(Mode("m", {"alpha": 2}),)))
    zero = client.create_collection("zero", embedder=CountingEmbedder(2, "zero", {"cherry": (0, 0)}))
    zero.ingest([{"id": "a", "text": "apple"}])
    with pytest.raises(EmbedderError, match=r"query 'q2' in mode 'embedding': .* zero"):
        evaluate(zero, QUERIES, QRELS)


def test_runs_read_back_give_the_same_measures(client, tmp_path):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    # Five at a time are equal in both legs.
    docs.ingest({"id": f"{name}{n}", "text": text} for name, text in DOCUMENTS.items() for n in range(5))
    qrels = {"q1": {"a3": 1, "b1": 2, "b4": 1}, "q2": {"c0": 1, "c4": 2}, "q3": {"d1": 1, "d2": 0}}
    found = evaluate(docs, QUERIES, qrels)
    assert write_runs(tmp_path / "new" / "runs", found) == [
        tmp_path / "new" / "runs" / f"{name}.trec" for name in ("dense", "lexical", "hybrid", "rrf")
    ]
    measures = [ir_measures.nDCG @ 10, ir_measures.R @ 100, ir_measures.RR @ 10, ir_measures.AP]
    for result in found.modes:
        run = list(ir_measures.read_trec_run(str(tmp_path / "new" / "runs" / f"{result.name}.trec")))
        assert [(q, d) for q, d, _ in run] == [
            (q, d) for q, documents in result.run.items() for d, _ in documents
        ]
        means = ir_measures.calc_aggregate(measures, qrels, run)
        assert {str(measure): value for measure, value in means.items()} == pytest.approx(dict(result.means))


def test_values_by_query_are_written(docs, tmp_path):
    found = evaluate(
        docs, QUERIES, QRELS, Plan(modes=choose_modes(["dense", "lexical"]), measures=("RR", "R@100"))
    )
    made = list(per_query_rows(found))
    assert len(made) == 2 * 2 * 3
    assert made[3] == {
        "query": "q1",
        "measure": "R@100",
        "mode": "dense",
        "value": 1,
        "baseline": "dense",
        "difference": 0,
    }
    assert made[-1] == {
        "query": "q3",
        "measure": "R@100",
        "mode": "lexical",
        "value": 0,
        "baseline": "dense",
        "difference": -1,
    }
    write_per_query(tmp_path / "values.jsonl", found)
    assert [json.loads(line) for line in (tmp_path / "values.jsonl").read_text().splitlines()] == made
    write_per_query(tmp_path / "values.tsv", found)
    with (tmp_path / "values.tsv").open(newline="") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    assert table == [{name: str(value) for name, value in row.items()} for row in made]

    alone = evaluate(docs, QUERIES, QRELS, Plan(modes=choose_modes(["dense"])))
    assert {(row["baseline"], row["difference"]) for row in per_query_rows(alone)} == {(None, None)}
    assert summary(alone)["comparisons"] == []


# The command line.


@pytest.fixture
def folder(tmp_path):
    """A BEIR folder of the documents above; one judged document and one judged query are not there."""
    made = tmp_path / "tiny"
    (made / "qrels").mkdir(parents=True)

    def lines(name, records):
        (made / name).write_text("".join(json.dumps(record) + "\n" for record in records))

    lines("corpus.jsonl", ({"_id": name, "title": "", "text": text} for name, text in DOCUMENTS.items()))
    lines("queries.jsonl", ({"_id": name, "text": text} for name, text in QUERIES.items()))
    judged = {**QRELS, "q2": {"c": 1, "gone": 1}, "lost": {"a": 1}}
    table = [
        f"{query}\t{name}\t{score}" for query, by_name in judged.items() for name, score in by_name.items()
    ]
    (made / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *table, ""]))
    return made


@pytest.fixture
def pgseek(dsn, tmp_path, commands):
    """Run the command on a database of its own; returns code, standard output and error."""

    def run(*arguments):
        made = commands.run("--dsn", dsn, *arguments, cwd=tmp_path)
        return made.returncode, made.stdout.decode(), made.stderr.decode()

    return run


def test_the_command_ingests_evaluates_and_prints_json(pgseek, folder, client, tmp_path):
    options = (
        "--json",
        "--runs",
        "runs",
        "--per-query",
        "values.tsv",
        "--against",
        "lexical",
        "--measure",
        "RR",
        "--measure",
        "P@2",
    )
    code, out, err = pgseek(
        "eval", "docs", "--beir", folder, "--ingest", "--chunk-size", "500", "--language", "simple", *options
    )
    assert code == 0, err
    printed = json.loads(out)
    made = client.collection("docs")
    assert (made.count(), made.info().language, made.info().settings["chunk_size"]) == (4, "simple", 500)
    assert made.refresh_statistics() == pytest.approx(1)

    beir = read_beir(folder)
    plan = Plan(measures=("RR", "P@2"), baseline="lexical")
    wanted = json.loads(json.dumps(summary(evaluate(made, beir.queries, beir.qrels, plan))))
    assert printed.pop("beir") == "tiny"
    assert printed.pop("split") == "test"
    assert {"new": 4, "rejected": []}.items() <= printed.pop("ingest").items()
    for result in (*printed["modes"], *wanted["modes"]):
        latency = result.pop("latency_ms")
        assert 0 < latency["median"] <= latency["p95"]
    assert printed == wanted
    assert printed["baseline"] == "lexical"
    assert (printed["lost_queries"], printed["missing_documents"], printed["judged_documents"]) == (1, 1, 5)
    assert [note.split(":")[0] for note in err.splitlines()] == ["note", "note"]
    assert "1 judged queries have no text" in err
    assert "1 of 5 judged documents are not in the collection" in err

    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "dense.trec",
        "hybrid.trec",
        "lexical.trec",
        "rrf.trec",
    ]
    assert len((tmp_path / "values.tsv").read_text().splitlines()) == 1 + 4 * 2 * 3


def test_the_command_prints_tables(pgseek, folder, client):
    client.create_collection("docs").ingest([{"id": "z", "text": "a quince"}])
    code, out, err = pgseek(
        "eval", "docs", "--beir", folder, "--ingest", "--mode", "rrf", "--mode", "lexical", "--drop-self"
    )
    assert code == 0, err
    assert "4 documents in" in out
    assert "tiny/test in docs: 5 documents, 3 queries, 1 more without judgement, depth 100" in out
    lines = [line.split() for line in out.splitlines()]
    assert [
        "mode",
        "nDCG@10",
        "R@100",
        "RR@10",
        "MAP",
        "median",
        "ms",
        "p95",
        "ms",
        "found",
        "nothing",
    ] in lines
    rrf, lexical = (line for line in lines if line[:1] in (["rrf"], ["lexical"]))
    assert (rrf[0], lexical[0]) == ("rrf", "lexical")
    # q1 finds b of b and d, q2 c of c and gone, q3 nothing.
    assert lexical[2:5] == [f"{1 / 3:.4f}", f"{2 / 3:.4f}", f"{1 / 3:.4f}"]
    assert lexical[-1] == "1"
    (compared,) = (line for line in lines if line[:1] == ["AP"])
    assert {compared[1], compared[2]} == {"rrf", "lexical"}
    assert "the collection holds 5 documents, the corpus 4" in err

    code, out, err = pgseek("eval", "docs", "--beir", folder, "--mode", "dense", "--limit", "1")
    assert code == 0
    assert "measure" not in out
    assert "the corpus" not in err


def test_rejected_documents_are_told_and_give_exit_code_4(pgseek, folder):
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "blank", "title": "", "text": " "}\n')
    code, out, err = pgseek("eval", "docs", "--beir", folder, "--ingest")
    assert code == 4
    assert "1 rejected" in out
    assert "(id 'blank'): the document has no text" in err
    assert "tiny/test in docs" in out
    code, out, _ = pgseek("eval", "docs", "--beir", folder, "--ingest", "--json")
    assert (code, json.loads(out)["ingest"]["rejected"][0]["id"]) == (4, "blank")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["docs"],
            2,
            "no judged queries are given: --beir FOLDER, --queries FILE with --qrels FILE, or --golden",
        ),
        (["docs", "--queries", "q.txt"], 2, "--queries is given without --qrels"),
        (["docs", "--beir", "tiny", "--golden", "g"], 2, "given by --beir and by --golden; give one"),
        (["docs", "--golden", "g", "--ingest"], 2, "--ingest stores the corpus of --beir FOLDER"),
        (["docs", "--golden", "g"], 2, "collection 'docs' has no golden set 'g'; it has none yet"),
        (["docs", "--beir", "tiny", "--max-drop", "AP=0.1"], 2, "--max-drop is against a saved run"),
        (
            ["docs", "--beir", "tiny", "--fail-under", "AP"],
            2,
            "--fail-under is 'AP', but must be a measure and",
        ),
        (["docs", "--beir", "tiny", "--fail-under", "AP=x"], 2, "'x' is no number; write nDCG@10=0.65"),
        (["docs", "--beir", "tiny", "--fail-under", "AP=65"], 2, "65 does not lie in 0..1"),
        (["docs", "--beir", "tiny", "--fail-under", "bm:AP=0.5"], 2, "for the mode 'bm', but run are dense,"),
        (
            ["docs", "--beir", "tiny", "--baseline", "none.json"],
            2,
            "cannot read the saved evaluation none.json",
        ),
        (
            ["docs", "--beir", "tiny", "--baseline", "tiny/corpus.jsonl"],
            2,
            "cannot read the saved evaluation",
        ),
        (["docs", "--beir", "tiny", "--save", "no/run.json"], 2, "cannot write to no/run.json"),
        (["docs", "--beir", "nowhere"], 2, "there is no folder nowhere"),
        (["docs", "--beir", "tiny", "--split", "dev"], 2, "judged splits there: test"),
        (
            ["docs", "--beir", "tiny", "--mode", "bm25"],
            2,
            "mode 'bm25' is unknown; there are dense, lexical, hybrid, rrf",
        ),
        (["docs", "--beir", "tiny", "--measure", "nDCD@10"], 2, "measure 'nDCD@10' is unknown"),
        (
            ["docs", "--beir", "tiny", "--against", "bm25"],
            2,
            "the mode to compare with is 'bm25', which is not among those run",
        ),
        (
            ["docs", "--beir", "tiny", "--depth", "10"],
            2,
            "measure 'R@100' looks at 100 documents, but depth is 10",
        ),
        (["docs", "--beir", "tiny", "--limit", "0"], 2, "limit is 0"),
        (["docs", "--beir", "tiny", "--per-query", "no/file"], 2, "cannot write to no/file"),
        (["docs", "--beir", "tiny", "--runs", "tiny/corpus.jsonl"], 2, "cannot write to tiny/corpus.jsonl"),
        (
            ["docs", "--beir", "tiny"],
            2,
            "'docs' holds no documents; store the corpus first: pgseek eval docs --beir",
        ),
        (
            ["docs", "--beir", "tiny", "--chunk-size", "9"],
            2,
            "--chunk-size is 9, but collection 'docs' was made with 2000",
        ),
        (
            ["docs", "--beir", "tiny", "--language", "german"],
            2,
            "--language is german, but collection 'docs' was made with english",
        ),
        (
            ["docs", "--beir", "tiny", "--embedder", "wordllama@64"],
            1,
            "but the embedder is wordllama:l2_supercat@64",
        ),
        (["dosc", "--beir", "tiny"], 3, "did you mean 'docs'?; --ingest makes it from the corpus"),
    ],
)
def test_errors_are_one_line_with_a_code_that_means_something(
    pgseek, folder, client, arguments, code, message
):
    client.create_collection("docs")
    found, out, err = pgseek("eval", *arguments)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_corpus_that_cannot_be_read_to_its_end_says_where(pgseek, folder):
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write("{broken\n")
    code, out, err = pgseek("eval", "docs", "--beir", folder, "--ingest")
    assert (code, out) == (2, "")
    assert "corpus.jsonl:5: line 5 is not JSON" in err


def test_bm25_weighs_by_the_exact_average_length_after_an_ingest(pgseek, folder, client):
    made = client.create_collection("docs")
    made.ingest({"id": f"other {n}", "text": "two words"} for n in range(60))
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write('{"_id": "long", "text": "' + "many words " * 20 + '"}\n')
    # Fewer than a tenth more chunks: ingest alone leaves the statistics as they are.
    code, _, err = pgseek("eval", "docs", "--beir", folder, "--ingest", "--mode", "lexical")
    assert code == 0, err
    assert made.refresh_statistics() == pytest.approx(1)
