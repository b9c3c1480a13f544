"""How far an ingest is: a bar on a terminal, a line now and then elsewhere, JSON lines for programs."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pgseek.cli.output import err, print_event
from pgseek.types import IngestReport

# Seconds between two lines, and between two events.
LINE_EVERY = 10.0
EVENT_EVERY = 1.0
_DOING = {"storing": "storing", "indexing": "building indexes", "removing": "removing what is gone"}


def rates(report: IngestReport) -> str:
    """Return documents read, texts embedded and documents stored, each with its rate since the beginning."""
    seconds = max(report.seconds, 1e-9)
    embedded = report.embedded + report.cached
    done = report.documents
    return (
        f"read {report.read:,} ({report.read / seconds:,.0f}/s) · embedded {embedded:,} "
        f"({embedded / seconds:,.0f}/s) · stored {done:,} ({done / seconds:,.0f}/s)"
    )


class IngestProgress:
    """Told of every report of an ingest; ``total`` is the number of its documents, None if not known.

    ``as_json`` writes events to standard output, ``quiet`` nothing. Lines and the bar go to standard error.
    """

    def __init__(self, total: int | None, *, as_json: bool = False, quiet: bool = False) -> None:
        self._total = total
        self._as_json = as_json
        self._lines = not as_json and not quiet and not err.is_terminal
        self._shown = time.monotonic()
        self._stage = ""
        self.last: IngestReport | None = None
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}"),
            TimeElapsedColumn(),
            # "-:--:--" where the number of documents is not known before the last is read.
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=as_json or quiet or not err.is_terminal,
        )
        self._task = self._bar.add_task("storing", total=total, rates="")

    def __enter__(self) -> IngestProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, report: IngestReport) -> None:
        """Show a report."""
        self.last = report
        another = report.stage not in {self._stage, "storing"}
        self._stage = report.stage
        now = time.monotonic()
        if self._as_json and (another or now - self._shown >= EVENT_EVERY):
            self._shown = now
            print_event("progress", report, rejected=len(report.rejected), total=self._total)
        elif self._lines and ((another and report.seconds >= LINE_EVERY) or now - self._shown >= LINE_EVERY):
            self._shown = now
            line = rates(report) if report.stage == "storing" else _DOING[report.stage]
            err.print(f"{line}{self._left(report)}", markup=False, soft_wrap=True)
        self._bar.update(
            self._task,
            completed=report.documents,
            description=_DOING[report.stage],
            rates=rates(report),
            total=self._total,
        )

    def _left(self, report: IngestReport) -> str:
        if not self._total or not report.documents or report.stage != "storing":
            return ""
        seconds = report.seconds / report.documents * (self._total - report.documents)
        return f" · about {seconds:,.0f} s left"
