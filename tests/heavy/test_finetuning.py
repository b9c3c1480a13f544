"""Fine-tuning with a tiny model of random weights: losses, an end and a second beginning, the proof in the database."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import CORPUS, CountingEmbedder, rows
from tiny_models import save_sentence_transformer

from pgseek import Client, EmbedderError, InvalidInput
from pgseek.embedders.folders import weights_revision
from pgseek.embedders.registry import create_embedder
from pgseek.finetuning import Example, Recipe, finetune, measure, title_pairs

pytestmark = [
    pytest.mark.slow,
    # Libraries below sentence-transformers warn about their own future.
    pytest.mark.filterwarnings("default"),
]

WORDS = ["cache", "results", "function", "sorted", "inputs", "merge", "exceptions", "decorator"]
# Each topic is asked for by one word and answered by another: nothing but training connects the two.
TOPICS = dict(zip(WORDS[:4], WORDS[4:], strict=True))
FAST = {"batch_size": 4, "learning_rate": 5e-3, "evaluations": 4, "dev": 0.2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_sentence_transformer(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def docs(module_dsn, base):
    with Client(module_dsn) as client:
        made = client.create_collection("docs", embedder=f"sentence-transformers:{base}")
        made.ingest(
            {"id": f"{answer}{n}", "title": f"{answer} {n}", "text": f"{answer} {answer} a the {letters(n)}"}
            for answer in TOPICS.values()
            for n in range(12)
        )
        yield made


def letters(number):
    return " ".join(chr(97 + int(digit)) for digit in str(number))


def pairs(start=0, end=9):
    return [
        Example(f"{asked} {letters(n)} of", f"{answer}{n}")
        for asked, answer in TOPICS.items()
        for n in range(start, end)
    ]


def held_out():
    """Queries that nothing was trained on, with all documents of their topic judged relevant."""
    queries = {f"{asked}{n}": f"{asked} {letters(n)} saves" for asked in TOPICS for n in range(10, 16)}
    return queries, {name: {f"{TOPICS[name[:-2]]}{n}": 1 for n in range(12)} for name in queries}


def test_pairs_are_learnt_and_measured_in_the_database(docs, base, module_dsn, tmp_path):
    seen = []
    folder = tmp_path / "tuned"
    tuned = finetune(
        docs,
        pairs(),
        folder,
        Recipe(epochs=12, negatives=2, window=(1, 30), **FAST),
        progress=lambda *what: seen.append(what),
    )
    assert (tuned.kind, tuned.loss, tuned.resumed_from) == ("triplets", "ranking", 0)
    assert (tuned.examples, tuned.dev_examples) == (29, 7)
    assert not set(tuned.left_out) & set(tuned.trained_on)
    assert len(tuned.left_out) + len(tuned.trained_on) == 36
    assert tuned.mined.by_rank + tuned.mined.at_random == 2 * 36
    dev = [one.dev for one in tuned.losses if one.dev is not None]
    assert len(dev) >= 4
    assert min(dev) < dev[0]
    # The weights are those with the lowest loss of queries that were left out.
    assert {one.step: one.dev for one in tuned.losses}[tuned.kept_step] == min(dev)
    assert [one for one in seen if one[0].startswith("training")][-1][1:] == (tuned.steps, tuned.steps)
    assert not (folder / "training").exists()

    queries, qrels = held_out()
    found = measure(docs, tuned, queries, qrels, measures=("nDCG@10", "RR@10"))
    assert found.before == docs.info().space_id
    # The model is a candidate: its space is ready, and not searched by.
    assert [space.state for space in docs.spaces() if space.space_id == found.after] == ["ready"]
    assert found.dense.judged == found.hybrid.judged == len(queries)
    assert found.dense.b.means["nDCG@10"] > found.dense.a.means["nDCG@10"] + 0.2
    assert found.dense.comparisons[0].p < 0.05
    # Both are of the documents' vectors in the database, by the models themselves.
    stored = rows_of(module_dsn, found.after)
    embedder = create_embedder(tuned.embedder)
    np.testing.assert_allclose(
        stored["merge3"],
        embedder.embed_documents(["merge 3\n\nmerge merge a the d"])[0],
        atol=1e-3,
    )

    card = (folder / "README.md").read_text()
    for part in (
        f"base_model: {json.dumps(str(base))}",
        "license: mit",
        "29 triplets of 29 queries",
        "seed 42",
        "hybrid",
    ):
        assert part in card
    measured = found.dense.comparisons[0]
    assert (
        f"| nDCG@10 | {found.dense.a.means['nDCG@10']:.4f} | {found.dense.b.means['nDCG@10']:.4f} |" in card
    )
    assert f"{measured.difference:+.4f}" in card

    # It is handed to a change of model as any other.
    report = docs.reembed(tuned.embedder)
    assert report.stage == "switched"
    assert docs.info().identity.revision == tuned.revision == weights_revision(folder)
    docs.rollback()
    with pytest.raises(InvalidInput, match="1 of the queries were trained on, 'cache a of' for one"):
        measure(docs, tuned, {"x": tuned.trained_on[0]}, {"x": {"inputs1": 1}})


def rows_of(dsn, space):
    found = rows(
        dsn,
        f"SELECT d.external_id AS id, e.embedding::text AS v FROM pgseek.embeddings_{space} e"
        " JOIN pgseek.documents d USING (collection_id, document_id)",
    )
    return {row["id"]: np.array(json.loads(row["v"])) for row in found}


class Killed(Exception):
    pass


def test_a_training_that_was_ended_goes_on_and_ends_as_if_it_had_not_been(docs, tmp_path):
    recipe = Recipe(epochs=4, negatives=1, window=(1, 20), **FAST)
    whole = finetune(docs, pairs(), tmp_path / "whole", recipe)

    def kill(what, done, total):
        if what.startswith("training") and done == 20:
            raise Killed

    folder = tmp_path / "ended"
    with pytest.raises(Killed):
        finetune(docs, pairs(), folder, recipe, progress=kill)
    work = folder / "training"
    newest = max(work.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    # Killed while it wrote the last one.
    (newest / "optimizer.pt").unlink()
    with pytest.raises(
        InvalidInput, match="holds an unfinished training with other examples, settings or base"
    ):
        finetune(docs, pairs(), folder, Recipe(epochs=5, **FAST))
    mined = []
    tuned = finetune(docs, pairs(), folder, recipe, progress=lambda what, *_: mined.append(what == "mining"))
    assert 0 < tuned.resumed_from < int(newest.name.rpartition("-")[2])
    assert not any(mined)
    assert (tuned.steps, tuned.kept_step, tuned.mined) == (whole.steps, whole.kept_step, whole.mined)
    texts = ["cache a", "inputs inputs b"]
    ended, unended = (create_embedder(one.embedder).embed_documents(texts) for one in (tuned, whole))
    np.testing.assert_allclose(ended, unended, atol=1e-4)
    with pytest.raises(InvalidInput, match="holds a model that was trained already: name another one"):
        finetune(docs, pairs(), folder, recipe)


def test_scores_are_learnt_as_cosines(docs, tmp_path):
    examples = [
        Example(f"{asked} {letters(n)}", text=f"{answer} {letters(n)}", score=1.0 if asked in near else 0.0)
        for near in [{"cache", "results"}]
        for asked, answer in TOPICS.items()
        for n in range(8)
    ]
    tuned = finetune(docs, examples, tmp_path / "tuned", Recipe(epochs=20, **FAST))
    assert (tuned.kind, tuned.loss) == ("scored", "cosine")
    embedder = create_embedder(tuned.embedder)
    near, far = (
        embedder.embed_query(f"{asked} b a") @ embedder.embed_documents([f"{TOPICS[asked]} b a"])[0]
        for asked in ("cache", "sorted")
    )
    assert near > far + 0.3


def test_triplets_matryoshka_and_lengths(docs, tmp_path):
    examples = [
        Example(f"{asked} {letters(n)}", f"{answer}{n}", negatives=(f"{other} {letters(n)}",))
        for (asked, answer), other in zip(TOPICS.items(), [*list(TOPICS.values())[1:], "inputs"], strict=True)
        for n in range(8)
    ]
    recipe = Recipe(loss="triplet", epochs=6, matryoshka=(8, 4), max_tokens=16, **{**FAST, "dev": 0.0})
    tuned = finetune(docs, examples, tmp_path / "tuned", recipe)
    assert (tuned.loss, tuned.left_out, tuned.kept_step) == ("triplet", (), tuned.steps)
    embedder = create_embedder(tuned.embedder)
    # It reads what its base read, whatever it was trained on.
    assert embedder.max_tokens == 64
    short = create_embedder(f"{tuned.embedder}@8")
    whole = embedder.embed_documents(["cache a"])[0]
    np.testing.assert_allclose(
        short.embed_documents(["cache a"])[0], whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6
    )
    with pytest.raises(InvalidInput, match="gives 16 dimensions, not 6"):
        create_embedder(f"{tuned.embedder}@6")
    with pytest.raises(InvalidInput, match=r"matryoshka asks for 32 numbers, but .* gives 16"):
        finetune(docs, examples, tmp_path / "other", Recipe(matryoshka=(32,), **FAST))


def test_titles_train_without_judgements(client, base, tmp_path):
    made = client.create_collection("plain", embedder=CountingEmbedder())
    made.ingest(CORPUS)
    recipe = Recipe(steps=3, batch_size=2, dev=0)
    with pytest.raises(
        InvalidInput, match="collection 'plain' uses tests:hash@8, which cannot be trained: name a base"
    ):
        finetune(made, title_pairs(made), tmp_path / "tuned", recipe)
    tuned = finetune(
        made, title_pairs(made), tmp_path / "tuned", recipe, base=f"sentence-transformers:{base}"
    )
    assert (tuned.steps, tuned.examples, tuned.dev_examples) == (3, len(CORPUS), 0)
    # A space of the base is made, too, to be measured against.
    found = measure(
        made, tuned, {"1": "save results of a call"}, {"1": {"lru_cache": 1}}, measures=("RR@10",)
    )
    assert {space.space_id for space in made.spaces()} == {made.info().space_id, found.before, found.after}


def test_two_models_in_one_folder_are_two_spaces(client, base, dsn, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    made = client.create_collection("docs", embedder=f"sentence-transformers:{folder}")
    made.ingest([*CORPUS, {"id": "short", "text": "cache a"}])
    first = made.info().identity
    assert first.revision.startswith("weights:")
    assert client.collection("docs").search("cache")
    # Notes beside the weights make no other model of them.
    (folder / "README.md").write_text("other")
    assert create_embedder(f"sentence-transformers:{folder}").identity == first
    tuned = finetune(made, title_pairs(made), tmp_path / "tuned", Recipe(steps=2, batch_size=2, dev=0))
    shutil.copytree(tuned.folder, folder, dirs_exist_ok=True)
    second = create_embedder(f"sentence-transformers:{folder}")
    assert second.identity.revision == tuned.revision != first.revision
    with pytest.raises(
        EmbedderError, match=r"holds weights:.*, but the vectors were made with weights:.*re-embed"
    ):
        client.collection("docs").search("what was never asked", alpha=1)
    with Client(dsn) as other:
        # The cache has nothing of the other model's either.
        report = other.collection("docs", embedder=create_embedder_of(first, base)).reembed(second)
    assert report.stage == "switched"
    np.testing.assert_allclose(
        rows_of(dsn, 2)["short"],
        second.embed_documents(["cache a"])[0],
        atol=1e-3,
    )


def create_embedder_of(identity, folder):
    """The embedder of an identity whose folder holds another model by now."""
    made = create_embedder(f"sentence-transformers:{folder}")
    made.identity = identity
    return made


def test_a_space_that_says_nothing_of_its_weights_is_opened_as_before(client, base, dsn):
    plain = create_embedder(f"sentence-transformers:{base}", revision="main")
    assert plain.identity.revision == "main"
    from pgseek.embedders.sentence_transformers import SentenceTransformersEmbedder

    unsaid = SentenceTransformersEmbedder(str(base), revision="")
    made = client.create_collection("docs", embedder=unsaid)
    made.ingest(CORPUS)
    with Client(dsn) as other:
        assert other.collection("docs").info().identity.revision == ""
        assert other.collection("docs").search("a cache of results")[0].degraded is None


@pytest.mark.parametrize(
    ("examples", "options", "error", "message"),
    [
        ([], {}, InvalidInput, "there is no example to train on"),
        (
            pairs(0, 2),
            {"batch_size": 32},
            InvalidInput,
            "there are 6 examples to train on, fewer than one batch of 32",
        ),
        ([Example(f"q{n}", "nope") for n in range(9)], {}, InvalidInput, "has no document 'nope'"),
        (
            pairs(),
            {"base": "nobody/nothing"},
            EmbedderError,
            "cannot load sentence-transformers model 'nobody/nothing'",
        ),
        (
            pairs(),
            {"base": "openai:x"},
            InvalidInput,
            "base is 'openai:x', but must be sentence-transformers:NAME",
        ),
        (pairs(), {"base": "sentence-transformers:"}, InvalidInput, "base is 'sentence-transformers:'"),
        (pairs(), {"loss": "cosine"}, InvalidInput, "the loss 'cosine' needs examples with scores"),
        (
            [Example(f"q{n}", "inputs1", score=1) for n in range(9)],
            {"negatives": 1},
            InvalidInput,
            "negatives are mined for pairs",
        ),
    ],
)
def test_what_cannot_be_trained_is_told(docs, tmp_path, examples, options, error, message):
    options = {**FAST, **options}
    base = options.pop("base", None)
    with pytest.raises(error, match=message):
        finetune(docs, examples, tmp_path / "tuned", Recipe(**options), base=base)
    assert not (tmp_path / "tuned" / "pgseek.json").exists()


def test_a_loss_that_is_no_number_ends_the_training(docs, base, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    (weights,) = broken.glob("*.safetensors")
    of = load_file(weights)
    of["embeddings.word_embeddings.weight"] = torch.full_like(
        of["embeddings.word_embeddings.weight"], torch.nan
    )
    save_file(of, weights, metadata={"format": "pt"})
    with pytest.raises(EmbedderError, match="the dev loss is nan after 0 steps: lower the learning rate"):
        finetune(docs, pairs(), tmp_path / "tuned", Recipe(**FAST), base=str(broken))


def test_a_folder_with_something_else_is_left_alone(docs, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for folder, message in (
        (tmp_path / "full", "is not empty: name a new one"),
        (tmp_path / "full" / "notes.txt", "is a file"),
    ):
        with pytest.raises(InvalidInput, match=message):
            finetune(docs, pairs(), folder, Recipe(**FAST))
    assert [path.name for path in Path(tmp_path / "full").iterdir()] == ["notes.txt"]


def test_examples_that_are_missing_are_told_before_anything_is_loaded(docs, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(Exception, match=r"datasets, which trains models,.*pip install 'pgseek\[finetune\]'"):
        finetune(docs, pairs(), tmp_path / "tuned")


def test_the_command_trains_measures_and_says_how_to_go_on(commands, dsn, client, base, tmp_path):
    made = client.create_collection("docs", embedder=f"sentence-transformers:{base}")
    made.ingest(
        {"id": f"{answer}{n}", "text": f"{answer} {letters(n)}"}
        for answer in TOPICS.values()
        for n in range(12)
    )
    examples = tmp_path / "pairs.jsonl"
    examples.write_text(
        "".join(json.dumps({"query": one.query, "document": one.document}) + "\n" for one in pairs())
    )
    options = ("--batch-size", "4", "--steps", "8", "--negatives", "1", "--measure", "RR@10")

    def run(*arguments):
        done = commands.run("--dsn", dsn, "finetune", "docs", *map(str, arguments), *options)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    code, out, err = run("--examples", examples, "--output", tmp_path / "a")
    assert code == 0, err
    for part in (
        "8 steps on 32 triplets",
        "negatives: ",
        "hybrid",
        "RR@10",
        "(kept)",
        "pgseek reembed docs --to",
    ):
        assert part in out
    assert [space.state for space in made.spaces()] == ["active", "ready"]
    code, out, err = run("--titles", "--output", tmp_path / "b")
    assert (code, "no document of collection 'docs' has a title" in err) == (2, True)
    code, out, err = run("--examples", examples, "--output", tmp_path / "a")
    assert (code, "was trained already" in err) == (2, True)
    code, out, err = run(
        "--examples",
        examples,
        "--output",
        tmp_path / "c",
        "--no-measure-spaces",
        "--json",
        "--plot",
        tmp_path / "losses.svg",
    )
    assert code == 0, err
    assert "of the queries left out" in (tmp_path / "losses.svg").read_text()
    found = json.loads(out)
    assert (found["steps"], found["measured"], found["trained_on"]) == (8, None, 32)
