"""The training itself, by sentence-transformers' trainer, with checkpoints to go on from."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgseek.errors import EmbedderError, InvalidInput, MissingExtra
from pgseek.evaluation.runs import Progress
from pgseek.finetuning.examples import Example, Kind
from pgseek.finetuning.recipe import Recipe

# What a checkpoint must hold to be gone on from: the last files that are written, beside the weights.
_COMPLETE = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "modules.json")
# Of the loss 'triplet', as a cosine distance.
TRIPLET_MARGIN = 0.2


@dataclass(frozen=True, slots=True)
class LossAt:
    """The loss after some steps: of the batches since the last, and of the queries left out, where known."""

    step: int
    train: float | None
    dev: float | None


@dataclass(frozen=True, slots=True)
class Trained:
    """How a training went; ``resumed_from`` is the step that it went on from, 0 for a new one."""

    steps: int
    resumed_from: int
    kept_step: int
    losses: tuple[LossAt, ...]
    device: str


def loss_name(recipe: Recipe, kind: Kind) -> str:
    """Return the loss that 'auto' stands for.

    Raises:
        InvalidInput: the loss cannot be taken of such examples.
    """
    name = recipe.loss
    if name == "auto":
        name = "cosine" if kind == "scored" else "ranking"
    if (name == "cosine") != (kind == "scored"):
        raise InvalidInput(
            f"the loss {name!r} needs examples {'with' if name == 'cosine' else 'without'} scores, but "
            f"these are {kind}"
        )
    if name == "triplet" and kind != "triplets":
        raise InvalidInput(
            "the loss 'triplet' needs examples with negatives: give them, or have some mined (negatives, "
            "--negatives)"
        )
    return name


def check_installed() -> None:
    """Raise `MissingExtra` if what trains is not installed."""
    for package in ("sentence_transformers", "datasets", "accelerate"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtra(f"{package.replace('_', '-')}, which trains models,", "finetune") from error


def rows_of(examples: Sequence[Example], kind: Kind, loss: str) -> dict[str, list[Any]]:
    """Return the columns that the trainer reads: query, text, and score or negatives, as many for all."""
    rows: dict[str, list[Any]] = {
        "query": [one.query for one in examples],
        "text": [one.text for one in examples],
    }
    if kind == "scored":
        rows["score"] = [float(one.score or 0) for one in examples]
    elif loss == "triplet":
        pairs = [(one, negative) for one in examples for negative in one.negatives]
        rows = {
            "query": [one.query for one, _ in pairs],
            "text": [one.text for one, _ in pairs],
            "negative": [negative for _, negative in pairs],
        }
    elif kind == "triplets":
        # What all have: columns must be as long as each other.
        for n in range(min(len(one.negatives) for one in examples)):
            rows[f"negative_{n + 1}"] = [one.negatives[n] for one in examples]
    return rows


def train(
    model: Any,
    training: Sequence[Example],
    dev: Sequence[Example],
    kind: Kind,
    recipe: Recipe,
    folder: Path,
    prompts: tuple[str, str],
    progress: Progress | None,
) -> Trained:
    """Train ``model``, a SentenceTransformer, with checkpoints in ``folder``; it holds the best weights then.

    ``prompts`` stand before queries and texts, as when they are embedded.

    Raises:
        EmbedderError: the loss is no number any more.
    """
    with _quiet():
        return _train(model, training, dev, kind, recipe, folder, prompts, progress)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries from drawing bars of their own, and from warning of their own future."""
    from transformers.utils import logging  # noqa: PLC0415 (heavy, and an extra)

    library: Any = logging
    drawn, level = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(level)
        if drawn:
            library.enable_progress_bar()


