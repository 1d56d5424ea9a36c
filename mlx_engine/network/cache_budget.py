"""How many bytes conversations may take in memory, over all models that read them.

What was not used for the longest time goes first. Running conversations count, and are never dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mlx_engine.network.prefix_tree import PrefixTree

MOST_BYTES = 1 << 30
"""Where nobody says otherwise."""


@dataclass(slots=True)
class CacheBudget:
    """Shared by the target and the drafters that read conversations into caches of their own."""

    most_bytes: int = MOST_BYTES
    _trees: list[PrefixTree] = field(default_factory=list)
    _running_bytes: list[Callable[[], int]] = field(default_factory=list)
    _uses: int = 0

    def share(self, tree: PrefixTree, running_bytes: Callable[[], int]) -> None:
        """Count a tree, and the conversation that runs beside it."""
        self._trees.append(tree)
        self._running_bytes.append(running_bytes)

    def next_use(self) -> int:
        """The time of a use: how many there were."""
        self._uses += 1
        return self._uses

    @property
    def nbytes(self) -> int:
        """What all conversations take."""
        return sum(tree.nbytes for tree in self._trees) + sum(running() for running in self._running_bytes)

    def keep(self, growth_bytes: int = 0) -> None:
        """Drop what there is no room for beside the running conversations, one of which will grow by this much."""
        while self.nbytes + growth_bytes > self.most_bytes:
            oldest = [(*candidate, tree) for tree in self._trees if (candidate := tree.oldest())]
            if not oldest:
                return
            _, node, tree = min(oldest, key=lambda candidate: candidate[0])
            tree.drop(node)
