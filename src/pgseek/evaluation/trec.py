"""TREC's words and files: qrels (which documents are relevant to a query) and runs (what was found)."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pgseek.errors import InvalidInput

# Query id → document id → relevance: 1 and more is relevant, 0 and less is not.
Qrels = Mapping[str, Mapping[str, int]]
# Query id → (document id, score), best first, scores strictly decreasing. A query that found nothing
# has no documents.
Run = Mapping[str, tuple[tuple[str, float], ...]]


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read judgements, plain or gzip-compressed: BEIR's table or TREC's.

    BEIR: query-id, corpus-id and score, separated by tabs, below a header. TREC: query, iteration
    (ignored), document and relevance. Queries stay in the order of the file.

    Raises:
        InvalidInput: no such file, it judges nothing, or a line is malformed or contradicts an
            earlier one; names the line.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, line in _lines(Path(path)):
        fields = _fields(line)
        if not fields or (number == 1 and fields[-1].isidentifier()):
            continue
        where = f"{path}:{number}"
        if len(fields) not in (3, 4) or not all(fields):
            raise InvalidInput(
                f"{where}: {line.strip()!r} is not query-id, corpus-id and score, separated by tabs "
                "(BEIR), nor query, iteration, document and relevance (TREC)"
            )
        query, document, given = fields[0], fields[-2], fields[-1]
        try:
            relevance = int(given)
        except ValueError as error:
            raise InvalidInput(f"{where}: relevance {given!r} is not a whole number") from error
        earlier = qrels.setdefault(query, {}).setdefault(document, relevance)
        if earlier != relevance:
            raise InvalidInput(
                f"{where}: document {document!r} is judged {relevance} for query {query!r}, "
                f"but {earlier} in a line above; remove one of them"
            )
    if not qrels:
        raise InvalidInput(f"{path} judges no document")
    return qrels


def _fields(line: str) -> list[str]:
    fields = [field.strip() for field in line.split("\t")]
    return fields if len(fields) > 1 else line.split()


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}:{number}: not UTF-8: byte 0x{error.object[error.start]:02x}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Write judgements as BEIR's table, which `read_qrels` reads.

    Raises:
        InvalidInput: an id holds a tab or a line break.
    """
    lines = ["query-id\tcorpus-id\tscore"]
    for query, judged in qrels.items():
        for document, relevance in judged.items():
            if any(sign in name for name in (query, document) for sign in "\t\n\r"):
                raise InvalidInput(
                    f"the ids {query!r} and {document!r} cannot be written: one holds a tab or a line break"
                )
            lines.append(f"{query}\t{document}\t{relevance}")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_run(path: str | Path, run: Run, tag: str) -> None:
    """Write a run as TREC reads it: ``query Q0 document rank score tag``, ranks from 1.

    Raises:
        InvalidInput: an id or the tag is empty or holds white space, which separates the fields;
            nothing is written.
    """
    for kind, value in _words(run, tag):
        if not value or any(sign.isspace() for sign in value):
            raise InvalidInput(
                f"{kind} {value!r} is empty or holds white space, which a TREC run cannot hold"
            )
    with Path(path).open("w", encoding="utf-8", newline="\n") as stream:
        for query, ranking in run.items():
            for rank, (document, score) in enumerate(ranking, 1):
                stream.write(f"{query} Q0 {document} {rank} {score:.7f} {tag}\n")


def _words(run: Run, tag: str) -> Iterator[tuple[str, str]]:
    yield "the tag", tag
    for query, ranking in run.items():
        yield "query id", query
        for document, _ in ranking:
            yield "document id", document
