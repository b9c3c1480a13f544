"""Ranking quality on judged queries: how well a collection's searches find what was judged relevant.

>>> from pgseek.evaluation import evaluate, read_beir
>>> beir = read_beir("data/scifact")                                # doctest: +SKIP
>>> docs.ingest(beir.documents())
>>> evaluate(docs, beir.queries, beir.qrels).mode("hybrid").means["nDCG@10"]

Measures and comparisons need the extra ``eval``: pip install 'pgseek[eval]'.
"""

from __future__ import annotations

from pgseek.evaluation.baseline import (
    GateResult,
    Limit,
    Lost,
    SavedRun,
    Verdict,
    judge_run,
    read_run,
    saved_run,
)
from pgseek.evaluation.beir import Beir, read_beir
from pgseek.evaluation.bootstrap import Interval, bootstrap
from pgseek.evaluation.calibration import Bin, Calibration, calibrate
from pgseek.evaluation.clicks import Clicks, judge_clicks, read_clicks
from pgseek.evaluation.compare import Comparison, compare, holm, permutation_p
from pgseek.evaluation.experiment import Evaluation, ModeResult, Plan, evaluate
from pgseek.evaluation.golden import (
    Golden,
    GoldenInfo,
    drop_golden,
    list_golden,
    read_golden,
    save_golden,
)
from pgseek.evaluation.known import KnownItems, known_items
from pgseek.evaluation.measures import DEFAULT_MEASURES, score
from pgseek.evaluation.queries import read_queries, write_queries
from pgseek.evaluation.report import per_query_rows, summary, write_per_query, write_runs
from pgseek.evaluation.runs import DEFAULT_MODES, Latency, Mode, ModeRun, choose_modes, run_mode
from pgseek.evaluation.settings import Grid, Setting
from pgseek.evaluation.spaces import EmbeddingCost, QueryDifference, SpaceComparison, SpaceRun, overlap, rbo
from pgseek.evaluation.trec import Qrels, Run, read_qrels, write_qrels, write_run
from pgseek.evaluation.tuning import AlphaCurve, Tuning, Written, plot_alpha, tune, write_winner

__all__ = [
    "DEFAULT_MEASURES",
    "DEFAULT_MODES",
    "AlphaCurve",
    "Beir",
    "Bin",
    "Calibration",
    "Clicks",
    "Comparison",
    "EmbeddingCost",
    "Evaluation",
    "GateResult",
    "Golden",
    "GoldenInfo",
    "Grid",
    "Interval",
    "KnownItems",
    "Latency",
    "Limit",
    "Lost",
    "Mode",
    "ModeResult",
    "ModeRun",
    "Plan",
    "Qrels",
    "QueryDifference",
    "Run",
    "SavedRun",
    "Setting",
    "SpaceComparison",
    "SpaceRun",
    "Tuning",
    "Verdict",
    "Written",
    "bootstrap",
    "calibrate",
    "choose_modes",
    "compare",
    "drop_golden",
    "evaluate",
    "holm",
    "judge_clicks",
    "judge_run",
    "known_items",
    "list_golden",
    "overlap",
    "per_query_rows",
    "permutation_p",
    "plot_alpha",
    "rbo",
    "read_beir",
    "read_clicks",
    "read_golden",
    "read_qrels",
    "read_queries",
    "read_run",
    "run_mode",
    "save_golden",
    "saved_run",
    "score",
    "summary",
    "tune",
    "write_per_query",
    "write_qrels",
    "write_queries",
    "write_run",
    "write_runs",
    "write_winner",
]
