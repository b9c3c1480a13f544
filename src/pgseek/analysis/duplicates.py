"""Duplicates: the same text, nearly the same text, and groups of both.

Near duplicates are found by an embedding self-join that walks the space's index, and a look at the letters of
what it brings. The work is kept in the database, so it can break off at any time; a later run looks at what
is new or has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from psycopg.sql import SQL

from pgseek import spaces
from pgseek.analysis import fields
from pgseek.analysis.collection import Analysed, Progress
from pgseek.analysis.groups import Groups
from pgseek.analysis.overlap import MOST, overlap
from pgseek.errors import InvalidInput
from pgseek.steps import Script, Stop, fetch, fetch_one, transact
from pgseek.syncing import delete_by_id
from pgseek.types import CollectionInfo, SpaceId

# What counts as a duplicate where the space has no threshold of its own: see docs/duplicates.md.
DEFAULT_SIMILARITY = 0.95
DEFAULT_OVERLAP = 0.9
# Documents that are looked at in one transaction, and rows that are read at once.
BATCH = 100
PAGE = 5000
NEIGHBOURS = 10

_IS_DUE = """
       d.collection_id = %(collection)s AND NOT EXISTS (
       SELECT FROM pgseek.duplicate_scans s
        WHERE s.collection_id = d.collection_id AND s.space_id = %(space)s AND s.document_id = d.document_id
          AND s.content_hash = d.content_hash AND s.min_similarity <= %(least)s)
   AND EXISTS (SELECT FROM {table} e
                WHERE e.collection_id = d.collection_id AND e.document_id = d.document_id)
"""
_DUE = f"""
SELECT d.document_id, d.content_hash FROM pgseek.documents d WHERE {_IS_DUE} AND d.document_id > %(after)s
 ORDER BY d.document_id LIMIT %(most)s
"""  # noqa: S608 (constants of this module)
_COUNT_DUE = f"SELECT count(*) AS due FROM pgseek.documents d WHERE {_IS_DUE}"  # noqa: S608 (as above)
# Scans of documents that are not as they were, and of spaces that are retired.
_STALE = """
SELECT s.space_id, s.document_id FROM pgseek.duplicate_scans s
 WHERE s.collection_id = %(collection)s AND (s.space_id, s.document_id) > (%(of)s, %(after)s) AND (
       NOT EXISTS (SELECT FROM pgseek.documents d WHERE d.collection_id = s.collection_id
                      AND d.document_id = s.document_id AND d.content_hash = s.content_hash)
       OR NOT EXISTS (SELECT FROM pgseek.embedding_spaces e
                       WHERE e.space_id = s.space_id AND e.state <> 'retired'))
 ORDER BY s.space_id, s.document_id LIMIT %(most)s
"""
_CHANGED = """
SELECT s.document_id FROM pgseek.duplicate_scans s
  JOIN unnest(%(ids)s::uuid[], %(hashes)s::bytea[]) AS u (document_id, content_hash)
    ON u.document_id = s.document_id AND u.content_hash <> s.content_hash
 WHERE s.collection_id = %(collection)s AND s.space_id = %(space)s
"""
_FORGET = (
    "DELETE FROM pgseek.duplicate_pairs WHERE collection_id = %(collection)s AND space_id = %(space)s"
    " AND document_id = ANY (%(ids)s)",
    "DELETE FROM pgseek.duplicate_pairs WHERE collection_id = %(collection)s AND space_id = %(space)s"
    " AND other_id = ANY (%(ids)s)",
    "DELETE FROM pgseek.duplicate_scans WHERE collection_id = %(collection)s AND space_id = %(space)s"
    " AND document_id = ANY (%(ids)s)",
)
_TEXTS = """
SELECT d.document_id, d.title, left(d.body, %(most)s) AS body FROM pgseek.documents d
 WHERE d.collection_id = %(collection)s AND d.document_id = ANY (%(ids)s)
"""
_PUT_PAIRS = """
INSERT INTO pgseek.duplicate_pairs AS p (collection_id, space_id, document_id, other_id, similarity, overlap,
    apart)
