"""What the rounds of a reply draft: a fixed length that a person set, or what is fastest.

Connects the loop, which asks before each round, with the policies, which outlive a reply. No MLX.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from mlx_engine.protocol.apple_gpu import M3, generation_of
from mlx_engine.protocol.events import DraftSetting, RoundFacts
from mlx_engine.speculation import estimates
from mlx_engine.speculation.adaptive_draft import AdaptiveDraft
from mlx_engine.speculation.draft_choice import Choice, FixedLength, Offers

START_LENGTH, START_LENGTH_BEFORE_M3 = 4, 2
"""From M3 on, MLX multiplies up to five rows for the price of reading the weights once (`qmv_wide`, mlx #3764, in
quantized.cpp). Before, the weights are read again for every row. One less than the rows of a verify pass."""
START_LENGTH_OF_LATER_MLX = 5
"""After 0.32.4 MLX has such kernels for 6 to 16 rows (mlx #4712), so a few more drafts cost little."""
LAST_MLX_OF_FIVE_ROWS = (0, 32, 4)
START_LENGTH_WITH_EXPERTS = 2
"""Each row reads experts of its own; reports of 26B-A4B are best with two or three drafts."""
MOST_FUSED_ROWS, MOST_FUSED_QUERIES = 8, 32
"""MLX fuses the attention of up to 8 rows, and 32 queries for each K/V head (scaled_dot_product_attention.cpp)."""


class ReplyControl:
    """What another thread may change while a reply is being decoded."""

    def __init__(self, draft_length: DraftSetting) -> None:
        self.draft_length = draft_length
        self.is_cancelled = False


class DraftPolicies:
    """The draft policies of one pair, which last from reply to reply, and their file of estimates."""

    def __init__(
        self, path: Path | None, start_length: int, drafters: Sequence[str], *, pipelines_plain: bool = True
    ) -> None:
        """path: of the estimates; None: they are not saved. drafters: their names, in the order of the offers.
        pipelines_plain: see AdaptiveDraft. `notice` tells if the estimates could not be read."""
        self._path = path
        kept, self.notice = estimates.load(path) if path else (None, None)
        self._auto = AdaptiveDraft(drafters, start_length, kept, pipelines_plain=pipelines_plain)
        self._fixed = FixedLength(start_length, self._auto.tokens_of)

    def begin_reply(self, is_thinking: bool) -> None:
        """The next rounds belong to a reply with or without thinking."""
        self._auto.begin_reply(is_thinking)

    def choose(self, setting: DraftSetting, measures_baseline: bool, offers: Offers) -> Choice:
        """The next round's draft. Raises RequestError if the setting is out of range."""
        if setting == "auto":
            return self._auto.choose(offers)
        self._fixed.set(setting, measures_baseline)
        return self._fixed.choose(offers)

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """Learn from a round, whichever policy chose its draft."""
        self._auto.observe(done, round_s)
        self._fixed.observe(done, round_s)

    def save(self) -> None:
        """Save the estimates. Raises OSError."""
        if self._path:
            estimates.save(self._path, self._auto.estimates)


class Steering:
    """The loop's `Control` for one reply."""

    def __init__(
        self,
        control: ReplyControl,
        policies: DraftPolicies,
        measures_baseline: bool = True,
        is_thinking: bool = False,
    ) -> None:
        self._control = control
        self._policies = policies
        self._measures_baseline = measures_baseline
        policies.begin_reply(is_thinking)

    def next_draft(self, offers: Offers) -> Choice:
        """See decode.Control. Raises RequestError if the setting is out of range."""
        return self._policies.choose(self._control.draft_length, self._measures_baseline, offers)

    @property
    def is_cancelled(self) -> bool:
        """See decode.Control."""
        return self._control.is_cancelled


def start_length(
    architecture: str, mlx_version: str = "", queries_per_kv_head: int = 1, is_moe: bool = False
) -> int:
    """The first draft length on a device, by MLX's name for it (`applegpu_g13s` is an M1 Max).

    queries_per_kv_head: of the sliding layers, which are most of the layers.
    """
    generation = generation_of(architecture)
    if generation is None:
        return START_LENGTH
    if generation < M3:
        return START_LENGTH_BEFORE_M3
    numbers = tuple(int(number) for number in re.findall(r"\d+", mlx_version)[:3])
    kernels = START_LENGTH_OF_LATER_MLX if numbers > LAST_MLX_OF_FIVE_ROWS else START_LENGTH
    fused_rows = min(MOST_FUSED_ROWS, MOST_FUSED_QUERIES // queries_per_kv_head)
    return max(1, min(kernels, fused_rows - 1, START_LENGTH_WITH_EXPERTS if is_moe else kernels))


def estimates_file(folder: Path, target: Path, drafters: Sequence[str], bits: int | None, device: str) -> Path:
    """The file for the estimates of this target and its drafters on this device.

    A release of MLX may have other kernels, with which rounds cost something else, so `device` names it too.
    """
    key = "\n".join([str(estimates.VERSION), str(target), *drafters, str(bits), device])
    names = "--".join(Path(name).name[:60] for name in (str(target), *drafters))[:150]
    return folder / f"{names}--{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"
