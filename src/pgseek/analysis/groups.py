"""Connected components of pairs, by union-find (Tarjan 1975): memory for what is in a pair, and no more."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Groups(Generic[K]):
    """Things that are joined, directly or by way of others."""

    def __init__(self) -> None:
        self._parent: dict[K, K] = {}
        self._size: dict[K, int] = {}

    def __len__(self) -> int:
        """How many things were joined with anything."""
        return len(self._parent)

    def join(self, one: K, other: K) -> None:
        """Put two into one group."""
        a, b = self.root(one), self.root(other)
        if a == b:
            return
        if self._size[a] < self._size[b]:
            a, b = b, a
        self._parent[b] = a
        self._size[a] += self._size.pop(b)

    def root(self, one: K) -> K:
        """Return what stands for the group of a thing, which may be new."""
        parent = self._parent
        if one not in parent:
            parent[one] = one
            self._size[one] = 1
            return one
        root = one
        while parent[root] != root:
            root = parent[root]
        while parent[one] != root:
            parent[one], one = root, parent[one]
        return root

    def components(self) -> list[list[K]]:
        """Return the groups, each in the order its members came."""
        found: dict[K, list[K]] = {}
        for one in self._parent:
            found.setdefault(self.root(one), []).append(one)
        return list(found.values())
