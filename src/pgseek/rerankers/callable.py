"""Any function that scores texts for a query, as a reranker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pgseek.errors import InvalidInput


class CallableReranker:
    """A function ``(query, texts) -> scores``: a number for each text, higher for what matches better.

    ``model`` names it in messages; without it the function's own name does.
    """

    def __init__(self, function: Callable[[str, list[str]], Any], *, model: str = "") -> None:
        if not callable(function):
            raise InvalidInput(
                f"reranker is a {type(function).__name__}, but must be a function (query, texts) -> scores, "
                "an object with rerank and model_id, or a name such as 'cohere:rerank-v3.5'"
            )
        self._function = function
        self.model_id = f"callable:{model or getattr(function, '__name__', type(function).__name__)}"

    def rerank(self, query: str, texts: Sequence[str]) -> Any:
        """Return what the function returns."""
        return self._function(query, list(texts))