SELECT %(collection)s, %(space)s, u.document_id, u.other_id, u.similarity, u.overlap,
       pgseek.tell_apart(u.title, u.other_title) IS NOT NULL
  FROM unnest(%(ids)s::uuid[], %(others)s::uuid[], %(similarities)s::float8[], %(overlaps)s::real[],
              %(titles)s::text[], %(other_titles)s::text[])
       AS u (document_id, other_id, similarity, overlap, title, other_title)
 ORDER BY u.document_id, u.other_id
ON CONFLICT (collection_id, space_id, document_id, other_id)
DO UPDATE SET similarity = excluded.similarity, overlap = excluded.overlap, apart = excluded.apart
"""
_PUT_SCANS = """
INSERT INTO pgseek.duplicate_scans AS s (collection_id, space_id, document_id, content_hash, min_similarity)
SELECT %(collection)s, %(space)s, u.document_id, u.content_hash, %(least)s
  FROM unnest(%(ids)s::uuid[], %(hashes)s::bytea[]) AS u (document_id, content_hash) ORDER BY u.document_id
ON CONFLICT (collection_id, space_id, document_id)
DO UPDATE SET content_hash = excluded.content_hash, min_similarity = excluded.min_similarity
"""
# Of documents that are as they were when they were looked at.
_PAIRS = """
SELECT p.document_id, p.other_id, p.similarity, p.overlap FROM pgseek.duplicate_pairs p
  JOIN pgseek.documents d ON d.collection_id = p.collection_id AND d.document_id = p.document_id
  JOIN pgseek.documents o ON o.collection_id = p.collection_id AND o.document_id = p.other_id
  JOIN pgseek.duplicate_scans s ON s.collection_id = p.collection_id AND s.space_id = p.space_id
   AND s.document_id = p.document_id AND s.content_hash = d.content_hash
  JOIN pgseek.duplicate_scans t ON t.collection_id = p.collection_id AND t.space_id = p.space_id
   AND t.document_id = p.other_id AND t.content_hash = o.content_hash
 WHERE p.collection_id = %(collection)s AND p.space_id = %(space)s AND p.similarity >= %(similarity)s
   AND p.overlap >= %(overlap)s AND NOT (p.apart AND %(guard)s)
   AND (p.document_id, p.other_id) > (%(after)s, %(after_other)s)
 ORDER BY p.document_id, p.other_id LIMIT %(most)s
"""
_OF_FIRSTS = """
SELECT p.document_id, p.other_id, p.similarity, p.overlap FROM pgseek.duplicate_pairs p
 WHERE p.collection_id = %(collection)s AND p.space_id = %(space)s
   AND (p.document_id = ANY (%(firsts)s) OR p.other_id = ANY (%(firsts)s))
"""
_EXACT = """
SELECT array_agg(d.document_id ORDER BY d.created_at, d.document_id) AS ids FROM pgseek.documents d
 WHERE d.collection_id = %(collection)s GROUP BY d.content_hash HAVING count(*) > 1
"""
_PASSAGES = """
SELECT count(*) AS chunks, count(DISTINCT c.document_id) AS documents,
       (array_agg(DISTINCT c.document_id))[:%(shown)s] AS ids, min(left(c.text, %(letters)s)) AS text
  FROM pgseek.chunks c
 WHERE c.collection_id = %(collection)s AND c.kind = 'chunk' AND length(c.text) >= %(least)s
 GROUP BY c.text_hash HAVING count(DISTINCT c.document_id) > 1
 ORDER BY count(DISTINCT c.document_id) DESC, c.text_hash LIMIT %(most)s
"""
_DESCRIBE = """
SELECT d.document_id, d.external_id, d.created_at, d.content_hash, d.title FROM pgseek.documents d
 WHERE d.collection_id = %s AND d.document_id = ANY (%s)
