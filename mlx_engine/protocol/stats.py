"""The only arithmetic about speed and acceptance: rounds in, figures out.

Definitions
    acceptance        accepted drafts / drafted tokens
    tokens per round  tokens committed / target passes; 1.0 without drafting
    speedup           tokens/s now / plain tokens/s measured on this machine, at about this length of the
                      context, by plain rounds; None until enough of them have been measured
    time to first token (ttft_s)  from submit to the first committed token, prefill included
"""

from __future__ import annotations

from collections import deque
from statistics import median, mode

from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, Round

PLAIN_ROUNDS_NEEDED = 4
"""Fewer plain rounds than this say too little about the pace of plain decoding."""
PLAIN_ROUNDS_KEPT = 32
"""The baseline follows the context as it grows and the machine as it heats up."""
CONTEXT_MARGIN_TOKENS = 1024
"""Contexts that differ by less are read in about the same time."""


def is_another_context(before_tokens: int, now_tokens: int) -> bool:
    """The conversation is another one, or far longer than it was: what rounds took before says little now."""
    shorter, longer = sorted((before_tokens, now_tokens))
    return longer > 2 * shorter + CONTEXT_MARGIN_TOKENS


class PlainPace:
    """The pace of plain decoding, from the plain rounds that the engine makes. Outlives a reply."""

    def __init__(self) -> None:
        self._rounds_s: deque[float] = deque(maxlen=PLAIN_ROUNDS_KEPT)
        self._context_tokens = 0

    def add(self, done: Round) -> None:
        """Take a round into account if it tells the pace."""
        if is_another_context(self._context_tokens, done.context_tokens):
            self._rounds_s.clear()
        self._context_tokens = done.context_tokens
        if done.is_pipelined and done.round_s > 0:
            self._rounds_s.append(done.round_s)

    @property
    def tokens_per_s(self) -> float | None:
        """Plain tokens per second, by the median round; None until there are enough rounds."""
        if len(self._rounds_s) < PLAIN_ROUNDS_NEEDED:
            return None
        return 1.0 / median(self._rounds_s)


class ReplyStats:
    """Figures of one reply, or of any run of rounds, folded from them.

    The plain pace is only looked at: whoever receives the rounds adds each to it once.
    """

    def __init__(self, pace: PlainPace) -> None:
        self.rounds = 0
        self.drafted = 0
        self.accepted = 0
        self.generated_tokens = 0
        self.decode_s = 0.0
        self.ttft_s: float | None = None
        self.drafted_by_position = [0] * MAX_DRAFT_LENGTH
        self.accepted_by_position = [0] * MAX_DRAFT_LENGTH
        self._drafting_tokens = 0
        self._drafting_s = 0.0
        self._pace = pace

    def add(self, done: Round) -> None:
        """Fold one round in."""
        if self.ttft_s is None and done.token_ids:
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
            self._drafting_tokens += len(done.token_ids)
            self._drafting_s += done.round_s

    @property
    def acceptance(self) -> float | None:
        """Accepted / drafted; None when nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_round(self) -> float | None:
        """Tokens committed per target pass."""
        return self.generated_tokens / self.rounds if self.rounds else None

    @property
    def tokens_per_s(self) -> float | None:
        """Decoding speed, the prompt not counted."""
        return self.generated_tokens / self.decode_s if self.decode_s > 0 else None

    @property
    def plain_tokens_per_s(self) -> float | None:
        """The measured pace without drafting."""
        return self._pace.tokens_per_s

    @property
    def speedup(self) -> float | None:
        """Tokens/s over plain tokens/s, with the plain rounds that measure in it; None if nothing was drafted."""
        plain, pace = self.plain_tokens_per_s, self.tokens_per_s
        return pace / plain if plain is not None and pace is not None and self.drafted else None

    @property
    def drafting_speedup(self) -> float | None:
        """The same of the drafting rounds alone: what drafting would bring if all rounds drafted."""
        plain = self.plain_tokens_per_s
        if plain is None or self._drafting_s <= 0:
            return None
        return self._drafting_tokens / self._drafting_s / plain


RULE_SHARE = 0.25
"""Of the last rounds, what must have drafted for drafting to be the rule: a burst of plain ones leaves a third."""


class RecentRounds:
    """The same figures over the last rounds only, for gauges that follow the text."""

    def __init__(self, pace: PlainPace, rounds: int = 64) -> None:
        self._pace = pace
        self._rounds: deque[Round] = deque(maxlen=rounds)

    def add(self, done: Round) -> None:
        """Take one round in, and the oldest out, or all of another context."""
        if self._rounds and is_another_context(self._rounds[-1].context_tokens, done.context_tokens):
            self._rounds.clear()
        self._rounds.append(done)

    @property
    def usual_length(self) -> int | None:
        """What the rounds kept drafted as a rule, 0 if hardly any drafted; None while there are too few to tell.

        The bursts of plain rounds that measure the pace are no rule.
        """
        drafted = [done.drafted for done in self._rounds if done.drafted]
        if len(drafted) > len(self._rounds) * RULE_SHARE:
            return mode(drafted)
        return 0 if len(self._rounds) == self._rounds.maxlen else None

    def figures(self) -> ReplyStats:
        """Figures of the rounds kept."""
        stats = ReplyStats(self._pace)
        for done in self._rounds:
            stats.add(done)
        return stats
