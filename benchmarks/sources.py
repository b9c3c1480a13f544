"""Parsing HTML, PDF and DOCX: in the process itself, and beside it, on the same files in the same run.

    pip install 'pgseek[files]' reportlab
    python benchmarks/sources.py [--files 450] [--processes 0,1,2] [--rounds 3] [--ingest]

The files are made of the standard library's docstrings: pages with navigation and footer, PDF of some
pages, DOCX with headings and a table, as many of each. Rounds are interleaved, the median is told; "ahead
of" is the time of reading without other processes over the time with them. With --ingest the documents
are also stored through wordllama, to see what is left of it where the database works, too.
"""

from __future__ import annotations

import argparse
import html
import resource
import statistics
import tempfile
import time
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


def read(folder: Path, processes: int) -> float:
    started = time.perf_counter()
    outcomes = list(Files(folder, processes=processes))
    seconds = time.perf_counter() - started
    bad = [one for one in outcomes if not isinstance(one, Located)]
    if bad:
        raise SystemExit(f"{len(bad)} files were not read, the first: {bad[0]}")
    return seconds


def ingest(client: Client, name: str, folder: Path, processes: int) -> float:
    collection = client.create_collection(name)
    started = time.perf_counter()
    report = collection.ingest(Files(folder, processes=processes))
    seconds = time.perf_counter() - started
    if report.rejected:
        raise SystemExit(f"rejected: {report.rejected[0]}")
    client.drop_collection(name)
    return seconds


def table(what: str, files: int, seconds: dict[int, list[float]]) -> None:
    reference = statistics.median(seconds[0])
    for processes, taken in seconds.items():
        median = statistics.median(taken)
        print(
            f"{what:<22} {processes} more processes: {median:6.2f} s ({min(taken):.2f} to {max(taken):.2f}),"
            f" {files / median:6.0f} files/s, ahead of none by {reference / median:.2f}"
        )


def alone(folder: Path, each: int) -> None:
    """Tell what each format costs by itself."""
    for kind in KINDS:
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = read(folder / kind, 0)
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        print(f"{kind}: {each / seconds:.0f} files/s, {1000 * cpu / each:.1f} ms of processor time each")


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
            taken = {number: [] for number in numbers}
            for _ in range(given.rounds):
                for number in numbers:
                    taken[number].append(read(some, number))
            table(what, files, taken)
        if given.ingest:
            taken = {number: [] for number in numbers}
            with database() as dsn, Client(dsn) as client:
                for turn in range(given.rounds):
                    for number in numbers:
                        taken[number].append(ingest(client, f"n{turn}_{number}", folder, number))
            table("ingest", 3 * each, taken)


if __name__ == "__main__":
    main()