"""
_LOW = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Member:
    """A document of a group.

    ``similarity`` and ``overlap`` are those of the pair with the representative; None if the two were joined
    by way of others. An exact copy has 1 and 1.
    """

    id: str
    title: str
    similarity: float | None
    overlap: float | None
    content_hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Documents that are one, directly or by way of others; at least two.

    The first is the representative: the one with the highest sum of similarities to the others, of equal ones
    the one stored first, then by id. ``least_similarity`` is the lowest of the pairs that make the group: one
    well below the others means a chain.
    """

    members: tuple[Member, ...]
    exact: bool
    least_similarity: float

    @property
    def representative(self) -> str:
        """The id of the document that stands for the group."""
        return self.members[0].id


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What `find_duplicates` found, with what counted as a pair; largest groups first, then by id.

    ``documents`` are the collection's, of which ``looked_at`` were compared by this run, ``waiting`` have no
    vector yet, and all others had been compared before. ``pairs`` counts near ones. With ``complete`` False
    the run was stopped.
    """

    collection: str
    space_id: int | None
    min_similarity: float
    min_overlap: float
    documents: int
    looked_at: int
    waiting: int
    pairs: int
    complete: bool
    groups: tuple[DuplicateGroup, ...]

    @property
    def surplus(self) -> int:
        """How many documents are not representatives: what `delete_duplicates` deletes."""
        return sum(len(group.members) - 1 for group in self.groups)


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk's text that several documents have, word for word: some of their ids, and how it begins."""

    documents: int
    chunks: int
    ids: tuple[str, ...]
    text: str


