"""The length of the next prefill chunk: bounded by time, so that a stop takes effect soon."""

from __future__ import annotations

from mlx_engine.protocol.prefill_chunk import ChunkRange

LONGEST_S = 0.5
"""Chunks that take longer shrink."""
GROWTH_SHARE = 0.8
"""Chunks double if two of them take less than this share of the longest time."""
STEP_TOKENS = 32


class ChunkLength:
    """Follows how long chunks take. Outlives a reply."""

    def __init__(self, range: ChunkRange) -> None:
        self._range = range
        self.tokens = range.most_tokens
        """Of the next chunk."""
        self.awaited_tokens = 0
        """Of the chunks that the latest wait was for: a chunk is handed over before the one before it is done."""

    def observe(self, elapsed_s: float) -> None:
        """Learn how long that wait was. Fewer tokens than planned tell only that they take too long, too."""
        tokens, self.awaited_tokens = self.awaited_tokens, 0
        if tokens < 1:
            return
        chunks = max(1.0, tokens / self.tokens)
        if elapsed_s > chunks * LONGEST_S:
            fitting = int(tokens * LONGEST_S / elapsed_s) // STEP_TOKENS * STEP_TOKENS
            self.tokens = min(self.tokens, max(self._range.least_tokens, fitting))
        elif tokens >= self.tokens and 2 * elapsed_s < chunks * GROWTH_SHARE * LONGEST_S:
            self.tokens = min(self._range.most_tokens, 2 * self.tokens)
