"""Embedding spaces as the database keeps them: what makes their vectors, their table, and their state.

A collection is searched by one space, its active one. Others may stand beside it, which every write keeps
complete: one that is being built, and those that were active before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from pgseek.embedders.base import PROBES, Embedder, Vectors, check_probe, identity_hash
from pgseek.errors import EmbedderError, InvalidInput
from pgseek.steps import Script, embed_query, fetch, fetch_one, start_embedding, wait_for
from pgseek.types import (
    CollectionId,
    CollectionInfo,
    EmbedderIdentity,
    InputType,
    SpaceId,
    SpaceInfo,
    SpaceState,
)
from pgseek.vectors import Metric, Storage, VectorIndex

# Vectors, float32 (d,), by input type and text.
Fingerprint = Mapping[tuple[InputType, str], Vectors]
# What is embedded for one.
FINGERPRINT: tuple[tuple[InputType, str], ...] = (
    *(("document", text) for text in PROBES),
    ("query", PROBES[1]),
)

# Columns of a space s, as `space_of` reads them.
COLUMNS = (
    "s.space_id, s.collection_id, s.provider, s.model, s.revision, s.dimensions, s.normalized, s.prompts,"
    " s.identity, s.metric, s.storage, s.indexing, s.searching, s.state, s.created_at, s.activated_at"
)


def space_of(row: Mapping[str, Any], **counts: int | None) -> SpaceInfo:
    """Return the space of a row with `COLUMNS`."""
    return SpaceInfo(
        space_id=SpaceId(row["space_id"]),
        collection_id=CollectionId(row["collection_id"]),
        identity=EmbedderIdentity(
            provider=row["provider"],
            model=row["model"],
            dimensions=row["dimensions"],
            normalized=row["normalized"],
            query_prompt=row["prompts"]["query"],
            document_prompt=row["prompts"]["document"],
            revision=row["revision"],
        ),
        identity_hash=row["identity"],
        metric=row["metric"],
        storage=row["storage"],
        index=VectorIndex.parse(row["indexing"]),
        searching=row["searching"],
        state=row["state"],
        created_at=row["created_at"],
        activated_at=row["activated_at"],
        **counts,
    )


def describe(identity: EmbedderIdentity, metric: Metric = "cosine") -> str:
    """Return what made vectors as messages name it, as pgseek.describe_space does: all that is not usual."""
    parts = [str(identity)]
    if identity.revision:
        parts.append(f" of revision {identity.revision!r}")
    if metric != "cosine":
        parts.append(f" by {metric}")
    for kind, prompt in (("query", identity.query_prompt), ("document", identity.document_prompt)):
        if prompt:
            parts.append(f", {kind} prompt {prompt!r}")
    if not identity.normalized:
        parts.append(", not of unit length")
    return "".join(parts)


def table_of(space_id: int) -> Identifier:
    """Return the table of a space's vectors."""
    return Identifier("pgseek", f"embeddings_{space_id}")


def fingerprint(
    embedder: Embedder, texts: Collection[tuple[InputType, str]] = FINGERPRINT
) -> Script[Fingerprint]:
    """Embed a few fixed texts, as documents and one as a query: what a model is known by later.

    Also tells whether the embedder works, and whether its vectors are as it says.

    Raises:
        EmbedderError.
    """
    found: dict[tuple[InputType, str], Vectors] = {}
    documents = [text for input_type, text in texts if input_type == "document"]
    if documents:
        outcome = yield from wait_for((yield from start_embedding(embedder, documents)))
        if outcome.error is not None:
            raise outcome.error
        for place, reason in outcome.refused.items():
            raise EmbedderError(f"{embedder.model_id} refused the text {documents[place]!r}: {reason}")
        check_probe(embedder, outcome.vectors)
        found.update((("document", t), v) for t, v in zip(documents, outcome.vectors, strict=True))
    for input_type, text in texts:
        if input_type == "query":
            found[input_type, text] = yield from embed_query(embedder, text)
    return found


