"""All arithmetic about speed and acceptance: rounds in, figures out. For front ends; knows nothing of MLX.

Definitions
    acceptance        accepted drafts / drafted tokens
    tokens per round  committed tokens / target passes; 1.0 without drafting
    baseline speed    tokens/s of plain decoding, measured on this machine by plain rounds at about this length of
                      the context; None until there are enough of them
    speedup           tokens/s / baseline speed
    time to first token (ttft_s)  from submit to the first committed token, prefill included

A round without tokens reports that a reply was stopped while its prompt was being read. No figure counts it.

A server reports no rounds. Its counts are those it names at the end, and times are measured by its client: the
first text marks the first token, and the speed is that of the tokens behind it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median, mode

from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, Finished, Part, Round, ServerFigures

PLAIN_ROUNDS_NEEDED = 4
"""Fewer plain rounds than this say too little about the baseline speed."""
PLAIN_ROUNDS_KEPT = 32
"""Few enough that the baseline speed follows a growing context and a machine that heats up."""
CONTEXT_MARGIN_TOKENS = 1024
"""Rounds take about the same time in contexts that differ by less."""


def is_another_context(before_tokens: int, now_tokens: int) -> bool:
    """Whether the conversation is another one or has grown a lot, so that earlier round times say little."""
    shorter, longer = sorted((before_tokens, now_tokens))
    return longer > 2 * shorter + CONTEXT_MARGIN_TOKENS


class BaselineSpeed:
    """The baseline decode speed, measured by the engine's plain rounds. Outlives a reply."""

    def __init__(self) -> None:
        self._rounds_s: deque[float] = deque(maxlen=PLAIN_ROUNDS_KEPT)
        self._context_tokens = 0

    def add(self, done: Round) -> None:
        """Use a round if it shows the baseline speed."""
        if not done.token_ids:
            return
        if is_another_context(self._context_tokens, done.context_tokens):
            self._rounds_s.clear()
        self._context_tokens = done.context_tokens
        if done.is_pipelined and done.round_s > 0:
            self._rounds_s.append(done.round_s)

    @property
    def tokens_per_s(self) -> float | None:
        """From the median plain round; None until there are enough of them."""
        if len(self._rounds_s) < PLAIN_ROUNDS_NEEDED:
            return None
        return 1.0 / median(self._rounds_s)


@dataclass(slots=True)
class DrafterCounts:
    """What one drafter did."""

    rounds: int = 0
    drafted: int = 0
    accepted: int = 0


