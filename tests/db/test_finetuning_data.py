"""What a model is fine-tuned on: reading, splitting, texts out of the collection, hard negatives. Nothing is trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import CORPUS, CountingEmbedder

from pgseek import Client, InvalidInput
from pgseek.finetuning import (
    Example,
    Recipe,
    from_qrels,
    judgements,
    mine,
    read_examples,
    split,
    title_pairs,
)
from pgseek.finetuning.examples import kind_of, unique, with_texts
from pgseek.finetuning.training import last_checkpoint, loss_name, rows_of


@pytest.fixture(scope="module")
def filled(module_dsn):
    with Client(module_dsn) as client:
        docs = client.create_collection("docs", embedder=CountingEmbedder())
        docs.ingest(CORPUS)
        docs.ingest(
            [{"id": "bare", "text": "no title here"}, {"id": "same", "title": "same", "text": "same"}]
        )
        yield docs


# Reading.


def test_json_lines_and_tables_hold_the_same_examples(tmp_path):
    lines, table, tabs = tmp_path / "a.jsonl", tmp_path / "a.csv", tmp_path / "a.tsv"
    lines.write_text(
        '{"query": "cache", "document": "lru_cache", "negative_document": "errno"}\n\n'
        '{"query": "größe", "text": "a, \\"b\\"", "negatives": ["x"], "note": 3}\n',
        encoding="utf-8",
    )
    table.write_text(
        'query,document,text,negative_document,negative,note\ncache,lru_cache,,errno,,\ngröße,,"a, ""b""",,x,3\n',
        encoding="utf-8",
    )
    tabs.write_text(
        'query\tdocument\tnegative_document\ttext\tnegative\ncache\tlru_cache\terrno\ngröße\t\t\t"a, ""b"""\tx\n',
        encoding="utf-8",
    )
    expected = [
        Example("cache", "lru_cache", negative_documents=("errno",)),
        Example("größe", text='a, "b"', negatives=("x",)),
    ]
    assert read_examples(lines) == read_examples(table) == read_examples(tabs) == expected
    scored = tmp_path / "s.csv"
    scored.write_text("query,document,score\na,b,0.5\na,c,1\n")
    assert [one.score for one in read_examples(scored)] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "", "holds no example"),
        ("a.jsonl", "{", r"a.jsonl:1: not JSON"),
        ("a.jsonl", "[1]", r"a.jsonl:1: not an object"),
        (
            "a.jsonl",
            '{"document": "a"}',
            r"a.jsonl:1: there is no query; an example has some of query, document",
        ),
        ("a.jsonl", '{"query": " ", "document": "a"}', r"a.jsonl:1: the query is empty"),
        ("a.jsonl", '{"query": "a"}', r"a.jsonl:1: give the id of a stored document, or a text"),
        ("a.jsonl", '{"query": "a", "text": " "}', r"a.jsonl:1: give the id of a stored document, or a text"),
        ("a.jsonl", '{"query": "a", "text": 3}', r"text is 3, but must be a text"),
        ("a.jsonl", '{"query": "a", "document": 3}', r"document is 3, but must be a text"),
        (
            "a.jsonl",
            '{"query": "a", "text": "b", "score": 3}',
            r"score is 3, but must lie in 0\.\.1: divide it",
        ),
        ("a.jsonl", '{"query": "a", "text": "b", "score": NaN}', r"score is nan, but must lie in 0\.\.1"),
        ("a.jsonl", '{"query": "a", "text": "b", "score": true}', r"score is True"),
        ("a.csv", "query,text,score\na,b,high\n", r"a.csv:2: score is 'high'"),
        ("a.csv", "question,text\na,b\n", r"a.csv:2: there is no query"),
        ("a.jsonl", '{"query": "a", "text": "b", "negatives": "c"}', r"negatives is 'c', but must be a list"),
        (
            "a.jsonl",
            '{"query": "a", "text": "b", "negatives": [""]}',
            r"negatives holds '', but must hold texts",
        ),
    ],
)
def test_examples_that_cannot_be_read_are_told_with_their_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_examples(path)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InvalidInput, match=r"cannot read examples from .*none.jsonl"):
        read_examples(tmp_path / "none.jsonl")


def test_qrels_become_pairs_of_what_is_relevant():
    qrels = {"1": {"a": 1, "b": 0, "c": 2}, "2": {"d": 1}, "3": {"e": 0}}
    assert from_qrels({"1": "one", "3": "three"}, qrels) == [Example("one", "a"), Example("one", "c")]
    with pytest.raises(InvalidInput, match="none of the 3 judged queries is among the 1 queries with a text"):
        from_qrels({"9": "x"}, qrels)


def test_examples_become_judgements():
    examples = [
        Example("one", "a"),
        Example("one", "b", score=0.4),
        Example("two", "c", score=0.5),
        Example("x", text="y"),
    ]
    assert judgements(examples) == ({"q1": "one", "q2": "two"}, {"q1": {"a": 1}, "q2": {"c": 1}})


