"""What the gauges show: facts of rounds in, one reading out. All figures come from `mlx_engine.protocol.stats`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mlx_engine.protocol.events import DraftSetting, Ready, Round
from mlx_engine.protocol.stats import BaselineSpeed, RecentRounds, ReplyStats

PACE_SAMPLES_KEPT = 40
PACE_WINDOW_ROUNDS = 12
"""Short enough for the sparkline to follow the text, long enough not to show single rounds."""


@dataclass(frozen=True, slots=True)
class GaugeReading:
    """Everything the gauges show at one moment. None: not known yet."""

    draft_length: DraftSetting
    """Tokens drafted per round as they were set, 0 when drafting is off."""
    has_drafter: bool
    is_refused: bool = False
    """A drafter was asked for and is of no use."""
    usual_length: int | None = None
    """What most of the last rounds drafted."""
    speedup: float | None = None
    drafting_speedup: float | None = None
    """The last one measured while drafting: what `auto` knew when it turned drafting off."""
    acceptance: float | None = None
    tokens_per_round: float | None = None
    tokens_per_s: float | None = None
    plain_tokens_per_s: float | None = None
    pace_samples: tuple[float, ...] = ()
    """Tokens per second, oldest first."""
    ttft_s: float | None = None
    context_tokens: int | None = None
    context_limit: int | None = None
    memory_bytes: int | None = None
    drafted_by_position: tuple[int, ...] = ()
    accepted_by_position: tuple[int, ...] = ()

    @property
    def is_auto_off(self) -> bool:
        """Whether `auto` drafts nothing at present."""
        return self.has_drafter and self.draft_length == "auto" and self.usual_length == 0


class Gauges:
    """Follows the rounds of all replies and keeps its last values when they end."""

    def __init__(self, draft_length: DraftSetting) -> None:
        self.draft_length = draft_length
        self.has_drafter = True
        self._is_refused = False
        self._pace = BaselineSpeed()
        self._begin_anew()
        self._reply = ReplyStats(self._pace)
        self._samples: deque[float] = deque(maxlen=PACE_SAMPLES_KEPT)
        self._drafting_speedup: float | None = None
        self._ttft_s: float | None = None
        self._context_tokens: int | None = None
        self._context_limit: int | None = None
        self._memory_bytes: int | None = None

    @property
    def reply(self) -> ReplyStats:
        """Figures of the running or the last reply."""
        return self._reply

    def loaded(self, ready: Ready) -> None:
        """A pair is there."""
        self.has_drafter = ready.drafter is not None
        self._is_refused = ready.refusal is not None
        self._context_limit = ready.context_tokens
        self._memory_bytes = ready.memory_bytes

    def begin_reply(self) -> None:
        """A request goes out."""
        self._reply = ReplyStats(self._pace)

    def add(self, done: Round) -> None:
        """One round of the running reply."""
        if self.draft_length != self._measured_at:
            self._begin_anew()
        self._pace.add(done)
        self._reply.add(done)
        self._recent.add(done)
        self._now.add(done)
        self._ttft_s = self._reply.ttft_s
        self._context_tokens = done.context_tokens
        self._memory_bytes = done.memory_bytes

    def _begin_anew(self) -> None:
        """What rounds of another setting brought says nothing of this one."""
        self._measured_at = self.draft_length
        self._recent = RecentRounds(self._pace)
        self._now = RecentRounds(self._pace, PACE_WINDOW_ROUNDS)

    def sample_pace(self) -> None:
        """Take one sample for the sparkline."""
        tokens_per_s = self._now.figures().tokens_per_s
        if tokens_per_s is not None:
            self._samples.append(tokens_per_s)

    def forget_pair(self) -> None:
        """Another pair has another pace; nothing that was measured holds for it."""
        self._pace = BaselineSpeed()
        self._begin_anew()
        self._reply = ReplyStats(self._pace)
        self._samples.clear()
        self._drafting_speedup = self._ttft_s = self._context_tokens = self._memory_bytes = None

    def forget_context(self) -> None:
        """A new conversation has used nothing yet."""
        self._context_tokens = None

    def reading(self) -> GaugeReading:
        """The figures over the last rounds; of drafts, only while there are any to be."""
        recent = self._recent.figures()
        is_off = self.draft_length == 0
        if recent.drafting_speedup is not None:
            self._drafting_speedup = recent.drafting_speedup
        return GaugeReading(
            draft_length=self.draft_length,
            has_drafter=self.has_drafter,
            is_refused=self._is_refused,
            usual_length=self._now.typical_length if self.draft_length == self._measured_at else None,
            speedup=None if is_off else recent.speedup,
            drafting_speedup=self._drafting_speedup,
            acceptance=None if is_off else recent.acceptance,
            tokens_per_round=recent.tokens_per_round,
            tokens_per_s=recent.tokens_per_s,
            plain_tokens_per_s=recent.baseline_tokens_per_s,
            pace_samples=tuple(self._samples),
            ttft_s=self._ttft_s,
            context_tokens=self._context_tokens,
            context_limit=self._context_limit,
            memory_bytes=self._memory_bytes,
            drafted_by_position=() if is_off else tuple(recent.drafted_by_position),
            accepted_by_position=() if is_off else tuple(recent.accepted_by_position),
        )
