"""``pgseek finetune``: a model trained on a collection's own pairs, and the proof of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from pgseek.cli.documents import Json, Name
from pgseek.cli.eval import mean_name, searching
from pgseek.cli.output import err, out, print_json, table
from pgseek.cli.state import state_of
from pgseek.client import Collection
from pgseek.errors import InvalidInput
from pgseek.evaluation import DEFAULT_MEASURES, read_beir
from pgseek.evaluation.compare import load_stats
from pgseek.evaluation.measures import parse_measures
from pgseek.finetuning import (
    Example,
    FineTuning,
    Measured,
    Recipe,
    from_qrels,
    judgements,
    measure,
    plot_losses,
    read_examples,
    title_pairs,
)
from pgseek.finetuning import finetune as train
from pgseek.plots import check_picture

_RECIPE = Recipe()


def finetune(
    context: typer.Context,
    name: Name,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="a new one, for the model")],
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON lines or a table with query, document (an id) or text, and score or negatives",
        ),
    ] = None,
    beir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="queries.jsonl and qrels/SPLIT.tsv in place of a file"),
    ] = None,
    split: Annotated[str, typer.Option(help="the judgements of --beir to train on")] = "train",
    titles: Annotated[
        bool, typer.Option("--titles", help="train on the documents' titles and texts: no judgements needed")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="sentence-transformers:NAME to begin with; default: the collection's")
    ] = None,
    loss: Annotated[str, typer.Option(help="auto, cosine, ranking or triplet")] = "auto",
    negatives: Annotated[
        int, typer.Option(help="hard negatives for each pair, mined by searches of the collection, 0..20")
    ] = 0,
    window: Annotated[
        str, typer.Option(metavar="FIRST,LAST", help="ranks that negatives are taken from")
    ] = "3,50",
    margin: Annotated[
        float, typer.Option(help="hits nearer than 1 - margin times the answer are no negatives")
    ] = _RECIPE.margin,
    matryoshka: Annotated[
        str | None, typer.Option(metavar="N,N,…", help="shorter lengths that vectors shall be good at, too")
    ] = None,
    epochs: Annotated[float, typer.Option(help="times that all examples are seen")] = _RECIPE.epochs,
    steps: Annotated[int | None, typer.Option(help="batches, in place of --epochs")] = None,
    batch_size: Annotated[int, typer.Option(help="examples of a batch")] = _RECIPE.batch_size,
    learning_rate: Annotated[
        float, typer.Option(help="the highest, after a warm-up")
    ] = _RECIPE.learning_rate,
    dev: Annotated[
        float, typer.Option(help="share of queries to look at meanwhile, 0..0.5; the best weights are kept")
    ] = _RECIPE.dev,
    max_tokens: Annotated[int | None, typer.Option(help="where texts are cut in training")] = None,
    seed: Annotated[int, typer.Option(help="of the split, the draw and the training")] = _RECIPE.seed,
    test: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="BEIR folder to measure before and after with; default: the queries of --dev",
        ),
    ] = None,
    test_split: Annotated[str, typer.Option(help="the judgements of --test")] = "test",
    measures: Annotated[
        list[str] | None,
        typer.Option("--measure", help=f"repeat; default: {', '.join(DEFAULT_MEASURES)}"),
    ] = None,
    measured: Annotated[
        bool, typer.Option("--measure-spaces/--no-measure-spaces", help="fill a space with it, and compare")
    ] = True,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="draw the losses: .png, .svg or .pdf")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an embedding model on pairs, triplets or scores, and measure it in the database.

    The model is written to a folder with a card of what was done. Unless --no-measure-spaces, a space is
    filled with its vectors beside the one that is searched, and both answer queries that were not trained
    on. Running the same command again after an end that was not planned goes on from the last checkpoint.
    """
    given = [
        what for what, found in (("--examples", examples), ("--beir", beir), ("--titles", titles)) if found
    ]
    if len(given) != 1:
        raise InvalidInput(
            f"give one of --examples, --beir and --titles; given: {', '.join(given) or 'none'}"
        )
    recipe = Recipe(
        loss=cast("Any", loss),
        negatives=negatives,
        window=cast("Any", _numbers("--window", window)),
        margin=margin,
        matryoshka=_numbers("--matryoshka", matryoshka) if matryoshka else (),
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        dev=dev,
        max_tokens=max_tokens,
        seed=seed,
    )
    chosen = tuple(measures or DEFAULT_MEASURES)
    held_out = None if test is None else read_beir(test, test_split)
    if plot is not None:
        check_picture(plot)
    if measured:
        # Now, and not after the training.
        parse_measures(chosen)
        load_stats()
    with state_of(context).client() as client:
        docs = client.collection(name)
        learnt, judged = _examples(docs, examples, beir, split)
        with searching(as_json) as advance:
            tuned = train(docs, learnt, output, recipe, base=base, judged=judged, progress=advance)
            queries, qrels = (
                _held_out(learnt, tuned) if held_out is None else (held_out.queries, held_out.qrels)
            )
            found = (
                measure(docs, tuned, queries, qrels, measures=chosen, progress=advance)
                if measured and qrels
                else None
            )
    if plot is not None:
        plot_losses(tuned, plot)
    if as_json:
        print_json(_summary(tuned, found))
        return
    _print(tuned, found, name)
    if measured and found is None:
        err.print(
            "[yellow]note:[/] not measured: no query was left out that names a stored document; give --test",
            soft_wrap=True,
        )