def _train(
    model: Any,
    training: Sequence[Example],
    dev: Sequence[Example],
    kind: Kind,
    recipe: Recipe,
    folder: Path,
    prompts: tuple[str, str],
    progress: Progress | None,
) -> Trained:
    # Heavy, and an extra.
    from datasets import Dataset, disable_progress_bars  # noqa: PLC0415
    from sentence_transformers import (  # noqa: PLC0415
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from transformers.trainer_callback import PrinterCallback  # noqa: PLC0415

    disable_progress_bars()
    loss = loss_name(recipe, kind)
    rows = rows_of(training, kind, loss)
    per_epoch = math.ceil(len(rows["query"]) / recipe.batch_size)
    steps = recipe.steps or max(1, math.ceil(per_epoch * recipe.epochs))
    every = max(1, steps // (recipe.evaluations if dev else recipe.checkpoints))
    device = os.environ.get("PGSEEK_DEVICE") or ""
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=round(steps * recipe.warmup),
        # A text twice in a batch would be its own negative.
        batch_sampler="no_duplicates" if loss == "ranking" else "batch_sampler",
        prompts={name: prompts[name != "query"] for name in rows if name != "score"}
        if any(prompts)
        else None,
        eval_strategy="steps" if dev else "no",
        eval_steps=every,
        eval_on_start=bool(dev),
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=bool(dev),
        metric_for_best_model="eval_loss" if dev else None,
        greater_is_better=False if dev else None,
        logging_strategy="steps",
        logging_steps=max(1, min(every, 50)),
        logging_nan_inf_filter=False,
        seed=recipe.seed,
        data_seed=recipe.seed,
        report_to="none",
        disable_tqdm=True,
        use_cpu=device == "cpu",
        dataloader_pin_memory=False,
    )
    seen = _watch(progress)
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        eval_dataset=Dataset.from_dict(rows_of(dev, kind, loss)) if dev else None,
        loss=_loss(model, loss, recipe),
        callbacks=[seen],
    )
    # It prints what the callback tells.
    trainer.remove_callback(PrinterCallback)
    last = last_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    state = trainer.state
    best = Path(state.best_model_checkpoint).name if state.best_model_checkpoint else f"checkpoint-{steps}"
    # What was logged before an end stands in the state, too.
    losses = [
        LossAt(int(one["step"]), one.get("loss"), one.get("eval_loss"))
        for one in state.log_history
        if "loss" in one or "eval_loss" in one
    ]
    return Trained(
        steps=int(state.global_step),
        resumed_from=int(last.name.rpartition("-")[2]) if last else 0,
        kept_step=int(best.rpartition("-")[2]),
        losses=tuple(_merged(losses)),
        device=str(model.device),
    )


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end; what was not is removed."""
    found = []
    for path in folder.glob("checkpoint-*"):
        number = path.name.rpartition("-")[2]
        if number.isdigit() and all((path / name).is_file() for name in _COMPLETE):
            found.append((int(number), path))
        else:
            shutil.rmtree(path, ignore_errors=True)
    return max(found)[1] if found else None


def _merged(losses: Sequence[LossAt]) -> list[LossAt]:
    by_step: dict[int, LossAt] = {}
    for one in losses:
        earlier = by_step.get(one.step, LossAt(one.step, None, None))
        train, dev = one.train, one.dev
        by_step[one.step] = LossAt(
            one.step, earlier.train if train is None else train, earlier.dev if dev is None else dev
        )
    return [by_step[step] for step in sorted(by_step)]


def _loss(model: Any, name: str, recipe: Recipe) -> Any:
    try:
        from sentence_transformers.sentence_transformer import losses  # noqa: PLC0415
    except ImportError:
        # Where they were before version 5.3.
        from sentence_transformers import losses  # noqa: PLC0415
    if name == "cosine":
        made = losses.CosineSimilarityLoss(model)
    elif name == "triplet":
        made = losses.TripletLoss(
            model, distance_metric=losses.TripletDistanceMetric.COSINE, triplet_margin=TRIPLET_MARGIN
        )
    else:
        made = losses.MultipleNegativesRankingLoss(model)
    if recipe.matryoshka:
        made = losses.MatryoshkaLoss(model, made, list(recipe.matryoshka))
    return made


def _watch(progress: Progress | None) -> Any:
    from transformers import TrainerCallback  # noqa: PLC0415 (heavy, and an extra)

    class Watch(TrainerCallback):
        """Tells how far the training is, and ends one that has gone astray."""

        told = "training"

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002
            if progress is not None:
                progress(self.told, state.global_step, state.max_steps)

        def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002
            logs = more.get("logs") or {}
            for name, what in (("loss", "loss"), ("eval_loss", "dev loss")):
                value = logs.get(name)
                if value is None:
                    continue
                if not math.isfinite(value):
                    raise EmbedderError(
                        f"the {what} is {value} after {state.global_step} steps: lower the learning rate"
                    )
                if name == "eval_loss" or "dev" not in self.told:
                    self.told = f"training, {what} {value:.3f}"

    return Watch()
