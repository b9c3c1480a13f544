"""What of a document is embedded and searched: its chunks, and the questions and summaries written for them.

Each row has a text that the model can read whole, or one that is read in parts, or cut, as the collection's
``long_texts`` says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

from pgseek.chunking import chunk_text, cut_text, divide
from pgseek.embedders.base import Embedder
from pgseek.embedders.remote import RemoteEmbedder
from pgseek.errors import InvalidInput
from pgseek.generators.base import GeneratedKind, Request
from pgseek.prepare import Prepared
from pgseek.types import LONG_TEXTS, Chunk, Rejection

# Where tokens cannot be counted: words, numbers, and every other sign or letter by itself.
PIECES = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")
ESTIMATE_MARGIN = 1.15
# Between the title and the headings that a chunk stands under.
PATH = " › "
# Headings that take more than this share of what the model reads are left out.
HEADING_SHARE = 4


@dataclass(frozen=True, slots=True)
class Passage:
    """A row: what is read before it, and the key of its text, the SHA-256 of what is embedded."""

    chunk: Chunk
    title: str
    key: bytes


@dataclass(slots=True)
class Passages:
    """The rows of a batch. Texts are known by their SHA-256."""

    documents: Sequence[Prepared]
    rows: dict[UUID, list[Passage]] = field(default_factory=dict)
    texts: dict[bytes, str] = field(default_factory=dict)
    # The texts that a row is embedded in, where the model does not read it whole.
    parts: dict[bytes, list[bytes]] = field(default_factory=dict)
    # Why a document has no rows.
    unfit: dict[UUID, str] = field(default_factory=dict)

    def add(self, document: UUID, chunk: Chunk, title: str, read: Sequence[str]) -> None:
        """Add a row that is embedded in these texts, in one as a rule."""
        keys = [hashlib.sha256(text.encode()).digest() for text in read]
        self.texts.update(zip(keys, read, strict=True))
        if len(keys) > 1:
            keys = [hashlib.sha256(b"".join(keys)).digest(), *keys]
            self.parts[keys[0]] = keys[1:]
        self.rows[document].append(Passage(chunk, title, keys[0]))

    def refuse(self, document: UUID, reason: str) -> None:
        """Note why a document is not stored."""
        self.unfit[document] = reason
        self.rows[document] = []


def embedding_text(title: str, chunk: str) -> str:
    """Return what is embedded for a chunk: what is read before it, then its own text."""
    return f"{title}\n\n{chunk}" if title else chunk


def heading_title(title: str, heading: Sequence[str]) -> str:
    """Return the title of a document with the headings that a chunk stands under: "Guide › Install"."""
    # A page's first heading is its title, as a rule.
    same = bool(heading) and heading[0].casefold() == title.strip().casefold()
    return PATH.join([*([title] if title else []), *(heading[1:] if same else heading)])


def rejections(documents: Iterable[Prepared], reasons: Mapping[UUID, str]) -> list[Rejection]:
    """Return a rejection for each document that has a reason."""
    return [
        Rejection(d.position, d.external_id, reasons[d.document_id], d.source)
        for d in documents
        if d.document_id in reasons
    ]


def divide_documents(passages: Passages, settings: Mapping[str, Any], embedder: Embedder) -> None:
    """Divide the documents into chunks that the model can read whole, or as ``long_texts`` says."""
    with_heading = settings.get("heading_context", False)
    how = settings.get("long_texts", "average")
    made: list[tuple[Prepared, list[tuple[Chunk, str]]]] = []
    for document in passages.documents:
        passages.rows[document.document_id] = []
        try:
            chunks = chunk_text(
                document.body,
                settings["chunk_size"],
                settings["chunk_overlap"],
                document.format,
                settings.get("section_size", 0),
            )
        except InvalidInput as error:
            # Written through SQL, where formats are not looked at.
            passages.refuse(document.document_id, str(error))
            continue
        titles = [
            heading_title(document.title, c.heading) if with_heading else document.title for c in chunks
        ]
        made.append((document, list(zip(chunks, titles, strict=True))))
    limit = getattr(embedder, "max_tokens", None)
    longer = _longer(embedder, made, limit) if limit is not None else {}
    for document, rows in made:
        flags = longer.get(document.document_id)
        if flags is None or limit is None:
            for chunk, title in rows:
                passages.add(document.document_id, chunk, title, [embedding_text(title, chunk.text)])
        else:
            _fit(passages, document, rows, flags, _Reader(embedder, limit, how))


def read_stored(
    passages: Passages,
    stored: Mapping[UUID, Sequence[tuple[Chunk, str]]],
    long_texts: str,
    embedder: Embedder,
) -> None:
    """Add rows that are stored already, each with its title, to be read by another embedder than theirs.

    Chunks stay as they are: one that is longer than this embedder reads is read in parts, or cut where the
    collection cuts. A document of which not every row can be read is refused.
    """
    limit = getattr(embedder, "max_tokens", None)
    how = "truncate" if long_texts == "truncate" else "average"
    reader = _Reader(embedder, limit, how) if limit is not None else None
    for document, rows in stored.items():
        passages.rows[document] = []
        texts = [embedding_text(title, chunk.text) for chunk, title in rows]
        over = reader.too_long(texts) if reader is not None else [False] * len(texts)
        for (chunk, title), text, too_long in zip(rows, texts, over, strict=True):
            read = [text]
            if too_long and reader is not None:
                parts = reader.read(chunk, title)[0][1]
                if any(not part or tokens > reader.limit for tokens, part in parts):
                    tokens = reader.length(title, chunk.text)
                    reason = f"chunk {chunk.ordinal} has {tokens:,} tokens with its title, but"
                    passages.refuse(document, f"{reason} {embedder.model_id} reads {reader.limit:,}")
                    break
                read = [embedding_text(title, part) for _, part in parts]
            passages.add(document, chunk, title, read)


def requests_for(
    passages: Passages, kinds: Sequence[tuple[GeneratedKind, int]]
) -> dict[UUID, list[tuple[Passage, Request]]]:
    """Return what is to be written for the chunks of each document."""
    return {
        document: [
            (row, Request(kind, row.chunk.text, row.title, count)) for row in rows for kind, count in kinds
        ]
        for document, rows in passages.rows.items()
        if rows
    }


def add_written(
    passages: Passages,
    embedder: Embedder,
    document: UUID,
    asked: Sequence[tuple[Passage, Request]],
    written: Mapping[Request, tuple[str, ...]],
) -> None:
    """Add the questions and summaries that were written for a document's chunks, after the chunks."""
    limit = getattr(embedder, "max_tokens", None)
    # A summary that is too long is no reason to refuse a document.
    reader = _Reader(embedder, limit, "average") if limit is not None else None
    for row, request in asked:
        for text in written.get(request, ()):
            chunk = replace(
                row.chunk,
                ordinal=len(passages.rows[document]),
                text=text,
                # Nothing is written for queries here.
                kind=cast("GeneratedKind", request.kind),
                of_ordinal=row.chunk.ordinal,
            )
            # It is read as it is: a question is compared with questions.
            read = [text]
            if reader is not None and reader.too_long([text])[0]:
                read = [part for _, part in reader.read(chunk, "")[0][1]]
            passages.add(document, chunk, "", read)


