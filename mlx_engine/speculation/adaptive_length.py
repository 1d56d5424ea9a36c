"""The automatic draft length: the one that is fastest by what rounds cost and what they bring. No MLX, no clock.

Two estimates are kept up to date from round to round:

    Acceptance  how often the draft at each position is accepted  -> expected tokens of a round of each length
    Costs       how long a round of each length takes             -> seconds of a round of each length

`AdaptiveLength` picks the length with the most expected tokens per second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import log
from operator import mul
from statistics import fmean

from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, RoundFacts
from mlx_engine.protocol.stats import PLAIN_ROUNDS_NEEDED, is_another_context
from mlx_engine.speculation.draft_length import BURST_ROUNDS, FIRST_BURST_AFTER_ROUNDS
from mlx_engine.speculation.estimates import LENGTHS, LONGEST_S, SAMPLES_KEPT, SHORTEST_S, VERSION, Estimates

PRIOR_ACCEPTANCE = 0.7
"""Assumed of a drafter that is not known yet: a little less than was published for prose."""
PRIOR_DRAFTS = 2.0
"""The prior counts as much as this many drafts. With more, learning is slow; with fewer, single drafts decide."""
MAX_CERTAINTY = 0.99
"""No draft is taken to be accepted, or rejected, with more certainty than this: any outcome stays possible."""
NO_DRAFTS = (0.0,) * MAX_DRAFT_LENGTH
LONG_ROUNDS, SHORT_ROUNDS = 100, 10
"""Spans of the two acceptance averages: long enough to tell lengths apart that differ by a few percent; and a
paragraph of another kind of text."""
CHANGE_THRESHOLD_NATS = 4.0
"""By how much the short average must predict better before the long one is dropped. Chance alone does that once
in some thousand rounds."""
FIRST_DRAFT_ROUNDS = 400
"""Span of the average for first drafts: long enough for several kinds of text."""

FEW_SAMPLES = 6
"""Fewer samples may be mostly stalls and first rounds."""
OLD_ROUNDS = 500
"""Samples this old are dropped: the context has grown by a thousand tokens since, or the machine has warmed up."""

PROBING_SHARE = 0.02
"""Share of the tokens that probes may cost; also most of what drafting may cost where it does not help."""
SETTLED_SHARE, SETTLED_ROUNDS = 0.007, 300
"""Where drafting helps and every length was tried once, costs change slowly and probes find little."""
PROBE_OVERHEAD = 0.15
"""What changing the length costs besides, in plain rounds: the next plain round has to wait for the host."""
FREE_MISSES, MAX_MISSES = 3, 6
"""A miss is a drafting round without an accepted draft. From the fourth miss in a row on, each halves how often
probes are made, down to an eighth. Prose has three in a row now and then; a useless drafter has nothing else."""


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
        self.drafted = [count * self._fading for count in self.drafted]
        self.accepted = [count * self._fading for count in self.accepted]
        for position in range(min(done.accepted + 1, done.drafted)):
            self.drafted[position] += 1
            self.accepted[position] += position < done.accepted

    def acceptance(self, prior: float) -> list[float]:
        """The chance of each position's draft, given that all before it are accepted.

        A position with few drafts is taken to be as good as the position before it, and the first one to be as
        good as `prior`.
        """
        rates = []
        for drafted, accepted in zip(self.drafted, self.accepted):
            rate = (accepted + PRIOR_DRAFTS * prior) / (drafted + PRIOR_DRAFTS)
            prior = min(max(rate, 1 - MAX_CERTAINTY), MAX_CERTAINTY)
            rates.append(prior)
        return rates


class Acceptance:
    """How often drafts are accepted: a long average, replaced by a short one when the kind of text changes.

    The change is found by Page's test (1954): evidence adds up while the short average predicts rounds better
    than the long one.
    """

    def __init__(self, kept: Estimates | None) -> None:
        self.first_draft = kept.first_draft if kept else PRIOR_ACCEPTANCE
        self.long = FadingCounts(LONG_ROUNDS, kept.drafted, kept.accepted) if kept else FadingCounts(LONG_ROUNDS)
        self._short = FadingCounts(SHORT_ROUNDS)
        self._first_drafts = FIRST_DRAFT_ROUNDS if kept else PRIOR_DRAFTS
        self._evidence_nats = 0.0

    def observe(self, done: RoundFacts) -> None:
        """Learn from a round."""
        if done.drafted:
            self._evidence_nats += _surprise_nats(done, self.long.acceptance(self.first_draft))
            self._evidence_nats -= _surprise_nats(done, self._short.acceptance(self.first_draft))
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
        reached = accumulate(self.long.acceptance(self.first_draft), mul, initial=1.0)
        return list(accumulate(reached))


def _surprise_nats(done: RoundFacts, acceptance: Sequence[float]) -> float:
    """Negative log likelihood of the round's outcome under these chances."""
    surprise = -sum(map(log, acceptance[: done.accepted]))
    return surprise - (log(1 - acceptance[done.accepted]) if done.accepted < done.drafted else 0)


