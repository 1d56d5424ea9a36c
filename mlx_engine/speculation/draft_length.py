"""What decides how many tokens the next round drafts, and the simplest such policy. No MLX, no clock."""

from __future__ import annotations

from typing import Protocol

from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, RoundFacts
from mlx_engine.protocol.stats import is_another_context

FIRST_BURST_AFTER_ROUNDS = 8
BURST_EVERY_ROUNDS = 256
BURST_ROUNDS = 6
"""Now and then a few rounds are plain, so that the baseline decode speed is measured: 2% of the rounds. They
come in bursts because only a plain round that follows another plain round shows that speed."""


class DraftLength(Protocol):
    """Chooses the draft length of each round from the rounds before it."""

    def next_length(self) -> int:
        """Tokens to draft in the next round; 0 makes a plain round. Asking changes nothing."""
        ...

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """Learn from a finished round and from how long it took."""
        ...


class FixedLength:
    """Always the same draft length, apart from the bursts of plain rounds that measure the baseline speed."""

    def __init__(self, length: int) -> None:
        self._rounds = self._context_tokens = 0
        self.set(length)

    def set(self, length: int, measures_baseline: bool = True) -> None:
        """Change the length from the next round on, with or without bursts.

        Raises RequestError if the length is not 0 to 16.
        """
        if not 0 <= length <= MAX_DRAFT_LENGTH:
            raise RequestError(f"Draft length {length} is out of range: use 0 (off) to {MAX_DRAFT_LENGTH}.")
        self._length, self._measures_baseline = length, measures_baseline

    def next_length(self) -> int:
        """See DraftLength."""
        phase = (self._rounds - FIRST_BURST_AFTER_ROUNDS) % BURST_EVERY_ROUNDS
        is_burst = self._rounds >= FIRST_BURST_AFTER_ROUNDS and phase < BURST_ROUNDS
        return 0 if is_burst and self._measures_baseline else self._length

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """See DraftLength. In another context the baseline speed is measured again."""
        has_changed = is_another_context(self._context_tokens, done.context_tokens)
        self._rounds = 0 if has_changed else self._rounds + 1
        self._context_tokens = done.context_tokens
