"""``pgseek worker``: embeds what SQL writers store, as it comes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from types import FrameType
from typing import Annotated

import typer

from pgseek.cli.state import state_of
from pgseek.types import QueuePolicy, WorkReport

# As a shell says it of a program that a signal ended.
KILLED = 128
DEFAULTS = QueuePolicy()


def worker(
    context: typer.Context,
    collections: Annotated[
        list[str] | None, typer.Argument(metavar="[COLLECTION…]", help="default: all there are and will be")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="end when nothing is due")] = False,
    batch: Annotated[int, typer.Option(help="documents claimed together, 1..10,000")] = 200,
    poll: Annotated[float, typer.Option(help="seconds after which it looks without being notified")] = 30.0,
    lease: Annotated[
        float, typer.Option(help="seconds after which others take over from a worker that died")
    ] = DEFAULTS.lease,
    attempts: Annotated[
        int, typer.Option(help="how often a document is tried before it is given up")
    ] = DEFAULTS.attempts,
    as_json: Annotated[
        bool, typer.Option("--json", help="print a line of JSON per batch to standard output")
    ] = False,
) -> None:
    """Chunk and embed the documents that SQL writers store, as they come. Any number may run at once.

    Prints a line per batch to standard error. SIGTERM and SIGINT end it after the batch in hand, a second
    one at once; claims are given back. Exit codes: 0 ended when told to, or (--once) done; 1 failed, or
    (--once) a collection could not be served; 4 (--once) done, but documents were given up.
    """
    stop = threading.Event()
    policy = QueuePolicy(lease=lease, attempts=attempts)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, frame: _end(stop, signum, frame))

    def progress(report: WorkReport) -> None:
        if as_json:
            sys.stdout.write(json.dumps(asdict(report)) + "\n")
            sys.stdout.flush()
        else:
            _say(line(report))

    with state_of(context).client() as client:
        try:
            total = client.work(
                collections or None,
                once=once,
                batch_size=batch,
                poll=poll,
                policy=policy,
                stop=stop,
                progress=progress,
                notice=_say,
            )
        except _Now as now:
            # A request that is on its way would hold up the end for as long as it takes.
            _say("stopped at once; claims were given back")
            os._exit(KILLED + now.number)
    if once and total.failed:
        raise typer.Exit(4)


class _Now(BaseException):
    """The second signal; not an `Exception`, which would be taken for something that went wrong."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _end(stop: threading.Event, number: int, _frame: FrameType | None) -> None:
    if stop.is_set():
        raise _Now(number)
    stop.set()
    _say(f"{signal.Signals(number).name}: ending after the batch in hand; once more ends at once")


def line(report: WorkReport) -> str:
    """Return a batch in words."""
    parts = [
        f"{report.documents:,} documents",
        f"{report.chunks:,} chunks",
        f"{report.embedded:,} texts embedded",
    ]
    for count, what in (
        (report.cached, "from the cache"),
        (report.retried, "to be tried again"),
        (report.failed, "given up"),
    ):
        if count:
            parts.append(f"{count:,} {what}")
    if report.tokens:
        parts.append(f"{report.tokens:,} tokens (${report.cost:.4f})")
    return f"{report.collection}: {', '.join(parts)}, {report.seconds:.2f} s"


def _say(text: str) -> None:
    # A line in one write: several workers may share a terminal or a file.
    sys.stderr.write(" ".join(text.split()) + "\n")
    sys.stderr.flush()
