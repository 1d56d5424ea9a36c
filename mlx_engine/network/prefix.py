"""What one model has read of a conversation, kept from turn to turn, so that a turn reads only what is new.

The next prompt repeats the last one up to some point: to the end of the reply, to the start of the model's
turn where the template renders past replies otherwise than they were generated (it strips thoughts, or the
empty thought block), or to the start of a message that was edited. Within the reserve of the sliding
layers the way back to that point is a rollback; further back it is a snapshot, taken where prompts may part.

Knows token ids and positions; what they mean is `prompt.py`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import takewhile
from typing import Any

import mlx.core as mx

from mlx_engine.network.kv_cache import ROLLBACK_RESERVE_ROWS, Snapshot
from mlx_engine.network.target import Target

PREFILL_CHUNK_TOKENS = 256
"""Long enough to keep the device busy, short enough that a stop is noticed within a step. Gemma 4's full layers
have no fused attention at their head size: the scores of a whole chunk are there at once.
"""
SNAPSHOTS_KEPT = 2
"""The last turn's: where its message begins, and where the model's turn begins."""
MORE_SNAPSHOTS_BYTES = 512 << 20
"""Snapshots of earlier turns are kept as long as all of them together stay below this."""
SHORTEST_SNAPSHOT_TOKENS = 8
"""To read so few tokens again costs less than to remember them."""


class PrefixCache:
    """A target's cache with the token ids it stands for. `tokens` may run ahead of what has been read."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._snapshots: list[Snapshot] = []
        self.cache = target.new_cache()
        self.tokens: list[int] = []
        """Ids of the conversation so far; the first `cache.frontier` of them have been read."""
        self.hidden: mx.array | None = None
        """(1, 1, hidden): the hidden state of the last token that `prefill` read."""

    def resume(self, prompt: Sequence[int]) -> int:
        """Take `prompt` for the conversation; keep what was read of it, forget the rest.

        At least one token before the prompt's last stays to be read: the hidden state there is not kept.
        Returns the number of tokens kept.
        """
        same = common_length(self.tokens[: self.cache.frontier], prompt)
        self._return_to(max(0, min(same, len(prompt) - 2)))
        self.tokens = list(prompt)
        return self.cache.frontier

    def prefill(self, marks: Collection[int] = ()) -> Iterator[int]:
        """Read `tokens` up to the last but one, a chunk a step; yields how many have been read.

        marks: positions where a later prompt may part from this one; a snapshot is taken at each, or a few tokens
        before it. A pass reads on past a mark as long as a rollback from its end would reach the mark: every pass
        reads all weights, and most turns need one.
        """
        end = len(self.tokens) - 1
        waypoints = self._waypoints(marks, end)
        self._remember(waypoints)
        while (begin := self.cache.frontier) < end:
            stop = min(begin + PREFILL_CHUNK_TOKENS, end)
            stop = min((mark for mark in waypoints if begin < mark < stop - ROLLBACK_RESERVE_ROWS), default=stop)
            self.hidden = self.read(self.tokens[begin:stop])
            mx.eval(self.hidden, self.cache.arrays())
            yield self.cache.frontier
            self._remember([mark for mark in waypoints if begin < mark])

    def _waypoints(self, marks: Collection[int], end: int) -> list[int]:
        """Where snapshots are taken, in order."""
        here = self.cache.frontier
        waypoints: list[int] = []
        for mark in sorted({min(mark, end) for mark in marks}):
            near = here if here <= mark < here + SHORTEST_SNAPSHOT_TOKENS else mark
            last = waypoints[-1] if waypoints else 0
            if near >= here and near - last >= SHORTEST_SNAPSHOT_TOKENS:
                waypoints.append(near)
        return waypoints

    def read(self, tokens: Sequence[int]) -> mx.array:
        """One pass over the tokens that follow; the hidden state (1, 1, hidden) of the last, not evaluated."""
        return self._target.read(mx.array([tokens], dtype=mx.int32), self.cache)

    def _return_to(self, frontier: int) -> None:
        if frontier == 0:
            self.cache = self._target.new_cache()
        elif frontier < self.cache.oldest_frontier:
            reaching = [kept for kept in self._snapshots if kept.oldest_frontier <= frontier]
            if reaching:
                self.cache.restore(reaching[-1])
            else:
                self.cache = self._target.new_cache()
        self.cache.rollback(max(0, self.cache.frontier - frontier))
        # A snapshot counts on the rows of the full layers before it.
        self._snapshots = [kept for kept in self._snapshots if kept.frontier <= self.cache.frontier]

    def _remember(self, waypoints: Sequence[int]) -> None:
        for frontier in waypoints:
            last = self._snapshots[-1].frontier if self._snapshots else 0
            if last < frontier <= self.cache.frontier:
                self._snapshots.append(self.cache.snapshot(frontier))
        while len(self._snapshots) > SNAPSHOTS_KEPT and self.snapshot_bytes > MORE_SNAPSHOTS_BYTES:
            del self._snapshots[0]

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of all snapshots."""
        return sum(kept.nbytes for kept in self._snapshots)


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many elements two sequences share before they part."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))
