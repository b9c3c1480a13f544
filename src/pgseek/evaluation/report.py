"""An evaluation for programs and files: a summary, values per query, and TREC runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pgseek.evaluation.compare import Comparison
from pgseek.evaluation.experiment import Evaluation
from pgseek.evaluation.trec import write_run

_COLUMNS = ("query", "measure", "mode", "value", "baseline", "difference")


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """Return all but the runs and the values per query, ready for JSON. Latencies are milliseconds."""
    plan = evaluation.plan
    return {
        "collection": evaluation.collection,
        "documents": evaluation.documents,
        "waiting": evaluation.waiting,
        "queries": evaluation.queries,
        "unjudged_queries": evaluation.unjudged_queries,
        "lost_queries": evaluation.lost_queries,
        "judged_documents": evaluation.judged_documents,
        "missing_documents": evaluation.missing_documents,
        "depth": plan.depth,
        "drop_self": plan.drop_self,
        "limit": plan.limit,
        "baseline": plan.baseline,
        "modes": [
            {
                "name": result.name,
                "arguments": dict(result.mode.arguments),
                "means": dict(result.means),
                "latency_ms": asdict(result.latency),
                "empty": result.empty,
                "degraded": result.degraded,
            }
            for result in evaluation.modes
        ],
        "comparisons": plain_comparisons(evaluation.comparisons),
    }


def plain_comparisons(comparisons: Iterable[Comparison]) -> list[dict[str, Any]]:
    """Return comparisons without the differences by query, ready for JSON."""
    return [
        {name: value for name, value in asdict(one).items() if name != "differences"} for one in comparisons
    ]


def per_query_rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield one row per measure, mode and query: its value, and its difference from the baseline's.

    The rows of the baseline itself have the difference 0, those of a single mode None.
    """
    compared = {(one.measure, one.mode): one for one in evaluation.comparisons}
    baselines = {one.measure: one.baseline for one in evaluation.comparisons}
    for result in evaluation.modes:
        for measure, by_query in result.per_query.items():
            comparison = compared.get((measure, result.name))
            baseline = baselines.get(measure)
            for query, value in by_query.items():
                alone = None if baseline is None else 0.0
                difference = alone if comparison is None else comparison.differences[query]
                values = (query, measure, result.name, value, baseline, difference)
                yield dict(zip(_COLUMNS, values, strict=True))


def write_per_query(path: str | Path, evaluation: Evaluation) -> None:
    """Write `per_query_rows`: JSON lines if the name ends in .jsonl, else a table with tabs and a header."""
    path = Path(path)
    with path.open("w", encoding="utf-8", newline="") as stream:
        if path.suffix == ".jsonl":
            for row in per_query_rows(evaluation):
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            table = csv.DictWriter(stream, _COLUMNS, delimiter="\t", lineterminator="\n")
            table.writeheader()
            table.writerows(per_query_rows(evaluation))


def write_runs(folder: str | Path, evaluation: Evaluation) -> list[Path]:
    """Write each mode's run as ``<mode>.trec`` into the folder, made if need be; return the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for result in evaluation.modes:
        path = folder / f"{result.name}.trec"
        write_run(path, result.run, f"pgseek-{result.name}")
        written.append(path)
    return written
