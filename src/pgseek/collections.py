"""Collections: making, finding, describing and dropping them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, LiteralString

from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from pgseek import metadata_indexes, spaces
from pgseek.chunking import DEFAULT_SIZE, check_chunking
from pgseek.embedders.base import Embedder
from pgseek.embedders.catalog import fusion_defaults
from pgseek.embedders.registry import create_embedder, embedder_for, providers
from pgseek.errors import (
    CollectionExists,
    CollectionNotFound,
    InvalidInput,
    SpaceMismatch,
)
from pgseek.generators.base import TextGenerator
from pgseek.generators.registry import create_generator
from pgseek.steps import Script, fetch, fetch_one, transact
from pgseek.transactions import PATIENCE, wait_for_all
from pgseek.types import (
    LONG_TEXTS,
    CollectionId,
    CollectionInfo,
    CopyStatus,
    EmbedderIdentity,
    Search,
    check_collection_name,
)
from pgseek.vectors import VectorIndex, check_metric, index_for, storage_for

# Questions written for one chunk.
MAX_QUESTIONS = 20
# The average length that a collection begins with, until a sample has been measured.
FIRST_LENGTH = 100.0

_INFO: LiteralString = (
    f"SELECT {spaces.COLUMNS}, c.tenant, c.name, c.language, c.settings, c.copy_of, o.name AS original,"  # noqa: S608
    " c.metadata_indexes, coalesce(c.collection_id = ANY (o.formerly), false) AS kept"
    " FROM pgseek.collections c"
    " JOIN pgseek.embedding_spaces s ON s.space_id = c.active_space_id"
    " LEFT JOIN pgseek.collections o ON o.collection_id = c.copy_of"
)
# A collection ``c`` of the session's tenant by name, the one parameter.
NAMED: LiteralString = " WHERE c.tenant = pgseek.tenant() AND c.name = %s"
# A collection ``c`` that this session serves. The owner of the tables, whom no policy restricts, serves those
# of all tenants where none is given.
SERVED: LiteralString = "(SELECT pgseek.tenant()) IN ('', c.tenant)"
# A copy ``c`` beside its original ``o``.
_COPY: LiteralString = """
SELECT c.name, coalesce(c.collection_id = ANY (o.formerly), false) AS kept,
       n.of, n.documents, n.surplus, q.queued, q.failed
  FROM pgseek.collections c JOIN pgseek.collections o ON o.collection_id = c.copy_of,
       LATERAL (
           SELECT count(a.document_id) AS of,
                  count(*) FILTER (WHERE a.content_hash = b.content_hash
                                     AND a.metadata = b.metadata) AS documents,
                  count(*) FILTER (WHERE a.document_id IS NULL) AS surplus
             FROM (SELECT * FROM pgseek.documents d WHERE d.collection_id = o.collection_id) AS a
             FULL JOIN (SELECT * FROM pgseek.documents d WHERE d.collection_id = c.collection_id) AS b
                  USING (document_id)) AS n,
       LATERAL (
           SELECT count(*) FILTER (WHERE q.failed_at IS NULL) AS queued, count(q.failed_at) AS failed
             FROM pgseek.ingest_queue q WHERE q.collection_id = c.collection_id) AS q
 WHERE c.copy_of = %s AND c.active_space_id IS NOT NULL
"""

# Tables that name collections and are not emptied with them.
WITHOUT_FOREIGN_KEY = (
    "ingest_queue",
    "term_statistics",
    "rare_lexemes",
    "duplicate_scans",
    "duplicate_pairs",
    "answers",
)

# The names of the server's text-search configurations, as they are stored.
LANGUAGES = """
SELECT CASE n.nspname WHEN 'pg_catalog' THEN quote_ident(c.cfgname)
            ELSE quote_ident(n.nspname) || '.' || quote_ident(c.cfgname) END AS name
  FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