class _Reader:
    """What an embedder reads of a text: at most ``limit`` tokens, title and prompt included."""

    def __init__(self, embedder: Embedder, limit: int, how: str) -> None:
        self.limit = limit
        self.how = how
        self.model_id = embedder.model_id
        self._count = _counter(embedder)

    def too_long(self, texts: Sequence[str]) -> list[bool]:
        """Return which texts are longer than the model reads."""
        # A token has at least one byte: most texts need no counting.
        suspects = [n for n, text in enumerate(texts) if len(text) * 4 > self.limit]
        counts = self._count([texts[n] for n in suspects])
        over = {n for n, count in zip(suspects, counts, strict=True) if count > self.limit}
        return [n in over for n in range(len(texts))]

    def length(self, title: str, text: str) -> int:
        """Return the tokens of a text with what is read before it."""
        return self._count([embedding_text(title, text)])[0]

    def read(self, chunk: Chunk, title: str) -> list[tuple[Chunk, list[tuple[int, str]]]]:
        """Return the chunks that stand for one that is too long, each with the texts read of it, measured."""

        def length(text: str) -> int:
            return self.length(title, text)

        def measured(texts: Sequence[str]) -> list[tuple[int, str]]:
            return [(length(text), text) for text in texts]

        if self.how == "refuse":
            return [(chunk, measured([chunk.text]))]
        if self.how == "truncate":
            return [(chunk, measured([cut_text(chunk.text, self.limit, length)]))]
        # Every piece is read with the title: beside one of half the model's length they would be too many.
        pieces = divide(chunk, self.limit, length) if 2 * length("") <= self.limit else [chunk]
        if self.how == "chunk":
            return [(piece, measured([piece.text])) for piece in pieces]
        return [(chunk, measured([piece.text for piece in pieces]))]


