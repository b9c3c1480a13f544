"""``pgseek duplicates``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.markup import escape

from pgseek.analysis import duplicates as finding
from pgseek.cli.documents import Name
from pgseek.cli.eval import searching
from pgseek.cli.output import err, out, table
from pgseek.cli.state import state_of
from pgseek.errors import InvalidInput

FORMATS = ("table", "jsonl", "csv")


def duplicates(
    context: typer.Context,
    name: Name,
    min_similarity: Annotated[
        float | None,
        typer.Option(help="cosine from which on two are one; default: what threshold stored, or else 0.95"),
    ] = None,
    min_overlap: Annotated[
        float,
        typer.Option(help="share of the shorter text's letter trigrams in the longer, 0..1; 0: do not look"),
    ] = finding.DEFAULT_OVERLAP,
    guard: Annotated[
        bool,
        typer.Option(help="leave out pairs whose titles differ in a number, an identifier or a name"),
    ] = True,
    exact: Annotated[bool, typer.Option("--exact", help="equal texts only; needs no vectors")] = False,
    passages: Annotated[
        bool, typer.Option("--passages", help="instead: texts of chunks that several documents have")
    ] = False,
    space: Annotated[str | None, typer.Option(help="by another embedding space than the active one")] = None,
    again: Annotated[bool, typer.Option("--again", help="forget what earlier runs found")] = False,
    output: Annotated[str, typer.Option("--format", help="table, jsonl (a group a line) or csv")] = "table",
    shown: Annotated[int, typer.Option("--show", help="groups in the table")] = 20,
    write: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="put the id of each group's representative into the metadata"),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="delete all but the representatives, after a question")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Find documents that say the same: equal texts, and near ones by their vectors and their letters.

    What was compared is kept: interrupted, it goes on; later it looks at what is new or has changed.
    """
    if output not in FORMATS:
        raise InvalidInput(f"--format is {output!r}, but must be one of {', '.join(FORMATS)}")
    if passages and (exact or write is not None or delete):
        raise InvalidInput("--passages only shows; leave out --exact, --write and --delete")
    if exact and (min_similarity is not None or space is not None or again):
        raise InvalidInput("--exact compares no vectors; leave out --min-similarity, --space and --again")
    if delete and not yes and not sys.stdin.isatty():
        raise InvalidInput("what is deleted is gone; look at it without --delete first, then say --yes")
    with state_of(context).client() as client:
        docs = client.collection(name)
        if passages:
            _print_passages(finding.repeated_passages(docs, most=max(1, shown)), output)
            return
        with searching(output != "table") as advance:
            found = finding.find_duplicates(
                docs,
                min_similarity=min_similarity,
                min_overlap=min_overlap,
                guard=guard,
                space=space,
                exact_only=exact,
                again=again,
                progress=advance,
            )
            written = None
            if write is not None:
                written = finding.write_representatives(docs, found, write, progress=advance)
        _print_groups(found, output, shown)
        if written is not None:
            err.print(f"{written:,} documents have another {escape(write or '')} now", soft_wrap=True)
        if delete:
            if found.surplus and not yes:
                typer.confirm(
                    f"Delete {found.surplus:,} documents and keep the {len(found.groups):,} representatives?",
                    abort=True,
                    err=True,
                )
            deleted = finding.delete_duplicates(docs, found)
            kept = found.surplus - deleted
            more = f"; {kept:,} have changed meanwhile, or their representative has" if kept else ""
            err.print(f"deleted {deleted:,} documents{more}", soft_wrap=True)


def _print_groups(found: finding.Duplicates, output: str, shown: int) -> None:
    if output == "jsonl":
        for group in found.groups:
            sys.stdout.write(json.dumps(_plain(group), ensure_ascii=False) + "\n")
        return
    if output == "csv":
        _print_csv(
            ("representative", "id", "similarity", "overlap", "title"),
            (
                (group.representative, one.id, _number(one.similarity), _number(one.overlap), one.title)
                for group in found.groups
                for one in group.members
            ),
        )
        return
    made = table("representative", "documents", "least", "the others, with similarity and overlap")
    for group in found.groups[: max(0, shown)]:
        others = ", ".join(
            f"{one.id} ({_number(one.similarity) or 'by others'} {_number(one.overlap)})".replace(" )", ")")
            for one in group.members[1:6]
        )
        more = f", and {len(group.members) - 6:,} more" if len(group.members) > 6 else ""
        made.add_row(
            escape(group.representative),
            f"{len(group.members):,}",
            "exact" if group.exact else f"{group.least_similarity:.3f}",
            escape(others + more),
        )
    if found.groups:
        out.print(made)
    left = len(found.groups) - max(0, shown)
    more = f" (the largest {shown:,} shown; --format jsonl or csv has all)" if left > 0 else ""
    how = (
        "equal texts"
        if found.space_id is None
        else f"cosine from {found.min_similarity:.3f}, overlap from {found.min_overlap:.2f}"
    )
    out.print(
        f"{len(found.groups):,} groups with {found.surplus:,} documents beside their representatives, of "
        f"{found.documents:,} in {found.collection}{more}; {how}; {found.looked_at:,} compared by this run"
        + (f", {found.waiting:,} wait for their vectors" if found.waiting else ""),
        markup=False,
        soft_wrap=True,
    )


def _plain(group: finding.DuplicateGroup) -> dict[str, Any]:
    return {
        "representative": group.representative,
        "exact": group.exact,
        "least_similarity": group.least_similarity,
        "documents": [
            {"id": one.id, "title": one.title, "similarity": one.similarity, "overlap": one.overlap}
            for one in group.members
        ],
    }


def _print_passages(found: list[finding.Passage], output: str) -> None:
    if output == "jsonl":
        for one in found:
            plain = {"documents": one.documents, "chunks": one.chunks, "ids": one.ids, "text": one.text}
            sys.stdout.write(json.dumps(plain, ensure_ascii=False) + "\n")
    elif output == "csv":
        _print_csv(
            ("documents", "chunks", "ids", "text"),
            ((str(one.documents), str(one.chunks), " ".join(one.ids), one.text) for one in found),
        )
    elif not found:
        out.print("no passage of 40 characters or more stands in several documents")
    else:
        made = table("documents", "in", "text")
        for one in found:
            more = ", …" if one.documents > len(one.ids) else ""
            made.add_row(
                f"{one.documents:,}",
                escape(", ".join(one.ids) + more),
                escape(" ".join(one.text.split())[:80]),
            )
        out.print(made)


def _print_csv(heading: tuple[str, ...], lines: Iterator[tuple[str, ...]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
