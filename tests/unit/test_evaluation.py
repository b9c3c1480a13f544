"""Evaluation without a database: BEIR and TREC files, measures, comparisons, chunks to documents."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from types import SimpleNamespace

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgseek import Document, EmbedderError, InvalidInput
from pgseek.evaluation import (
    DEFAULT_MODES,
    Mode,
    Plan,
    choose_modes,
    compare,
    holm,
    permutation_p,
    read_beir,
    read_qrels,
    run_mode,
    score,
    write_run,
)
from pgseek.evaluation.measures import parse_measures
from pgseek.evaluation.runs import rank_documents

# BEIR folders.

CORPUS = [
    {"_id": "1", "title": "A title", "text": "A text"},
    {"_id": "2", "title": "Only a title", "text": " "},
    {"_id": 3, "text": "Only a text", "metadata": {"url": "x"}},
    {"_id": "4", "title": None, "text": None},
]
QUERIES = [{"_id": "b", "text": "first"}, {"_id": "a", "text": "second"}, {"_id": "c", "text": "unjudged"}]
QRELS = "query-id\tcorpus-id\tscore\na\t1\t1\nb\t2\t2\nb\t3\t0\n"


@pytest.fixture
def beir(tmp_path):
    """Write a folder; a part given replaces the good one, None leaves it out."""

    def write(corpus=CORPUS, queries=QUERIES, qrels=QRELS, compressed=False):
        folder = tmp_path / "tiny"
        (folder / "qrels").mkdir(parents=True)
        parts = {"corpus.jsonl": corpus, "queries.jsonl": queries, "qrels/test.tsv": qrels}
        for name, part in parts.items():
            if part is None:
                continue
            text = part if isinstance(part, str) else "".join(json.dumps(row) + "\n" for row in part)
            if compressed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
            else:
                (folder / name).write_bytes(text.encode())
        return folder

    return write


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_is_read_plain_or_compressed(beir, compressed):
    found = read_beir(beir(compressed=compressed))
    assert (found.name, found.split) == ("tiny", "test")
    assert list(found.queries.items()) == [("b", "first"), ("a", "second"), ("c", "unjudged")]
    assert found.qrels == {"a": {"1": 1}, "b": {"2": 2, "3": 0}}
    assert list(found.documents()) == [
        Document("1", "A text", "A title"),
        Document("2", "Only a title", "Only a title"),
        Document("3", "Only a text", ""),
        Document("4", "", ""),
    ]


def test_documents_are_streamed(beir):
    found = read_beir(beir(corpus='{"_id": "1", "text": "good"}\nnot json\n')).documents()
    assert next(found).id == "1"
    with pytest.raises(InvalidInput, match=r"corpus\.jsonl:2: line 2 is not JSON"):
        next(found)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"corpus": None}, r"there is no file .*corpus\.jsonl, nor corpus\.jsonl\.gz beside it$"),
        ({"queries": None}, r"there is no file .*queries\.jsonl, nor"),
        ({"qrels": None}, r"there is no file .*qrels/test\.tsv, nor .*; judged splits there: none"),
    ],
)
def test_a_missing_file_is_named(beir, missing, message):
    folder = beir(**missing)
    with pytest.raises(InvalidInput, match=message):
        read_beir(folder).documents()


def test_a_missing_folder_or_split_is_named(beir, tmp_path):
    with pytest.raises(InvalidInput, match=r"there is no folder .*nowhere"):
        read_beir(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"qrels/dev\.tsv, nor dev\.tsv\.gz .*judged splits there: test"):
        read_beir(beir(), "dev")


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("corpus", '{"text": "x"}', r'corpus\.jsonl:1: the object has no "_id"'),
        ("corpus", '\n{"_id": true}', r'corpus\.jsonl:2: the object has no "_id"'),
        ("corpus", '{"_id": "1", "text": 5}', r"corpus\.jsonl:1: .*document '1' is not a text"),
        ("corpus", "[1]", r"corpus\.jsonl:1: line 1 is a JSON list"),
        ("queries", '{"_id": "a", "text": "x"}\n{"_id": "a"', r"queries\.jsonl:2: line 2 is not JSON"),
        ("queries", '{"_id": "a"}', r"queries\.jsonl:1: query 'a' has no \"text\""),
        ("queries", '{"_id": "", "text": "x"}', r"queries\.jsonl:1: the object has no \"_id\""),
        (
            "queries",
            '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}',
            r"queries\.jsonl:2: query 'a' occurred before",
        ),
        ("qrels", "query-id\tcorpus-id\tscore\na\t1\n", r"test\.tsv:2: 'a\\t1' is not query-id"),
        ("qrels", "query-id\tcorpus-id\tscore\na\t\t1\n", r"test\.tsv:2: .* is not query-id"),
        ("qrels", "query-id\tcorpus-id\tscore\na\t1\t0.5\n", r"test\.tsv:2: relevance '0\.5' is not a whole"),
        ("qrels", "a\t1\t0.5\n", r"test\.tsv:1: relevance '0\.5' is not a whole"),
        ("qrels", "a\t1\t1\na\t1\t2\n", r"test\.tsv:2: document '1' is judged 2 for query 'a', but 1 in"),
        ("qrels", "query-id\tcorpus-id\tscore\n", r"test\.tsv judges no document"),
    ],
)
def test_a_malformed_line_is_named(beir, part, content, message):
    folder = beir(**{part: content})
    with pytest.raises(InvalidInput, match=message):
        list(read_beir(folder).documents())


def test_qrels_of_trec_without_a_header_with_the_same_line_twice(tmp_path):
    path = tmp_path / "qrels.txt"
    path.write_text("\ufeff1 0 doc-1 2\r\n1 0 doc-2  -1\n\n2\t0\tdoc-1\t1\n2 0 doc-1 1\n")
    assert read_qrels(path) == {"1": {"doc-1": 2, "doc-2": -1}, "2": {"doc-1": 1}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.tsv", b"a\t1\t1\n\xff\n", r"q\.tsv:2: not UTF-8: byte 0xff"),
        ("q.tsv.gz", b"a\t1\t1\n", r"q\.tsv\.gz cannot be read"),
        ("q.tsv.gz", gzip.compress(b"a\t1\t1\n" * 9, mtime=0)[:-9], r"q\.tsv\.gz cannot be read"),
    ],
)
def test_qrels_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        read_qrels(tmp_path / name)


# Runs.


def hits(*pairs):
    return [SimpleNamespace(id=name, score=value, degraded=None) for name, value in pairs]


def test_a_document_stands_where_its_best_chunk_does():
    found = rank_documents(hits(("a", 3.0), ("b", 2.0), ("a", 1.5), ("c", 1.0), ("b", 0.5)))
    assert found == [("a", 3.0), ("b", 2.0), ("c", 1.0)]


def test_the_querys_own_document_is_left_out_whatever_its_place():
    assert rank_documents(hits(("a", 3.0), ("b", 2.0), ("a", 1.0)), "a") == [("b", 2.0)]
    assert rank_documents(hits(("a", 3.0), ("b", 2.0)), "b") == [("a", 3.0)]


@given(st.lists(st.sampled_from([0.0, 1e-7, 0.25, 0.2500001, 1.0, 40.0]), max_size=60))
def test_scores_decrease_strictly_even_as_a_run_file_holds_them(scores):
    found = rank_documents(hits(*((str(n), s) for n, s in enumerate(sorted(scores, reverse=True)))))
    assert [name for name, _ in found] == [str(n) for n in range(len(scores))]
    # trec_eval reads scores in single precision.
    written = [np.float32(f"{value:.7f}") for _, value in found]
    assert all(one > other for one, other in itertools.pairwise(written))
    assert all(abs(a - b) < 0.01 for (_, a), b in zip(found, sorted(scores, reverse=True), strict=True))


class Chunks:
    """A collection whose every search finds the same chunks; remembers what it was asked."""

    def __init__(self, ids):
        self.ids = ids
        self.asked = []

    def search(self, query, **arguments):
        self.asked.append((query, arguments))
        return hits(*((name, 1 / n) for n, name in enumerate(self.ids[: arguments["k"]], 1)))


@pytest.mark.parametrize(
    ("chunks", "depth", "drop_self", "asked", "found"),
    [
        ("aaaabbbbccccdddd", 3, False, [3, 6, 12], "abc"),
        ("aaaabbbb", 3, False, [3, 6, 12], "ab"),
        ("abcd", 3, False, [3], "abc"),
        ("", 3, False, [3], ""),
        ("qabc", 3, True, [4], "abc"),
        ("abcq", 3, True, [4], "abc"),
        ("abcd", 3, True, [4], "abc"),
        ("qqqqqabc", 3, True, [4, 8], "abc"),
        ("a" * 20_000, 1000, False, [1000, 2000, 4000, 8000, 10_000], "a"),
        ("a" * 20_000, 10_000, True, [10_000], "a"),
    ],
)
def test_more_chunks_are_asked_for_until_there_are_documents_enough(chunks, depth, drop_self, asked, found):
    collection = Chunks(list(chunks))
    made = run_mode(collection, Mode("m"), {"q": "text"}, depth=depth, drop_self=drop_self)
    assert [arguments["k"] for _, arguments in collection.asked] == asked
    assert [name for name, _ in made.run["q"]] == list(found)


def test_a_mode_searches_plain_texts_with_its_own_arguments():
    collection = Chunks(["a"])
    told = []
    made = run_mode(
        collection,
        Mode("m", {"alpha": 0.3, "budget": 7.0}),
        {"1": "x", "2": "y"},
        depth=5,
        progress=lambda *given: told.append(given),
    )
    same = {"k": 5, "alpha": 0.3, "syntax": "plain", "snippets": False, "budget": 7.0}
    assert collection.asked == [("x", same), ("y", same)]
    assert told == [("m", 1, 2), ("m", 2, 2)]
    assert 0 < made.latency.median <= made.latency.p95 < 1000
    assert made.degraded == 0


def test_answers_without_a_leg_and_empty_ones_are_told_apart():
    class Hurried:
        def search(self, query, **arguments):
            found = hits(("a", 1.0), ("b", 0.5)) if query else []
            for hit in found:
                hit.degraded = query if query != "well" else None
            return found

    made = run_mode(Hurried(), Mode("m"), {"1": "late", "2": "well", "3": "", "4": "late"})
    assert made.degraded == 2
    assert [len(ranking) for ranking in made.run.values()] == [2, 2, 0, 2]


def test_an_error_names_the_query():
    class Failing:
        def search(self, query, **arguments):
            raise EmbedderError("no vector")

    with pytest.raises(EmbedderError, match="query '7' in mode 'm': no vector"):
        run_mode(Failing(), Mode("m"), {"7": "x"})


def test_modes_are_chosen_by_name_in_the_order_given():
    assert [mode.name for mode in DEFAULT_MODES] == ["dense", "lexical", "hybrid", "rrf"]
    assert choose_modes(["rrf", "dense"]) == (DEFAULT_MODES[3], DEFAULT_MODES[0])
    with pytest.raises(InvalidInput, match="mode 'hybird' is unknown; did you mean 'hybrid'"):
        choose_modes(["hybird"])
    with pytest.raises(InvalidInput, match="mode 'x' is unknown; there are dense, lexical, hybrid, rrf"):
        choose_modes(["x"])


@pytest.mark.parametrize("name", ["", "a b", "../x", "a\n"])
def test_a_mode_has_a_name_that_a_file_can_have(name):
    with pytest.raises(InvalidInput, match=r"mode name .* is not allowed"):
        Mode(name)


@pytest.mark.parametrize("argument", ["k", "query", "query_embedding", "self", "alhpa"])
def test_a_mode_sets_arguments_of_search_only(argument):
    with pytest.raises(InvalidInput, match=f"has the argument '{argument}'; a mode may set alpha, fusion"):
        Mode("m", {argument: 1})


# TREC runs.

RUN = {"q1": (("d1", 0.5), ("d2", 0.25)), "q2": (), "q3": (("d1", -1.0),)}


def test_a_run_is_written_as_trec_reads_it(tmp_path):
    write_run(tmp_path / "run", RUN, "tag")
    assert (tmp_path / "run").read_text() == (
        "q1 Q0 d1 1 0.5000000 tag\nq1 Q0 d2 2 0.2500000 tag\nq3 Q0 d1 1 -1.0000000 tag\n"
    )
    assert list(ir_measures.read_trec_run(str(tmp_path / "run"))) == [
        ("q1", "d1", 0.5),
        ("q1", "d2", 0.25),
        ("q3", "d1", -1.0),
    ]


@pytest.mark.parametrize(
    ("run", "tag", "message"),
    [
        ({"q": (("a", 2.0), ("b c", 1.0))}, "tag", "document id 'b c'"),
        ({"q": (("a\u00a0b", 1.0),)}, "tag", "document id 'a\\\\xa0b'"),
        ({"q\t1": ()}, "tag", r"query id 'q\\t1'"),
        (RUN, "my tag", "the tag 'my tag'"),
        (RUN, "", "the tag ''"),
    ],
)
def test_what_a_run_cannot_hold_is_refused_before_anything_is_written(tmp_path, run, tag, message):
    with pytest.raises(InvalidInput, match=f"{message} is empty or holds white space"):
        write_run(tmp_path / "run", run, tag)
    assert not (tmp_path / "run").exists()


# Measures.


def test_a_query_that_found_nothing_counts_as_nought():
    qrels = {"1": {"a": 1, "b": 1}, "2": {"a": 1}, "3": {"a": 1}}
    run = {"1": (("x", 3.0), ("a", 2.0)), "2": ()}
    assert score(["RR@10", "R@100", "AP", "NumRel"], qrels, run) == {
        "RR@10": {"1": 0.5, "2": 0.0, "3": 0.0},
        "R@100": {"1": 0.5, "2": 0.0, "3": 0.0},
        "AP": {"1": 0.25, "2": 0.0, "3": 0.0},
        "NumRel": {"1": 2.0, "2": 0.0, "3": 0.0},
    }
    assert score(["AP"], qrels, {}) == {"AP": {"1": 0.0, "2": 0.0, "3": 0.0}}


def test_queries_without_judgement_do_not_count():
    assert score(["RR"], {"1": {"a": 1}}, {"1": (("a", 1.0),), "2": (("a", 1.0),)}) == {"RR": {"1": 1.0}}


def test_measures_are_called_as_ir_measures_calls_them():
    given = ["NDCG@3", "P(rel=2)@5", "nDCG@3", " MAP "]
    assert list(score(given, {"1": {"a": 1}}, {})) == ["nDCG@3", "P(rel=2)@5", "AP"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("nDCG@10", ir_measures.nDCG @ 10),
        ("AP", ir_measures.AP),
        ("P(rel=2)@5", ir_measures.P(rel=2) @ 5),
        ("P(cutoff=5, rel=2)", ir_measures.P(rel=2) @ 5),
        ("IPrec@0.5", ir_measures.IPrec @ 0.5),
        ("nDCG(gains={1: 3}) @ 5", ir_measures.nDCG(gains={1: 3}) @ 5),
    ],
)
def test_a_name_is_read_as_ir_measures_writes_it(name, wanted):
    assert parse_measures([name]) == {str(wanted): wanted}


@pytest.mark.parametrize(
    "name",
    [
        "nope",
        "",
        "nDCG@",
        "P",
        "P@x",
        "P@0",
        "P@-1",
        "P@True",
        "P@2.5",
        "P(5)@5",
        "P(x=1)@5",
        "P(rel=)@5",
        "AP;1",
    ],
)
def test_an_unknown_measure_is_named(name):
    with pytest.raises(InvalidInput, match="measure ") as caught:
        Plan(measures=(name,))
    assert repr(name) in str(caught.value)


def test_a_measure_that_fails_is_an_error_of_ours():
    # Accuracy divides by the number of documents that are not relevant.
    with pytest.raises(InvalidInput, match="ir-measures failed at one of Accuracy"):
        score(["Accuracy"], {"1": {"a": 1}}, {"1": (("a", 1.0),)})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"modes": ()}, "the modes are none"),
        ({"modes": (Mode("a"), Mode("a"))}, "the modes are a, a, but each must occur once"),
        (
            {"baseline": "bm25"},
            "the mode to compare with is 'bm25', which is not among those run: dense, lexical, hybrid, rrf",
        ),
        ({"depth": 0}, "depth is 0, but must be a whole number from 1 to 10,000"),
        ({"depth": 10_001}, "depth is 10001"),
        ({"depth": 50}, "measure 'R@100' looks at 100 documents, but depth is 50; raise the depth to 100"),
        ({"limit": 0}, "limit is 0"),
        ({"measures": ()}, "no measure is given"),
    ],
)
def test_a_plan_is_checked(given, message):
    with pytest.raises(InvalidInput, match=message):
        Plan(**given)


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("ir_measures", "evaluation.Plan()"),
        ("ir_measures", "evaluation.score(['AP'], {}, {})"),
        ("scipy", "evaluation.permutation_p([1.0])"),
        ("scipy", "evaluation.Plan()"),
    ],
)
def test_without_the_extra_the_command_to_install_it_is_given(fresh_python, package, call):
    printed = fresh_python(
        f"""
        import sys
        sys.modules[{package!r}] = None
        from pgseek import MissingExtra, evaluation
        try:
            {call}
        except MissingExtra as error:
            print(error)
        """
    )
    assert printed == f"{package.replace('_', '-')} is not installed; pip install 'pgseek[eval]'"


# Comparing.


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        # Of the 8 assignments of signs only +++ and --- are as far from 0.
        ([0.5, 0.25, 0.3], 2 / 8),
        # ±3 ±1 ±2: 6, 4, -4 and -6 lie at least as far from 0 as 3 - 1 + 2 = 4.
        ([3.0, -1.0, 2.0], 4 / 8),
        ([3.0, 0.0, -1.0, 2.0, 0.0], 4 / 8),
        ([0.1, -0.1], 1.0),
        ([0.7], 1.0),
        ([0.0, 0.0], 1.0),
        ([], 1.0),
    ],
)
def test_the_p_value_of_few_queries_is_exact(differences, p):
    assert permutation_p(differences) == pytest.approx(p)


def by_enumeration(differences):
    signs = np.array(list(itertools.product([-1, 1], repeat=len(differences))))
    totals = np.abs(signs @ np.array(differences))
    return np.mean(totals >= abs(sum(differences)) * (1 - 1e-9) - 1e-12)


@given(st.lists(st.integers(-20, 20).map(lambda n: n / 8), min_size=1, max_size=8))
def test_the_p_value_is_the_share_of_sign_assignments(differences):
    assert permutation_p(differences) == pytest.approx(by_enumeration(differences))


def test_the_p_value_of_many_queries_is_near_the_exact_one_and_always_the_same():
    differences = [0.5] * 12 + [-0.5] * 6
    # At most 6 or at least 12 of 18 coins show heads.
    exact = 2 * sum(math.comb(18, heads) for heads in range(7)) / 2**18
    found = permutation_p(differences)
    assert found == pytest.approx(exact, abs=0.02)
    assert found != exact
    assert permutation_p(differences) == found
    assert permutation_p([1.0] * 500) == pytest.approx(2 / 10_001, rel=0.01)


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.04, 0.01], [0.04, 0.02]),
        ([0.5, 0.2, 0.9], [1.0, 0.6, 1.0]),
        ([0.02], [0.02]),
        ([], []),
    ],
)
def test_holms_correction(given, corrected):
    assert holm(given) == pytest.approx(corrected)


VALUES = {
    "x": {"AP": {"1": 0.5, "2": 0.5, "3": 0.5, "4": 0.5}, "RR": dict.fromkeys("1234", 0.1)},
    "y": {"AP": {"1": 0.6, "2": 0.7, "3": 0.8, "4": 0.5}, "RR": dict.fromkeys("1234", 0.1)},
    "z": {"AP": {"1": 0.5, "2": 0.4, "3": 0.9, "4": 0.5}, "RR": dict.fromkeys("1234", 0.0)},
}


def test_modes_are_compared_with_the_best_of_each_measure():
    found = compare(VALUES)
    assert [(one.measure, one.mode, one.baseline) for one in found] == [
        ("AP", "x", "y"),
        ("AP", "z", "y"),
        ("RR", "y", "x"),
        ("RR", "z", "x"),
    ]
    first, second, third, fourth = found
    assert first.differences == pytest.approx({"1": -0.1, "2": -0.2, "3": -0.3, "4": 0.0})
    assert (first.difference, first.p) == (pytest.approx(-0.15), pytest.approx(2 / 8))
    assert (first.better, first.equal, first.worse) == (0, 1, 3)
    assert (second.better, second.equal, second.worse) == (1, 1, 2)
    # ±.1 ±.3 ±.1: six of eight are at least .3 from 0.
    assert second.p == pytest.approx(6 / 8)
    assert [first.p_holm, second.p_holm] == pytest.approx([0.5, 0.75])
    assert (third.better, third.equal, third.worse, third.p) == (0, 4, 0, 1.0)
    assert (fourth.difference, fourth.p_holm) == (pytest.approx(-0.1), pytest.approx(2 * 2 / 16))


def test_modes_are_compared_with_the_one_named():
    found = compare(VALUES, "x")
    assert {one.baseline for one in found} == {"x"}
    assert found[0].mode == "y"
    assert found[0].difference == pytest.approx(0.15)
    with pytest.raises(InvalidInput, match="baseline 'w' is not among the modes run: x, y, z"):
        compare(VALUES, "w")


def test_a_single_mode_is_compared_with_nothing():
    assert compare({"x": VALUES["x"]}) == ()
    assert compare({}) == ()