def insert(
    collection_id: int,
    identity: EmbedderIdentity,
    metric: Metric,
    storage: Storage,
    index: VectorIndex,
    state: SpaceState,
    probes: Fingerprint,
) -> Script[SpaceId]:
    """Make a space and its table, in the transaction of the caller."""
    row = yield from fetch_one(
        "INSERT INTO pgseek.embedding_spaces (collection_id, provider, model, revision, dimensions, metric,"
        " storage, prompts, normalized, identity, indexing, state, activated_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
        " CASE WHEN %s THEN now() END) RETURNING space_id",
        [
            collection_id,
            identity.provider,
            identity.model,
            identity.revision,
            identity.dimensions,
            metric,
            storage,
            Jsonb({"query": identity.query_prompt, "document": identity.document_prompt}),
            identity.normalized,
            identity_hash(identity),
            Jsonb(index.to_json()),
            state,
            state == "active",
        ],
    )
    space_id = SpaceId(row["space_id"] if row else 0)
    yield from keep_fingerprint(space_id, probes)
    yield from vector_on_path()
    from pgseek.db import models  # noqa: PLC0415 (SQLAlchemy takes a while to load)

    ddl: Any = models.create_table_ddl(space_id, identity.dimensions, storage)
    yield from fetch(ddl)
    yield from fetch("SELECT pgseek.protect(%s::regclass)", [f"pgseek.embeddings_{space_id}"])
    return space_id


def grant_as(space_id: int, to: int) -> Script[None]:
    """Give everybody the rights on the table of the space ``to`` that they have on that of another."""
    rows = yield from fetch(
        "SELECT format('GRANT %%s ON pgseek.%%I TO %%s%%s', a.privilege_type, %(to)s::text,"
        " CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,"
        " CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END) AS statement"
        " FROM pg_class t, aclexplode(coalesce(t.relacl, acldefault('r', t.relowner))) AS a"
        " WHERE t.oid = to_regclass(%(as)s) AND pg_get_userbyid(a.grantee) <> current_user",
        {"as": f"pgseek.embeddings_{space_id}", "to": f"embeddings_{to}"},
    )
    for row in rows:
        yield from fetch(row["statement"])


def stored_fingerprint(space_id: int) -> Script[Fingerprint]:
    """Return what a space's model is known by; empty for a space that was made before revision 0006."""
    rows = yield from fetch(
        "SELECT input_type, text, embedding FROM pgseek.space_probes WHERE space_id = %s"
        " ORDER BY input_type, text",
        [space_id],
    )
    return {(row["input_type"], row["text"]): row["embedding"].to_numpy() for row in rows}


def keep_fingerprint(space_id: int, probes: Fingerprint) -> Script[None]:
    """Store what a space's model is known by, in the transaction of the caller."""
    for (input_type, text), vector in probes.items():
        yield from fetch(
            "INSERT INTO pgseek.space_probes (space_id, input_type, text, embedding) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (space_id, input_type, text) DO UPDATE SET embedding = excluded.embedding",
            [space_id, input_type, text, vector],
        )


def find(info: CollectionInfo, space: int | str) -> Script[SpaceInfo]:
    """Return a space of a collection by its number, or by its model where only one has it.

    Raises:
        InvalidInput: there is none, or more than one; the message lists them.
    """
    every = yield from list_all(info)
    text = str(space).removeprefix("#")
    found = [one for one in every if text == str(one.space_id)]
    if not found:
        live = [one for one in every if one.state != "retired"]
        names = [(one, (str(one.identity), f"{one.identity.provider}:{one.identity.model}")) for one in live]
        found = [one for one, known in names if text in known]
    if len(found) == 1:
        return found[0]
    there = "; ".join(f"{one.space_id}: {one} ({one.state})" for one in every if one.state != "retired")
    if found:
        raise InvalidInput(
            f"collection {info.name!r} has several embedding spaces called {space!r}; use a number of {there}"
        )
    raise InvalidInput(f"collection {info.name!r} has no embedding space {space!r}; it has {there}")


def list_all(info: CollectionInfo) -> Script[list[SpaceInfo]]:
    """Return every space of a collection, the retired ones included, by number."""
    rows = yield from fetch(
        SQL("SELECT {} FROM pgseek.embedding_spaces s WHERE s.collection_id = %s ORDER BY s.space_id").format(
            SQL(COLUMNS)
        ),
        [info.collection_id],
    )
    return [space_of(row) for row in rows]


def show(info: CollectionInfo, space: int | str) -> Script[SpaceInfo]:
    """Return a space as `find` does, with counts."""
    return (yield from with_counts((yield from find(info, space))))


def described(info: CollectionInfo) -> Script[list[SpaceInfo]]:
    """Return every space of a collection, by number, with counts."""
    found = []
    for space in (yield from list_all(info)):
        found.append((yield from with_counts(space)))
    return found


def by_id(space_id: int) -> Script[SpaceInfo | None]:
    """Return a space as it stands now, None if there is none of this number."""
    row = yield from fetch_one(
        SQL("SELECT {} FROM pgseek.embedding_spaces s WHERE s.space_id = %s").format(SQL(COLUMNS)), [space_id]
    )
    return None if row is None else space_of(row)


