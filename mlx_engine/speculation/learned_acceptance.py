"""How often a drafter's drafts are accepted, learned from round to round. No MLX, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import log
from operator import mul

from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, RoundFacts
from mlx_engine.speculation.estimates import AcceptanceEstimates

PRIOR_ACCEPTANCE = 0.7
"""Assumed of a drafter that is not known yet: a little less than was published for prose."""
PRIOR_DRAFTS = 2.0
"""The prior counts as much as this many drafts. With more, learning is slow; with fewer, single drafts decide."""
MAX_CERTAINTY = 0.99
"""No draft is taken to be accepted, or rejected, with more certainty than this: any outcome stays possible."""
LEAST_CHANCE = 1 - MAX_CERTAINTY
NO_DRAFTS = (0.0,) * MAX_DRAFT_LENGTH
LONG_ROUNDS, SHORT_ROUNDS = 100, 10
"""Spans of the two acceptance averages: long enough to tell lengths apart that differ by a few percent; and a
paragraph of another kind of text."""
CHANGE_THRESHOLD_NATS = 4.0
"""By how much the short average must predict better before the long one is dropped. Chance alone does that once
in some thousand rounds."""
FIRST_DRAFT_ROUNDS = 400
"""Span of the average for first drafts: long enough for several kinds of text."""


class FadingCounts:
    """How many drafts were drafted and accepted at each position, with older rounds fading out.

    Drafts behind the first rejected one say nothing and are not counted.
    """

    def __init__(
        self, rounds: float, drafted: Sequence[float] = NO_DRAFTS, accepted: Sequence[float] = NO_DRAFTS
    ) -> None:
        """rounds: a round this old counts about a third of a new one."""
        self._fading = 1 - 1 / rounds
        self.drafted, self.accepted = list(drafted), list(accepted)

    def observe(self, done: RoundFacts) -> None:
        """Add one round and let the others fade."""
        fading = self._fading
        self.drafted = [count * fading for count in self.drafted]
        self.accepted = [count * fading for count in self.accepted]
        for position in range(min(done.accepted + 1, done.drafted)):
            self.drafted[position] += 1
            self.accepted[position] += position < done.accepted

    def acceptance(self, prior: float, positions: int = MAX_DRAFT_LENGTH) -> list[float]:
        """The chance of each position's draft, given that all before it are accepted.

        positions: how many are asked for. A position with few drafts is taken to be as good as the position before
        it, and the first one to be as good as `prior`.
        """
        rates = []
        for drafted, accepted in zip(self.drafted[:positions], self.accepted):
            prior = (accepted + PRIOR_DRAFTS * prior) / (drafted + PRIOR_DRAFTS)
            if not LEAST_CHANCE < prior < MAX_CERTAINTY:
                prior = LEAST_CHANCE if prior < MAX_CERTAINTY else MAX_CERTAINTY
            rates.append(prior)
        return rates


class Acceptance:
    """How often drafts are accepted: a long average, replaced by a short one when the kind of text changes.

    The change is found by Page's test (1954): evidence adds up while the short average predicts rounds better
    than the long one.
    """

    def __init__(self, kept: AcceptanceEstimates | None = None) -> None:
        self.first_draft = kept.first_draft if kept else PRIOR_ACCEPTANCE
        self.long = FadingCounts(LONG_ROUNDS, kept.drafted, kept.accepted) if kept else FadingCounts(LONG_ROUNDS)
        self._short = FadingCounts(SHORT_ROUNDS)
        self._first_drafts = FIRST_DRAFT_ROUNDS if kept else PRIOR_DRAFTS
        self._evidence_nats = 0.0
        self._tokens: list[float] | None = None
        """By length; None after a round that may have changed them."""

    @property
    def estimates(self) -> AcceptanceEstimates | None:
        """What a later run starts from; None: no draft was made."""
        if not any(self.long.drafted):
            return None
        return AcceptanceEstimates(self.first_draft, self.long.drafted, self.long.accepted)

    def observe(self, done: RoundFacts) -> None:
        """Learn from a round."""
        self._tokens = None
        if done.drafted:
            tried = done.accepted + 1
            self._evidence_nats += _surprise_nats(done, self.long.acceptance(self.first_draft, tried))
            self._evidence_nats -= _surprise_nats(done, self._short.acceptance(self.first_draft, tried))
            self._evidence_nats = max(self._evidence_nats, 0.0)
            self._first_drafts = min(self._first_drafts + 1, FIRST_DRAFT_ROUNDS)
            self.first_draft += ((done.accepted > 0) - self.first_draft) / self._first_drafts
        self.long.observe(done)
        self._short.observe(done)
        if self._evidence_nats > CHANGE_THRESHOLD_NATS:
            self._evidence_nats = 0.0
            self.long = FadingCounts(LONG_ROUNDS, self._short.drafted, self._short.accepted)

    def tokens_per_round(self) -> list[float]:
        """Expected tokens of a round of each length 0 to 16, the target's own token included."""
        if self._tokens is None:
            reached = accumulate(self.long.acceptance(self.first_draft), mul, initial=1.0)
            self._tokens = list(accumulate(reached))
        return self._tokens


def _surprise_nats(done: RoundFacts, acceptance: Sequence[float]) -> float:
    """Negative log likelihood of the round's outcome under these chances."""
    surprise = -sum(map(log, acceptance[: done.accepted]))
    return surprise - (log(1 - acceptance[done.accepted]) if done.accepted < done.drafted else 0)