def _examples(
    docs: Collection, path: Path | None, beir: Path | None, split: str
) -> tuple[list[Example], dict[str, list[str]]]:
    """Return what is learnt, and by query which documents are no negatives."""
    if path is not None:
        return read_examples(path), {}
    if beir is None:
        return title_pairs(docs), {}
    found = read_beir(beir, split)
    judged: dict[str, list[str]] = defaultdict(list)
    for query, documents in found.qrels.items():
        if query in found.queries:
            judged[found.queries[query]] += [one for one, grade in documents.items() if grade > 0]
    return from_qrels(found.queries, found.qrels), dict(judged)


def _held_out(learnt: list[Example], tuned: FineTuning) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    left_out = set(tuned.left_out)
    return judgements(one for one in learnt if one.query in left_out)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(
            f"{option} is {text!r}, but must be whole numbers with commas between them"
        ) from error
    if option == "--window" and len(found) != 2:
        raise InvalidInput(f"{option} is {text!r}, but must be two ranks, such as 3,50")
    return found


def _summary(tuned: FineTuning, found: Measured | None) -> dict[str, Any]:
    plain = asdict(tuned)
    for name in ("trained_on", "left_out"):
        plain[name] = len(plain[name])
    if tuned.mined is not None:
        del plain["mined"]["examples"]
    measured = None if found is None else {"before": found.before, "after": found.after, "ways": found.rows()}
    return {**plain, "measured": measured}


def _print(tuned: FineTuning, found: Measured | None, name: str) -> None:
    resumed = f", gone on from step {tuned.resumed_from:,}" if tuned.resumed_from else ""
    out.print(
        f"{tuned.embedder}: {tuned.steps:,} steps on {tuned.examples:,} {tuned.kind} of "
        f"{len(tuned.trained_on):,} queries, loss {tuned.loss}, {tuned.seconds:,.0f} s on "
        f"{tuned.device}{resumed}",
        markup=False,
        soft_wrap=True,
    )
    dev = [one for one in tuned.losses if one.dev is not None]
    if dev:
        made = table("step", "loss", "dev loss")
        for one in dev:
            kept = " (kept)" if one.step == tuned.kept_step else ""
            made.add_row(
                f"{one.step:,}{kept}", "" if one.train is None else f"{one.train:.4f}", f"{one.dev:.4f}"
            )
        out.print(made)
    if tuned.mined is not None:
        out.print(
            f"negatives: {tuned.mined.by_rank:,} by rank, {tuned.mined.at_random:,} at random; "
            f"{tuned.mined.too_near:,} hits passed over as too near",
            soft_wrap=True,
        )
    if found is not None:
        for way in found.rows():
            made = table(way["way"], "before", "after", "difference", "better", "worse", "p")
            for of in way["measures"]:
                made.add_row(
                    escape(mean_name(of["measure"])),
                    f"{of['before']:.4f}",
                    f"{of['after']:.4f}",
                    f"{of['difference']:+.4f}",
                    str(of["better"]),
                    str(of["worse"]),
                    f"{of['p']:.4f}",
                )
            out.print(
                f"{way['queries']:,} queries that were not trained on, spaces {found.before} and "
                f"{found.after}"
            )
            out.print(made)
    out.print(f"to search by it: pgseek reembed {name} --to {tuned.embedder}", markup=False, soft_wrap=True)
