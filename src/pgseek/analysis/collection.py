"""What is analysed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pgseek.types import CollectionInfo, Hit

# Called with what runs, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


class Analysed(Protocol):
    """A `Collection`, of the blocking client."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def _client(self) -> Any: ...

    def info(self) -> CollectionInfo:
        """Return it as it stands now."""
        ...

    def _embedding(self, info: CollectionInfo) -> Any: ...

    @property
    def search(self) -> Callable[..., list[Hit]]:
        """Search it."""
        ...
