"""``pgseek threshold``: from what similarity on two are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from pgseek.analysis import pairs as labelling
from pgseek.analysis import thresholds as calibrating
from pgseek.cli.documents import Json, Name
from pgseek.cli.eval import searching
from pgseek.cli.output import out, print_json, table
from pgseek.cli.state import state_of
from pgseek.client import Collection
from pgseek.errors import InvalidInput
from pgseek.plots import check_picture


def threshold(
    context: typer.Context,
    name: Name,
    purpose: Annotated[
        str, typer.Option("--for", help="deduplication, answer_cache or no_answer")
    ] = "deduplication",
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV, TSV or JSON lines: two ids (or two questions; for no_answer: a query), then 1 or 0",
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            help="documents whose neighbours stand for pairs that differ; default 500, with labels 0: none"
        ),
    ] = None,
    target: Annotated[
        float, typer.Option("--precision", help="wanted precision, above 0 and below 1")
    ] = 0.95,
    prevalence: Annotated[
        float | None,
        typer.Option(help="share of all pairs that are the same, where those given were sampled"),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="a picture: .png, .svg or .pdf")] = None,
    store: Annotated[bool, typer.Option(help="keep what was found, for all that uses it")] = True,
    value: Annotated[float | None, typer.Option("--set", help="keep this one; measures nothing")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="forget the one that is kept")] = False,
    show: Annotated[bool, typer.Option("--list", help="print what is kept")] = False,
    as_json: Json = False,
) -> None:
    """Find from what similarity on two are the same, from labelled pairs or the collection's own copies.

    Without --pairs the collection's exact copies are the pairs that are the same. What is kept belongs to the
    embedding space and is the default of duplicates, of cached answers and of min_dense_score='calibrated'.
    """
    others = (value is not None) + clear + show
    wanted = _checked(purpose, others, pairs, sample)
    if plot is not None:
        check_picture(plot)
    with state_of(context).client() as client:
        docs = client.collection(name)
        if show:
            _print_kept(calibrating.stored_thresholds(docs), as_json)
            return
        if clear or value is not None:
            calibrating.store_threshold(docs, value, wanted)
            return
        with searching(as_json) as advance:
            measured = _measured(docs, wanted, pairs, sample, advance)
        made = calibrating.calibrate_threshold(
            measured.similarities,
            measured.same,
            wanted,
            target_precision=target,
            prevalence=prevalence,
            weights=None if prevalence is not None else measured.weights,
        )
        kept = store and made.target is not None
        if kept:
            calibrating.store_threshold(docs, made)
    if plot is not None:
        calibrating.plot_thresholds(made, plot)
    if as_json:
        print_json(made)
    else:
        _print_calibrated(made, measured.missing, kept)


def _checked(purpose: str, others: int, pairs: Path | None, sample: int | None) -> calibrating.Purpose:
    calibrating.check_purpose(purpose)
    if others + (pairs is not None or sample is not None) > 1:
        raise InvalidInput("--set, --clear, --list and --pairs exclude each other: give one of them")
    if purpose != "deduplication" and sample is not None:
        raise InvalidInput(f"--sample takes documents, which {purpose} does not compare: label pairs instead")
    if purpose != "deduplication" and pairs is None and not others:
        raise InvalidInput(f"a threshold for {purpose} is found from labelled pairs: give --pairs, or --set")
    return cast("calibrating.Purpose", purpose)


def _print_kept(kept: dict[str, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(kept)
        return
    for one, found in sorted(kept.items()):
        out.print(f"{one}: {found['similarity']:.4f}, stored {found['stored_at']}")
    if not kept:
        out.print("no threshold is kept with the active space")


def _measured(
    docs: Collection,
    purpose: calibrating.Purpose,
    path: Path | None,
    sample: int | None,
    advance: Any,
) -> labelling.MeasuredPairs:
    if purpose == "no_answer":
        rows = labelling.read_pairs(path or "", columns=2)
        return labelling.answered_queries(
            docs, [(query, label == "1") for query, label in rows], progress=advance
        )
    given = labelling.labelled(labelling.read_pairs(path)) if path is not None else None
    if purpose == "answer_cache":
        return labelling.question_pairs(docs, given or [], progress=advance)
    if given is not None and sample is None and not all(pair.same for pair in given):
        return labelling.document_pairs(docs, given)
    known = None if given is None else [(pair.one, pair.other) for pair in given if pair.same]
    return labelling.sampled_pairs(docs, known, documents=500 if sample is None else sample, progress=advance)


def _print_calibrated(made: calibrating.Calibrated, missing: int, kept: bool) -> None:
    shown = table("", "threshold", "precision", "recall")
    for label, choice in (
        ("least overlap of the two kinds", made.least_overlap),
        (f"precision of {made.target_precision:g}", made.target),
    ):
        if choice is None:
            shown.add_row(label, "none reaches it", "", "")
        else:
            shown.add_row(label, f"{choice.threshold:.4f}", f"{choice.precision:.3f}", f"{choice.recall:.3f}")
    out.print(shown)
    out.print(
        f"{made.same:,} pairs are the same, {made.different:,} are different"
        + (f", {missing:,} could not be measured" if missing else "")
        + f"; of all that are compared {made.prevalence:.3g} are taken for the same"
        + ("" if made.corrected else ", as in the file: say --prevalence if it was put together otherwise")
        + (f". Kept: {made.target.threshold:.4f}" if kept and made.target else ". Nothing is kept"),
        soft_wrap=True,
    )
