"""Parsing HTML, PDF and DOCX: in the process itself, and beside it, on the same files in the same run.

    pip install 'pgseek[files]' reportlab
    python benchmarks/sources.py [--files 450] [--processes 0,1,2] [--rounds 3] [--ingest]

The files are made of the standard library's docstrings: pages with navigation and footer, PDF of some
pages, DOCX with headings and a table, as many of each. Rounds are interleaved, the median is told; "ahead
of" is the time of reading without other processes over the time with them. On a machine that others use, look at
the processor times: the longer of the two columns is the time that two free processors would take. With --ingest the documents
are also stored through wordllama, to see what is left of it where the database works, too.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docx
from common import database
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Paragraph, SimpleDocTemplate

from pgseek import Client
from pgseek.demo.corpus import documents
from pgseek.sources import Files
from pgseek.types import Located

KINDS = ("html", "pdf", "docx")


def articles(count: int) -> list[list[tuple[str, str]]]:
    """Return texts of about 12,000 characters, each as (heading, text) pairs."""
    made: list[list[tuple[str, str]]] = []
    current: list[tuple[str, str]] = []
    while len(made) < count:
        for document in documents():
            current.append((document["title"], document["text"]))
            if sum(len(text) for _, text in current) > 12_000:
                made.append(current)
                current = []
    return made[:count]


def write_html(path: Path, article: list[tuple[str, str]]) -> None:
    links = "".join(f'<li><a href="/{n}">Chapter {n}</a></li>' for n in range(60))
    body = "".join(
        f"<h2>{html.escape(title)}</h2>" + "".join(f"<p>{html.escape(p)}</p>" for p in text.split("\n\n"))
        for title, text in article
    )
    path.write_text(
        f"<html><head><title>{html.escape(article[0][0])}</title></head><body><nav><ul>{links}</ul></nav>"
        f"<main><article><h1>{html.escape(article[0][0])}</h1>{body}</article></main>"
        f"<footer><ul>{links}</ul>All rights reserved</footer></body></html>"
    )


def write_pdf(path: Path, article: list[tuple[str, str]]) -> None:
    styles = getSampleStyleSheet()
    story = []
    for title, text in article:
        story.append(Paragraph(html.escape(title), styles["Heading2"]))
        story += [Paragraph(html.escape(p), styles["BodyText"]) for p in text.split("\n\n")]
    SimpleDocTemplate(str(path), title=article[0][0]).build(story)


def write_docx(path: Path, article: list[tuple[str, str]]) -> None:
    document = docx.Document()
    for title, text in article:
        document.add_heading(title, 2)
        for paragraph in text.split("\n\n"):
            document.add_paragraph(paragraph)
    table = document.add_table(20, 3)
    for row in table.rows:
        for n, cell in enumerate(row.cells):
            cell.text = f"value {n}"
    document.save(str(path))


@dataclass(frozen=True)
class Taken:
    """Seconds of the clock, and of processor time in this process and in those that helped."""

    seconds: float
    own: float
    helpers: float


@contextlib.contextmanager
def timed(taken: list[Taken]) -> Iterator[None]:
    started, own, helpers = time.perf_counter(), cpu(resource.RUSAGE_SELF), cpu(resource.RUSAGE_CHILDREN)
    yield
    taken.append(
        Taken(
            time.perf_counter() - started,
            cpu(resource.RUSAGE_SELF) - own,
            cpu(resource.RUSAGE_CHILDREN) - helpers,
        )
    )


def cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def read(folder: Path, processes: int, taken: list[Taken]) -> None:
    with timed(taken):
        bad = [one for one in Files(folder, processes=processes) if not isinstance(one, Located)]
    if bad:
        raise SystemExit(f"{len(bad)} files were not read, the first: {bad[0]}")


def ingest(client: Client, name: str, folder: Path, processes: int, taken: list[Taken]) -> None:
    collection = client.create_collection(name)
    with timed(taken):
        report = collection.ingest(Files(folder, processes=processes))
    if report.rejected:
        raise SystemExit(f"rejected: {report.rejected[0]}")
    client.drop_collection(name)


def table(what: str, files: int, taken: dict[int, list[Taken]]) -> None:
    reference = statistics.median(one.seconds for one in taken[0])
    for processes, rounds in taken.items():
        median, own, helpers = (
            statistics.median(getattr(one, name) for one in rounds) for name in ("seconds", "own", "helpers")
        )
        low, high = min(one.seconds for one in rounds), max(one.seconds for one in rounds)
        print(
            f"{what:<10} {processes} more processes: {median:6.2f} s ({low:.2f} to {high:.2f}), {files / median:4.0f}"
            f" files/s, ahead of none by {reference / median:.2f}; processor: here {own:.2f} s, helpers {helpers:.2f} s"
        )


def alone(folder: Path, each: int) -> None:
    """Tell what each format costs by itself."""
    for kind in KINDS:
        taken: list[Taken] = []
        read(folder / kind, 0, taken)
        print(
            f"{kind}: {each / taken[0].seconds:.0f} files/s, {1000 * taken[0].own / each:.1f} ms of processor time each"
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--files", type=int, default=450)
    arguments.add_argument("--processes", default="0,1,2")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--ingest", action="store_true")
    given = arguments.parse_args()
    numbers = [0, *(int(n) for n in given.processes.split(",") if int(n))]
    each = -(-given.files // len(KINDS))
    with tempfile.TemporaryDirectory() as made:
        folder, few = Path(made, "all"), Path(made, "few")
        for kind, write in zip(KINDS, (write_html, write_pdf, write_docx), strict=True):
            for where, count in ((folder / kind, each), (few / kind, 10)):
                where.mkdir(parents=True)
                for number, article in enumerate(articles(count)):
                    write(where / f"{number:04}.{kind}", article)
        alone(folder, each)
        for what, some, files in (("all", folder, 3 * each), ("30 files", few, 30)):
            taken: dict[int, list[Taken]] = {number: [] for number in numbers}
            for _ in range(given.rounds):
                for number in numbers:
                    read(some, number, taken[number])
            table(what, files, taken)
        if given.ingest:
            taken = {number: [] for number in numbers}
            with database() as dsn, Client(dsn) as client:
                for turn in range(given.rounds):
                    for number in numbers:
                        ingest(client, f"n{turn}_{number}", folder, number, taken[number])
            table("ingest", 3 * each, taken)


if __name__ == "__main__":
    main()
