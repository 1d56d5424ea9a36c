"""What the gauges show and mean: rounds in, one reading out. The arithmetic is in `mlx_engine.protocol.stats`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from app.core.current_pair import CurrentPair
from app.core.reply_settings import ReplySettings
from mlx_engine.protocol.events import DraftSetting, Ready, Round, ServerFigures, Started
from mlx_engine.protocol.stats import RecentRounds, ReplyStats, ServerStats

GAUGE_HELP = (
    ("draft ON 4", "drafting is on: the drafter proposes up to 4 tokens per round (at most 16)"),
    (
        "draft AUTO 4",
        "picks the draft length that is fastest right now, and stops drafting when it does not help",
    ),
    (
        "1.82×",
        "speedup: tokens/s now / tokens/s without drafting, measured on this machine in occasional rounds without "
        "drafting; — until measured, (slower) below 1.00",
    ),
    ("acc", "acceptance: accepted drafts / drafted tokens"),
    ("tok/rd", "tokens per round: tokens written / passes of the main model; 1.0 without drafting"),
    ("tok/s", "decode speed: tokens per second once the prompt has been read; the bars show its recent values"),
    ("TTFT", "time to first token: from sending the message to the first token, reading the prompt included"),
    ("Prompt", "where its tokens came from: kept in memory, from disk, or read for this reply"),
    ("ctx", "context: the share of the model's context that this chat uses"),
    ("GB", "memory that the engine uses"),
)
"""Each gauge as the screen abbreviates it, and what it means."""

PACE_SAMPLES_KEPT = 40
PACE_WINDOW_ROUNDS = 12
"""Short enough for the sparkline to follow the text, long enough not to show single rounds."""


@dataclass(frozen=True, slots=True)
class GaugeReading:
    """All gauges at one moment. None: not known yet."""

    draft_length: DraftSetting
    """The setting; 0 while drafting is off."""
    has_drafter: bool
    is_refused: bool = False
    """A drafter was requested that cannot be used."""
    is_served: bool = False
    """A server makes the replies: counts are its own, times are measured here."""
    typical_length: int | None = None
    """The draft length of most of the last rounds."""
    speedup: float | None = None
    drafting_speedup: float | None = None
    """The last one measured while drafting; explains why `auto` stopped drafting."""
    acceptance: float | None = None
    tokens_per_round: float | None = None
    tokens_per_s: float | None = None
    plain_tokens_per_s: float | None = None
    pace_samples: tuple[float, ...] = ()
    """Tokens per second, oldest first."""
    ttft_s: float | None = None
    prompt: Started | None = None
    """Where its tokens came from."""
    context_tokens: int | None = None
    context_limit: int | None = None
    memory_bytes: int | None = None
    accepted_share: tuple[tuple[str, float], ...] = ()
    """By the name of each drafter, its share of the accepted drafts, the largest first; empty with one drafter."""
    drafted_by_position: tuple[int, ...] = ()
    accepted_by_position: tuple[int, ...] = ()

    @property
    def is_auto_off(self) -> bool:
        """Whether `auto` drafts nothing at the moment."""
        return self.has_drafter and self.draft_length == "auto" and self.typical_length == 0


class Gauges:
    """Follows the rounds of all replies, and keeps the last values when a reply ends."""

    def __init__(self, pair: CurrentPair, settings: ReplySettings) -> None:
        self._pair = pair
        self._settings = settings
        self._samples: deque[float] = deque(maxlen=PACE_SAMPLES_KEPT)
        self._drafting_speedup: float | None = None
        self._ttft_s: float | None = None
        self._prompt: Started | None = None
        self._context_tokens: int | None = None
        self._memory_bytes: int | None = None
        self._served: ServerStats | None = None
        """Of the last reply that a server made."""
        self._restart()

    def start(self, started: Started) -> None:
        """A reply begins."""
        self._prompt = started

    def add(self, done: Round, ttft_s: float | None) -> None:
        """Add a round of the running reply, after the pair's baseline speed. ttft_s: of the reply."""
        if self._settings.draft_length != self._measured_length:
            self._restart()
        self._recent.add(done)
        self._latest.add(done)
        if ttft_s is not None:  # the reply was not stopped while its prompt was being read
            self._ttft_s = ttft_s
        self._context_tokens = done.context_tokens
        self._memory_bytes = done.memory_bytes

    def follow(self, stats: ReplyStats | ServerStats) -> None:
        """The reply that a server makes has grown or ended. stats: of the reply; those of rounds are added one by
        one instead."""
        if isinstance(stats, ServerStats):
            self._served, self._ttft_s = stats, stats.ttft_s
            tokens = stats.reported.prompt_tokens, stats.reported.generated_tokens
            self._context_tokens = None if None in tokens else sum(count or 0 for count in tokens)
            if stats.tokens_per_s is not None:
                self._samples.append(stats.tokens_per_s)

    def sample_pace(self) -> None:
        """Take one sample for the sparkline."""
        tokens_per_s = self._latest.figures().tokens_per_s
        if tokens_per_s is not None:
            self._samples.append(tokens_per_s)

    def forget_pair(self) -> None:
        """Drop everything that was measured: another pair is loaded."""
        self._restart()
        self._samples.clear()
        self._served = None
        self._drafting_speedup = self._ttft_s = self._context_tokens = self._memory_bytes = None
        self._prompt = None

    def forget_context(self) -> None:
        """Drop the context in use: another conversation is shown."""
        self._context_tokens = None

    def reading(self) -> GaugeReading:
        """The figures of the last rounds. While drafting is off, none of them are from rounds that drafted."""
        ready, draft_length = self._pair.ready, self._settings.draft_length
        if ready is not None and ready.server is not None:
            return self._reading_of_server(ready)
        has_drafter = self._pair.has_drafter
        recent = self._recent.figures()
        is_current = draft_length == self._measured_length
        typical_length = self._latest.typical_length if is_current else None
        is_auto_off = draft_length == "auto" and typical_length == 0
        is_drafting = has_drafter and draft_length != 0 and not is_auto_off
        if recent.drafting_speedup is not None:
            self._drafting_speedup = recent.drafting_speedup
        return GaugeReading(
            draft_length=draft_length,
            has_drafter=has_drafter,
            is_refused=self._pair.is_drafter_refused,
            typical_length=typical_length,
            speedup=recent.speedup if is_drafting else None,
            drafting_speedup=self._drafting_speedup,
            acceptance=recent.acceptance if is_drafting else None,
            tokens_per_round=recent.tokens_per_round if is_drafting else 1.0,
            tokens_per_s=self._tokens_per_s(),
            plain_tokens_per_s=recent.baseline_tokens_per_s,
            pace_samples=tuple(self._samples),
            ttft_s=self._ttft_s,
            prompt=self._prompt,
            context_tokens=self._context_tokens,
            context_limit=ready.context_tokens if ready else None,
            memory_bytes=self._memory_bytes or (ready.memory_bytes if ready else None),
            accepted_share=_accepted_share(recent) if is_drafting and self._has_choice else (),
            drafted_by_position=tuple(recent.drafted_by_position) if is_drafting else (),
            accepted_by_position=tuple(recent.accepted_by_position) if is_drafting else (),
        )

    def _reading_of_server(self, ready: Ready) -> GaugeReading:
        """What it does not report stays unknown."""
        stats = self._served or ServerStats()
        return GaugeReading(
            draft_length=self._settings.draft_length,
            has_drafter=ready.can_draft,
            is_served=True,
            speedup=stats.speedup,
            acceptance=stats.acceptance,
            tokens_per_round=stats.tokens_per_round,
            tokens_per_s=stats.tokens_per_s,
            pace_samples=tuple(self._samples),
            ttft_s=self._ttft_s,
            prompt=_prompt_of(stats.reported),
            context_tokens=self._context_tokens,
            context_limit=ready.context_tokens,
        )

    @property
    def _has_choice(self) -> bool:
        return self._pair.ready is not None and len(self._pair.ready.drafters) > 1

    def _tokens_per_s(self) -> float | None:
        """The last speed; once drafting is switched off, the speed without it until the next round."""
        if self._settings.draft_length == 0 and self._measured_length != 0:
            return self._pair.baseline.tokens_per_s
        return self._recent.figures().tokens_per_s

    def _restart(self) -> None:
        """Start measuring again: another draft length or pair has other figures."""
        self._measured_length = self._settings.draft_length
        self._recent = RecentRounds(self._pair.baseline)
        self._latest = RecentRounds(self._pair.baseline, PACE_WINDOW_ROUNDS)


def _prompt_of(reported: ServerFigures) -> Started | None:
    """Where the tokens of a server's prompt came from, if it says so."""
    if reported.prompt_tokens is None or reported.cached_tokens is None:
        return None
    return Started(0, reported.prompt_tokens, reported.cached_tokens, reported.disk_tokens or 0)


def _accepted_share(stats: ReplyStats) -> tuple[tuple[str, float], ...]:
    if not stats.accepted:
        return ()
    shares = ((name, counts.accepted / stats.accepted) for name, counts in stats.by_drafter.items())
    return tuple(sorted(shares, key=lambda share: share[1], reverse=True))