def live(collection_id: int) -> Script[list[SpaceInfo]]:
    """Return the spaces that writes go to, the active one first."""
    rows = yield from fetch(
        SQL(
            "SELECT {} FROM pgseek.embedding_spaces s WHERE s.collection_id = %s AND s.state <> 'retired'"
            " ORDER BY s.state <> 'active', s.space_id"
        ).format(SQL(COLUMNS)),
        [collection_id],
    )
    return [space_of(row) for row in rows]


def with_vectors(info: CollectionInfo, space: int | str | None) -> Script[SpaceInfo]:
    """Return a space of the collection, by default the active one; `InvalidInput` for a retired one."""
    found = info.space if space is None else (yield from find(info, space))
    if found.state == "retired":
        raise InvalidInput(
            f"space {found.space_id} of collection {info.name!r} is retired: its vectors are gone"
        )
    return found


def numbers(value: Any) -> Vectors:
    """Return a vector, or half-vector, as it was fetched: float32 (d,)."""
    given = value.to_numpy() if hasattr(value, "to_numpy") else value
    found: Vectors = np.asarray(given, dtype=np.float32)
    return found


def with_counts(space: SpaceInfo) -> Script[SpaceInfo]:
    """Return a space with its numbers of rows and of chunks without a vector, and its sizes on disk."""
    if space.state == "retired":
        return space
    table = table_of(space.space_id)
    row = yield from fetch_one(
        SQL(
            "SELECT (SELECT count(*) FROM {table}) AS rows,"
            " (SELECT count(*) FROM pgseek.chunks c WHERE c.collection_id = %(collection)s AND NOT EXISTS"
            " (SELECT FROM {table} e WHERE e.collection_id = c.collection_id"
            " AND e.document_id = c.document_id AND e.ordinal = c.ordinal)) AS missing,"
            " pg_table_size(%(table)s::regclass) AS table_bytes,"
            " pg_indexes_size(%(table)s::regclass) AS index_bytes"
        ).format(table=table),
        {"collection": space.collection_id, "table": f"pgseek.embeddings_{space.space_id}"},
    )
    values = {name: getattr(space, name) for name in SpaceInfo.__dataclass_fields__}
    return SpaceInfo(**{**values, **(row or {})})


def index_name(space: SpaceInfo) -> str:
    """Return the name of a space's index."""
    return f"embeddings_{space.space_id}_{space.index.method}"


def vector_on_path(*, for_session: bool = False) -> Script[None]:
    """Put pgvector's schema on the search path for the transaction: DDL names its types bare."""
    yield from fetch(
        "SELECT set_config('search_path', quote_ident(n.nspname), %s) FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'",
        [not for_session],
    )


def vector_schema() -> Script[str]:
    """Return the name of the schema that pgvector is installed in, unquoted."""
    row = yield from fetch_one(
        "SELECT n.nspname AS name FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " WHERE e.extname = 'vector'"
    )
    return str(row["name"]) if row else "public"


def drop_tables(space_ids: Sequence[int]) -> Script[None]:
    """Drop the tables of spaces."""
    for space_id in space_ids:
        yield from fetch(SQL("DROP TABLE IF EXISTS {}").format(table_of(space_id)))


def set_calibration(info: CollectionInfo, values: Mapping[str, float] | None) -> Script[None]:
    """Store by what numbers the relevance of a hit is estimated, or that it is not."""
    yield from fetch(
        "UPDATE pgseek.embedding_spaces SET searching = (searching - 'calibration') || %s WHERE space_id = %s"
        " RETURNING space_id",
        [Jsonb({} if values is None else {"calibration": dict(values)}), info.space_id],
    )


def threshold(info: CollectionInfo, purpose: str, space: int | None = None) -> Script[float]:
    """Return the threshold that a space, by default the active one, keeps for a purpose.

    Raises:
        InvalidInput: it keeps none.
    """
    number = info.space_id if space is None else space
    row = yield from fetch_one(
        "SELECT (searching #>> ARRAY['thresholds', %s, 'similarity'])::float8 AS value"
        " FROM pgseek.embedding_spaces WHERE space_id = %s AND collection_id = %s",
        [purpose, number, info.collection_id],
    )
    if row is None or row["value"] is None:
        raise InvalidInput(
            f"space {number} of collection {info.name!r} keeps no threshold for {purpose!r}; find one with "
            f"pgseek threshold {info.name} --for {purpose}"
        )
    return float(row["value"])