class Costs:
    """Typical seconds of a round of each length, from recent rounds; a single slow round does not matter.

    A length without enough samples is put on the line between its neighbours that have them.
    """

    def __init__(self, kept: Estimates | None) -> None:
        samples: list[list[float]] = kept.rounds_s if kept else [[] for _ in range(LENGTHS)]
        self._samples = [deque(((0, round_s) for round_s in row), maxlen=SAMPLES_KEPT) for row in samples]
        """By length: the number of the round and its seconds."""
        self._typical_s = [_typical(row) for row in samples]
        self._rounds = 0

    @property
    def rounds_s(self) -> list[list[float]]:
        """See Estimates."""
        return [[round_s for _, round_s in samples] for samples in self._samples]

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """Learn from a round. A plain one counts only if it was pipelined: others waited for the host."""
        self._rounds += 1
        if not (done.drafted or done.is_pipelined):
            return
        samples = self._samples[done.drafted]
        samples.append((self._rounds, min(max(round_s, SHORTEST_S), LONGEST_S)))
        while len(samples) > FEW_SAMPLES and samples[0][0] < self._rounds - OLD_ROUNDS:
            samples.popleft()
        self._typical_s[done.drafted] = _typical([sample_s for _, sample_s in samples])

    @property
    def knows_drafting(self) -> bool:
        """Rounds of some length other than 0 have been measured."""
        return any(self._typical_s[1:])

    def curve(self) -> list[float] | None:
        """Seconds of a round of each length 0 to 16; None until plain and drafting rounds were measured."""
        known = [(length, cost_s) for length, cost_s in enumerate(self._typical_s) if cost_s is not None]
        if len(known) < 2 or known[0][0]:
            return None
        (_, plain_s), (longest, longest_s) = known[0], known[-1]
        # Half of the slope so far, since the first draft costs most of it. This is optimistic on purpose: a length
        # that looks good is tried, and measured.
        beyond_s = max(longest_s - plain_s, 0) / longest / 2 * (LENGTHS - longest)
        known.append((LENGTHS, longest_s + beyond_s))
        curve = []
        for (left, left_s), (right, right_s) in pairwise(known):
            slope_s = (right_s - left_s) / (right - left)
            curve += [left_s + slope_s * step for step in range(right - left)]
        return curve


