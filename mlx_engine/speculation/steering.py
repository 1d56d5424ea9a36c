"""How many tokens the rounds of a reply draft: what a person set, or what the estimates say.

Between the loop, which asks before a round, and the policies of `draft_length.py`, which outlive a reply.
Knows nothing of MLX.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from mlx_engine.protocol.events import DraftSetting
from mlx_engine.speculation import estimates
from mlx_engine.speculation.draft_length import AdaptiveLength, FixedLength, RoundFacts

FIRST_WIDE_GENERATION = 15
"""From this GPU generation on (M3) MLX multiplies up to five rows for the price of one pass over the weights."""
START_LENGTH, START_LENGTH_BEFORE_WIDE = 4, 2
"""Rows of a verify pass less one."""


class ReplyControl:
    """What may be changed from another thread while a reply is being made."""

    def __init__(self, draft_length: DraftSetting) -> None:
        self.draft_length = draft_length
        self.is_cancelled = False


class DraftLengths:
    """The policies of one pair, kept from reply to reply, and the estimates from run to run."""

    def __init__(self, path: Path | None, start_length: int) -> None:
        """path: of the estimates; None: they are not kept. `notice` says if they could not be used."""
        self._path = path
        kept, self.notice = estimates.load(path) if path else (None, None)
        self._auto = AdaptiveLength(start_length, kept)
        self._fixed = FixedLength(start_length)

    def next_length(self, setting: DraftSetting, measures_plain: bool) -> int:
        """The next round's length. Raises RequestError if the setting is out of range."""
        if setting == "auto":
            return self._auto.next_length()
        self._fixed.set(setting, measures_plain)
        return self._fixed.next_length()

    def observe(self, done: RoundFacts) -> None:
        """Learn from a round, whoever chose its length."""
        self._auto.observe(done)
        self._fixed.observe(done)

    def save(self) -> None:
        """Keep what was learned. Raises OSError."""
        if self._path:
            estimates.save(self._path, self._auto.estimates)


class Steering:
    """Answers the loop's questions during one reply."""

    def __init__(self, control: ReplyControl, lengths: DraftLengths, measures_plain: bool = True) -> None:
        self._control = control
        self._lengths = lengths
        self._measures_plain = measures_plain

    def next_length(self) -> int:
        """See decode.Control."""
        return self._lengths.next_length(self._control.draft_length, self._measures_plain)

    @property
    def is_cancelled(self) -> bool:
        """See decode.Control."""
        return self._control.is_cancelled


def start_length(architecture: str) -> int:
    """Drafts per round to begin with on this device, as MLX names it (`applegpu_g13s` is an M1 Max)."""
    generation = re.match(r"applegpu_g(\d+)", architecture)
    if generation and int(generation[1]) < FIRST_WIDE_GENERATION:
        return START_LENGTH_BEFORE_WIDE
    return START_LENGTH


def estimates_file(folder: Path, target: Path, drafter: Path, bits: int | None, device: str) -> Path:
    """Where the estimates of this pair on this device are kept."""
    pair = hashlib.sha256("\n".join([str(target), str(drafter), str(bits), device]).encode()).hexdigest()[:12]
    return folder / f"{target.name[:60]}--{drafter.name[:60]}--{pair}.json"
