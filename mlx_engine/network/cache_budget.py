"""How many bytes conversations may take in memory, over all models that read them.

What was not used for the longest time goes first. Running conversations count, and are never dropped.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from mlx_engine.network.prefix_tree import PrefixTree

MOST_BYTES = 1 << 30
"""Where nobody says otherwise."""


class Conversations(Protocol):
    """Those that one model reads."""

    tree: PrefixTree
    """The parked ones."""

    @property
    def nbytes(self) -> int:
        """Bytes of the running one."""


@dataclass(slots=True)
class CacheBudget:
    """Shared by the target and the drafters that read conversations into caches of their own."""

    most_bytes: int = MOST_BYTES
    # Weak: the budget must not keep a model in memory, which its conversations refer to.
    _sharing: list[weakref.ref[Conversations]] = field(default_factory=list)
    _uses: int = 0

    def share(self, conversations: Conversations) -> None:
        """Count these, for as long as they exist."""
        self._sharing.append(weakref.ref(conversations))

    def _living(self) -> Iterator[Conversations]:
        return (living for reference in self._sharing if (living := reference()))

    def next_use(self) -> int:
        """The time of a use: how many there were."""
        self._uses += 1
        return self._uses

    @property
    def nbytes(self) -> int:
        """What all conversations take."""
        return sum(living.tree.nbytes + living.nbytes for living in self._living())

    def keep(self, growth_bytes: int = 0) -> None:
        """Drop what there is no room for beside the running conversations, one of which will grow by this much."""
        while self.nbytes + growth_bytes > self.most_bytes:
            trees = [living.tree for living in self._living()]
            oldest = [(*candidate, tree) for tree in trees if (candidate := tree.oldest())]
            if not oldest:
                return
            _, node, tree = min(oldest, key=lambda candidate: candidate[0])
            tree.drop(node)
