"""How many tokens the rounds of a reply draft: a fixed length that a person set, or the automatic one.

Connects the loop, which asks before each round, with the length policies, which outlive a reply. No MLX.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from mlx_engine.protocol.events import DraftSetting, RoundFacts
from mlx_engine.speculation import estimates
from mlx_engine.speculation.adaptive_length import AdaptiveLength
from mlx_engine.speculation.draft_length import FixedLength

FIRST_WIDE_GENERATION = 15
"""From this GPU generation on (M3), MLX multiplies up to five rows for the price of reading the weights once."""
START_LENGTH, START_LENGTH_BEFORE_WIDE = 4, 2
"""One less than the rows of a verify pass."""


class ReplyControl:
    """What another thread may change while a reply is being decoded."""

    def __init__(self, draft_length: DraftSetting) -> None:
        self.draft_length = draft_length
        self.is_cancelled = False


class DraftLengths:
    """The length policies of one pair, which last from reply to reply, and their file of estimates."""

    def __init__(self, path: Path | None, start_length: int) -> None:
        """path: of the estimates; None: they are not saved. `notice` tells if they could not be read."""
        self._path = path
        kept, self.notice = estimates.load(path) if path else (None, None)
        self._auto = AdaptiveLength(start_length, kept)
        self._fixed = FixedLength(start_length)

    def next_length(self, setting: DraftSetting, measures_baseline: bool) -> int:
        """The next round's draft length. Raises RequestError if the setting is out of range."""
        if setting == "auto":
            return self._auto.next_length()
        self._fixed.set(setting, measures_baseline)
        return self._fixed.next_length()

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """Learn from a round, whichever policy chose its length."""
        self._auto.observe(done, round_s)
        self._fixed.observe(done, round_s)

    def save(self) -> None:
        """Save the estimates. Raises OSError."""
        if self._path:
            estimates.save(self._path, self._auto.estimates)


class Steering:
    """The loop's `Control` for one reply."""

    def __init__(self, control: ReplyControl, lengths: DraftLengths, measures_baseline: bool = True) -> None:
        self._control = control
        self._lengths = lengths
        self._measures_baseline = measures_baseline

    def next_length(self) -> int:
        """See decode.Control. Raises RequestError if the setting is out of range."""
        return self._lengths.next_length(self._control.draft_length, self._measures_baseline)

    @property
    def is_cancelled(self) -> bool:
        """See decode.Control."""
        return self._control.is_cancelled


def start_length(architecture: str) -> int:
    """The first draft length on a device, by MLX's name for it (`applegpu_g13s` is an M1 Max)."""
    generation = re.match(r"applegpu_g(\d+)", architecture)
    if generation and int(generation[1]) < FIRST_WIDE_GENERATION:
        return START_LENGTH_BEFORE_WIDE
    return START_LENGTH


def estimates_file(folder: Path, target: Path, drafter: Path, bits: int | None, device: str) -> Path:
    """The file for the estimates of this pair on this device."""
    pair = hashlib.sha256("\n".join([str(target), str(drafter), str(bits), device]).encode()).hexdigest()[:12]
    return folder / f"{target.name[:60]}--{drafter.name[:60]}--{pair}.json"
