"""Ranking quality on judged queries: how well a collection's searches find what was judged relevant.

>>> from pgseek.evaluation import evaluate, read_beir
>>> beir = read_beir("data/scifact")                                # doctest: +SKIP
>>> docs.ingest(beir.documents())
>>> evaluate(docs, beir.queries, beir.qrels).mode("hybrid").means["nDCG@10"]

Measures and comparisons need the extra ``eval``: pip install 'pgseek[eval]'.
"""

from __future__ import annotations

from pgseek.evaluation.beir import Beir, read_beir
from pgseek.evaluation.calibration import Bin, Calibration, calibrate
from pgseek.evaluation.compare import Comparison, compare, holm, permutation_p
from pgseek.evaluation.experiment import Evaluation, ModeResult, Plan, evaluate
from pgseek.evaluation.measures import DEFAULT_MEASURES, score
from pgseek.evaluation.queries import read_queries
from pgseek.evaluation.report import per_query_rows, summary, write_per_query, write_runs
from pgseek.evaluation.runs import DEFAULT_MODES, Latency, Mode, ModeRun, choose_modes, run_mode
from pgseek.evaluation.spaces import EmbeddingCost, QueryDifference, SpaceComparison, SpaceRun, overlap, rbo
from pgseek.evaluation.trec import Qrels, Run, read_qrels, write_run

__all__ = [
    "DEFAULT_MEASURES",
    "DEFAULT_MODES",
    "Beir",
    "Bin",
    "Calibration",
    "Comparison",
    "EmbeddingCost",
    "Evaluation",
    "Latency",
    "Mode",
    "ModeResult",
    "ModeRun",
    "Plan",
    "Qrels",
    "QueryDifference",
    "Run",
    "SpaceComparison",
    "SpaceRun",
    "calibrate",
    "choose_modes",
    "compare",
    "evaluate",
    "holm",
    "overlap",
    "per_query_rows",
    "permutation_p",
    "rbo",
    "read_beir",
    "read_qrels",
    "read_queries",
    "run_mode",
    "score",
    "summary",
    "write_per_query",
    "write_run",
    "write_runs",
]
