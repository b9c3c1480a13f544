"""Models of sentence-transformers: a hub name or a local folder, on CPU or GPU, with torch or ONNX."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from pgseek.chunking import divide
from pgseek.embedders.base import Vectors, normalize
from pgseek.embedders.catalog import find_model
from pgseek.embedders.folders import PREFIX, record_of, weights_revision
from pgseek.errors import EmbedderError, InvalidInput, MissingExtra
from pgseek.types import Chunk, EmbedderIdentity

# What a model's own configuration calls its prompts.
QUERY_NAMES = ("query", "search_query")
DOCUMENT_NAMES = ("document", "passage", "search_document", "corpus")


class SentenceTransformersEmbedder:
    """A local transformer model; vectors are scaled to unit length.

    Prompts are those of the model's own configuration, else the catalogue's; ``query_prompt`` and
    ``document_prompt`` stand in their place and make another space. Fewer ``dimensions`` than the model's
    own are a prefix, where the catalogue says that the model was trained for it. The model is loaded on
    construction, because its dimensions and prompts are part of the space. ``revision``, a commit or tag of
    the hub, is what is loaded, and part of the space; without it the newest there is on this machine or the
    hub is loaded, and the space says nothing of it (''), or tells a folder's weights by their hash
    ('weights:…'): other weights in the same folder are another space, and refused in this one. ``device``
    and ``backend`` ('torch', 'onnx', 'openvino') are not part of it: they change a vector by rounding only;
    by default PGSEEK_DEVICE and PGSEEK_BACKEND are asked.
    """

    exact_tokens = True

    def __init__(
        self,
        model: str,
        dimensions: int | None = None,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        device: str | None = None,
        backend: str | None = None,
        revision: str | None = None,
    ) -> None:
        if not model:
            raise InvalidInput("name a model, such as sentence-transformers:BAAI/bge-small-en-v1.5")
        if revision is None or revision.startswith(PREFIX):
            holds = weights_revision(model)
            if revision is not None and revision != holds:
                raise EmbedderError(
                    f"the folder {model!r} holds {holds or 'no model'}, but the vectors were made with "
                    f"{revision}: put that model back, or re-embed with the new one: pgseek reembed"
                )
            revision = holds
        self._model: Any = load_model(
            model, device=device, backend=backend, revision="" if revision.startswith(PREFIX) else revision
        )
        known = find_model("sentence-transformers", model)
        native = _dimensions(self._model)
        if dimensions not in {None, native, *record_of(model).get("matryoshka", ())}:
            if known is None:
                raise InvalidInput(f"{model} gives {native} dimensions, not {dimensions}")
            dimensions = known.check_dimensions(dimensions)
        own = self._model.prompts or {}
        self.identity = EmbedderIdentity(
            "sentence-transformers",
            model,
            dimensions or native,
            normalized=True,
            query_prompt=_prompt(query_prompt, own, QUERY_NAMES, "" if known is None else known.query_prompt),
            document_prompt=_prompt(
                document_prompt, own, DOCUMENT_NAMES, "" if known is None else known.document_prompt
            ),
            revision=revision,
        )
        self.model_id = str(self.identity)
        length = self._model.max_seq_length
        self.max_tokens = None if length is None else int(length)
        # Tokenizers and models are shared by threads, but not all of them stand it.
        self._lock = threading.Lock()

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, float32 (n, d), with the model's document prompt."""
        return self._encode(texts, self.identity.document_prompt)

    def embed_query(self, text: str) -> Vectors:
        """Return one unit vector, float32 (d,), with the model's query prompt."""
        prompt = self.identity.query_prompt
        texts = [text]
        if self.max_tokens is not None and self._count(texts, prompt)[0] > self.max_tokens:
            # The model would leave out its end, and not say so: its parts are averaged, as documents' are.
            whole = Chunk(0, text, 0, len(text))
            parts = divide(whole, self.max_tokens, lambda part: self._count([part], prompt)[0])
            texts = [part.text for part in parts] or texts
        vectors = self._encode(texts, prompt)
        return vectors[0] if len(texts) == 1 else normalize(vectors.mean(axis=0))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return each text's tokens as a document, its prompt and the special tokens included."""
        return self._count(texts, self.identity.document_prompt)

    def trainable(self) -> Any:
        """Return the library's model, to be trained: this embedder's vectors are not its space's then."""
        return self._model

    def _count(self, texts: Sequence[str], prompt: str) -> list[int]:
        if not texts:
            return []
        with self._lock:
            encoded = self._model.tokenizer(
                [prompt + text for text in texts], truncation=False, verbose=False
            )
        return [len(tokens) for tokens in encoded["input_ids"]]

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        if not texts:
            return np.zeros((0, self.identity.dimensions), dtype=np.float32)
        with self._lock:
            vectors = self._model.encode(
                list(texts), prompt=prompt, convert_to_numpy=True, show_progress_bar=False
            )
        return normalize(np.asarray(vectors, dtype=np.float32)[:, : self.identity.dimensions])


def load_model(
    model: str, *, device: str | None = None, backend: str | None = None, revision: str = ""
) -> Any:
    """Return a SentenceTransformer; by default PGSEEK_DEVICE and PGSEEK_BACKEND are asked.

    Raises:
        MissingExtra: the library is not installed.
        EmbedderError: there is no such model.
    """
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise MissingExtra("sentence-transformers", "sentence-transformers") from error
    device = device or os.environ.get("PGSEEK_DEVICE") or None
    backend = backend or os.environ.get("PGSEEK_BACKEND") or "torch"
    try:
        return SentenceTransformer(model, device=device, backend=backend, revision=revision or None)
    except Exception as error:
        # The library raises whatever it likes, a bare Exception for a missing ONNX for one.
        raise EmbedderError(f"cannot load sentence-transformers model {model!r}: {error}") from error


def _prompt(given: str | None, own: dict[str, str], names: Sequence[str], otherwise: str) -> str:
    if given is not None:
        return given
    # The library has entries for both kinds, empty where the model's configuration names none.
    return next((own[name] for name in names if own.get(name)), otherwise)


def _dimensions(model: Any) -> int:
    # Renamed in version 5.
    method = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(method())