"""


def default_settings(identity: EmbedderIdentity, **given: Any) -> dict[str, Any]:
    """Return a new collection's settings: search and chunking defaults, overridden by ``given``.

    The weight of the dense leg is the embedder's: see `embedders.catalog`.

    Raises:
        InvalidInput: an unknown name or a value out of its range.
    """
    fused = fusion_defaults(identity)
    settings: dict[str, Any] = {
        "fusion": "weighted",
        "alpha": fused.alpha,
        "normalization": fused.normalization,
        "lexical": "bm25",
        "candidates": 100,
        "chunk_size": DEFAULT_SIZE,
        "chunk_overlap": 0,
        "heading_context": True,
        "section_size": 0,
        "long_texts": "average",
        "document_vectors": False,
        "questions": 0,
        "summaries": False,
        "generator": "",
        "collapse": None,
        "k1": 1.2,
        "b": 0.75,
        "title_weight": 2.0,
    }
    unknown = sorted(set(given) - set(settings))
    if unknown:
        raise InvalidInput(f"setting {unknown[0]!r} is unknown; known are {', '.join(settings)}")
    settings.update({name: value for name, value in given.items() if value is not None})
    if settings["alpha"] == "auto":
        settings.update(alpha=fused.alpha, fusion="auto")
    check_chunking(settings["chunk_size"], settings["chunk_overlap"], settings["section_size"])
    _settle_granularity(settings)
    if settings["long_texts"] not in LONG_TEXTS:
        raise InvalidInput(
            f"long_texts is {settings['long_texts']!r}, but must be one of {', '.join(LONG_TEXTS)}"
        )
    for name, low, high in (("k1", 0.0, 100.0), ("b", 0.0, 1.0), ("title_weight", 1.0, 100.0)):
        value = settings[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise InvalidInput(f"{name} is {value!r}, but must lie in {low:g}..{high:g}")
    # A search with these values must be a valid one; alpha is kept beside rrf for later use.
    Search(
        "-",
        alpha=settings["alpha"],
        lexical=settings["lexical"],
        candidates=settings["candidates"],
        normalization=settings["normalization"],
    )
    Search("-", fusion=settings["fusion"])
    return settings


def _settle_granularity(settings: dict[str, Any]) -> None:
    """Check what is stored besides chunks, and settle whether a document appears once."""
    for name in ("heading_context", "document_vectors", "summaries"):
        if not isinstance(settings[name], bool):
            raise InvalidInput(f"{name} is {settings[name]!r}, but must be True or False")
    questions = settings["questions"]
    if type(questions) is not int or not 0 <= questions <= MAX_QUESTIONS:
        raise InvalidInput(f"questions is {questions!r}, but must be from 0 to {MAX_QUESTIONS} per chunk")
    if not isinstance(settings["generator"], str):
        raise InvalidInput(f"generator is {settings['generator']!r}, but must be text: provider:model")
    if settings["collapse"] is None:
        settings["collapse"] = bool(questions or settings["summaries"] or settings["document_vectors"])
    if not isinstance(settings["collapse"], bool):
        raise InvalidInput(f"collapse is {settings['collapse']!r}, but must be True or False")


def create(
    name: str,
    embedder: Embedder | str,
    dimensions: int | None,
    language: str,
    settings: Mapping[str, Any],
    exist_ok: bool,
    generator: TextGenerator | str | None = None,
    metric: str | None = None,
    storage: str | None = None,
    index: str | Mapping[str, Any] | VectorIndex | None = None,
) -> Script[tuple[CollectionInfo, Embedder]]:
    """Create a collection with its first embedding space.

    A generator given as a string is kept: it can be made again from its name.
    """
    check_collection_name(name)
    chosen = choose_embedder(embedder, dimensions)
    identity = chosen.identity
    spec = generator if isinstance(generator, str) else ""
    checked = default_settings(identity, **settings, generator=spec)
    check_generator(generator, checked)
    wanted, metric = metric, check_metric(metric or "cosine")
    chosen_storage = storage_for(identity.dimensions, storage)
    chosen_index = index_for(identity.dimensions, chosen_storage, metric, index)
    probes: spaces.Fingerprint = {}
    if not (yield from fetch("SELECT FROM pgseek.collections c" + NAMED, [name])):
        probes = yield from spaces.fingerprint(chosen)
    language = (yield from languages()).canonical(language)

    def write() -> Script[bool]:
        row = yield from fetch_one(
            "INSERT INTO pgseek.collections (tenant, name, language, languages, settings)"
            " VALUES (pgseek.tenant(), %s, %s, %s, %s)"
            " ON CONFLICT (tenant, name) WHERE name IS NOT NULL DO NOTHING RETURNING collection_id",
            [name, language, [language], Jsonb(checked)],
        )
        if row is None:
            return False
        collection_id = row["collection_id"]
        space_id = yield from spaces.insert(
            collection_id, identity, metric, chosen_storage, chosen_index, "active", probes
        )
        yield from furnish(collection_id, space_id, checked)
        return True

    created = yield from transact(write)
    if not created and not exist_ok:
        raise CollectionExists(
            f"collection {name!r} exists already; choose another name, open it with collection(), "
            "or drop it first"
        )
    info = yield from find(name)
    if wanted is not None and info.space.metric != wanted:
        raise SpaceMismatch(
            f"collection {name!r} holds vectors of {spaces.describe(info.identity, info.space.metric)}, "
            f"but the metric given is {wanted!r}; leave it out, or re-embed the collection: pgseek reembed"
        )
    return info, matching_embedder(info, chosen)


def furnish(
    collection_id: int, space_id: int, settings: Mapping[str, Any], weighting: Sequence[float] | None = None
) -> Script[None]:
    """Give a new collection its space, and what its words are weighed with, in the caller's transaction."""
    yield from fetch(
        "UPDATE pgseek.collections SET active_space_id = %s WHERE collection_id = %s",
        [space_id, collection_id],
    )
    if weighting is None:
        weighting = [
            float(n) for n in (settings["k1"], settings["b"], FIRST_LENGTH, settings["title_weight"])
        ]
    yield from fetch(
        "INSERT INTO pgseek.collection_statistics (collection_id, weighting) VALUES (%s, %s::real[])",
        [collection_id, list(weighting)],
    )


