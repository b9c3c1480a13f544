"""The blocking client. With `aclient`, the only module that performs I/O in sequence."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count as counter
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

import psycopg
from psycopg.sql import SQL, Identifier
from psycopg_pool import ConnectionPool, PoolTimeout
from pydantic import SecretStr

from pgseek import answers as answer_scripts
from pgseek import attach as attach_scripts
from pgseek import cache as cache_scripts
from pgseek import collections as collection_scripts
from pgseek import documents as document_scripts
from pgseek import drain as drain_scripts
from pgseek import embedding as embedding_scripts
from pgseek import ingest as ingest_scripts
from pgseek import metadata_indexes, querying, recommending
from pgseek import plan as plan_scripts
from pgseek import probing as probing_scripts
from pgseek import queue as queue_scripts
from pgseek import search as search_scripts
from pgseek import spaces as space_scripts
from pgseek import worker as worker_scripts
from pgseek.config import Settings
from pgseek.db.connection import translate
from pgseek.db.limits import shared_connection, shared_limiter
from pgseek.db.session import CONFLICTS, Session
from pgseek.embedders.base import Embedder
from pgseek.embedders.limits import Spending
from pgseek.errors import CollectionNotFound, EmbedderError, InvalidInput, PgseekError, SpaceMismatch
from pgseek.evaluation import spaces as comparing
from pgseek.evaluation.calibration import Calibration
from pgseek.evaluation.measures import DEFAULT_MEASURES
from pgseek.expansion import Expansion, as_expansion
from pgseek.filters import Filter, to_jsonpath
from pgseek.generators.base import TextGenerator
from pgseek.health import checking
from pgseek.health import recall as recalls
from pgseek.health.finding import HealthFinding
from pgseek.indexing import advising, building, describing, measuring, tuning
from pgseek.observing import Observer, telemetry
from pgseek.prepare import BATCH_SIZE
from pgseek.reembed import planning, rechunking, running, switching
from pgseek.rerankers.base import Reranker
from pgseek.rerankers.registry import as_reranker
from pgseek.stages import Stages
from pgseek.steps import (
    ATTEMPTS,
    PATIENCE,
    Await,
    Background,
    Call,
    CopyIn,
    Done,
    Fetch,
    Join,
    Listen,
    Running,
    Script,
    Sleep,
    Start,
    StartAlone,
    StartEmbedding,
    StartGeneration,
    Step,
    Stop,
    Transact,
    Underway,
    advance,
    called,
    close,
)
from pgseek.syncing import Sync
from pgseek.types import (
    Alpha,
    CacheStats,
    CollectionInfo,
    Document,
    Fusion,
    Gate,
    Hit,
    Indexes,
    IngestPlan,
    IngestReport,
    InputType,
    Lexical,
    MetadataIndex,
    MetadataType,
    Normalization,
    OnEmbedderError,
    ProbeReport,
    QueueFailure,
    QueuePolicy,
    QueueStatus,
    ReembedPlan,
    ReembedReport,
    Search,
    SearchPolicy,
    SearchReport,
    SpaceInfo,
    Syntax,
    WorkReport,
    check_failure_policy,
    check_seconds,
)
from pgseek.vectors import Metric, Storage, VectorIndex

T = TypeVar("T")
log = logging.getLogger("pgseek")
Connection = psycopg.Connection[dict[str, Any]]


class Client:
    """A connection pool to one database, opened on first use.

    ``dsn`` is a libpq connection string or URL. Without it ``PGSEEK_DSN`` is used, and failing that
    the embedded server, in ``data_dir`` or the user's data directory. ``tenant`` is whose collections these
    are (``PGSEEK_TENANT``; without it those of no tenant): no other's are seen. Safe to share between
    threads. Close it, or use it as a context manager.

    ``on_embedder_error`` and ``search_timeout`` (seconds) are the defaults of its searches, see
    `Collection.search`; without them those of PGSEEK_ON_EMBEDDER_ERROR and PGSEEK_SEARCH_TIMEOUT.
    Searches that take ``slow_query_seconds`` or longer (0: all) are logged, by the logger ``pgseek.slow``;
    ``record_queries`` puts the text of queries into that log and into OpenTelemetry's spans.

    Raises:
        InvalidInput, ConfigurationError: an argument, or a variable of the environment, is wrong.

    Raises, on first use:
        ConnectionFailed, UnsupportedServer, SchemaNotMigrated, SchemaTooNew: see each.
        InvalidInput, ConfigurationError, DatabaseError: the server does not know of the tenant, or the
            database user works for another.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        data_dir: str | Path | None = None,
        on_embedder_error: OnEmbedderError | None = None,
        search_timeout: float | None = None,
        tenant: str | None = None,
        slow_query_seconds: float | None = None,
        record_queries: bool | None = None,
    ) -> None:
        self._dsn = None if dsn is None else SecretStr(dsn)
        self._tenant = tenant
        self._data_dir = data_dir
        self._settings = Settings()
        if on_embedder_error is not None:
            check_failure_policy(on_embedder_error)
            self._settings.on_embedder_error = on_embedder_error
        if search_timeout is not None:
            check_seconds("search_timeout", search_timeout)
            self._settings.search_timeout = search_timeout
        if slow_query_seconds != 0:
            check_seconds("slow_query_seconds", slow_query_seconds)
        if slow_query_seconds is None:
            slow_query_seconds = self._settings.slow_query_seconds
        if record_queries is None:
            record_queries = self._settings.record_queries
        self._observer = Observer(telemetry(), slow_query_seconds, record_queries)
        self._runner: Runner | None = None
        self._lock = threading.Lock()
        # Those that were made from their name.
        self._models: dict[tuple[Callable[[Any], Any], str], Any] = {}
        self._model_lock = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. The client opens again when it is used again."""
        with self._lock:
            if self._runner is not None:
                self._runner.close()
                self._runner = None

    def create_collection(
        self,
        name: str,
        *,
        embedder: Embedder | str | None = None,
        dimensions: int | None = None,
        language: str = "english",
        exist_ok: bool = False,
        generator: TextGenerator | str | None = None,
        metric: Metric | None = None,
        storage: Storage | None = None,
        index: VectorIndex | Mapping[str, Any] | str | None = None,
        **settings: Any,
    ) -> Collection:
        """Create a collection and its embedding space.

        ``embedder`` is a string such as ``wordllama`` (the default), ``openai:text-embedding-3-small`` or
        ``sentence-transformers:NAME``, or an object with the embedder protocol. ``language`` is a text-search
        configuration. ``metric`` is 'cosine' (the default), 'inner_product', 'l2' or 'l1'; ``storage``
        'vector' or 'halfvec' (half the size; default: from 2,001 dimensions on); ``index`` a `VectorIndex` or
        a string such as 'hnsw,m=32', 'ivfflat', 'binary', 'prefix=256' or 'none'. ``settings``: fusion,
        alpha, normalization, lexical, candidates, chunk_size and chunk_overlap (characters), k1, b,
        title_weight, and long_texts, what becomes of a chunk that the model does not read whole: 'average'
        its parts' vectors, 'chunk' it, 'refuse' its document or 'truncate' it. What is searched:
        heading_context (True: headings are read before the chunks under them), section_size (characters of
        text to read around a chunk; 0 for none), document_vectors (False; a vector for each whole document),
        questions (0..20 for each chunk) and summaries (False), written by ``generator``: a string such as
        'openai:gpt-4.1-mini', or an object such as `CallableGenerator`. collapse is whether a search gives
        each document once; by default where more than chunks is searched. With ``exist_ok`` an existing
        collection is opened, provided its embedder is the same, and its metric, if one is given.

        Raises:
            InvalidInput, CollectionExists, SpaceMismatch.
        """
        chosen = self._settings.embedder if embedder is None else embedder
        info, found = self._run(
            collection_scripts.create(
                name, chosen, dimensions, language, settings, exist_ok, generator, metric, storage, index
            )
        )
        return Collection(self, info, (found,), None if isinstance(generator, str) else generator)

    def collection(
        self,
        name: str,
        *,
        embedder: Embedder | Sequence[Embedder] | None = None,
        generator: TextGenerator | None = None,
    ) -> Collection:
        """Open a collection. ``embedder`` and ``generator`` are needed only where it was made with objects.

        While a collection changes from one such embedder to another, both may be given.

        Raises:
            CollectionNotFound: with the nearest name.
            SpaceMismatch: the embedder, or none of several, is the collection's.
        """
        info = self._run(collection_scripts.find(name))
        return Collection(self, info, collection_scripts.given_embedders(info, embedder), generator)

    def list_collections(self) -> list[CollectionInfo]:
        """Return all collections by name, without counts.

        For the owner of the tables, without a tenant, those of all tenants, by tenant and name.
        """
        return self._run(collection_scripts.list_all())

    def drop_collection(self, name: str) -> None:
        """Drop a collection with all its documents, and its copy. Raises `CollectionNotFound`."""
        self._run(collection_scripts.drop(name))

    def cache_stats(self) -> list[CacheStats]:
        """Return what the cache of vectors holds, by provider, model and input type."""
        return self._run(cache_scripts.stats())

    def prune_cache(self, *, max_bytes: int | None = None) -> int:
        """Delete expired vectors, then the least recently used ones beyond ``max_bytes``.

        Returns how many. None means ``PGSEEK_CACHE_MAX_MB``; without that the size is not bounded.

        Raises:
            InvalidInput.
        """
        policy = self._settings.cache_policy()
        if max_bytes is not None:
            policy = replace(policy, max_bytes=max_bytes)
        return self._run(cache_scripts.prune(policy))

    def clear_cache(self, collection: str | None = None, *, input_type: InputType | None = None) -> int:
        """Delete cached vectors; return how many there were.

        With ``collection`` only those of its embedders, which other collections may share; with
        ``input_type`` only those of documents or of queries. What is stored in collections stays.

        Raises:
            InvalidInput, CollectionNotFound.
        """
        return self._run(cache_scripts.clear(collection, input_type))

    def queue_status(self) -> list[QueueStatus]:
        """Return the state of every collection's queue, by name."""
        return self._run(queue_scripts.status())

    def work(
        self,
        collections: Sequence[str] | None = None,
        *,
        embedders: Mapping[str, Embedder | Sequence[Embedder]] | None = None,
        generators: Mapping[str, TextGenerator] | None = None,
        once: bool = False,
        batch_size: int = drain_scripts.BATCH_SIZE,
        poll: float = 30.0,
        policy: QueuePolicy | None = None,
        stop: Stop | None = None,
        progress: Callable[[WorkReport], None] | None = None,
        notice: Callable[[str], None] = log.warning,
    ) -> WorkReport:
        """Embed what SQL writers store, as it comes, until ``stop`` is set; return what was done in all.

        Serves the named collections, or all that there are and will be, with copies of them that are being
        made. ``embedders`` holds, by collection, the object, or objects, of each that was made with one, and
        ``generators`` likewise; a collection for which one cannot be had is passed over and ``notice`` is
        called with the reason, as for all that goes wrong and is tried again. ``once`` ends the work when
        nothing is due. ``progress`` is called after each batch. ``poll`` is after how many seconds the worker
        looks by itself; a writer wakes it earlier.
        Any number may work at once. A `threading.Event` is a ``stop``: the batch in hand is finished first.

        Raises:
            InvalidInput, CollectionNotFound: an argument is wrong.
            PgseekError: with ``once``, what kept a collection from being served.
        """
        worker = queue_scripts.worker_name()
        job = worker_scripts.Job(
            worker,
            collections,
            embedders or {},
            generators or {},
            self._share_limits,
            self._settings.cache_policy(),
            policy or QueuePolicy(),
            once,
            batch_size,
            poll,
            stop or worker_scripts.never(),
            self._observer.work(progress),
            notice,
        )
        return self._serve(worker, worker_scripts.work(job))

    def probe(
        self,
        collections: Sequence[str] | None = None,
        *,
        embedders: Mapping[str, Embedder | Sequence[Embedder]] | None = None,
    ) -> ProbeReport:
        """Return whether the models of the named collections, or of all, still give the vectors they gave.

        A few texts are embedded for each, which costs next to nothing, and compared with what was stored when
        the space was made. ``embedders`` holds, by collection, the object, or objects, of each that was made
        with one. Of a space made before revision 0006 a few chunks are compared, and its fingerprint is
        stored for the next time.

        Raises:
            CollectionNotFound: with the nearest name.
        """
        script = probing_scripts.probe(collections, embedders or {}, self._share_limits)
        return self._run(script)

    def health(self) -> tuple[HealthFinding, ...]:
        """Return what is worth mending of the database, the worst first; nothing if all is well.

        Indexes that are invalid, missing, unused or too large; VACUUM and ANALYZE that did not come, and
        statistics of words that are behind; settings that hurt; documents that nobody embeds. It reads
        catalogues and what the server counted, no documents, and writes nothing. A standby cannot tell
        of all of it, and a tenant's role sees only its own collections. docs/health.md lists the findings.

        Raises:
            DatabaseError.
        """
        return self._run(checking.check(self._settings.pool_size))

    def recall(
        self,
        collections: Sequence[str] | None = None,
        *,
        queries: int = recalls.QUERIES,
        k: int = 10,
        recall: float = recalls.RECALL,
        progress: building.Told | None = None,
    ) -> tuple[recalls.SpaceRecall, ...]:
        """Return what searches find of the exact ``k`` nearest, by collection and space that is ready.

        Searched for are up to ``queries`` (10..10,000) that were asked before, or without enough of those,
        stored vectors; each is compared with every vector once. One that finds less than ``recall`` has a
        ``finding``. A space that cannot be measured says why. Nothing is written: a standby, and a role that
        may only read, will do.

        Raises:
            InvalidInput, CollectionNotFound.
        """
        aim = measuring.Aim(recall, k, queries)
        return self._run(recalls.measure(collections, aim, progress))

    def attach(
        self,
        table: str,
        collection: str,
        *,
        id: str | Iterable[str],  # noqa: A002 (the field's word)
        text: str | Iterable[str],
        title: str | None = None,
        metadata: str | Iterable[str] = (),
        language: str | None = None,
        security_definer: bool = False,
        apply: bool = False,
    ) -> attach_scripts.Plan:
        """Return what keeps a collection in step with a table: statements for `as_revision` and `as_sql`.

        ``table`` is written as in SQL; the others are columns' names as they are. ``id`` may be several
        columns, on which there is a unique index; of several ``text`` columns those that are not empty make
        the text, with an empty line between them. The triggers run with the rights of whoever writes to the
        table, or with ``security_definer`` with those of who makes them. Nothing is changed unless
        ``apply`` is true.

        Raises:
            InvalidInput: no such table or column, its id is not unique, or it is attached already.
            CollectionNotFound: with the nearest name.
        """
        plan = self._run(
            attach_scripts.plan_attach(
                table, collection, id, text, title, metadata, language, security_definer
            )
        )
        if apply:
            self._run(attach_scripts.apply(plan))
        return plan

    def detach(
        self,
        table: str,
        collection: str | None = None,
        *,
        delete_documents: bool = False,
        apply: bool = False,
    ) -> attach_scripts.Plan:
        """Return what undoes `attach`; ``collection`` is needed if the table is attached to several.

        The documents stay as they are, unless ``delete_documents`` is true.

        Raises:
            InvalidInput: no such table, or it is not attached.
        """
        plan = self._run(attach_scripts.plan_detach(table, collection, delete_documents))
        if apply:
            self._run(attach_scripts.apply(plan))
        return plan

    def _serve(self, worker: str, script: Script[T]) -> T:
        """Run a script that claims documents; whatever ends it, what it still has is given back."""
        try:
            return self._run(script)
        finally:
            # If that is not possible, the claims end by themselves.
            with contextlib.suppress(PgseekError):
                if self._runner is not None:
                    self._run(queue_scripts.release(worker))

    def _own_model(self, make_model: Callable[[Any], T], given: Any) -> T:
        """Return a reranker or an expansion; one that is named is made once."""
        with self._model_lock:
            named = isinstance(given, str)
            found = self._models.get((make_model, given)) if named else None
            if found is None:
                found = make_model(given)
                if named:
                    self._models[make_model, given] = found
            self._share_limits(getattr(found, "writer", found))
            return cast("T", found)

    def _share_limits(self, service: object) -> None:
        """Let the database keep a service's limits, for all processes that use this one."""
        share = getattr(service, "share_limits", None)
        if share is not None and self._runner is not None:
            share(shared_limiter(self._runner.dsn))

    def _run(self, script: Script[T]) -> T:
        with self._lock:
            if self._runner is None:
                given = self._dsn.get_secret_value() if self._dsn is not None else None
                session = Session(given, self._data_dir, self._settings, self._tenant)
                runner = Runner(session)
                runner.open()
                self._runner = runner
            runner = self._runner
        return runner.run(script)


