"""How many tokens to draft in the next round. Plain numbers: no MLX, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlx_engine.errors import RequestError
from mlx_engine.events import MAX_DRAFT_LENGTH

FIRST_BURST_AFTER_ROUNDS = 8
BURST_EVERY_ROUNDS = 256
BURST_ROUNDS = 6
"""Plain rounds made now and then so that speedup has something measured to divide by: 2% of the rounds,
in bursts because a plain round shows the pace of plain decoding only behind another one."""


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What a finished round tells."""

    drafted: int
    accepted: int
    round_s: float
    is_pipelined: bool
    """A plain round begun before the one before it was read: the pace of plain decoding."""


class DraftLength(Protocol):
    """Decides the length of the next round from the rounds before it."""

    def next_length(self) -> int:
        """Tokens to draft in the next round; 0 is a plain round. Asking changes nothing."""
        ...

    def observe(self, done: RoundFacts) -> None:
        """Take note of a finished round."""
        ...


class FixedLength:
    """Always the same length, apart from the bursts of plain rounds that measure the plain pace."""

    def __init__(self, length: int) -> None:
        self._rounds = 0
        self.set(length)

    def set(self, length: int, measures_plain: bool = True) -> None:
        """Draft this many from the next round on, with or without bursts.

        Raises RequestError if the length is not 0 to 16.
        """
        if not 0 <= length <= MAX_DRAFT_LENGTH:
            raise RequestError(f"Draft length {length} is out of range: use 0 (off) to {MAX_DRAFT_LENGTH}.")
        self._length, self._measures_plain = length, measures_plain

    def next_length(self) -> int:
        """See DraftLength."""
        phase = (self._rounds - FIRST_BURST_AFTER_ROUNDS) % BURST_EVERY_ROUNDS
        is_burst = self._rounds >= FIRST_BURST_AFTER_ROUNDS and phase < BURST_ROUNDS
        return 0 if is_burst and self._measures_plain else self._length

    def observe(self, done: RoundFacts) -> None:
        """See DraftLength."""
        self._rounds += 1


class AdaptiveLength(FixedLength):
    """Stays at the length that it begins with."""

    @classmethod
    def load(cls, path: Path, start_length: int) -> tuple[AdaptiveLength, str | None]:
        """Nothing is kept yet."""
        return cls(start_length), None

    def save(self, path: Path) -> None:
        """Nothing to keep yet."""