def check_generator(generator: TextGenerator | str | None, settings: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` unless what is to be written has somebody to write it, and the reverse."""
    wanted = settings["questions"] or settings["summaries"]
    if wanted and not generator:
        raise InvalidInput(
            "questions and summaries need somebody to write them: generator='openai:gpt-4.1-mini', "
            "or an object such as CallableGenerator(questions=f, model='mine')"
        )
    if generator and not wanted:
        raise InvalidInput("a generator is given, but nothing for it to write: set questions or summaries")
    if isinstance(generator, str):
        create_generator(generator)
    elif generator is not None and not isinstance(generator, TextGenerator):
        raise InvalidInput(
            f"generator is a {type(generator).__name__}, but must be a string such as "
            "'openai:gpt-4.1-mini' or an object with identity and generate; functions are "
            "CallableGenerator(questions=f, model='mine')"
        )


def own_generator(info: CollectionInfo, given: TextGenerator | None) -> TextGenerator | None:
    """Return what writes the collection's questions and summaries, None where it has none written.

    Raises:
        InvalidInput: it was made with a generator object, and none is given.
    """
    settings = info.settings
    if not (settings.get("questions") or settings.get("summaries")):
        return None
    if given is not None:
        return given
    if not settings.get("generator"):
        raise InvalidInput(
            f"collection {info.name!r} has questions or summaries written by a generator object; pass the "
            "same one: client.collection(name, generator=…)"
        )
    return create_generator(settings["generator"])


def choose_embedder(embedder: Embedder | str, dimensions: int | None) -> Embedder:
    """Return the embedder meant by a string or an object.

    Raises:
        InvalidInput: the object lacks a part of the protocol, or its dimensions differ from
            ``dimensions``.
    """
    if isinstance(embedder, str):
        return create_embedder(embedder, dimensions)
    if not isinstance(embedder, Embedder):
        raise InvalidInput(
            f"embedder is a {type(embedder).__name__}, but must be a string such as 'wordllama' or "
            "an object with identity, model_id, embed_documents and embed_query; a function f is "
            "CallableEmbedder(f, model='a name for its vectors')"
        )
    if dimensions is not None and dimensions != embedder.identity.dimensions:
        raise InvalidInput(
            f"dimensions is {dimensions}, but {embedder.model_id} gives {embedder.identity.dimensions}"
        )
    return embedder


def given_embedders(
    info: CollectionInfo, given: Embedder | Sequence[Embedder] | None
) -> tuple[Embedder, ...]:
    """Return the objects that the caller gave to embed with, one of them the collection's.

    A copy may have an embedder that is made from its name where its original's was given.

    Raises:
        SpaceMismatch: none of them is.
    """
    if given is None:
        return ()
    several = tuple(given) if isinstance(given, Sequence) else (given,)
    for one in several:
        choose_embedder(one, None)
    if several and info.copy_of is None and own_embedder(info, several) is None:
        matching_embedder(info, several[0])
    return several


def embedder_of(info: CollectionInfo, given: Sequence[Embedder]) -> Embedder:
    """Return the collection's embedder: one of the given ones, else one made by its name.

    Raises:
        SpaceMismatch: none of the given ones is, and it cannot be made by its name.
        InvalidInput: none is given, and it cannot be made by its name.
    """
    own = own_embedder(info, given)
    if own is None and given and info.identity.provider not in providers():
        own = given[0]
    return matching_embedder(info, own)


def own_embedder(info: CollectionInfo, given: Sequence[Embedder]) -> Embedder | None:
    """Return the one of the given embedders that is the collection's, None if none is."""
    return next((one for one in given if one.identity == info.identity), None)


def matching_embedder(info: CollectionInfo, embedder: Embedder | None) -> Embedder:
    """Return the embedder for a stored collection; ``None`` makes the one it was created with.

    Raises:
        SpaceMismatch: the embedder's vectors cannot be compared with the stored ones.
    """
    chosen = embedder if embedder is not None else embedder_for(info.identity)
    if chosen.identity != info.identity:
        raise SpaceMismatch(
            f"collection {info.name!r} holds vectors of {spaces.describe(info.identity)}, but the embedder "
            f"is {spaces.describe(chosen.identity)}; vectors of two models cannot be compared: use the "
            "collection's embedder, re-embed the collection (pgseek reembed), or create another"
        )
    return chosen


def find(name: str) -> Script[CollectionInfo]:
    """Return a collection by name, or raise `CollectionNotFound` with the nearest name."""
    row = yield from fetch_one(_INFO + NAMED, [name])
    if row is None:
        raise (yield from not_found(name))
    return _info(row)


def find_again(info: CollectionInfo) -> Script[CollectionInfo]:
    """Return a collection as it stands now: the one that took its name, where that was made as a copy of it.

    Returns ``info`` as it is if another one was made under its name.
    """
    row = yield from fetch_one(
        _INFO + " WHERE CASE WHEN %(hidden)s THEN c.collection_id = %(id)s ELSE c.name = %(name)s END"
        " AND (c.collection_id = %(id)s OR %(id)s = ANY (c.formerly))",
        {"hidden": info.copy_of is not None, "id": info.collection_id, "name": info.name},
    )
    if row is not None:
        return _info(row)
    yield from find(info.name)
    return info


def find_copy(info: CollectionInfo) -> Script[CollectionInfo | None]:
    """Return the hidden copy of a collection: one being made, or (``kept``) that had its name before."""
    row = yield from fetch_one(_INFO + " WHERE c.copy_of = %s", [info.collection_id])
    return None if row is None else _info(row)


def copy_status(info: CollectionInfo) -> Script[CopyStatus | None]:
    """Return how far the copy of a collection is, None if it has none. All documents are compared."""
    row = yield from fetch_one(_COPY, [info.collection_id])
    return None if row is None else CopyStatus(**row)


def not_found(name: str) -> Script[CollectionNotFound]:
    """Return the error for an unknown name, with what the caller may have meant."""
    rows = yield from fetch(
        "SELECT c.name FROM pgseek.collections c WHERE c.tenant = pgseek.tenant() AND c.copy_of IS NULL"
    )
    names = [row["name"] for row in rows]
    near = difflib.get_close_matches(str(name), names, 1, 0.5)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif names:
        hint = "there are: " + ", ".join(sorted(names)[:10])
    else:
        hint = "there are no collections yet; create one first"
    return CollectionNotFound(f"there is no collection {name!r}; {hint}")


def show(name: str) -> Script[CollectionInfo]:
    """Return a collection with its counts."""
    info = yield from find(name)
    counts = yield from fetch_one(
        "SELECT (SELECT count(*) FROM pgseek.documents WHERE collection_id = %(id)s) AS documents,"
        " (SELECT count(*) FROM pgseek.chunks WHERE collection_id = %(id)s AND kind = 'chunk') AS chunks,"
        " (SELECT count(*) FROM pgseek.ingest_queue WHERE collection_id = %(id)s"
        " AND failed_at IS NULL) AS queued",
        {"id": info.collection_id},
    )
    return replace(info, **(counts or {}), copy=(yield from copy_status(info)))


def list_all(*, copies: bool = False) -> Script[list[CollectionInfo]]:
    """Return all collections by name, without counts; hidden copies of them too, if ``copies``.

    Those of the session's tenant; without one, for the owner of the tables, those of all.
    """
    rows = yield from fetch(
        _INFO + f" WHERE (c.copy_of IS NULL OR %s) AND {SERVED} ORDER BY c.tenant, c.name", [copies]
    )
    return [_info(row) for row in rows]


def drop(name: str, patience: float = PATIENCE) -> Script[None]:
    """Drop a collection with everything in it, its copy included.

    Of a copy nobody gets to see that it goes: first writers leave it out, and who is still at it ends.

    Raises:
        CollectionNotFound: with the nearest name.
        ChangeRefused: a copy, and a transaction is open for longer than ``patience`` seconds that may use it.
    """
    withdrawn = yield from fetch(
        "UPDATE pgseek.collections c SET active_space_id = NULL WHERE c.tenant = pgseek.tenant()"
        " AND c.name = %s AND c.copy_of IS NOT NULL RETURNING c.collection_id",
        [name],
    )
    if withdrawn:
        yield from wait_for_all(patience)

    def write() -> Script[bool]:
        # The original before its copy: in this order writers come to them.
        rows = yield from fetch(
            "SELECT c.collection_id FROM pgseek.collections c"
            " LEFT JOIN pgseek.collections o ON o.collection_id = c.copy_of"
            " WHERE c.tenant = pgseek.tenant() AND (c.name = %(name)s OR o.name = %(name)s)"
            " ORDER BY c.name <> %(name)s FOR UPDATE OF c",
            {"name": name},
        )
        ids = [row["collection_id"] for row in rows]
        found = yield from fetch(
            "SELECT space_id FROM pgseek.embedding_spaces WHERE collection_id = ANY (%s)", [ids]
        )
        yield from spaces.drop_tables([space["space_id"] for space in found])
        for holder in (*WITHOUT_FOREIGN_KEY, "collections"):
            table = Identifier("pgseek", holder)
            yield from fetch(SQL("DELETE FROM {} WHERE collection_id = ANY (%s)").format(table), [ids])
        return bool(ids)

    if not (yield from transact(write)):
        raise (yield from not_found(name))
    yield from metadata_indexes.sweep()


def refresh_statistics(info: CollectionInfo, reweigh: bool) -> Script[float | None]:
    """Refresh BM25's statistics; with ``reweigh`` rewrite the chunks by the present average length."""
    if reweigh:
        yield from fetch("SELECT pgseek.reweigh(%s)", [info.name])
    row = yield from fetch_one("SELECT drift FROM pgseek.refresh_statistics(%s)", [info.name])
    return row["drift"] if row else None


# Languages that PostgreSQL has no parser for: their letters are read in pairs, whatever the configuration.
UNSPACED = ("chinese", "japanese", "korean", "thai", "lao", "khmer", "burmese")


class Languages:
    """The text-search configurations of the server, by the names pgseek stores."""

    def __init__(self, names: list[str]) -> None:
        self._names = frozenset(names)

    def canonical(self, language: str) -> str:
        """Return the stored name of a configuration, or raise `InvalidInput`.

        A language written without spaces is read as ``simple``, unless the server has its own parser.
        """
        plain = language.removeprefix("pg_catalog.") if isinstance(language, str) else None
        if plain is not None and plain in self._names:
            return plain
        if plain is not None and plain.lower() in UNSPACED:
            return "simple"
        near = difflib.get_close_matches(str(plain), self._names, 1)
        hint = f"did you mean {near[0]!r}?" if near else "SELECT cfgname FROM pg_ts_config lists them"
        raise InvalidInput(f"language {language!r} is not a text-search configuration; {hint}")


def languages() -> Script[Languages]:
    """Return the server's text-search configurations."""
    rows = yield from fetch(LANGUAGES)
    return Languages([row["name"] for row in rows])


def _info(row: Mapping[str, Any]) -> CollectionInfo:
    return CollectionInfo(
        collection_id=CollectionId(row["collection_id"]),
        name=row["name"],
        language=row["language"],
        settings=row["settings"],
        space=spaces.space_of(row),
        copy_of=row["copy_of"],
        original=row["original"],
        kept=row["kept"],
        metadata_indexes=metadata_indexes.declared(row["metadata_indexes"]),
        tenant=row["tenant"],
    )