class Collection:
    """One collection; made by `Client.create_collection` and `Client.collection`."""

    def __init__(
        self,
        client: Client,
        info: CollectionInfo,
        embedders: tuple[Embedder, ...],
        generator: TextGenerator | None = None,
    ) -> None:
        self._client = client
        self._info = info
        self._given = embedders
        self._embedder: Embedder | None = None
        self._generator = generator
        # Those that were made from their name.
        self._generators: dict[str, TextGenerator] = {}
        self._asked = answer_scripts.Counting()
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._info.name

    def info(self) -> CollectionInfo:
        """Return the collection as it stands now, with counts."""
        return self._client._run(collection_scripts.show(self.name))

    def ingest(
        self,
        documents: Iterable[Document | Mapping[str, Any]],
        *,
        batch_size: int = BATCH_SIZE,
        progress: ingest_scripts.Progress | None = None,
        max_cost: float | None = None,
        strict: bool = False,
        on_reject: ingest_scripts.OnReject | None = None,
        sync: bool | Filter = False,
        max_removed: float = 0.5,
        indexes: Indexes = "auto",
    ) -> IngestReport:
        """Store documents: new ones, changed ones, and nothing for unchanged ones.

        ``documents`` is any iterable of `Document` or of mappings with id (or _id), text, and
        optionally title, metadata, language and format; it is read in batches of ``batch_size``, each
        written in one transaction. Bad documents are counted in the report with their reason, the
        rest goes in; ``on_reject`` is called with each and the record it came from, and with ``strict``
        the first one ends the ingest. A document is bad, too, if the generator refuses to write for one of
        its chunks. ``progress`` is called with the report so far after each batch. ``max_cost``, in dollars,
        ends the ingest before the first request that would pass it.

        ``sync`` removes in the end what is stored but was not among ``documents`` (with a filter: of the
        documents that match it), unless that is more than the share ``max_removed`` of them. ``indexes``
        says what becomes of the indexes in a load that is large beside what is stored: 'auto' and
        'rebuild' build them anew after it where that costs less, 'auto' only if no more than 100,000
        chunks are stored (without its index a leg is exact and slow), and 'keep' keeps them.

        Raises:
            EmbedderError, GeneratorError, CostLimitReached, DatabaseError: the batches before stay, and what
                was embedded and written since is kept; running it again goes on.
            DocumentRejected: ``strict``, and a document cannot be stored.
            SyncRefused: everything is stored, and nothing was removed.
            InvalidInput: the collection was made with a generator object, and has none now.
        """
        info = self._renew()
        with self._client._observer.ingest(self.name, progress) as observed:
            options = ingest_scripts.Options(
                batch_size,
                observed,
                self._client._settings.cache_policy(),
                max_cost,
                strict,
                on_reject,
                _sync(sync, max_removed),
                indexes,
                self._own_generator(info),
                self._given,
            )
            script = ingest_scripts.ingest(info, self._own_embedder(info), documents, options)
            return self._client._run(script)

    def plan(
        self, documents: Iterable[Document | Mapping[str, Any]], *, sync: bool | Filter = False
    ) -> IngestPlan:
        """Return what `ingest` would do with these documents, and its tokens and cost; nothing is written."""
        info = self._renew()
        return self._client._run(
            plan_scripts.plan(
                info, self._own_embedder(info), documents, _sync(sync, 1.0), self._own_generator(info)
            )
        )

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        alpha: Alpha | None = None,
        fusion: Fusion | None = None,
        lexical: Lexical | None = None,
        filter: Filter | None = None,  # noqa: A002 (the field's word)
        candidates: int | None = None,
        rrf_k: int = 60,
        query_embedding: Sequence[float] | Sequence[Sequence[float]] | None = None,
        snippets: bool = True,
        highlight: tuple[str, str] = ("<b>", "</b>"),
        normalization: Normalization | None = None,
        syntax: Syntax = "web",
        typos: bool = True,
        budget: float = 50.0,
        collapse: bool | None = None,
        space: int | None = None,
        ef_search: int | None = None,
        probes: int | None = None,
        rerank: int | None = None,
        model: str | None = None,
        boosts: Sequence[Mapping[str, Any]] = (),
        min_score: float | None = None,
        min_dense_score: float | Literal["calibrated"] | None = None,
        min_lexical_score: float | None = None,
        diversity: float = 0.0,
        near_duplicates: float | None = None,
        passages: int = 0,
        neighbours: int = 0,
        feedback: int = 0,
        on_embedder_error: OnEmbedderError | None = None,
        timeout: float | None = None,
        reranker: Reranker | Callable[[str, list[str]], Any] | str | None = None,
        rerank_top: int | None = None,
        rerank_budget: float | None = None,
        expand: Expansion | Callable[[str], str | Iterable[str]] | str | None = None,
        report: Callable[[SearchReport], None] | None = None,
    ) -> list[Hit]:
        """Return the best ``k`` chunks, best first; ties by document id, then ordinal.

        None means the collection's setting. ``alpha`` in 0..1 weighs the dense leg (fusion 'weighted');
        'auto' leaves that to the kind of query. ``filter`` is an expression such as ``F("year") >= 2020``,
        a mapping such as ``{"year": {"$gte": 2020}}`` or a jsonpath predicate. ``query_embedding`` of shape
        (dimensions,) spares embedding the query; ``model`` (provider:model) says what made it, and the
        database refuses it if that is another. ``syntax`` 'web' reads "phrases", +required, -excluded and
        prefix*; 'plain' takes every sign for text. ``typos`` corrects words that no document has.
        ``budget`` is in milliseconds: past them BM25 answers in its approximate form, and the hits say so
        in ``degraded``. ``min_dense_score`` 'calibrated' is the threshold that the space keeps for
        'no_answer': a question that nothing answers has no hits then. With ``collapse`` each document appears
        once, with the best of its rows. ``space`` searches another embedding space than the active one, which
        must be ready. The other options are those of `Search`, which says more of each.

        ``on_embedder_error`` 'lexical' searches by words alone where the query cannot be embedded: each hit
        says so in ``degraded``, and the log once. ``timeout``, in seconds, is for all that the search does,
        on the server too; with 'lexical' the embedder may take half of it. None means what the client was
        made with; ``math.inf`` is no limit.

        ``reranker`` reads the query with each of the first ``rerank_top`` hits (default: 50, or ``k``) and
        orders them anew: a name such as 'cohere:rerank-v3.5' or 'cross-encoder:FOLDER', which is loaded once
        per client, an object, or a function ``(query, texts) -> scores``. After ``rerank_budget`` seconds, or
        when ``timeout`` is over, the fused order is returned and says so in ``degraded``. ``report`` is
        called in the end with what was done and how long each part took.

        ``expand`` has texts written for the query, whose vectors join its own: 'hyde:openai:gpt-4.1-mini' an
        answer, 'queries:openai:gpt-4.1-mini' three other queries, a function ``(query) -> texts`` its own
        queries, or an `Expansion`. ``on_embedder_error`` and ``timeout`` hold for its model, too.

        Raises:
            InvalidInput, DimensionMismatch, EmbedderError, CollectionNotFound, DatabaseError.
            GeneratorError: unless ``on_embedder_error`` is 'lexical': the query is not expanded then.
            RerankerError: unless ``on_embedder_error`` is 'lexical': the fused order is returned then.
            SearchTimeout: says what took how long.
            SpaceMismatch: the vector is of another model than the space.
        """
        least = (
            self._follow(lambda info: space_scripts.threshold(info, "no_answer", space))
            if min_dense_score == "calibrated"
            else min_dense_score
        )
        request = Search(
            query,
            k=k,
            alpha=alpha,
            fusion=fusion,
            lexical=lexical,
            filter=to_jsonpath(filter),
            candidates=candidates,
            rrf_k=rrf_k,
            snippets=snippets,
            highlight=highlight,
            normalization=normalization,
            syntax=syntax,
            typos=typos,
            budget=budget,
            collapse=collapse,
            space=space,
            ef_search=ef_search,
            probes=probes,
            rerank=rerank,
            boosts=boosts,
            min_score=min_score,
            min_dense_score=least,
            min_lexical_score=min_lexical_score,
            diversity=diversity,
            near_duplicates=near_duplicates,
            passages=passages,
            neighbours=neighbours,
            feedback=feedback,
        )
        policy = self._policy(timeout, on_embedder_error, rerank_top, rerank_budget)
        if reranker is None and (rerank_top, rerank_budget) != (None, None):
            raise InvalidInput("rerank_top and rerank_budget are a reranker's: give reranker, too")
        if query_embedding is not None and model is None:
            raise InvalidInput(
                "query_embedding comes without the model that made it, so the database could not refuse one "
                f"of another: give model=, such as model={str(self._info.identity)!r} if it is of the "
                "collection's own"
            )
        if expand is not None and query_embedding is not None:
            raise InvalidInput("expand embeds what is written for the query: leave query_embedding out")
        made = None if reranker is None else self._client._own_model(as_reranker, reranker)
        expansion = None if expand is None else self._client._own_model(as_expansion, expand)
        # A model's loading does not count.
        stages = Stages(self.name, policy)
        with self._client._observer.search(stages, request) as found:
            hits = self._follow_search(request, stages, made, expansion, query_embedding, model)
            found.append(hits)
        if report is not None:
            report(stages.report(len(hits)))
        return hits

    def _follow_search(
        self,
        request: Search,
        stages: Stages,
        reranker: Reranker | None,
        expansion: Expansion | None,
        query_embedding: Sequence[float] | Sequence[Sequence[float]] | None,
        model: str | None,
    ) -> list[Hit]:
        """Search the collection; if it has changed since it was opened, as it stands now."""
        while True:
            info = self._info
            try:
                return self._search(info, request, stages, reranker, expansion, query_embedding, model)
            except (SpaceMismatch, InvalidInput, CollectionNotFound):
                # The collection may have changed to another model, or other chunks, since it was opened.
                now = self._renew()
                if (now.space_id, now.name) == (info.space_id, info.name):
                    raise
                if query_embedding is not None and now.identity != info.identity:
                    raise
                stages.again()

    def _search(
        self,
        info: CollectionInfo,
        request: Search,
        stages: Stages,
        reranker: Reranker | None,
        expansion: Expansion | None,
        query_embedding: Sequence[float] | Sequence[Sequence[float]] | None,
        model: str | None,
    ) -> list[Hit]:
        if query_embedding is not None:
            script = search_scripts.search_given(info, request, stages, reranker, query_embedding, model)
            return self._client._run(script)
        try:
            run = self._embedding(info)
        except EmbedderError as error:
            if stages.policy.on_embedder_error == "raise":
                raise
            search_scripts.lack_embedding(stages, str(info.identity), error)
            return self._client._run(search_scripts.search_without(info, request, stages, reranker))
        return self._client._run(search_scripts.search(run, request, stages, reranker, expansion))

    def search_page(
        self,
        query: str | Search,
        *,
        size: int = 10,
        cursor: str | None = None,
        filter: Filter | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> querying.Page:
        """Return a page of ``size`` hits (1..1,000) of one ranking, which does not change from page to page.

        Without ``cursor`` the ranking is made: the best 100 hits, or ``k`` (at most 2,000) of a `Search`,
        which carries all other options. With the cursor of the page before, and the same query and options,
        the next page comes. Nothing is kept on the server: the cursor is a text that holds what is still to
        be shown.

        Raises:
            InvalidInput: also a cursor of another search. EmbedderError, CollectionNotFound, DatabaseError.
        """
        request = _request(query, filter, k=querying.FROZEN)
        return self._answer(lambda run, stages: querying.page(run, request, stages, size, cursor), timeout)

    def facets(
        self,
        query: str | Search | None,
        facets: Sequence[str] = (),
        *,
        over: querying.Over = "lexical",
        filter: Filter | None = None,  # noqa: A002
        most: int = 100_000,
        timeout: float | None = None,
    ) -> querying.Facets:
        """Count the documents that a query finds, and how they spread over values of their metadata.

        Each of ``facets`` is 'field', 'field:histogram', 'field:year', 'field:month' or 'field:day', with
        how many values or buckets behind it or without: 'price:histogram:5'. ``over`` says what is counted:
        'lexical' every document with a word of the query that meets its +required, -excluded and "quoted"
        parts, 'candidates' those among the search's candidates, 'filter' all that the filter keeps, without
        a query if it is None. At most ``most`` documents are looked at.

        Raises:
            InvalidInput, EmbedderError, CollectionNotFound, DatabaseError.
        """
        if query is None:
            jsonpath = to_jsonpath(filter)
            return self._answer(
                lambda run, stages: querying.facets(run, None, stages, facets, over, most, jsonpath), timeout
            )
        request = _request(query, filter)
        return self._answer(
            lambda run, stages: querying.facets(run, request, stages, facets, over, most, None), timeout
        )

    def explain(
        self,
        query: str | Search,
        *,
        filter: Filter | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> querying.Explanation:
        """Search, and return how that came about: words, candidates of each leg, times, scores.

        Raises:
            InvalidInput, EmbedderError, CollectionNotFound, DatabaseError.
        """
        request = _request(query, filter)
        return self._answer(lambda run, stages: querying.explain(run, request, stages), timeout)

    def similar(
        self,
        id: str,  # noqa: A002 (the caller's id)
        *,
        k: int = 10,
        alpha: Alpha | None = None,
        fusion: Fusion | None = None,
        filter: Filter | None = None,  # noqa: A002
        boosts: Sequence[Mapping[str, Any]] = (),
        diversity: float = 0.0,
        near_duplicates: float | None = None,
        space: int | None = None,
        timeout: float | None = None,
    ) -> list[Hit]:
        """Return the ``k`` documents (1..1,000) most like a stored one, best first, never itself.

        The mean of its vectors asks the dense leg, its 20 weightiest words the lexical one. Nothing is
        embedded. The options are those of `Search`.

        Raises:
            InvalidInput: also if there is no such document. CollectionNotFound, DatabaseError.
        """
        request = Search(
            "-",
            alpha=alpha,
            fusion=fusion,
            filter=to_jsonpath(filter),
            boosts=boosts,
            diversity=diversity,
            near_duplicates=near_duplicates,
            space=space,
        )
        stages = Stages(self.name, self._policy(timeout))
        return self._follow(lambda info: querying.similar(info, id, k, request, stages))

    def recommend(
        self,
        liked: str | Iterable[str] = (),
        disliked: str | Iterable[str] = (),
        *,
        k: int = 10,
        strategy: recommending.Strategy = "rocchio",
        history: Iterable[recommending.Event | Mapping[str, Any] | tuple[str, recommending.When]] = (),
        half_life: timedelta | float | str | None = None,
        now: recommending.When | None = None,
        exclude: str | Iterable[str] = (),
        on_missing: recommending.OnMissing = "raise",
        disliked_weight: float | None = None,
        filter: Filter | None = None,  # noqa: A002
        boosts: Sequence[Mapping[str, Any]] = (),
        diversity: float = 0.0,
        near_duplicates: float | None = None,
        min_dense_score: float | None = None,
        collapse: bool | None = None,
        space: int | None = None,
        timeout: float | None = None,
    ) -> list[Hit]:
        """Return the ``k`` documents (1..1,000) that somebody will like, by what they liked and disliked.

        Stored vectors are compared; nothing is embedded. 'rocchio' looks near the mean of the liked ones,
        away from that of the disliked by ``disliked_weight`` (0..1, default 0.2). 'best_score' looks near
        each liked one, and leaves out what is nearer to a disliked one. ``history`` are events (id, at,
        weight), of which each counts weight * 2 ** (-age / half_life); ``half_life`` is in seconds, a
        timedelta or an interval ('30 days'), and ages are counted to ``now``, by default the server's
        time. Nothing of it is returned again, nor are documents in ``exclude``. Ids that are not stored
        raise, or are left out with ``on_missing='ignore'``. The other options are those of `Search`.

        Raises:
            InvalidInput: also if nothing stored and embedded is liked. CollectionNotFound, DatabaseError.
        """
        examples = recommending.Examples(
            liked=recommending.ids("liked", liked),
            disliked=recommending.ids("disliked", disliked),
            history=recommending.events(history),
            half_life=half_life,
            now=now,
            exclude=recommending.ids("exclude", exclude),
            strategy=strategy,
            disliked_weight=disliked_weight,
            on_missing=on_missing,
        )
        request = Search(
            "-",
            filter=to_jsonpath(filter),
            boosts=boosts,
            diversity=diversity,
            near_duplicates=near_duplicates,
            min_dense_score=min_dense_score,
            collapse=collapse,
            space=space,
        )
        stages = Stages(self.name, self._policy(timeout))
        return self._follow(lambda info: recommending.recommend(info, examples, k, request, stages))

    def find_answer(
        self,
        query: str,
        *,
        min_similarity: float | None = None,
        scope: str = "",
        guard: bool = True,
        timeout: float | None = None,
    ) -> answer_scripts.Answer | None:
        """Return the answer that `put_answer` keeps for this question, or for one near enough; else None.

        Near enough are questions whose cosine is ``min_similarity`` (-1..1) or more, by default the threshold
        of the space for 'answer_cache', see `pgseek.analysis`; without one only the same question counts,
        whatever its case, spaces and signs at its end. ``guard`` leaves out questions with other numbers,
        identifiers, negations, names or opposites. ``scope`` is what else the answer depends on: only answers
        kept for the same text are found. What has expired, or cites a document that changed or went, is not
        served. Nothing is written, but for the cache of vectors.

        Raises:
            InvalidInput, EmbedderError, CollectionNotFound, DatabaseError, SearchTimeout.
        """
        found = self._answer(
            lambda run, stages: answer_scripts.find(run, query, stages, min_similarity, scope, guard), timeout
        )
        self._asked.note(found)
        return found

    def put_answer(
        self,
        query: str,
        answer: str,
        *,
        ttl: timedelta | float | None = None,
        documents: str | Iterable[str] = (),
        scope: str = "",
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Keep the answer to a question for `find_answer`, in place of the one there was.

        It is served for ``ttl`` (a timedelta, or seconds), by default without end, and as long as the
        ``documents`` it rests on, given by id, stay as they are; it belongs to the model that is searched by
        now. ``metadata`` is given back with it.

        Raises:
            InvalidInput: also if a document is not there. EmbedderError, CollectionNotFound, DatabaseError.
        """
        cited = documents if isinstance(documents, str) else list(documents)
        self._answer(
            lambda run, stages: answer_scripts.put(run, query, answer, stages, ttl, cited, scope, metadata),
            timeout,
        )

    def clear_answers(
        self,
        *,
        query: str | None = None,
        scope: str | None = None,
        documents: str | Iterable[str] | None = None,
        only_stale: bool = False,
    ) -> int:
        """Delete kept answers that all conditions given hold for; return how many there were.

        ``documents`` means answers that cite one of them, ``only_stale`` those that are served no more.
        """
        cited = documents if documents is None or isinstance(documents, str) else list(documents)
        return self._follow(lambda info: answer_scripts.clear(info, query, scope, cited, only_stale))

    def answer_stats(self) -> list[answer_scripts.AnswerStats]:
        """Return what answers are kept, by scope."""
        return self._follow(answer_scripts.stats)

    @property
    def answer_counts(self) -> answer_scripts.AnswerCounts:
        """How often `find_answer` was called on this object, and how many answers it had."""
        return self._asked.counts

    def get(self, id: str) -> Document | None:  # noqa: A002 (the caller's id)
        """Return a document, None if there is no such id."""
        return self._follow(lambda info: document_scripts.get(info, id))

    def delete(self, ids: str | Iterable[str]) -> int:
        """Delete one document or several; return how many there were."""
        given = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str) else ids
        return self._follow(lambda info: document_scripts.delete(info, given))

    def count(self) -> int:
        """Return the number of documents."""
        return self._follow(document_scripts.count)

    def drain_queue(
        self, *, progress: ingest_scripts.Progress | None = None, policy: QueuePolicy | None = None
    ) -> IngestReport:
        """Chunk and embed the documents that SQL writers stored and that are due; ``changed`` counts them.

        Those that cannot be embedded are reported as rejected. Their words are found; they are tried again
        later, or given up where that would not help (`failed_documents`).

        Raises:
            EmbedderError: the embedder does not work; the documents wait as before.
        """
        info = self._renew()
        worker = queue_scripts.worker_name()
        script = drain_scripts.drain(
            info,
            self._own_embedder(info),
            self._client._settings.cache_policy(),
            worker,
            policy or QueuePolicy(),
            progress,
            self._own_generator(info),
            self._given,
        )
        return self._client._serve(worker, script)

    def work(
        self,
        *,
        once: bool = False,
        batch_size: int = drain_scripts.BATCH_SIZE,
        poll: float = 30.0,
        policy: QueuePolicy | None = None,
        stop: Stop | None = None,
        progress: Callable[[WorkReport], None] | None = None,
        notice: Callable[[str], None] = log.warning,
    ) -> WorkReport:
        """Do as `Client.work` for this collection, with its own embedder."""
        generator = self._own_generator(self._info)
        return self._client.work(
            [self.name],
            embedders={self.name: self._given},
            generators={} if generator is None else {self.name: generator},
            once=once,
            batch_size=batch_size,
            poll=poll,
            policy=policy,
            stop=stop,
            progress=progress,
            notice=notice,
        )

    def queue_status(self) -> QueueStatus:
        """Return how many documents wait for their embeddings, and how."""
        info = self._renew()
        (found,) = self._client._run(queue_scripts.status(info))
        return found

    def retry_queue(self, ids: str | Iterable[str] | None = None) -> int:
        """Make documents that failed, or are due again later, due now; return how many. None: all of them."""
        info = self._renew()
        return self._client._run(queue_scripts.retry(info, ids))

    def failed_documents(self, *, limit: int = 100) -> list[QueueFailure]:
        """Return documents that were given up, with the reason, the latest first."""
        info = self._renew()
        return self._client._run(queue_scripts.failures(info, limit))

    def spaces(self) -> list[SpaceInfo]:
        """Return the collection's embedding spaces by number, with counts; retired ones, too."""
        return self._client._run(space_scripts.described(self._info))

    def space(self, space: int | str) -> SpaceInfo:
        """Return one embedding space, with counts: by its number, or its model where that is unambiguous.

        Raises:
            InvalidInput: the message lists those it has.
        """
        return self._client._run(space_scripts.show(self._info, space))

    def plan_reembed(
        self,
        to: Embedder | str,
        *,
        dimensions: int | None = None,
        metric: Metric | None = None,
        storage: Storage | None = None,
        index: VectorIndex | Mapping[str, Any] | str | None = None,
        again: bool = False,
    ) -> ReembedPlan:
        """Return what `reembed` would do, cost and take; nothing is written.

        A local model embeds a few texts to tell how fast it is; a service is asked nothing.

        Raises:
            InvalidInput, EmbedderError.
        """
        self._renew()
        wanted = planning.target(self._info, to, dimensions, metric, storage, index, again)
        return self._client._run(planning.plan(self._info, *wanted, again=again))

    def reembed(
        self,
        to: Embedder | str,
        *,
        dimensions: int | None = None,
        metric: Metric | None = None,
        storage: Storage | None = None,
        index: VectorIndex | Mapping[str, Any] | str | None = None,
        again: bool = False,
        gate: Gate | None = None,
        workers: int = 1,
        max_cost: float | None = None,
        switch: bool = True,
        stop: Stop | None = None,
        progress: Callable[[ReembedReport], None] | None = None,
    ) -> ReembedReport:
        """Change the collection to another embedder, metric or storage while it is searched and written to.

        A second space is filled beside the one that is searched, by ``workers`` (1..8) at once, and by
        whoever calls this elsewhere; writes go to both. Vectors that can be cut from stored ones are,
        others come from the cache or the embedder. Then ``gate`` compares the two, and if the new one
        passes (and ``switch`` is true) it becomes the one that is searched. The old one is kept up to
        date until `retire`; `rollback` goes back to it. Calling it again after an error or a stop goes
        on; ``max_cost``, in dollars, ends it before the first request that would pass it. ``progress``
        is called after each batch. ``again`` is for a model that its provider changed under the same name
        (see `probe`): everything is embedded anew, and nothing taken from the cache.

        Raises:
            InvalidInput: the collection has that already, or another change is under way.
            EmbedderError, CostLimitReached, DatabaseError: what was embedded stays.
        """
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 8:
            raise InvalidInput(f"workers is {workers!r}, but must be from 1 to 8")
        self._renew()
        wanted = planning.target(self._info, to, dimensions, metric, storage, index, again)
        self._client._share_limits(wanted[0])
        if wanted[0] not in self._given:
            self._given = (*self._given, wanted[0])
        own = self._own_embedder()
        policy = self._client._settings.cache_policy()
        job = running.Job(
            embedding_scripts.Embedding(self._info, own, policy, Spending(), None, self._given),
            wanted,
            gate or Gate(),
            workers,
            max_cost,
            switch,
            stop or worker_scripts.never(),
            progress,
            again,
        )
        report = self._client._run(running.reembed(job))
        self._renew()
        return report

    def activate(self, space: int | str) -> int:
        """Search by another space, which must be ready; return how many documents wait for their vectors.

        ``space`` is its number, or its model where that is unambiguous.

        Raises:
            InvalidInput.
        """
        found = self._client._run(space_scripts.find(self._info, space))
        left = self._client._run(switching.activate(self._info, found))
        self._renew()
        return left

    def plan_rechunk(
        self,
        to: Embedder | str | None = None,
        *,
        generator: TextGenerator | str | None = None,
        **settings: Any,
    ) -> ReembedPlan:
        """Return what `rechunk` would make and cost, estimated from some documents; nothing is written.

        Raises:
            InvalidInput.
        """
        info = self._renew()
        wanted = rechunking.wanted(info, self._own_embedder(info), to, generator, settings)
        return self._client._run(rechunking.plan(info, wanted))

    def rechunk(
        self,
        to: Embedder | str | None = None,
        *,
        generator: TextGenerator | str | None = None,
        gate: Gate | None = None,
        workers: int = 1,
        max_cost: float | None = None,
        switch: bool = True,
        stop: Stop | None = None,
        progress: Callable[[ReembedReport], None] | None = None,
        **settings: Any,
    ) -> ReembedReport:
        """Divide the documents otherwise, and embed them by ``to`` if given, while search and writes go on.

        ``settings`` are those of `Client.create_collection` that change: chunk_size, chunk_overlap,
        section_size, heading_context, long_texts, document_vectors, questions, summaries, k1, b and
        title_weight. A hidden copy of the collection is filled; writes go to both. When it has passed the
        ``gate`` (and ``switch`` is true) it takes the name. The one that had it is kept in step: `rollback`
        gives it back, `retire` drops the copy, whichever that is. The rest is as in `reembed`.

        Raises:
            InvalidInput, ChangeRefused, EmbedderError, CostLimitReached, DatabaseError: what was made stays.
        """
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 8:
            raise InvalidInput(f"workers is {workers!r}, but must be from 1 to 8")
        info = self._renew()
        own = self._own_embedder(info)
        wanted = rechunking.wanted(info, own, to, generator, settings)
        self._client._share_limits(wanted.embedder)
        if wanted.embedder not in (own, *self._given):
            self._given = (*self._given, wanted.embedder)
        policy = self._client._settings.cache_policy()
        job = rechunking.Job(
            embedding_scripts.Embedding(info, own, policy, Spending(), None, (own, *self._given)),
            wanted,
            gate or Gate(),
            workers,
            max_cost,
            switch,
            stop or worker_scripts.never(),
            progress,
        )
        report = self._client._run(rechunking.rechunk(job))
        self._renew()
        return report

    def rollback(self) -> SpaceInfo:
        """Search by the space again that was searched before the present one; return it.

        After `rechunk` that is the collection as it was divided before.

        Raises:
            InvalidInput: there is none that is kept.
        """
        info = self._renew()
        found = self._client._run(rechunking.go_back(info))
        self._renew()
        return found

    def retire(self, space: int | str) -> None:
        """Drop the vectors of a space that is not searched, or give up one that is being built.

        With the name of the collection's copy, as `info` tells it, the copy is dropped.

        Raises:
            InvalidInput: there is no such space, or it is the one that is searched.
        """
        info = self._renew()
        self._client._run(rechunking.retire(info, space))

    def compare_spaces(
        self,
        a: int | str,
        b: int | str,
        queries: Mapping[str, str] | Sequence[str],
        qrels: Mapping[str, Mapping[str, int]] | None = None,
        *,
        k: int = 10,
        alpha: float | None = None,
        measures: Sequence[str] = DEFAULT_MEASURES,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> comparing.SpaceComparison:
        """Search by two ready spaces side by side: what differs, how long it takes, what it costs, how good.

        ``a`` and ``b`` are numbers of spaces, or models where these are unambiguous. ``queries`` are texts by
        id, or a list, whose ids are 1, 2, …; the first ``k`` documents that either space finds are compared.
        Each space is searched as the collection would be if it were the active one; ``alpha`` 1 compares
        the dense legs alone. With ``qrels`` (grades by query id and document id) ``measures`` are taken, and
        their differences tested; that needs the extra ``eval``. ``progress`` is called with what runs, the
        queries done, and how many there are.

        Raises:
            InvalidInput: there is no such space, or it is the same twice; no query, or none is judged.
            SpaceMismatch: a space is not ready.
            MissingExtra, EmbedderError, DatabaseError.
        """
        if not isinstance(queries, Mapping):
            queries = {str(number): text for number, text in enumerate(queries, 1)}
        wanted = comparing.Wanted(queries, qrels, k, alpha, tuple(measures), progress)
        self._renew()
        embedder = self._own_embedder()
        policy = self._client._settings.cache_policy()
        run = embedding_scripts.Embedding(self._info, embedder, policy, Spending(), None, self._given)
        script = comparing.compare_spaces(run, a, b, wanted, self._client._share_limits)
        return self._client._run(script)

    def probe(self) -> ProbeReport:
        """Do as `Client.probe` for this collection, with its own embedder."""
        given = {self.name: self._given}
        script = probing_scripts.probe([self.name], given, self._client._share_limits)
        return self._client._run(script)

    def build_index(
        self,
        index: VectorIndex | Mapping[str, Any] | str | None = None,
        *,
        space: int | str | None = None,
        concurrently: bool = True,
        rebuild: bool = False,
        maintenance_work_mem: str | None = None,
        workers: int | None = None,
        progress: building.Told | None = None,
    ) -> building.IndexBuild:
        """Build the index of the vectors, or another one in its place, while searches and writes go on.

        ``index`` is a `VectorIndex` or a string such as 'hnsw,m=32', 'ivfflat', 'binary', 'prefix=256' or
        'none'; by default the one the space has. ``space`` is a number or a model, by default the
        active one. The new index is built beside the old one and then put in its place; below 1,000 rows
        only the wish is stored. ``concurrently=False`` makes writers wait meanwhile. ``rebuild`` builds the
        same index anew. ``maintenance_work_mem`` ('2GB') and ``workers`` are the build's own, by default what
        it needs up to 1 GB, and the server's setting. ``progress`` is called twice a second.

        Raises:
            InvalidInput: there is no such space, or pgvector has no such index.
            DatabaseError: the build broke off; the old index is still there.
        """
        wish = building.Wish(index, concurrently, rebuild, maintenance_work_mem, workers)
        built = self._client._run(building.build(self._renew(), space, wish, progress))
        self._renew()
        return built

    def drop_index(
        self, *, space: int | str | None = None, progress: building.Told | None = None
    ) -> building.IndexBuild:
        """Drop the index of the vectors: searches compare all of them, until `build_index` builds it again.

        Raises:
            InvalidInput, DatabaseError.
        """
        return self.build_index("none", space=space, progress=progress)

    def index_metadata(self, field: str | Sequence[str], type: MetadataType) -> MetadataIndex:  # noqa: A002
        """Index a metadata field, so that filters on it find their documents without reading all of them.

        ``field`` is a name such as 'year', 'author.name' for a key within an object, or ``["a.b"]`` for one
        key with a dot. ``type`` says which of its values are meant: 'text', 'number' or 'date' (which ingest
        stores as text). What the index answers are ranges, equality, lists and prefixes; equality alone
        needs none. It is built while searches and writes go on, and goes with the collection.

        Raises:
            InvalidInput: no name of a field, or no type.
            DatabaseError: the tables belong to another role, or the build broke off.
        """
        index = self._client._run(metadata_indexes.declare(self._renew(), field, type))
        self._renew()
        return index

    def drop_metadata_index(self, field: str | Sequence[str]) -> None:
        """Drop the index of a metadata field; filters find the same. Raises `InvalidInput` without one."""
        self._client._run(metadata_indexes.withdraw(self._renew(), field))
        self._renew()

    def describe_index(self, *, space: int | str | None = None) -> describing.IndexState:
        """Return how the vectors are indexed, and how far a build is. Raises `InvalidInput`."""
        return self._client._run(describing.describe(self._renew(), space))

    def tune_index(
        self,
        recall: float = 0.95,
        *,
        k: int = 10,
        space: int | str | None = None,
        sample: int = 100,
        store: bool = True,
        progress: building.Told | None = None,
    ) -> tuning.IndexTuning:
        """Find the smallest ef_search (of IVFFlat: probes) that holds a recall, and let searches use it.

        Where the index knows less than whole vectors, also the smallest ``rerank``. ``recall`` is of the
        ``k`` nearest (1..1,000), against exact search, by up to ``sample`` (10..10,000) queries that were
        asked before, or without enough of those, by stored vectors. Nothing is stored if no value holds it,
        or if ``store`` is false.

        Raises:
            InvalidInput: there is no such space, or it has no index.
            DatabaseError.
        """
        aim = measuring.Aim(recall, k, sample)
        return self._client._run(tuning.tune(self._renew(), space, aim, store, progress))

    def advise_index(
        self,
        recall: float = 0.95,
        *,
        k: int = 10,
        space: int | str | None = None,
        sample: int = 100,
        progress: building.Told | None = None,
    ) -> advising.IndexAdvice:
        """Measure the index against exact search, estimate what others would take, and propose one.

        Builds are timed over some thousand rows in temporary tables; nothing else is written. For the
        arguments see `tune_index`.

        Raises:
            InvalidInput, DatabaseError.
        """
        aim = measuring.Aim(recall, k, sample)
        return self._client._run(advising.advise(self._renew(), space, aim, progress))

    def refresh_statistics(self, *, reweigh: bool = False) -> float | None:
        """Bring BM25's statistics up to date; ingest does so whenever the collection grew by a tenth.

        Returns the average chunk length now over the one the chunks are weighed with, None if there
        are no chunks. ``reweigh`` sets it to 1 by rewriting the chunks; writers wait meanwhile.
        """
        return self._client._run(collection_scripts.refresh_statistics(self._info, reweigh))

    def set_calibration(self, calibration: Calibration | None) -> None:
        """Have the hits of the active space tell their ``relevance`` from now on; None ends that.

        See `pgseek.evaluation.calibrate`. Another space, or another model, needs a calibration of its own.
        """
        values = None if calibration is None else calibration.to_json()
        self._client._run(space_scripts.set_calibration(self._renew(), values))

    def _follow(self, make: Callable[[CollectionInfo], Script[T]]) -> T:
        """Run a script for the collection; if it is gone, for the one that took its name."""
        info = self._info
        try:
            return self._client._run(make(info))
        except CollectionNotFound:
            now = self._renew()
            if now.collection_id == info.collection_id:
                raise
        return self._client._run(make(now))

    def _answer(
        self, make: Callable[[embedding_scripts.Embedding, Stages], Script[T]], timeout: float | None
    ) -> T:
        """Run a script that may embed a query; if the collection changed since it was opened, once more."""
        stages = Stages(self.name, self._policy(timeout))
        info = self._info
        try:
            return self._client._run(make(self._embedding(info), stages))
        except (SpaceMismatch, InvalidInput, CollectionNotFound):
            now = self._renew()
            if (now.space_id, now.name) == (info.space_id, info.name):
                raise
            stages.again()
        return self._client._run(make(self._embedding(now), stages))

    def _policy(
        self,
        timeout: float | None,
        on_embedder_error: OnEmbedderError | None = None,
        rerank_top: int | None = None,
        rerank_budget: float | None = None,
    ) -> SearchPolicy:
        defaults = self._client._settings
        return SearchPolicy(
            on_embedder_error=on_embedder_error or defaults.on_embedder_error,
            timeout=defaults.search_timeout if timeout is None else timeout,
            rerank_top=rerank_top,
            rerank_budget=rerank_budget,
        )

    def _embedding(self, info: CollectionInfo) -> embedding_scripts.Embedding:
        policy = self._client._settings.cache_policy()
        return embedding_scripts.Embedding(
            info, self._own_embedder(info), policy, Spending(), None, self._given
        )

    def _renew(self) -> CollectionInfo:
        """Look at the collection as it stands now, under the name it was opened by."""
        self._info = now = self._client._run(collection_scripts.find_again(self._info))
        return now

    def _own_embedder(self, info: CollectionInfo | None = None) -> Embedder:
        info = info or self._info
        # Loading a model may take seconds: searches that begin together wait for one load.
        with self._lock:
            if self._embedder is None or self._embedder.identity != info.identity:
                self._embedder = collection_scripts.embedder_of(info, self._given)
            self._client._share_limits(self._embedder)
            return self._embedder

    def _own_generator(self, info: CollectionInfo) -> TextGenerator | None:
        with self._lock:
            name = info.settings.get("generator", "")
            known = self._generator or self._generators.get(name)
            found = collection_scripts.own_generator(info, known)
            if found is not None:
                self._generators[name] = found
            self._client._share_limits(found)
            return found


def _sync(sync: bool | Filter, max_removed: float) -> Sync | None:
    if sync is False:
        return None
    return Sync(None if sync is True else to_jsonpath(sync), max_removed)


def _request(query: str | Search, filter: Filter | None, k: int = 10) -> Search:  # noqa: A002
    """Return the request that is meant; a filter goes with a text, a `Search` brings its own."""
    if isinstance(query, Search):
        if filter is not None:
            raise InvalidInput("filter is given twice: a Search has its own")
        return replace(query, filter=to_jsonpath(query.filter))
    return Search(query, k=k, filter=to_jsonpath(filter))


class Runner:
    """Runs scripts over a connection pool: each step outside a transaction on its own connection."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            session.dsn,
            connection_class=psycopg.Connection[dict[str, Any]],
            kwargs=session.connection_arguments(),
            configure=session.configure,
            check=ConnectionPool.check_connection,
            **session.pool_arguments(),
            open=False,
        )
        self.dsn = session.dsn
        self._background = Background()

    def open(self) -> None:
        self._pool.open()

    def close(self) -> None:
        self._background.close()
        # Another client's limits open it again.
        shared_connection(self.dsn).close()
        self._pool.close()

    def run(self, script: Script[T]) -> T:
        """Run a script to its end and return its result."""
        return _drive(script, self._perform)

    def _perform(self, step: Step) -> Any:
        result: Any
        match step:
            case StartEmbedding() | StartGeneration():
                result = self._background.begin(step)
            case StartAlone():
                result = self._background.begin_alone(step, self._session.connection)
            case Await(underway, seconds):
                wait([underway.future], timeout=seconds)
                result = underway.outcome()
            case Start(script):
                result = Running(self._background.start(self.run, script()))
            case Join(running):
                result = running.future.result()
            case Sleep(seconds):
                time.sleep(seconds)
                result = None
            case Call(function, None):
                result = function()
            case Call(function, seconds):
                future = self._background.call(function)
                waiting = future
                try:
                    wait([waiting], timeout=seconds)
                finally:
                    waiting.cancel()
                result = called(future)
            case _:
                result = self._ask(step)
        return result

    def _ask(self, step: Fetch | CopyIn | Transact | Listen) -> Any:
        """Perform a step of the database, with its errors as pgseek's."""
        try:
            if isinstance(step, Transact):
                return self._transact(step)
            with self._pool.connection() as connection:
                return _perform_on(connection, step)
        except PoolTimeout as error:
            if isinstance(step, Transact) and step.seconds is not None and step.seconds < self._pool.timeout:
                raise TimeoutError("no connection became free in time") from error
            raise self._session.unreachable(self._pool.get_stats()["pool_size"]) from error
        except psycopg.Error as error:
            raise translate(error, self._session.dsn) from error

    def _transact(self, step: Transact) -> Any:
        own = self._pool.timeout
        patience = own if step.seconds is None else min(own, step.seconds)
        for attempt in counter(1):
            try:
                with self._pool.connection(patience) as connection, connection.transaction():
                    return _drive(step.script(), partial(_perform_on, connection))
            except CONFLICTS:
                if attempt == ATTEMPTS:
                    raise
        return None


def _drive(script: Script[T], perform: Callable[[Step], Any]) -> T:
    """Hand each step's result, or the error it ended with, back to the script."""
    # The script's own clean-up may have to wait for its source; what it began shall not go on so long.
    begun: deque[Underway] = deque(maxlen=4)
    running: deque[Any] = deque(maxlen=8)
    try:
        outcome = advance(script)
        while not isinstance(outcome, Done):
            try:
                result = perform(outcome)
            except Exception as error:
                outcome = advance(script, error=error)
            else:
                if isinstance(result, Underway):
                    begun.append(result)
                elif isinstance(result, Running):
                    running.append(result.future)
                outcome = advance(script, result)
        return outcome.value
    finally:
        for underway in begun:
            underway.stop.set()
        if running:
            wait(running)
        for future in running:
            # Nobody is left to hear of its error; it has been seen.
            _ = future.cancelled() or future.exception()
        close(script)


def _perform_on(connection: Connection, step: Step) -> Any:
    match step:
        case Fetch(statement, parameters):
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description is not None else []
        case CopyIn(statement, types, rows):
            with connection.cursor().copy(statement) as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(row)
            return None
        case Listen():
            return _listen_on(connection, step)
        case _:
            raise TypeError(f"{type(step).__name__} cannot run inside a transaction")


def _listen_on(connection: Connection, step: Listen) -> None:
    connection.execute(SQL("LISTEN {}").format(Identifier(step.channel)))
    try:
        cursor = connection.execute(step.statement, step.parameters)
        found = cursor.fetchall()
        left = 0.0 if found else step.seconds
        while left > 0 and not step.stop.is_set():
            for _ in connection.notifies(timeout=min(left, PATIENCE), stop_after=1):
                left = 0.0
            left -= PATIENCE
    finally:
        # The next to use the connection has not asked for it.
        connection.execute("UNLISTEN *")
