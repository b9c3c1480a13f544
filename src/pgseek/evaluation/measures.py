"""Measures of ir-measures, per query."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

from pgseek.errors import InvalidInput, MissingExtra
from pgseek.evaluation.trec import Qrels, Run

DEFAULT_MEASURES = ("nDCG@10", "R@100", "RR@10", "AP")
_MEASURE = re.compile(r"(\w+)\s*(?:\((.*)\))?\s*(?:@\s*(.+))?")


def load_measures() -> Any:
    """Return the module ir_measures.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import ir_measures  # noqa: PLC0415 (on demand)
    except ImportError as error:
        raise MissingExtra("ir-measures", "eval") from error
    return ir_measures


def parse_measures(names: Iterable[str]) -> dict[str, Any]:
    """Return ir-measures' objects by their own names, which differ from those given in aliases only.

    ``names`` are as ir-measures writes them: ``nDCG@10``, ``P(rel=2)@5``.

    Raises:
        InvalidInput: there is no such measure, or it needs other parameters or another package.
        MissingExtra: ir-measures is not installed.
    """
    module = load_measures()
    parsed = [_parse(module, name) for name in names]
    if not parsed:
        raise InvalidInput(f"no measure is given; the default is {', '.join(DEFAULT_MEASURES)}")
    return {str(measure): measure for measure in parsed}


def _parse(module: Any, name: str) -> Any:
    # ir_measures.parse_measure leans on parts of ast that Python 3.14 no longer has.
    found = _MEASURE.fullmatch(name.strip())
    made = module.measures.registry.get(found[1]) if found else None
    if found is None or made is None:
        raise InvalidInput(
            f"measure {name!r} is unknown; ir-measures has nDCG@10, R@100, RR@10, AP, P@5, Success@1 "
            "and others, see https://ir-measur.es"
        )
    try:
        measure = made(**_parameters(found[2] or "", found[3], made.AT_PARAM))
        supported = module.DefaultPipeline.supports(measure)
    except (ValueError, TypeError, SyntaxError, AssertionError) as error:
        raise InvalidInput(
            f"measure {name!r} lacks a parameter or has one that is wrong; write it like P(rel=2)@5"
        ) from error
    if not supported:
        raise InvalidInput(f"measure {name!r} needs a package that is not here, or has no such parameters")
    return measure


def _parameters(named: str, at: str | None, at_name: str) -> dict[str, Any]:
    """Return the parameters of ``NAME(named)@at``; raises ValueError or SyntaxError."""
    call = ast.parse(f"f({named})", mode="eval").body
    if not isinstance(call, ast.Call) or call.args:
        raise ValueError(f"{named!r} is not name=value")
    given = {str(part.arg): ast.literal_eval(part.value) for part in call.keywords}
    if at is not None:
        given[at_name] = ast.literal_eval(at)
    deepest = given.get("cutoff", 1)
    if isinstance(deepest, bool) or not isinstance(deepest, int) or deepest < 1:
        raise ValueError(f"cutoff {deepest!r} is not a number of documents")
    return given


def cutoff(measure: Any) -> int | None:
    """Return how many documents a measure looks at, None if all."""
    found = measure.params.get("cutoff")
    return int(found) if found is not None else None


def score(measures: Iterable[str], qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """Return measure → query → value for every query of ``qrels``, in their order.

    A query that found nothing has 0 in every measure.

    Raises:
        InvalidInput: see `parse_measures`; or ir-measures failed at one of the measures.
        MissingExtra: ir-measures is not installed.
    """
    parsed = parse_measures(measures)
    values = {name: dict.fromkeys(qrels, 0.0) for name in parsed}
    # Queries that found nothing stay out of the run: their 0 stands, whatever a measure's default is.
    found = {query: dict(ranking) for query, ranking in run.items() if ranking and query in qrels}
    judged = {query: dict(documents) for query, documents in qrels.items()}
    try:
        for metric in load_measures().iter_calc(list(parsed.values()), judged, found):
            if metric.query_id in found:
                values[str(metric.measure)][metric.query_id] = float(metric.value)
    except (ArithmeticError, ValueError, RuntimeError, OSError) as error:
        raise InvalidInput(f"ir-measures failed at one of {', '.join(parsed)}: {error}") from error
    return values
