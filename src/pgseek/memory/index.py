"""`MemoryIndex`: the search of a collection over arrays in memory, exact in both legs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pgseek import search as search_scripts
from pgseek import spaces
from pgseek.chunking import chunk_text
from pgseek.collections import choose_embedder
from pgseek.embedders.base import Embedder, checked_documents, checked_query, usable
from pgseek.embedders.catalog import fusion_defaults
from pgseek.errors import DimensionMismatch, InvalidInput, SpaceMismatch
from pgseek.expansion import joined
from pgseek.filters import Filter, to_jsonpath
from pgseek.fusion import DEEPEST
from pgseek.memory import copying, storing
from pgseek.memory.ranking import (
    Candidate,
    Fused,
    Legs,
    Weighing,
    best_of_documents,
    dense_distances,
    lexical_scores,
)
from pgseek.memory.rows import Floats, Postings, Row, Rows, kept_postings, postings_of
from pgseek.memory.words import Asked, DatabaseWords, FoldedWords, Words
from pgseek.passages import embedding_text
from pgseek.prepare import document_from, document_id
from pgseek.types import (
    Alpha,
    CollectionInfo,
    Document,
    EmbedderIdentity,
    Fusion,
    Hit,
    Lexical,
    Match,
    Normalization,
    Search,
    SpaceInfo,
    Syntax,
)
from pgseek.vectors import Metric, Storage, check_metric

# Options of a search that take the database, or models besides the embedder, with the value that leaves them
# off.
ELSEWHERE: Mapping[str, Any] = {
    "lexical": (None, "bm25"),
    "snippets": (False,),
    "ef_search": (None,),
    "probes": (None,),
    "rerank": (None,),
    "boosts": ((), []),
    "diversity": (0, 0.0),
    "near_duplicates": (None,),
    "passages": (0,),
    "neighbours": (0,),
    "feedback": (0,),
    "on_embedder_error": (None, "raise"),
    "timeout": (None,),
    "reranker": (None,),
    "rerank_top": (None,),
    "rerank_budget": (None,),
    "expand": (None,),
    "report": (None,),
}


class MemoryIndex:
    """Documents in memory, searched as a collection is: exact vectors, exact BM25, the same fusion.

    `from_collection` takes over a collection's rows, vectors and BM25 weights. Its searches give what exact
    searches of the collection give, so that recall can be measured against them. Queries are still read by
    the database, which has the dictionaries; the collection's client must stay open.

    One made directly embeds what `add` is given and needs no database. Its lexical leg knows words, not
    PostgreSQL's lexemes: lower case without accents, and no stems unless ``stem`` makes them
    (``snowballstemmer.stemmer("english").stemWord``, say). Rankings then differ from a collection's.

    It is not safe to change it while another thread searches it.
    """

    def __init__(
        self,
        embedder: Embedder | str = "wordllama",
        *,
        metric: Metric = "cosine",
        alpha: float | None = None,
        normalization: Normalization | None = None,
        chunk_size: int = 2000,
        k1: float = 1.2,
        b: float = 0.75,
        title_weight: float = 2.0,
        stem: Callable[[str], str] | None = None,
    ) -> None:
        """Make an empty index; ``alpha`` and ``normalization`` are the embedder's own by default.

        Raises:
            InvalidInput, EmbedderError.
        """
        made = choose_embedder(embedder, None)
        fused = fusion_defaults(made.identity)
        settings: dict[str, Any] = {
            "fusion": "weighted",
            "alpha": fused.alpha if alpha is None else alpha,
            "normalization": normalization or fused.normalization,
            "candidates": 100,
            "collapse": None,
            "chunk_size": chunk_size,
        }
        Search("-", alpha=settings["alpha"], normalization=settings["normalization"])
        self._embed: Callable[[str], Floats] = lambda query: checked_query(made, query)
        self._embedder: Embedder | None = made
        self._origin: tuple[copying.Copied, CollectionInfo] | None = None
        words = FoldedWords(stem, k1, b, title_weight)
        self._fill(Rows.of((), made.identity.dimensions), {}, words, made.identity, settings)
        self._metric: Metric = check_metric(metric)
        self._storage: Storage = "vector"

    def _fill(
        self,
        rows: Rows,
        postings: Postings,
        words: Words | None,
        identity: EmbedderIdentity,
        settings: Mapping[str, Any],
    ) -> None:
        self._rows, self._postings, self._words = rows, postings, words
        self._identity, self._settings = identity, settings
        self._calibration: Mapping[str, float] | None = None
        self._space_id: int | None = None

    @classmethod
    def from_collection(
        cls,
        docs: copying.Copied,
        *,
        filter: Filter | None = None,  # noqa: A002 (the field's word)
        space: int | str | None = None,
        progress: copying.Progress | None = None,
    ) -> MemoryIndex:
        """Copy a collection, or what ``filter`` keeps of it, with the vectors of ``space`` (the active one).

        It stays as it is: what is written to the collection afterwards is not in it. ``progress`` is called
        with the rows read and how many there are. It holds four bytes for each number of each vector, and
        the texts.

        Raises:
            InvalidInput: there is no such space, or it is not complete.
            DatabaseError.
        """
        info, run = docs.info(), docs._client._run
        chosen = run(copying.chosen_space(info, space))
        rows, postings = run(copying.copy(info, chosen, to_jsonpath(filter), progress))
        made = cls.__new__(cls)
        made._connect(docs, info, chosen, rows, postings)
        return made

    def _connect(
        self, docs: copying.Copied, info: CollectionInfo, space: SpaceInfo, rows: Rows, postings: Postings
    ) -> None:
        def embed(query: str) -> Floats:
            run = docs._embedding(info).of(space)
            script = search_scripts.query_embedding(run.info, run.embedder, query, run.policy)
            vector: Floats = docs._client._run(script)
            return vector

        self._embed, self._embedder, self._origin = embed, None, (docs, info)
        self._fill(rows, postings, DatabaseWords(docs._client._run, docs.name), space.identity, info.settings)
        self._metric, self._storage, self._space_id = space.metric, space.storage, space.space_id
        self._calibration = space.searching.get("calibration")

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._rows.documents)

    def count(self) -> int:
        """Return the number of documents."""
        return len(self)

    @property
    def vectors(self) -> Floats:
        """The vectors of all rows, float32 (n, d), in the order of `keys`; NaN where a row has none."""
        return self._rows.vectors

    @property
    def keys(self) -> list[tuple[str, int]]:
        """The document's id and the ordinal of each row, in the order that decides ties."""
        return [(row.id, row.key) for row in self._rows.rows]

    def add(self, documents: Iterable[Document | Mapping[str, Any]]) -> int:
        """Embed and add documents; one whose id is there replaces it. Returns how many were given.

        Raises:
            InvalidInput: a document cannot be stored, or the index is a copy of a collection.
            EmbedderError.
        """
        if self._embedder is None or not isinstance(self._words, FoldedWords):
            raise InvalidInput(
                "this index is a copy of a collection, whose words only the database knows: ingest the "
                "documents there and copy it again with MemoryIndex.from_collection"
            )
        given: dict[str, Document] = {}
        for one in documents:
            document = one if isinstance(one, Document) else document_from(one)
            if not document.text.strip():
                raise InvalidInput(f"document {document.id!r} has no text")
            given[document.id] = document
        added = [row for document in given.values() for row in self._divided(document)]
        if not added:
            return 0
        vectors = checked_documents(self._embedder, [embedding_text(row.title, row.text) for row in added])
        gone = {document_id(name) for name in given}
        kept = [pair for pair in self._rows.with_vectors() if pair[0].document_id not in gone]
        self._rows = Rows.of([*kept, *zip(added, vectors, strict=True)], self._identity.dimensions)
        self._postings = postings_of(self._words.weigh([(row.title, row.text) for row in self._rows.rows]))
        return len(given)

    def _divided(self, document: Document) -> list[Row]:
        chunks = chunk_text(document.text, self._settings["chunk_size"], format=document.format)
        key = document_id(document.id)
        return [
            Row(
                key,
                chunk.ordinal,
                document.id,
                chunk.ordinal,
                "chunk",
                document.title,
                chunk.text,
                dict(document.metadata),
                chunk.char_start,
                chunk.char_end,
                dict(chunk.provenance),
            )
            for chunk in chunks
        ]

    def delete(self, ids: str | Iterable[str]) -> int:
        """Delete documents by id; returns how many there were. Of a copy, the collection keeps its own, and
        its statistics go on to weigh the words."""
        gone = {document_id(name) for name in ([ids] if isinstance(ids, str) else ids)}
        before, size = len(self), len(self._rows.rows)
        self._rows, kept = self._rows.without(gone)
        if isinstance(self._words, FoldedWords):
            weights = self._words.weigh([(row.title, row.text) for row in self._rows.rows])
            self._postings = postings_of(weights)
        else:
            self._postings = kept_postings(self._postings, kept, size)
        return before - len(self)

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        alpha: Alpha | None = None,
        fusion: Fusion | None = None,
        lexical: Lexical | None = None,
        filter: Filter | Callable[[Mapping[str, Any]], bool] | None = None,  # noqa: A002 (the field's word)
        candidates: int | None = None,
        rrf_k: int = 60,
        query_embedding: Sequence[float] | Sequence[Sequence[float]] | None = None,
        snippets: bool = False,
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
        on_embedder_error: Any = None,
        timeout: float | None = None,
        reranker: Any = None,
        rerank_top: int | None = None,
        rerank_budget: float | None = None,
        expand: Any = None,
        report: Any = None,
    ) -> list[Hit]:
        """Return the best ``k`` chunks, as `Collection.search` does; see there for the options.

        ``filter`` may also be a function of a document's metadata; other forms are decided by the database,
        so they need an index from a collection. ``query_embedding`` may be given without its ``model``.
        ``budget`` has no effect: there is nothing approximate. Refused are options that only the database
        has (snippets, boosts, diversity, …).

        Raises:
            InvalidInput: names the option that is not to be had here.
            DimensionMismatch, SpaceMismatch, EmbedderError, DatabaseError.
        """
        given = dict(locals())
        for name, off in ELSEWHERE.items():
            if given[name] not in off:
                raise InvalidInput(
                    f"{name} is {given[name]!r}, but an index in memory does not have that option: leave it "
                    "out, or search the collection"
                )
        request = Search(
            query,
            k=k,
            alpha=alpha,
            fusion=fusion,
            candidates=candidates,
            rrf_k=rrf_k,
            highlight=highlight,
            normalization=normalization,
            syntax=syntax,
            typos=typos,
            budget=budget,
            collapse=collapse,
            space=space,
            min_score=min_score,
            min_dense_score=self._least(min_dense_score),
            min_lexical_score=min_lexical_score,
        )
        if space is not None and space != self._space_id:
            raise InvalidInput(
                f"space is {space}, but this index holds the vectors of {self._space_id or 'no space'}: copy "
                "the other with MemoryIndex.from_collection(docs, space=…)"
            )
        if model is not None and model not in {
            str(self._identity),
            f"{self._identity.provider}:{self._identity.model}",
        }:
            raise SpaceMismatch(f"the vector is of {model!r}, but this index holds those of {self._identity}")
        return self._found(request, self._allowed(filter), query_embedding)

    def _least(self, given: float | Literal["calibrated"] | None) -> float | None:
        if given != "calibrated":
            return given
        if self._origin is None:
            raise InvalidInput(
                "min_dense_score is 'calibrated', but it is a collection's spaces that keep "
                "thresholds: give a number"
            )
        docs, info = self._origin
        least: float = docs._client._run(spaces.threshold(info, "no_answer", self._space_id))
        return least

    def _found(self, request: Search, allowed: Any, query_embedding: Any) -> list[Hit]:
        how = self._weighing(request)
        if self._words is None and (how.fusion == "rrf" or how.alpha < 1):
            raise InvalidInput(
                "this index was loaded without its collection, whose database reads the words of a query: "
                "give alpha=1, or load it with MemoryIndex.load(path, collection=docs)"
            )
        asked = (
            Asked((), (), (), (), False, ())
            if self._words is None
            else self._words.read(request.query, request.syntax, request.typos)
        )
        if how.fusion == "auto":
            how = replace(how, fusion="weighted", alpha=self._auto_alpha(how.alpha, asked.kind))
        with_dense = how.fusion == "rrf" or how.alpha > 0
        with_lexical = (how.fusion == "rrf" or how.alpha < 1) and asked.any
        degraded = None
        if not asked.any and (how.fusion == "rrf" or how.alpha < 1):
            if not with_dense:
                return []
            degraded = f"dense only: the query holds no lexeme in {', '.join(asked.languages)}"
        with_lexical = with_lexical and (bool(asked.known) or not with_dense)
        legs = Legs(
            self._dense(self._vector(request.query, query_embedding)) if with_dense else None,
            lexical_scores(self._postings, len(self._rows.rows), asked.dimensions, asked.weights)
            if with_lexical or not with_dense
            else None,
            self._metric,
            allowed,
        )
        fused, best = self._ranked(legs, how, request, bool(asked.known))
        return [self._hit(rank, one, fused, asked, degraded) for rank, one in enumerate(best, 1)]

    def _ranked(
        self, legs: Legs, how: Weighing, request: Search, known: bool
    ) -> tuple[Fused, list[Candidate]]:
        collapse = self._settings.get("collapse") if request.collapse is None else request.collapse
        least = (request.min_score, request.min_dense_score, request.min_lexical_score)
        shaped = bool(collapse) or least != (None, None, None)
        both = legs.distances is not None and (how.fusion == "rrf" or how.alpha < 1) and known
        # As pgseek.rank chooses them: what a leg brings is what scores are divided by.
        if collapse:
            candidates = min(DEEPEST, max(2 * request.k, how.depth))
        else:
            candidates = max(request.k, how.depth) if shaped or both else request.k
        documents = [row.document_id for row in self._rows.rows]
        while True:
            fused = legs.fuse(how, candidates)
            best = [one for one in fused.candidates if _enough(one, *least)]
            if collapse:
                best = best_of_documents(best, documents)
            short = max(fused.dense_found or 0, fused.lexical_found or 0) < candidates
            if not collapse or len(best) >= request.k or candidates >= DEEPEST or short:
                return fused, best[: request.k]
            candidates = min(DEEPEST, 4 * candidates)

    def _weighing(self, request: Search) -> Weighing:
        settings = self._settings
        fusion, alpha = request.fusion, request.alpha
        if alpha == "auto":
            fusion, alpha = "auto", None
        chosen: Any = fusion or (settings["fusion"] if alpha is None else None) or "weighted"
        return Weighing(
            chosen,
            float(settings["alpha"] if alpha is None else alpha),
            request.normalization or settings["normalization"],
            request.rrf_k,
            request.candidates or settings["candidates"],
        )

    def _auto_alpha(self, alpha: float, kind: str | None) -> float:
        if kind is None or self._origin is None:
            raise InvalidInput(
                "alpha 'auto' goes by the kind of query, which the database tells: give a number"
            )
        docs, _ = self._origin
        found: float = docs._client._run(copying.auto_alpha(alpha, kind, self._identity.provider))
        return found

    def _allowed(self, filter: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:  # noqa: A002
        rows = self._rows.rows
        if callable(filter):
            return np.array([bool(filter(row.metadata)) for row in rows], dtype=np.bool_)
        jsonpath = to_jsonpath(filter)
        if jsonpath is None:
            return np.ones(len(rows), dtype=np.bool_)
        if self._origin is None:
            raise InvalidInput(
                f"filter is {jsonpath!r}, which PostgreSQL decides: give a function of the metadata, such as "
                "lambda metadata: metadata.get('year', 0) >= 2020, or copy a collection"
            )
        docs, info = self._origin
        kept = docs._client._run(copying.matching(info, jsonpath))
        return np.array([row.document_id in kept for row in rows], dtype=np.bool_)

    def _vector(self, query: str, given: Any) -> Floats:
        if given is None:
            return self._embed(query)
        try:
            vectors = np.asarray(given, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"query_embedding is not a vector of numbers: {error}") from error
        dimensions = self._identity.dimensions
        if vectors.shape[-1:] != (dimensions,) or vectors.ndim > 2 or not vectors.size:
            raise DimensionMismatch(
                f"the query embedding has the shape {vectors.shape}, but this index holds vectors of "
                f"{self._identity}"
            )
        vectors = vectors.reshape(-1, dimensions)
        if not all(usable(vector) for vector in vectors):
            raise InvalidInput("query_embedding is zero or holds NaN or infinity: it says nothing of a text")
        return joined(vectors[0], list(vectors[1:]), len(vectors) - 1)

    def _dense(self, vector: Floats) -> Any:
        return dense_distances(self._rows.vectors, vector, self._metric, self._storage)

    def _hit(self, rank: int, one: Candidate, fused: Fused, asked: Asked, degraded: str | None) -> Hit:
        row = self._rows.rows[one.row]
        return Hit(
            rank=rank,
            id=row.id,
            ordinal=row.ordinal,
            score=one.score,
            dense_score=one.dense_score,
            dense_rank=one.dense_rank,
            dense_contribution=one.dense_part,
            lexical_score=one.lexical_score,
            lexical_rank=one.lexical_rank,
            lexical_contribution=one.lexical_part,
            matched=self._matched(one.row, asked),
            title=row.title,
            text=row.text,
            snippet=None,
            metadata=row.metadata,
            char_start=row.char_start,
            char_end=row.char_end,
            document_id=row.document_id,
            degraded=degraded,
            kind=row.kind,
            provenance=row.provenance,
            section=row.section,
            matched_text=row.matched_text,
            dense_distance=one.dense_distance,
            relevance=self._relevance(one, asked),
            dense_candidates=fused.dense_found,
            lexical_candidates=fused.lexical_found,
        )

    def _relevance(self, one: Candidate, asked: Asked) -> float | None:
        stored = self._calibration
        if stored is None:
            return None
        most = sum(asked.weights)
        share = (one.lexical_score or 0.0) / most if most else 0.0
        logit = stored["bias"] + stored["dense"] * (one.dense_score or 0.0) + stored["lexical"] * share
        return float(1 / (1 + np.exp(np.clip(-logit, -700, 700))))

    def _matched(self, place: int, asked: Asked) -> tuple[Match, ...]:
        found = []
        for lexeme, dimension, weight, origin in zip(
            asked.known, asked.dimensions, asked.weights, asked.origins, strict=True
        ):
            places, values = self._postings.get(dimension, (np.empty(0, dtype=np.int64), np.empty(0)))
            at = int(np.searchsorted(places, place))
            if at < len(places) and places[at] == place:
                # As SQL writes single precision: by the fewest digits that tell it apart.
                found.append(Match(lexeme, float(str(np.float32(weight) * np.float32(values[at]))), origin))
        return tuple(sorted(found, key=lambda one: (-(one.weight or 0.0), one.lexeme)))

    def save(self, path: str | Path) -> Path:
        """Write the index to one file that `load` reads (.npz; no pickles). Raises `InvalidInput`."""
        kept = {
            "identity": self._identity,
            "settings": dict(self._settings),
            "metric": self._metric,
            "storage": self._storage,
            "space": self._space_id,
            "calibration": self._calibration,
            "collection": None if self._origin is None else self._origin[1].name,
        }
        if isinstance(self._words, FoldedWords):
            kept["words"] = [self._words.k1, self._words.b, self._words.title_weight]
            kept["stemmed"] = self._words.stem is not None
        return storing.write(Path(path), self._rows, self._postings, kept)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        embedder: Embedder | str | None = None,
        collection: copying.Copied | None = None,
        stem: Callable[[str], str] | None = None,
    ) -> MemoryIndex:
        """Read an index that `save` wrote.

        A copy of a collection needs that ``collection`` for its words; without it, only alpha=1 with
        ``query_embedding`` or an ``embedder`` can be asked. ``stem`` must be given again where there was one.

        Raises:
            InvalidInput: no such file, or it holds something else.
            SpaceMismatch: the embedder is another one.
        """
        rows, postings, kept = storing.read(Path(path))
        identity = EmbedderIdentity(**kept["identity"])
        made = cls.__new__(cls)
        if collection is not None:
            info = collection.info()
            space = collection._client._run(copying.chosen_space(info, kept["space"]))
            if kept["collection"] is None or space.identity != identity:
                raise SpaceMismatch(
                    f"the index holds {identity} of {kept['collection'] or 'no collection'}, but collection "
                    f"{info.name!r} holds {space.identity} in that space"
                )
            made._connect(collection, info, space, rows, postings)
            return made
        spec = f"{identity.provider}:{identity.model}@{identity.dimensions}"
        made._load_alone(rows, postings, identity, kept, embedder, spec, stem)
        made._metric, made._storage = kept["metric"], kept["storage"]
        made._space_id, made._calibration = kept["space"], kept["calibration"]
        return made

    def _load_alone(
        self,
        rows: Rows,
        postings: Postings,
        identity: EmbedderIdentity,
        kept: Mapping[str, Any],
        embedder: Embedder | str | None,
        spec: str,
        stem: Callable[[str], str] | None,
    ) -> None:
        known = None if embedder is None else choose_embedder(embedder, None)
        if known is not None and known.identity != identity:
            raise SpaceMismatch(f"the embedder is {known.identity}, but the index was made with {identity}")

        def embed(query: str) -> Floats:
            nonlocal known
            known = known or choose_embedder(spec, None)
            return checked_query(known, query)

        self._embed, self._embedder, self._origin = embed, known, None
        words: FoldedWords | None = None
        if "words" in kept:
            if kept["stemmed"] != (stem is not None):
                raise InvalidInput(
                    f"the index was made {'with' if kept['stemmed'] else 'without'} stem: give the same again"
                )
            words = FoldedWords(stem, *kept["words"])
            postings = postings_of(words.weigh([(row.title, row.text) for row in rows.rows]))
        self._fill(rows, postings, words, identity, kept["settings"])


def _enough(one: Candidate, score: float | None, dense: float | None, lexical: float | None) -> bool:
    return (
        (score is None or one.score >= score)
        and (dense is None or (one.dense_score is not None and one.dense_score >= dense))
        and (lexical is None or (one.lexical_score is not None and one.lexical_score >= lexical))
    )