def _longer(
    embedder: Embedder, made: Sequence[tuple[Prepared, list[tuple[Chunk, str]]]], limit: int
) -> Mapping[UUID, list[bool]]:
    """Return, for documents with chunks longer than the model reads, which chunks are."""
    texts = [(d.document_id, embedding_text(title, c.text)) for d, rows in made for c, title in rows]
    over = _Reader(embedder, limit, "").too_long([text for _, text in texts])
    found: dict[UUID, list[bool]] = {}
    for (i, _), too_long in zip(texts, over, strict=True):
        found.setdefault(i, []).append(too_long)
    return {i: flags for i, flags in found.items() if any(flags)}


def _fit(
    passages: Passages,
    document: Prepared,
    rows: Sequence[tuple[Chunk, str]],
    over: Sequence[bool],
    reader: _Reader,
) -> None:
    """Make a document's chunks fit the model, or refuse the document."""
    i = document.document_id
    made: list[tuple[Chunk, str, list[str]]] = []
    for (chunk, heading), too_long in zip(rows, over, strict=True):
        if not too_long:
            made.append((chunk, heading, [chunk.text]))
            continue
        crowded = heading != document.title and reader.length(heading, "") * HEADING_SHARE > reader.limit
        title = document.title if crowded else heading
        for piece, read in reader.read(chunk, title):
            if any(not text or tokens > reader.limit for tokens, text in read):
                passages.refuse(
                    i,
                    f"a chunk has {reader.length(title, piece.text):,} tokens with its title, but "
                    f"{reader.model_id} reads {reader.limit:,}; long_texts is {reader.how!r} "
                    f"({', '.join(LONG_TEXTS)})",
                )
                return
            made.append((piece, title, [text for _, text in read]))
    for ordinal, (chunk, title, texts) in enumerate(made):
        read_texts = [embedding_text(title, text) for text in texts]
        passages.add(i, replace(chunk, ordinal=ordinal), title, read_texts)


def _counter(embedder: Any) -> Callable[[Sequence[str]], list[int]]:
    count: Callable[[Sequence[str]], list[int]] | None = getattr(embedder, "count_tokens", None)
    if count is not None and getattr(embedder, "exact_tokens", False):
        return count
    # A service's estimate learns: it would divide a text otherwise each time, and its parts be paid again.
    if count is None or isinstance(embedder, RemoteEmbedder):
        prompt = embedder.identity.document_prompt
        return lambda texts: [_estimated(prompt + text) for text in texts]
    return lambda texts: [int(tokens * ESTIMATE_MARGIN) + 1 for tokens in count(texts)]


def _estimated(text: str) -> int:
    """Return about how many tokens a text has, on the safe side.

    Seven letters or three digits are one, and each other sign is; tokenizers of today need fewer for prose.
    """
    tokens = 0
    for run in PIECES.finditer(text):
        letters = run[0]
        tokens += -(-len(letters) // (3 if letters[0].isdigit() else 7))
    return int(tokens * ESTIMATE_MARGIN) + 1