def find_duplicates(
    collection: Analysed,
    *,
    min_similarity: float | None = None,
    min_overlap: float = DEFAULT_OVERLAP,
    guard: bool = True,
    space: int | str | None = None,
    exact_only: bool = False,
    again: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Duplicates:
    """Find documents that say the same, and group them.

    Two are a pair if their texts are equal; or if the cosine of their vectors (of several chunks: of their
    mean) is ``min_similarity`` or more, and of the shorter one's letter trigrams the longer one has the share
    ``min_overlap`` (0..1; 0 leaves the letters out of account), and if, with ``guard``, nothing in their
    titles tells them apart: other numbers, identifiers, negations, names. ``min_similarity`` is by default
    the space's threshold for 'deduplication', or else 0.95. ``exact_only`` looks at equal texts alone, and
    needs no vectors. ``again`` forgets what earlier runs found in this space.

    The role needs to own the tables. A run that was ``stop``ped, or killed, is gone on with by the next.

    Raises:
        InvalidInput, DatabaseError.
    """
    _check_share("min_overlap", min_overlap, 0)
    if min_similarity is not None:
        _check_share("min_similarity", min_similarity, -1)
    info = collection.info()
    run = collection._client._run
    if exact_only:
        exact: Duplicates = run(_grouped(info, None, 1.0, 1.0, True, 0, True))
        return exact
    of = run(spaces.with_vectors(info, space))
    least = min_similarity
    if least is None:
        stored = of.searching.get("thresholds", {}).get("deduplication", {})
        least = float(stored.get("similarity", DEFAULT_SIMILARITY))
    scan = _Scan(info.collection_id, of.space_id, float(least))
    if again:
        run(scan.forget_all())
    run(scan.sweep())
    looked_at, complete = run(scan.walk(progress, stop))
    made: Duplicates = run(_grouped(info, of.space_id, least, min_overlap, guard, looked_at, complete))
    return made


def exact_duplicates(collection: Analysed) -> Duplicates:
    """Find documents with the same title and text, by their hashes."""
    return find_duplicates(collection, exact_only=True)


def repeated_passages(collection: Analysed, *, min_length: int = 40, most: int = 100) -> list[Passage]:
    """Return texts of chunks that more than one document has, word for word, those of most documents first.

    Texts of fewer than ``min_length`` characters are left out; of each, 10 documents are named.
    """
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 100_000:
        raise InvalidInput(f"most is {most!r}, but must be a whole number from 1 to 100,000")
    info = collection.info()
    script = _passages(info.collection_id, min_length, most)
    found: list[Passage] = collection._client._run(script)
    return found


def write_representatives(
    collection: Analysed, found: Duplicates, field: str, *, progress: Progress | None = None
) -> int:
    """Put the representative's id into the metadata of each document of a group; return how many changed.

    The representative has its own id there, so a filter ``field == id`` keeps a group. Where a document is in
    no group the field is taken out. Nothing is embedded again.

    Raises:
        InvalidInput: no name of a field. DatabaseError.
    """
    if not isinstance(field, str) or not field:
        raise InvalidInput(f"the field is {field!r}, but must be a name such as 'duplicate_of'")
    info = collection.info()
    wanted = {one.id: group.representative for group in found.groups for one in group.members}
    changed: int = collection._client._run(_write(info, field, wanted, progress))
    return changed


def delete_duplicates(collection: Analysed, found: Duplicates) -> int:
    """Delete all but the representative of each group; return how many there were.

    A document that has changed since it was found is kept, and so is a whole group whose representative has
    changed or gone.
    """
    info = collection.info()
    deleted: int = collection._client._run(_delete(info, found.groups))
    return deleted


@dataclass(frozen=True, slots=True)
class _Scan:
    """The walk through one space, from one similarity on."""

    collection: int
    space: SpaceId
    least: float

    @property
    def parameters(self) -> dict[str, object]:
        return {"collection": self.collection, "space": self.space, "least": self.least}

    def forget(self, ids: Sequence[UUID], space: int | None = None) -> Script[None]:
        given = {
            "collection": self.collection,
            "space": self.space if space is None else space,
            "ids": list(ids),
        }
        for statement in _FORGET:
            yield from fetch(statement, given)

    def forget_all(self) -> Script[None]:
        def write() -> Script[None]:
            for table in ("duplicate_pairs", "duplicate_scans"):
                yield from fetch(
                    SQL("DELETE FROM pgseek.{} WHERE collection_id = %s AND space_id = %s").format(
                        SQL(table)
                    ),
                    [self.collection, self.space],
                )

        yield from transact(write)

    def sweep(self) -> Script[None]:
        """Forget documents that are gone or have changed, page by page."""
        of, after = 0, _LOW
        while True:
            rows = yield from fetch(_STALE, {**self.parameters, "of": of, "after": after, "most": PAGE})
            if not rows:
                return
            by_space: dict[int, list[UUID]] = {}
            for row in rows:
                by_space.setdefault(row["space_id"], []).append(row["document_id"])
            for space, ids in by_space.items():
                yield from transact(lambda ids=ids, space=space: self.forget(ids, space))  # type: ignore[misc]
            of, after = rows[-1]["space_id"], rows[-1]["document_id"]

    def walk(self, progress: Progress | None, stop: Stop | None) -> Script[tuple[int, bool]]:
        """Look at every document that is due; return how many, and whether that was all."""
        table = spaces.table_of(self.space)
        counted = yield from fetch_one(SQL(_COUNT_DUE).format(table=table), self.parameters)
        total = int(counted["due"]) if counted else 0
        done, after = 0, _LOW
        while stop is None or not stop.is_set():
            given = {**self.parameters, "after": after, "most": BATCH}
            due = yield from fetch(SQL(_DUE).format(table=table), given)
            if not due:
                return done, True
            hashes = {row["document_id"]: row["content_hash"] for row in due}
            yield from transact(lambda hashes=hashes: self._look(hashes))  # type: ignore[misc]
            done += len(due)
            after = due[-1]["document_id"]
            if progress is not None:
                progress("comparing", done, max(total, done))
        return done, False

    def _look(self, hashes: Mapping[UUID, bytes]) -> Script[None]:
        ids = list(hashes)
        pairs = yield from fetch(
            "SELECT document_id, other_id, similarity FROM pgseek.similar_pairs(%s, %s::uuid[], %s, %s)",
            [self.space, ids, self.least, NEIGHBOURS],
        )
        named = sorted({row[side] for row in pairs for side in ("document_id", "other_id")})
        texts: dict[UUID, str] = {}
        titles: dict[UUID, str] = {}
        for row in (yield from fetch(_TEXTS, {"collection": self.collection, "ids": named, "most": MOST})):
            texts[row["document_id"]] = f"{row['title']}\n{row['body']}"
            titles[row["document_id"]] = row["title"]
        kept = [row for row in pairs if row["document_id"] in texts and row["other_id"] in texts]
        # Those that have changed since this run began to sweep.
        changed = yield from fetch(_CHANGED, {**self.parameters, "ids": ids, "hashes": list(hashes.values())})
        yield from self.forget([row["document_id"] for row in changed])
        yield from fetch(
            _PUT_PAIRS,
            {
                **self.parameters,
                "ids": [row["document_id"] for row in kept],
                "others": [row["other_id"] for row in kept],
                "similarities": [row["similarity"] for row in kept],
                "titles": [titles[row["document_id"]] for row in kept],
                "other_titles": [titles[row["other_id"]] for row in kept],
                "overlaps": [overlap(texts[row["document_id"]], texts[row["other_id"]]) for row in kept],
            },
        )
        yield from fetch(_PUT_SCANS, {**self.parameters, "ids": ids, "hashes": list(hashes.values())})


def _grouped(
    info: CollectionInfo,
    space: SpaceId | None,
    least: float,
    min_overlap: float,
    guard: bool,
    looked_at: int,
    complete: bool,
) -> Script[Duplicates]:
    groups: Groups[UUID] = Groups()
    weight: dict[UUID, float] = {}
    lowest: dict[UUID, float] = {}
    for row in (yield from fetch(_EXACT, {"collection": info.collection_id})):
        first, *others = row["ids"]
        for one in others:
            groups.join(first, one)
        for one in row["ids"]:
            weight[one] = weight.get(one, 0.0) + len(others)
    pairs, after, after_other = 0, _LOW, _LOW
    while space is not None:
        page = yield from fetch(
            _PAIRS,
            {
                "collection": info.collection_id,
                "space": space,
                "similarity": least - 1e-6,
                "overlap": min_overlap - 1e-6,
                "guard": guard,
                "after": after,
                "after_other": after_other,
                "most": PAGE,
            },
        )
        if not page:
            break
        for row in page:
            one, other, similarity = row["document_id"], row["other_id"], row["similarity"]
            groups.join(one, other)
            for each in (one, other):
                weight[each] = weight.get(each, 0.0) + similarity
                lowest[each] = min(lowest.get(each, 1.0), similarity)
        pairs += len(page)
        after, after_other = page[-1]["document_id"], page[-1]["other_id"]
    found = []
    for members in _batches(groups.components()):
        known = yield from _described(info.collection_id, [one for group in members for one in group])
        # Whoever has been deleted meanwhile is no member.
        there = [kept for group in members if len(kept := [one for one in group if one in known]) > 1]
        firsts = [_first(group, known, weight) for group in there]
        direct: dict[tuple[UUID, UUID], tuple[float, float]] = {}
        if space is not None:
            rows = yield from fetch(
                _OF_FIRSTS, {"collection": info.collection_id, "space": space, "firsts": firsts}
            )
            for row in rows:
                direct[row["document_id"], row["other_id"]] = (row["similarity"], row["overlap"])
        for first, group in zip(firsts, there, strict=True):
            found.append(_group(first, group, known, lowest, direct))
    counted = yield from fetch_one(
        SQL(
            "SELECT count(*) AS documents, count(*) FILTER (WHERE {}) AS waiting FROM pgseek.documents d"
            " WHERE d.collection_id = %s"
        ).format(
            SQL("false")
            if space is None
            else SQL(
                "NOT EXISTS (SELECT FROM {} e WHERE e.collection_id = d.collection_id"
                " AND e.document_id = d.document_id)"
            ).format(spaces.table_of(space))
        ),
        [info.collection_id],
    )
    counts = counted or {"documents": 0, "waiting": 0}
    return Duplicates(
        collection=info.name,
        space_id=space,
        min_similarity=least,
        min_overlap=min_overlap,
        documents=counts["documents"],
        looked_at=looked_at,
        waiting=counts["waiting"],
        pairs=pairs,
        complete=complete,
        groups=tuple(sorted(found, key=lambda group: (-len(group.members), group.representative))),
    )


@dataclass(frozen=True, slots=True)
class _Known:
    id: str
    created_at: datetime
    content_hash: bytes
    title: str


def _described(collection: int, ids: Sequence[UUID]) -> Script[dict[UUID, _Known]]:
    rows = yield from fetch(_DESCRIBE, [collection, list(ids)])
    return {
        row["document_id"]: _Known(row["external_id"], row["created_at"], row["content_hash"], row["title"])
        for row in rows
    }


def _first(ids: Sequence[UUID], known: Mapping[UUID, _Known], weight: Mapping[UUID, float]) -> UUID:
    """Return the representative: the most central one, then the oldest."""
    return min(ids, key=lambda one: (-round(weight[one], 6), known[one].created_at, known[one].id))


def _group(
    first: UUID,
    ids: Sequence[UUID],
    known: Mapping[UUID, _Known],
    lowest: Mapping[UUID, float],
    direct: Mapping[tuple[UUID, UUID], tuple[float, float]],
) -> DuplicateGroup:
    members = []
    for one in sorted(ids, key=lambda one: (one != first, known[one].id)):
        pair: tuple[float | None, float | None] = (1.0, 1.0)
        if known[one].content_hash != known[first].content_hash:
            pair = direct.get((min(one, first), max(one, first)), (None, None))
        members.append(Member(known[one].id, known[one].title, pair[0], pair[1], known[one].content_hash))
    return DuplicateGroup(
        tuple(members),
        len({member.content_hash for member in members}) == 1,
        min(lowest.get(one, 1.0) for one in ids),
    )


def _batches(groups: Iterable[list[UUID]]) -> Iterator[list[list[UUID]]]:
    """Yield groups, of some thousand documents together."""
    batch: list[list[UUID]] = []
    for group in groups:
        batch.append(group)
        if sum(map(len, batch)) >= PAGE:
            yield batch
            batch = []
    if batch:
        yield batch


def _passages(collection: int, least: int, most: int) -> Script[list[Passage]]:
    rows = yield from fetch(
        _PASSAGES, {"collection": collection, "least": least, "most": most, "shown": 10, "letters": 200}
    )
    known = yield from _described(collection, [one for row in rows for one in row["ids"]])
    return [
        Passage(
            row["documents"],
            row["chunks"],
            tuple(sorted(known[one].id for one in row["ids"] if one in known)),
            row["text"],
        )
        for row in rows
    ]


def _write(
    info: CollectionInfo, name: str, wanted: Mapping[str, str], progress: Progress | None
) -> Script[int]:
    after, changed, seen = _LOW, 0, 0
    counted = yield from fetch_one(
        "SELECT count(*) AS n FROM pgseek.documents WHERE collection_id = %s", [info.collection_id]
    )
    total = int(counted["n"]) if counted else 0
    while True:
        rows = yield from fetch(
            "SELECT document_id, external_id FROM pgseek.documents"
            " WHERE collection_id = %s AND document_id > %s ORDER BY document_id LIMIT %s",
            [info.collection_id, after, PAGE],
        )
        if not rows:
            return changed
        values = {row["document_id"]: wanted.get(row["external_id"]) for row in rows}
        changed += len((yield from transact(fields.setting(info.collection_id, name, values))))
        after = rows[-1]["document_id"]
        seen += len(rows)
        if progress is not None:
            progress("writing", seen, max(total, seen))


def _delete(info: CollectionInfo, groups: Sequence[DuplicateGroup]) -> Script[int]:
    deleted = 0
    for start in range(0, len(groups), BATCH):
        deleted += yield from transact(_deleting(info, groups[start : start + BATCH]))
    return deleted


def _deleting(info: CollectionInfo, groups: Sequence[DuplicateGroup]) -> Callable[[], Script[int]]:
    def write() -> Script[int]:
        names = [one.id for group in groups for one in group.members]
        rows = yield from fetch(
            "SELECT d.external_id, d.document_id, d.content_hash FROM pgseek.documents d"
            " WHERE d.collection_id = %s AND d.document_id IN"
            " (SELECT pgseek.document_id(u) FROM unnest(%s::text[]) AS u) ORDER BY d.document_id FOR UPDATE",
            [info.collection_id, names],
        )
        now = {row["external_id"]: row for row in rows}

        def unchanged(one: Member) -> bool:
            return one.id in now and now[one.id]["content_hash"] == one.content_hash

        ids = [
            now[one.id]["document_id"]
            for group in groups
            if unchanged(group.members[0])
            for one in group.members[1:]
            if unchanged(one)
        ]
        return (yield from delete_by_id(info, sorted(ids)))

    return write


def _check_share(name: str, value: object, low: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= 1:
        raise InvalidInput(f"{name} is {value!r}, but must lie in {low:g}..1")
