"""The prompt cache of one model: kept from turn to turn and from chat to chat, so that only what is new is read.

The next prompt repeats the last one up to some point: the end of the reply; or the start of the model's turn, if
the template renders past replies differently from how they were generated (it strips thoughts, or the empty
thought block); or the start of a message that was edited. Within the reserve of the sliding layers, a rollback
returns to that point; further back, a snapshot does, taken where prompts may branch.

A prompt of another conversation, or one that goes back by more than a few tokens, parks the running conversation
in a tree first, and continues the one in the tree that it repeats the most of.

Knows token ids and positions, but not what they mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlx_engine.network import handover
from mlx_engine.network.cache_budget import CacheBudget
from mlx_engine.network.chunk_length import ChunkLength
from mlx_engine.network.kv_cache import ROLLBACK_RESERVE_ROWS, CacheSnapshot, TargetCache, sharing
from mlx_engine.network.prefix_tree import PrefixTree
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
    readings: Sequence[int] = ()
    """Of the tokens that were read; see PrefixCache. Empty: nothing is known of it."""


class PrefixCache:
    """A model's cache together with the tokens of the running conversation, and those of others.

    `tokens` may be ahead of what was read.
    """

    def __init__(
        self, target: Target, chunk: ChunkLength | None = None, budget: CacheBudget | None = None
    ) -> None:
        """chunk: how many tokens `prefill` reads at once; None: always PREFILL_CHUNK_TOKENS. budget: of all
        conversations; None: one of its own."""
        self._target = target
        self._chunk = chunk
        self._budget = budget or CacheBudget()
        self._snapshots: list[CacheSnapshot] = []
        self.cache = target.new_cache()
        self.tokens: list[int] = []
        """The conversation so far; the first `cache.frontier` tokens of it have been read."""
        self._readings: list[int] = []
        """Of each token, the number of the reading that made its rows: where it is the same, so are the rows. The
        latest tokens may be missing."""
        self._latest_reading = 0
        self.hidden: mx.array | None = None
        """(1, 1, hidden): the hidden state of the last token that `prefill` read."""
        self.tree = PrefixTree(max((layer.window_rows for layer in self.cache.layers), default=0))
        """The parked conversations."""
        self._row_bytes, self._sliding_bytes = 0, 0
        """What a token takes in the full layers, and the sliding layers' buffers; 0: nothing was read yet."""
        self._lent = 0
        """Up to here the conversation is in the tree, and its nodes rely on the rows in `cache`."""
        self._budget.share(self)

    def resume(self, prompt: Sequence[int]) -> int:
        """Continue with `prompt`: keep what was read of it, in whichever conversation.

        The last two tokens of the prompt are never kept: decoding needs the hidden state of the last but one.
        Returns the number of tokens kept.
        """
        self._settle()
        read, most = self.tokens[: self.cache.frontier], max(0, len(prompt) - 2)
        kept = min(common_length(read, prompt), most)
        is_near = len(read) - kept < SHORTEST_SNAPSHOT_TOKENS
        can_roll_back = kept >= max(self.cache.oldest_frontier, self._lent)
        if is_near and can_roll_back and kept >= self.tree.best(prompt[:most]):
            self._roll_back(kept)
        else:
            self._switch(read, prompt[:most], len(prompt))
        self.tokens = list(prompt)
        self._budget.keep(max(0, self._expected_bytes(len(prompt)) - self.cache.nbytes))
        return self.cache.frontier

    def _settle(self) -> None:
        """What was read since the last call is one reading; call it before anything is dropped."""
        self._latest_reading += 1
        self._readings += [self._latest_reading] * (self.cache.frontier - len(self._readings))
        if self.cache.frontier:
            full_bytes = sum(rows.nbytes for layer in self.cache.full for rows in layer.view())
            self._row_bytes = full_bytes // self.cache.frontier
            self._sliding_bytes = max(self._sliding_bytes, sum(layer.nbytes for layer in self.cache.sliding))

    def _expected_bytes(self, tokens: int) -> int:
        return tokens * self._row_bytes + self._sliding_bytes

    def _roll_back(self, frontier: int) -> None:
        self.cache.rollback(self.cache.frontier - frontier)
        del self._readings[frontier:]
        # A snapshot relies on the rows of the full layers before it.
        self._snapshots = [old for old in self._snapshots if old.frontier <= frontier]

    def _switch(self, read: Sequence[int], prompt: Sequence[int], capacity: int) -> None:
        now = self._budget.next_use()
        handover.park(self.tree, self.cache, read, self._readings, self._snapshots, now)
        self._lent = self.tree.best(prompt)
        lent = prompt[: self._lent]
        self._readings = handover.load(self.tree, self.cache, read, self._readings, lent, capacity, now)

    def forget(self) -> None:
        """Drop all conversations."""
        self.tree.clear()
        self._snapshots, self.tokens, self._readings, self._lent = [], [], [], 0
        self.cache, self.hidden = self._target.new_cache(), None

    def reach(self, prompt: Sequence[int]) -> int:
        """How many tokens `resume` would keep of a prompt."""
        most = max(0, len(prompt) - 2)
        running = min(common_length(self.tokens[: self.cache.frontier], prompt), most)
        if running < self.cache.oldest_frontier:
            usable = [snapshot for snapshot in self._snapshots if snapshot.oldest_frontier <= running]
            running = min(running, usable[-1].frontier) if usable else 0
        return max(running, self.tree.best(prompt[:most]))

    @property
    def conversation(self) -> Conversation:
        """The running conversation."""
        self._settle()
        return Conversation(self.tokens, self.cache, self._snapshots, self._readings)

    def adopt(self, conversation: Conversation) -> None:
        """Park the running conversation, and go on with one that was read earlier."""
        self._settle()
        self._switch(self.tokens[: self.cache.frontier], (), 0)
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
        before, before_tokens = None, 0
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
            if self._chunk:
                self._chunk.awaited_tokens = before_tokens + (stop - begin if stop == end else 0)
            before, before_tokens = self.hidden, stop - begin
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

    def _take_snapshots(self, positions: Sequence[int]) -> None:
        for frontier in positions:
            latest = self._snapshots[-1].frontier if self._snapshots else self._lent
            if latest < frontier <= self.cache.frontier:
                self._snapshots.append(self.cache.snapshot(frontier))
                if len(self._snapshots) > 1:
                    self._snapshots[-2:] = sharing(*self._snapshots[-2:])
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
        """Bytes of all snapshots, as if none shared rows with another."""
        return sum(snapshot.nbytes for snapshot in self._snapshots)

    @property
    def nbytes(self) -> int:
        """Bytes of the running conversation."""
        return self.cache.nbytes + self.snapshot_bytes + sum(rows.nbytes for rows in self.cache.tapped)
