"""The prompt cache of one model: kept from turn to turn, so that each turn reads only what is new.

The next prompt repeats the last one up to some point: the end of the reply; or the start of the model's turn, if
the template renders past replies differently from how they were generated (it strips thoughts, or the empty
thought block); or the start of a message that was edited. Within the reserve of the sliding layers, a rollback
returns to that point; further back, a snapshot does, taken where prompts may branch.

Knows token ids and positions, but not what they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlx_engine.network.chunk_length import ChunkLength
from mlx_engine.network.kv_cache import ROLLBACK_RESERVE_ROWS, CacheSnapshot, TargetCache
from mlx_engine.network.target import Target
from mlx_engine.text.common_prefix import common_length

PREFILL_CHUNK_TOKENS = 256
"""Where nobody says otherwise. Without fused attention for the head size of Gemma 4's full layers, the attention
weights of a whole chunk are in memory at once."""
SNAPSHOTS_KEPT = 2
"""The latest turn's: at the start of its message, and at the start of the model's turn."""
MOST_SNAPSHOTS = 8
"""Those of earlier turns are spread over the chat, so that editing a message reads at most a part of it again."""
MORE_SNAPSHOTS_BYTES = 512 << 20
"""Snapshots of earlier turns are kept while all snapshots together are below this."""
SHORTEST_SNAPSHOT_TOKENS = 8
"""Reading fewer tokens than this again costs less than a snapshot."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Tokens, and what was read of them."""

    tokens: list[int]
    """The first `cache.frontier` of them have been read."""
    cache: TargetCache
    snapshots: list[CacheSnapshot]
    """In the order of their frontiers, all before the cache's."""


class PrefixCache:
    """A model's cache together with the tokens of the conversation. `tokens` may be ahead of what was read."""

    def __init__(self, target: Target, chunk: ChunkLength | None = None) -> None:
        """chunk: how many tokens `prefill` reads at once; None: always PREFILL_CHUNK_TOKENS."""
        self._target = target
        self._chunk = chunk
        self._snapshots: list[CacheSnapshot] = []
        self.cache = target.new_cache()
        self.tokens: list[int] = []
        """The conversation so far; the first `cache.frontier` tokens of it have been read."""
        self.hidden: mx.array | None = None
        """(1, 1, hidden): the hidden state of the last token that `prefill` read."""

    def resume(self, prompt: Sequence[int]) -> int:
        """Continue with `prompt`: keep what the cache has of it, and drop the rest.

        The last two tokens of the prompt are never kept: decoding needs the hidden state of the last but one.
        Returns the number of tokens kept.
        """
        shared = common_length(self.tokens[: self.cache.frontier], prompt)
        self._return_to(max(0, min(shared, len(prompt) - 2)))
        self.tokens = list(prompt)
        return self.cache.frontier

    def reach(self, prompt: Sequence[int]) -> int:
        """How many tokens `resume` would keep of a prompt."""
        frontier = min(common_length(self.tokens[: self.cache.frontier], prompt), len(prompt) - 2)
        if frontier >= self.cache.oldest_frontier:
            return max(0, frontier)
        usable = [snapshot for snapshot in self._snapshots if snapshot.oldest_frontier <= frontier]
        return min(frontier, usable[-1].frontier) if usable else 0

    @property
    def conversation(self) -> Conversation:
        """The conversation that is here."""
        return Conversation(self.tokens, self.cache, self._snapshots)

    def adopt(self, conversation: Conversation) -> None:
        """Go on with a conversation that was read earlier, in place of the one that is here."""
        self.tokens, self.cache = conversation.tokens, conversation.cache
        self._snapshots, self.hidden = list(conversation.snapshots), None

    def prefill(self, branch_points: Collection[int] = ()) -> Iterator[int]:
        """Read `tokens` up to the last but one, in chunks; yields how many have been handed over after each.

        A chunk is handed over while the one before it is being computed, so that the device never waits for the
        host; after the last, nothing is left to compute. Two chunks are under way at most.

        branch_points: positions where a later prompt may differ from this one. A snapshot is taken at each, or a
        few tokens before it. A chunk goes on past a branch point if a rollback from its end can still reach it:
        every pass reads all weights, and most turns then need only one.
        """
        end = len(self.tokens) - 1
        positions = self._snapshot_positions(branch_points, end)
        self._take_snapshots(positions)
        before: mx.array | None = None
        while (begin := self.cache.frontier) < end:
            stop = min(begin + (self._chunk.tokens if self._chunk else PREFILL_CHUNK_TOKENS), end)
            stop = min((at for at in positions if begin < at < stop - ROLLBACK_RESERVE_ROWS), default=stop)
            self.hidden = self.read(self.tokens[begin:stop])
            if stop == end:
                mx.eval(self.hidden, self.cache.arrays())
            else:
                mx.async_eval(self.hidden, self.cache.arrays())
                if before is not None:
                    mx.eval(before)
            before = self.hidden
            yield self.cache.frontier
            self._take_snapshots([at for at in positions if begin < at])

    def _snapshot_positions(self, branch_points: Collection[int], end: int) -> list[int]:
        """In order, not closer to each other than a snapshot is worth."""
        frontier = self.cache.frontier
        positions: list[int] = []
        for point in sorted({min(point, end) for point in branch_points}):
            at = frontier if frontier <= point < frontier + SHORTEST_SNAPSHOT_TOKENS else point
            previous = positions[-1] if positions else 0
            if at >= frontier and at - previous >= SHORTEST_SNAPSHOT_TOKENS:
                positions.append(at)
        return positions

    def read(self, tokens: Sequence[int]) -> mx.array:
        """Read the tokens that follow in one pass; the last one's hidden state (1, 1, hidden), not evaluated."""
        return self._target.read(mx.array([tokens], dtype=mx.int32), self.cache)

    def _return_to(self, frontier: int) -> None:
        if frontier == 0:
            self.cache = self._target.new_cache()
        elif frontier < self.cache.oldest_frontier:
            usable = [snapshot for snapshot in self._snapshots if snapshot.oldest_frontier <= frontier]
            if usable:
                self.cache.restore(usable[-1])
            else:
                self.cache = self._target.new_cache()
        self.cache.rollback(max(0, self.cache.frontier - frontier))
        # A snapshot relies on the rows of the full layers before it.
        self._snapshots = [old for old in self._snapshots if old.frontier <= self.cache.frontier]

    def _take_snapshots(self, positions: Sequence[int]) -> None:
        for frontier in positions:
            latest = self._snapshots[-1].frontier if self._snapshots else 0
            if latest < frontier <= self.cache.frontier:
                self._snapshots.append(self.cache.snapshot(frontier))
        while len(self._snapshots) > SNAPSHOTS_KEPT and self._has_too_many():
            del self._snapshots[self._least_useful()]

    def _has_too_many(self) -> bool:
        return len(self._snapshots) > MOST_SNAPSHOTS or self.snapshot_bytes > MORE_SNAPSHOTS_BYTES

    def _least_useful(self) -> int:
        """Of the snapshots of earlier turns, the one whose neighbours are nearest to each other."""
        frontiers = [0, *(snapshot.frontier for snapshot in self._snapshots)]
        earlier = range(len(self._snapshots) - SNAPSHOTS_KEPT)
        return min(earlier, key=lambda index: frontiers[index + 2] - frontiers[index])

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of all snapshots."""
        return sum(snapshot.nbytes for snapshot in self._snapshots)