@pytest.mark.parametrize(
    ("examples", "kind"),
    [
        ([Example("a", "b")], "pairs"),
        ([Example("a", "b", score=0.0)], "scored"),
        ([Example("a", "b", negatives=("c",)), Example("a", "d", negative_documents=("e",))], "triplets"),
    ],
)
def test_kinds(examples, kind):
    assert kind_of(examples) == kind


def test_examples_of_several_kinds_are_refused():
    plain = Example("a", "b")
    with pytest.raises(InvalidInput, match="1 of 2 examples have scores: give them to all, or to none"):
        kind_of([plain, Example("c", "d", score=1)])
    with pytest.raises(InvalidInput, match="1 of 2 examples have negatives"):
        kind_of([plain, Example("c", "d", negatives=("x",))])
    with pytest.raises(InvalidInput, match="have scores and negatives"):
        kind_of([Example("c", "d", score=1, negatives=("x",))])


# Splitting.


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["one", "One ", " one", "two", "three  x", "three x", "4", "5"]),
            st.text("ab", min_size=1),
        )
    ),
    st.floats(0.05, 0.5),
    st.integers(0, 50),
)
@settings(max_examples=200, deadline=None)
def test_no_query_is_on_both_sides(pairs, dev, seed):
    examples = [Example(query, text=text) for query, text in pairs]
    names = {" ".join(one.query.casefold().split()) for one in examples}
    count = round(len(names) * dev)
    if count in (0, len(names)):
        with pytest.raises(InvalidInput, match="leaves none on one side"):
            split(examples, dev, seed)
        return
    train, left = split(examples, dev, seed)
    sides = [{" ".join(one.query.casefold().split()) for one in side} for side in (train, left)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == count
    assert sorted(map(repr, train + left)) == sorted(map(repr, examples))
    assert split(examples[::-1], dev, seed)[1][::-1] == left


def test_a_split_depends_on_its_seed_and_may_leave_out_nothing():
    examples = [Example(f"q{n}", text="x") for n in range(50)]
    assert split(examples, 0.2, 1)[1] != split(examples, 0.2, 2)[1]
    assert split(examples, 0, 1) == (examples, [])


# Texts of the collection.


def test_documents_become_their_texts_as_they_are_embedded(filled):
    (found,) = with_texts(filled, [Example("q", "lru_cache", negative_documents=("bare",), negatives=("n",))])
    cache = CORPUS[0]
    assert found == Example(
        "q", text=f"{cache['title']}\n\n{cache['text']}", negatives=("no title here", "n")
    )
    # What is told as text stays so, whatever document it is of.
    assert with_texts(filled, [Example("q", "bare", "a part")]) == [Example("q", text="a part")]


def test_documents_that_are_not_there_are_named(filled):
    examples = [Example("q", f"no{n}") for n in range(8)] + [
        Example("q", "bare", negative_documents=("nor",))
    ]
    with pytest.raises(
        InvalidInput, match=r"'docs' has no document 'no0', 'no1', 'no2', 'no3', 'no4' and 4 more"
    ):
        with_texts(filled, examples)


def test_titles_ask_for_the_texts_below_them(filled):
    found = title_pairs(filled)
    assert [one.query for one in found] == sorted(one["title"] for one in CORPUS)
    by_title = {one["title"]: one for one in CORPUS}
    assert all(
        (one.document, one.text) == (by_title[one.query]["id"], by_title[one.query]["text"]) for one in found
    )
    sample = title_pairs(filled, 3, seed=1)
    assert len(sample) == 3
    assert set(sample) < set(found)
    assert sample == title_pairs(filled, 3, seed=1)


def test_without_titles_there_are_no_pairs(client):
    docs = client.create_collection("docs", embedder=CountingEmbedder())
    docs.ingest([{"id": "a", "text": "x"}])
    with pytest.raises(
        InvalidInput, match="no document of collection 'docs' has a title with a text below it"
    ):
        title_pairs(docs)


# Hard negatives.


@pytest.fixture
def ranked(client):
    """A query, and documents whose cosines with it are .99, .98, … in the order of their numbers."""
    cosines = {f"d{n:02d}": 0.99 - n / 100 for n in range(40)}
    given = {f"text of {name}": [cosine, np.sqrt(1 - cosine**2)] for name, cosine in cosines.items()}
    embedder = CountingEmbedder(2, given={**given, "asked": [1, 0]})
    docs = client.create_collection("docs", embedder=embedder, alpha=1.0)
    docs.ingest({"id": name, "text": f"text of {name}"} for name in cosines)
    return docs


def test_negatives_are_hits_of_the_window_below_the_margin(ranked):
    examples = [Example("asked", "d04")]
    found = mine(ranked, examples, count=5, window=(3, 20), margin=0.05)
    (one,) = found.examples
    assert (found.by_rank, found.at_random) == (5, 0)
    # 0.95 * .95 = .9025: from d09 (.90) on; the window ends with d19.
    allowed = {f"d{n:02d}" for n in range(9, 20)}
    assert set(one.negative_documents) <= allowed
    # d02 and d03, d05 to d08.
    assert found.too_near == 6
    assert mine(ranked, examples, count=5, window=(3, 20)).examples == found.examples
    assert mine(ranked, examples, count=5, window=(3, 20), seed=7).examples != found.examples
    without = mine(ranked, examples, count=17, window=(3, 20), margin=0)
    assert set(without.examples[0].negative_documents) >= {f"d{n:02d}" for n in range(5, 20)}


def test_what_is_judged_relevant_is_no_negative(ranked):
    relevant = [f"d{n:02d}" for n in range(9, 18)]
    examples = [Example("asked", "d04"), *(Example("asked", name) for name in relevant[:4])]
    found = mine(ranked, examples, count=2, window=(1, 20), judged={"asked": relevant[4:]})
    # The nearest of what answers the query sets the limit: d04.
    for one in found.examples:
        assert set(one.negative_documents) == {"d18", "d19"}


def test_what_lacks_is_drawn_from_all_documents(ranked):
    seen = []
    found = mine(
        ranked,
        [Example("asked", "d04")],
        count=6,
        window=(3, 12),
        progress=lambda *what: seen.append(what),
    )
    assert (found.by_rank, found.at_random) == (3, 3)
    (one,) = found.examples
    assert len(set(one.negative_documents)) == 6
    assert set(one.negative_documents[:3]) == {"d09", "d10", "d11"}
    assert set(one.negative_documents[3:]) <= {f"d{n}" for n in range(12, 40)}
    assert seen == [("mining", 1, 1)]
    # What answers it is not among the hits: the last of them sets the limit.
    deep = mine(ranked, [Example("asked", "d30")], count=1, window=(1, 10))
    assert deep.at_random == 1
    with pytest.raises(InvalidInput, match=r"too few documents for .* more negatives of the query 'asked'"):
        mine(ranked, [Example("asked", "d04")], count=40)


def test_a_text_that_is_stored_is_not_its_own_negative(ranked):
    found = mine(ranked, [Example("asked", text="text of d04")], count=15, window=(1, 20), margin=0)
    assert "d04" not in found.examples[0].negative_documents


def test_only_pairs_get_negatives(ranked):
    for one in (Example("asked", "d04", score=1), Example("asked", "d04", negatives=("x",))):
        with pytest.raises(InvalidInput, match="has a score or negatives; they are mined for pairs only"):
            mine(ranked, [one])


# Recipes and rows.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "mse"}, "loss is 'mse', but must be one of auto, cosine, ranking, triplet"),
        ({"batch_size": 1}, "batch_size is 1, but must be a whole number from 2"),
        ({"epochs": 0}, "epochs is 0, but must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"dev": 0.9}, r"dev is 0.9, but must lie in 0\.\.0.5"),
        ({"window": (5, 3)}, r"window is \(5, 3\), but must be two ranks"),
        ({"matryoshka": (0,)}, "matryoshka is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"negatives": 21}, "negatives is 21, but must be a whole number from 0 to 20"),
        ({"margin": -1}, "margin is -1"),
        ({"seed": True}, "seed is True"),
    ],
)
def test_recipes_that_cannot_be(given, message):
    with pytest.raises(InvalidInput, match=message):
        Recipe(**given)


def test_losses_belong_to_kinds():
    assert loss_name(Recipe(), "scored") == "cosine"
    assert loss_name(Recipe(), "pairs") == loss_name(Recipe(), "triplets") == "ranking"
    assert loss_name(Recipe(loss="triplet"), "triplets") == "triplet"
    for loss, kind, message in (
        ("cosine", "pairs", "needs examples with scores, but these are pairs"),
        ("ranking", "scored", "needs examples without scores"),
        ("triplet", "pairs", "needs examples with negatives"),
    ):
        with pytest.raises(InvalidInput, match=message):
            loss_name(Recipe(loss=loss), kind)


def test_rows_have_as_many_columns_as_all_examples_can_fill():
    examples = [Example("a", text="b", negatives=("c", "d")), Example("e", text="f", negatives=("g",))]
    assert rows_of(examples, "triplets", "ranking") == {
        "query": ["a", "e"],
        "text": ["b", "f"],
        "negative_1": ["c", "g"],
    }
    assert rows_of(examples, "triplets", "triplet") == {
        "query": ["a", "a", "e"],
        "text": ["b", "b", "f"],
        "negative": ["c", "d", "g"],
    }
    scored = [Example("a", text="b", score=0)]
    assert rows_of(scored, "scored", "cosine") == {"query": ["a"], "text": ["b"], "score": [0.0]}
    assert unique([scored[0], scored[0]]) == scored


def test_a_checkpoint_that_was_cut_off_is_not_gone_on_from(tmp_path):
    for step, files in ((5, 4), (10, 4), (15, 2)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in ("modules.json", "optimizer.pt", "scheduler.pt", "trainer_state.json")[:files]:
            (folder / name).write_text(json.dumps({}))
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-15").exists()
    assert last_checkpoint(tmp_path / "checkpoint-5") is None
