"""``pgseek calibrate``: scores that can be compared between queries."""

from __future__ import annotations

from typing import Annotated

import typer

from pgseek.cli.documents import Json, Name
from pgseek.cli.judged import Folder, GoldenName, QrelsFile, Queries, Source, Split, needed
from pgseek.cli.output import out, print_json, table
from pgseek.cli.state import state_of
from pgseek.errors import InvalidInput
from pgseek.evaluation import calibrate as fit


def calibrate(
    context: typer.Context,
    name: Name,
    queries: Queries = None,
    qrels: QrelsFile = None,
    beir: Folder = None,
    split: Split = "test",
    golden: GoldenName = None,
    depth: Annotated[int, typer.Option(help="hits of each query that are looked at")] = 20,
    store: Annotated[bool, typer.Option(help="have hits tell their relevance from now on")] = True,
    clear: Annotated[bool, typer.Option("--clear", help="no relevance any more; takes no files")] = False,
    as_json: Json = False,
) -> None:
    """Fit to judgements how likely a hit is relevant: a score that means the same for every query.

    Shown are, by cross-validation, the predicted and the observed shares of relevant hits.
    """
    source = Source(beir, split, queries, qrels, golden)
    if clear == source.given:
        raise InvalidInput("give judged queries (--queries and --qrels, --beir or --golden), or --clear")
    judged = source.files()
    with state_of(context).client() as client:
        docs = client.collection(name)
        if clear:
            docs.set_calibration(None)
            return
        judged = needed(judged or source.of(docs))
        found = fit(docs, judged.queries, judged.qrels, depth)
        if store:
            docs.set_calibration(found)
    if as_json:
        print_json(found)
        return
    made = table("relevance", "predicted", "observed", "hits")
    for one in found.reliability:
        made.add_row(
            f"{one.low:.1f} to {one.high:.1f}",
            f"{one.predicted:.3f}",
            f"{one.observed:.3f}",
            f"{one.hits:,}",
        )
    out.print(made)
    out.print(
        f"{found.relevant:,} of {found.hits:,} hits of {found.queries:,} queries are relevant; calibration "
        f"error {found.error:.3f}, Brier score {found.brier:.3f} ({found.brier_of_rate:.3f} by always saying "
        f"{found.relevant / found.hits:.3f})",
        soft_wrap=True,
    )
