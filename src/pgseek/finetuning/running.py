"""A fine-tuning from its beginning to the model in a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pgseek.embedders.folders import RECORD, TRAINING, weights_revision
from pgseek.embedders.registry import create_embedder
from pgseek.embedders.sentence_transformers import SentenceTransformersEmbedder
from pgseek.errors import EmbedderError, InvalidInput
from pgseek.evaluation.runs import Progress, Searched
from pgseek.finetuning import training
from pgseek.finetuning.card import licence_of, write_card, write_record
from pgseek.finetuning.examples import Example, Kind, kind_of, split, unique, with_texts
from pgseek.finetuning.mining import Mined, mine
from pgseek.finetuning.recipe import Recipe
from pgseek.finetuning.training import LossAt

PROVIDER = "sentence-transformers"
# Of an unfinished training.
_PLAN = "plan.json"
_EXAMPLES = "examples.json"


@dataclass(frozen=True, slots=True)
class FineTuning:
    """A trained model, and how it came about.

    ``embedder`` names it, as `Collection.reembed` takes it; ``base`` is what it was made of, as the
    embedder of that is named. ``kept_step`` is the step whose weights it has: that with the lowest dev
    loss, or the last. ``resumed_from`` is 0, or the step at which an earlier call was ended. ``trained_on``
    are the queries that were, ``left_out`` those that were looked at meanwhile.
    """

    embedder: str
    folder: Path
    base: str
    revision: str
    kind: Kind
    loss: str
    examples: int
    queries: int
    dev_examples: int
    trained_on: tuple[str, ...]
    left_out: tuple[str, ...]
    mined: Mined | None
    recipe: Recipe
    steps: int
    kept_step: int
    resumed_from: int
    seconds: float
    device: str
    losses: tuple[LossAt, ...]


def finetune(
    collection: Searched,
    examples: Sequence[Example],
    folder: str | Path,
    recipe: Recipe | None = None,
    *,
    base: str | None = None,
    judged: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> FineTuning:
    """Train an embedding model on examples, and write it into a new ``folder`` with a card of what was
    done.

    ``base`` is the model to begin with, ``sentence-transformers:NAME``, by default the collection's.
    Examples that name documents take their texts from the collection. ``judged`` are documents by query
    that are no negatives, besides those of the examples: see `mine`. Where an earlier call with the same
    arguments was ended, it goes on from its last checkpoint. The collection is not changed: see `measure`
    and `Collection.reembed`.

    Raises:
        InvalidInput: the examples are of several kinds, too few or not in the collection; the folder holds
            something else; the model gives other lengths than ``matryoshka`` asks for.
        EmbedderError: the base cannot be loaded, or the loss is no number any more.
        MissingExtra, DatabaseError.
    """
    recipe = Recipe() if recipe is None else recipe
    folder = Path(folder).absolute()
    training.check_installed()
    examples = unique(examples)
    if not examples:
        raise InvalidInput("there is no example to train on")
    kind = kind_of(examples)
    if recipe.negatives and kind != "pairs":
        raise InvalidInput(
            f"negatives are mined for pairs, but the examples are {kind}: leave negatives at 0"
        )
    loss = training.loss_name(recipe, "triplets" if recipe.negatives else kind)
    model_name = _base(collection, base)
    train, dev = split(examples, recipe.dev, recipe.seed)
    if len(train) < recipe.batch_size:
        raise InvalidInput(
            f"there are {len(train):,} examples to train on, fewer than one batch of "
            f"{recipe.batch_size:,}: give more, or a smaller batch_size"
        )
    embedder = create_embedder(f"{PROVIDER}:{model_name}")
    if not isinstance(embedder, SentenceTransformersEmbedder):
        raise InvalidInput(f"{model_name} is no model of {PROVIDER}, which alone can be trained")
    native = embedder.identity.dimensions
    if recipe.matryoshka and max(recipe.matryoshka) > native:
        raise InvalidInput(
            f"matryoshka asks for {max(recipe.matryoshka)} numbers, but {model_name} gives {native}"
        )
    lengths = tuple(sorted({*recipe.matryoshka, native}, reverse=True)) if recipe.matryoshka else ()
    plan = _digest(examples, recipe, judged, embedder, collection.name)
    work = _begin(folder, plan)
    started = time.perf_counter()
    texts, dev_texts, mined = _prepared(collection, train, dev, recipe, judged, work, progress)
    kind = kind_of(texts)
    model = embedder.trainable()
    whole = model.max_seq_length
    if recipe.max_tokens is not None and (whole is None or recipe.max_tokens < whole):
        model.max_seq_length = recipe.max_tokens
    prompts = (embedder.identity.query_prompt, embedder.identity.document_prompt)
    trained = training.train(
        model,
        texts,
        dev_texts,
        kind,
        replace(recipe, matryoshka=lengths),
        work,
        prompts,
        progress,
    )
    model.max_seq_length = whole
    if any(prompts):
        # The base's may be the catalogue's, which does not know this folder.
        model.prompts = {**(model.prompts or {}), "query": prompts[0], "document": prompts[1]}
    _save(model, folder)
    trained_on = tuple(dict.fromkeys(one.query for one in train))
    left_out = tuple(dict.fromkeys(one.query for one in dev))
    found = FineTuning(
        embedder=f"{PROVIDER}:{folder}",
        folder=folder,
        base=f"{PROVIDER}:{model_name}",
        revision=weights_revision(folder),
        kind=kind,
        loss=loss,
        examples=len(texts),
        queries=len(trained_on),
        dev_examples=len(dev_texts),
        trained_on=trained_on,
        left_out=left_out,
        mined=mined,
        recipe=recipe,
        steps=trained.steps,
        kept_step=trained.kept_step,
        resumed_from=trained.resumed_from,
        seconds=time.perf_counter() - started,
        device=trained.device,
        losses=trained.losses,
    )
    record = {
        "base": model_name,
        "licence": licence_of(model_name),
        "collection": collection.name,
        "matryoshka": list(lengths),
        "recipe": recipe.plain(),
        "dev_queries": len(left_out),
        "losses": [asdict(one) for one in found.losses],
        "mined": None
        if mined is None
        else {name: getattr(mined, name) for name in ("by_rank", "too_near", "at_random")},
        **{
            name: getattr(found, name)
            for name in (
                "revision",
                "kind",
                "loss",
                "examples",
                "queries",
                "dev_examples",
                "steps",
                "kept_step",
            )
        },
        **{name: getattr(found, name) for name in ("seconds", "device")},
    }
    write_card(folder, record)
    # Last: with it the folder is finished.
    write_record(folder, record)
    shutil.rmtree(work, ignore_errors=True)
    return found


def _base(collection: Searched, base: str | None) -> str:
    """Return the model's name without its provider."""
    if base is None:
        identity = collection.info().identity
        if identity.provider != PROVIDER:
            raise InvalidInput(
                f"collection {collection.name!r} uses {identity}, which cannot be trained: name a base, "
                f"such as {PROVIDER}:all-MiniLM-L6-v2"
            )
        return identity.model
    provider, colon, model = base.partition(":")
    if not colon:
        return base
    if provider != PROVIDER or not model:
        raise InvalidInput(f"base is {base!r}, but must be {PROVIDER}:NAME or {PROVIDER}:FOLDER")
    return model


