"""An index in memory with the search of a collection: for notebooks, and for exact ground truth."""

from pgseek.memory.index import MemoryIndex

__all__ = ["MemoryIndex"]