def _typical(samples: Sequence[float]) -> float | None:
    """Mean of the middle third; of few samples, one of the shortest, since first rounds are often slow."""
    count, ordered = len(samples), sorted(samples)
    if count < FEW_SAMPLES:
        return ordered[count // 4] if count > 2 else None
    return fmean(ordered[count // 3 : count - count // 3])


class AdaptiveLength:
    """The draft length with the most expected tokens per second; 0, no drafting, is one of the choices.

    What is known of the lengths that are not in use goes stale, so they are probed. A small share of every
    token is saved up; when the savings cover the tokens that the most overdue probe will probably lose, it is
    made. Cheap probes are therefore frequent, and hopeless ones rare.
    """

    def __init__(self, start_length: int, kept: Estimates | None = None) -> None:
        """start_length: used until enough is known. kept: what an earlier run learned."""
        self._acceptance = Acceptance(kept)
        self._start_length = self._length = start_length
        self._context_tokens = kept.context_tokens if kept else 0
        self._misses = 0
        self._saved_tokens = self._expected_tokens = 0.0
        self._reset_costs(kept)
        self._choose()

    def _reset_costs(self, kept: Estimates | None = None) -> None:
        """Start from the costs of an earlier run, or learn them from scratch."""
        self._costs = Costs(kept)
        self._rounds = SETTLED_ROUNDS if kept else 0
        self._plain_rounds = self._probe_rounds = 0
        self._last_round_of = [self._rounds] * LENGTHS
        """By length: the number of its latest round."""

    @property
    def estimates(self) -> Estimates:
        """What a later run starts from."""
        return Estimates(
            first_draft=self._acceptance.first_draft,
            drafted=self._acceptance.long.drafted,
            accepted=self._acceptance.long.accepted,
            rounds_s=self._costs.rounds_s,
            version=VERSION,
            context_tokens=self._context_tokens,
        )

    def next_length(self) -> int:
        """See DraftLength."""
        return self._length

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """See DraftLength."""
        if is_another_context(self._context_tokens, done.context_tokens):
            self._reset_costs()
        self._context_tokens = done.context_tokens
        self._acceptance.observe(done)
        self._costs.observe(done, round_s)
        self._rounds += 1
        self._plain_rounds += done.is_pipelined
        self._last_round_of[done.drafted] = self._rounds
        if done.drafted:
            self._misses = 0 if done.accepted else min(self._misses + 1, MAX_MISSES)
        is_settled = self._length > 0 and self._rounds > SETTLED_ROUNDS
        self._saved_tokens += (SETTLED_SHARE if is_settled else PROBING_SHARE) * (done.accepted + 1)
        # A pipelined round was under way before the drafting round was asked for.
        if self._probe_rounds and not (done.is_pipelined and self._length):
            self._end_probe_round(done)
        if not self._probe_rounds:
            self._choose()

    def _end_probe_round(self, done: RoundFacts) -> None:
        self._probe_rounds -= 1
        if self._length and done.drafted == self._length:
            # Tokens beyond the expected ones pay for the next probe: a change for the better is noticed sooner.
            self._saved_tokens += done.accepted + 1 - self._expected_tokens

    def _choose(self) -> None:
        costs_s = self._costs.curve()
        if costs_s is None:
            self._length = self._start_length
            if self._costs.knows_drafting:
                self._probe(0, 0.0, 1.0)
            return
        tokens = self._acceptance.tokens_per_round()
        speeds = [count / cost_s for count, cost_s in zip(tokens, costs_s)]
        best = self._length = speeds.index(max(speeds))
        patience = 1 if best else 2 ** max(0, self._misses - FREE_MISSES)

        def loss_tokens(length: int) -> float:
            """What probing a length will probably lose."""
            lost_s = costs_s[length] * (1 - speeds[length] / speeds[best])
            rounds = 1 if length else BURST_ROUNDS
            return (rounds * lost_s + PROBE_OVERHEAD * costs_s[0]) * speeds[best] * patience

        if best:
            others = [length for length in range(LENGTHS) if length != best]
            due = min(
                others, key=lambda length: loss_tokens(length) / (self._rounds - self._last_round_of[length] + 1)
            )
        else:  # all that matters is whether drafting helps again
            due = speeds.index(max(speeds[1:]), 1)
        if best and self._plain_rounds < PLAIN_ROUNDS_NEEDED and self._rounds >= FIRST_BURST_AFTER_ROUNDS:
            due = 0
        elif self._saved_tokens < loss_tokens(due):
            return
        self._probe(due, loss_tokens(due), tokens[due])

    def _probe(self, length: int, loss_tokens: float, expected_tokens: float) -> None:
        self._saved_tokens -= loss_tokens
        self._expected_tokens = expected_tokens
        self._length = length
        self._probe_rounds = 1 if length else BURST_ROUNDS