def _digest(
    examples: Sequence[Example],
    recipe: Recipe,
    judged: Mapping[str, Sequence[str]] | None,
    embedder: SentenceTransformersEmbedder,
    collection: str,
) -> str:
    """Return what an earlier, unfinished training must have been asked for to be gone on with."""
    parts = [
        [asdict(one) for one in examples],
        recipe.plain(),
        {query: sorted(ids) for query, ids in (judged or {}).items()},
        asdict(embedder.identity),
        collection,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _begin(folder: Path, plan: str) -> Path:
    """Return the folder of the training, made or found; what is in the way is refused."""
    work = folder / TRAINING
    if (folder / RECORD).is_file():
        raise InvalidInput(
            f"the folder {str(folder)!r} holds a model that was trained already: name another one"
        )
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"{str(folder)!r} is a file, but the model needs a folder: name another one")
    found = work / _PLAN
    try:
        if found.is_file():
            if json.loads(found.read_text(encoding="utf-8")) != plan:
                raise InvalidInput(
                    f"the folder {str(folder)!r} holds an unfinished training with other examples, "
                    "settings or base: ask for the same to go on with it, remove it, or name another "
                    "folder"
                )
        elif folder.is_dir() and any(folder.iterdir()):
            raise InvalidInput(f"the folder {str(folder)!r} is not empty: name a new one")
        work.mkdir(parents=True, exist_ok=True)
        found.write_text(json.dumps(plan), encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write the model to {str(folder)!r}: {error.strerror}") from error
    return work


def _prepared(
    collection: Searched,
    train: Sequence[Example],
    dev: Sequence[Example],
    recipe: Recipe,
    judged: Mapping[str, Sequence[str]] | None,
    work: Path,
    progress: Progress | None,
) -> tuple[list[Example], list[Example], Mined | None]:
    """Return the examples with their texts and negatives: those of an earlier call, where there was one."""
    path = work / _EXAMPLES
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        mined = None if stored["mined"] is None else Mined((), **stored["mined"])
        return _read(stored["train"]), _read(stored["dev"]), mined
    mined = None
    if recipe.negatives:
        both = mine(
            collection,
            [*train, *dev],
            recipe.negatives,
            recipe.window,
            recipe.margin,
            recipe.seed,
            judged=judged,
            progress=progress,
        )
        train, dev = both.examples[: len(train)], both.examples[len(train) :]
        mined = Mined((), both.by_rank, both.too_near, both.at_random)
    texts, dev_texts = with_texts(collection, train), with_texts(collection, dev)
    stored = {
        "train": [asdict(one) for one in texts],
        "dev": [asdict(one) for one in dev_texts],
        "mined": None
        if mined is None
        else {name: getattr(mined, name) for name in ("by_rank", "too_near", "at_random")},
    }
    written = path.with_suffix(".part")
    written.write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
    written.replace(path)
    return texts, dev_texts, mined


def _read(rows: Sequence[dict[str, Any]]) -> list[Example]:
    return [
        Example(**{**row, "negatives": tuple(row["negatives"]), "negative_documents": ()}) for row in rows
    ]


def _save(model: Any, folder: Path) -> None:
    try:
        model.save_pretrained(str(folder), create_model_card=False)
    except OSError as error:
        raise EmbedderError(f"cannot write the model to {str(folder)!r}: {error}") from error