class ReplyStats:
    """Figures of one reply, or of any other rounds.

    Only reads the baseline speed: whoever receives the rounds adds each of them to it once.
    """

    def __init__(self, baseline: BaselineSpeed) -> None:
        self.rounds = 0
        self.drafted = 0
        self.accepted = 0
        self.generated_tokens = 0
        self.decode_s = 0.0
        self.ttft_s: float | None = None
        self.by_drafter: dict[str, DrafterCounts] = {}
        """By the name of its kind, of those that drafted."""
        self.drafted_by_position = [0] * MAX_DRAFT_LENGTH
        self.accepted_by_position = [0] * MAX_DRAFT_LENGTH
        self._drafting_tokens = 0
        self._drafting_s = 0.0
        self._baseline = baseline

    def add(self, done: Round) -> None:
        """Add one round."""
        if not done.token_ids:
            return
        if self.ttft_s is None:
            self.ttft_s = done.elapsed_s
        self.rounds += 1
        self.drafted += done.drafted
        self.accepted += done.accepted
        self.generated_tokens += len(done.token_ids)
        self.decode_s += done.round_s
        for position in range(done.drafted):
            self.drafted_by_position[position] += 1
            self.accepted_by_position[position] += position < done.accepted
        if done.drafted:
            counts = self.by_drafter.setdefault(done.drafter, DrafterCounts())
            counts.rounds += 1
            counts.drafted += done.drafted
            counts.accepted += done.accepted
            self._drafting_tokens += len(done.token_ids)
            self._drafting_s += done.round_s

    @property
    def acceptance(self) -> float | None:
        """Accepted / drafted; None if nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_round(self) -> float | None:
        """Committed tokens per target pass."""
        return self.generated_tokens / self.rounds if self.rounds else None

    @property
    def tokens_per_s(self) -> float | None:
        """Decode speed, without the prompt."""
        return self.generated_tokens / self.decode_s if self.decode_s > 0 else None

    @property
    def baseline_tokens_per_s(self) -> float | None:
        """The measured speed without drafting."""
        return self._baseline.tokens_per_s

    @property
    def speedup(self) -> float | None:
        """Tokens/s over the baseline, including the plain rounds that measure it; None if nothing was drafted."""
        baseline, speed = self.baseline_tokens_per_s, self.tokens_per_s
        return speed / baseline if baseline is not None and speed is not None and self.drafted else None

    @property
    def drafting_speedup(self) -> float | None:
        """The speedup of the drafting rounds alone, as if every round had drafted."""
        baseline = self.baseline_tokens_per_s
        if baseline is None or self._drafting_s <= 0:
            return None
        return self._drafting_tokens / self._drafting_s / baseline


class ServerStats:
    """The same figures of a reply that a server makes. None: not reported, or too little has come to tell."""

    def __init__(self) -> None:
        self.by_drafter: dict[str, DrafterCounts] = {}
        self.drafted_by_position: list[int] = []
        self.accepted_by_position: list[int] = []
        """No server says any of these three."""
        self.baseline_tokens_per_s: float | None = None
        self.ttft_s: float | None = None
        self._last_s = 0.0
        self._reported: ServerFigures | None = None

    def add(self, part: Part | Finished) -> None:
        """Add one message of the server, or the end of the reply."""
        if isinstance(part, Finished):
            self._reported = part.reported
        elif part.text or part.thinking or part.calls:
            self._last_s = part.elapsed_s
            if self.ttft_s is None:
                self.ttft_s = part.elapsed_s

    @property
    def reported(self) -> ServerFigures:
        """What the server said at the end; nothing before."""
        return self._reported or ServerFigures("")

    @property
    def generated_tokens(self) -> int | None:
        """All of them, thoughts and calls included."""
        return self.reported.generated_tokens

    @property
    def rounds(self) -> int | None:
        """Passes of the target behind the one over the prompt."""
        return self.reported.rounds

    @property
    def drafted(self) -> int | None:
        """Tokens that were proposed."""
        return self.reported.drafted

    @property
    def accepted(self) -> int | None:
        """Those of them that became part of the reply."""
        return self.reported.accepted

    @property
    def decode_s(self) -> float:
        """From the first text to the last."""
        return 0.0 if self.ttft_s is None else self._last_s - self.ttft_s

    @property
    def tokens_per_s(self) -> float | None:
        """Speed of the tokens behind the first one, as they arrived here."""
        return speed_behind_first(self.generated_tokens, self.decode_s)

    @property
    def acceptance(self) -> float | None:
        """Accepted / drafted; None also if nothing was drafted."""
        return self.accepted / self.drafted if self.drafted and self.accepted is not None else None

    @property
    def tokens_per_round(self) -> float | None:
        """As the server's own counts give it."""
        return self.reported.tokens_per_round

    @property
    def speedup(self) -> float | None:
        """As the server measured it."""
        return self.reported.speedup


def speed_behind_first(tokens: int | None, seconds: float) -> float | None:
    """Tokens per second, where the time begins at the first token. None: too little to tell."""
    return (tokens - 1) / seconds if tokens is not None and tokens > 1 and seconds > 0 else None


DRAFTING_SHARE = 0.25
"""Drafting is on if at least this share of the recent rounds drafted; a burst of plain rounds leaves a third."""


class RecentRounds:
    """The same figures over the latest rounds only, for gauges that follow the text."""

    def __init__(self, baseline: BaselineSpeed, rounds: int = 64) -> None:
        self._baseline = baseline
        self._rounds: deque[Round] = deque(maxlen=rounds)

    def add(self, done: Round) -> None:
        """Add one round and drop the oldest, or all if they belong to another context."""
        if not done.token_ids:
            return
        if self._rounds and is_another_context(self._rounds[-1].context_tokens, done.context_tokens):
            self._rounds.clear()
        self._rounds.append(done)

    @property
    def typical_length(self) -> int | None:
        """The draft length of most drafting rounds, 0 if hardly any drafted; None while there are too few to tell.

        Bursts of plain rounds, which measure the baseline speed, do not count as drafting off.
        """
        drafted = [done.drafted for done in self._rounds if done.drafted]
        if len(drafted) > len(self._rounds) * DRAFTING_SHARE:
            return mode(drafted)
        return 0 if len(self._rounds) == self._rounds.maxlen else None

    def figures(self) -> ReplyStats:
        """Figures of the kept rounds."""
        stats = ReplyStats(self._baseline)
        for done in self._rounds:
            stats.add(done)
        return stats
