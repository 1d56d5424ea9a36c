"""How many tokens to draft in the next round. Plain numbers: no MLX, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import log
from operator import mul
from statistics import fmean
from typing import Protocol

from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH
from mlx_engine.protocol.stats import PLAIN_ROUNDS_NEEDED, is_another_context
from mlx_engine.speculation.estimates import LENGTHS, LONGEST_S, SAMPLES_KEPT, SHORTEST_S, VERSION, Estimates

FIRST_BURST_AFTER_ROUNDS = 8
BURST_EVERY_ROUNDS = 256
BURST_ROUNDS = 6
"""Plain rounds made now and then so that speedup has something measured to divide by: 2% of the rounds,
in bursts because a plain round shows the pace of plain decoding only behind another one."""

FIRST_GUESS = 0.7
"""How often drafts of an unknown drafter stand: a little less than was published for prose."""
GUESS_WEIGHT = 2.0
"""The tries that a guess counts for. More would slow learning down, fewer would believe single drafts."""
SUREST = 0.99
"""No draft is held for more or less certain than this, so that any outcome can be learned from."""
NOTHING = (0.0,) * MAX_DRAFT_LENGTH
LONG_ROUNDS, SHORT_ROUNDS = 100, 10
"""Memories of acceptance: exact enough to tell lengths a few percent apart; a paragraph of another kind."""
MOST_DOUBT = 4.0
"""Nats by which the short memory has to foretell better: chance alone does that once in some thousand rounds."""
USUAL_ROUNDS = 400
"""Long enough to hold several kinds of text."""

FEW_SAMPLES = 6
"""Fewer may be mostly stalls and first rounds."""
OLD_ROUNDS = 500
"""The context has grown by a thousand tokens since, or the machine has warmed up."""

PROBING_SHARE = 0.02
"""Of the tokens made, what probes may lose: most of what drafting may cost where it does not pay."""
SETTLED_SHARE, SETTLED_ROUNDS = 0.007, 300
"""Where drafting pays and the lengths were gone through once, costs change slowly and probes find little."""
PROBE_OVERHEAD = 0.15
"""In plain rounds, what changing the length costs besides: the next plain round has to wait for the host."""
FREE_MISSES, MOST_MISSES = 3, 6
"""Probes without an accepted draft are made half as often with each one after the third, down to an eighth:
prose has three in a row now and then, a drafter that is always wrong has nothing else."""


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What a finished round tells."""

    drafted: int
    accepted: int
    round_s: float
    is_pipelined: bool
    """A plain round begun before the one before it was read: the pace of plain decoding."""
    context_tokens: int = 0
    """What the round had to look back on."""


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
        self._rounds = self._context_tokens = 0
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
        """See DraftLength. In another context the plain pace is measured anew."""
        is_anew = is_another_context(self._context_tokens, done.context_tokens)
        self._rounds = 0 if is_anew else self._rounds + 1
        self._context_tokens = done.context_tokens


class Memory:
    """Drafts by position: how many were tried and how many stood, the older ones fading.

    Drafts behind the first that fell tell nothing and count as not tried.
    """

    def __init__(self, rounds: float, tried: Sequence[float] = NOTHING, stood: Sequence[float] = NOTHING) -> None:
        """rounds: those older than this count for little."""
        self._fading = 1 - 1 / rounds
        self.tried, self.stood = list(tried), list(stood)

    def observe(self, done: RoundFacts) -> None:
        """Learn from a round, and let the others fade."""
        self.tried = [tried * self._fading for tried in self.tried]
        self.stood = [stood * self._fading for stood in self.stood]
        for position in range(min(done.accepted + 1, done.drafted)):
            self.tried[position] += 1
            self.stood[position] += position < done.accepted

    def chances(self, guess: float) -> list[float]:
        """Of the draft at each position, given that those before it stood.

        Where little was seen a position is taken to be as good as the one before it, and the first to be as
        good as `guess`.
        """
        chances = []
        for tried, stood in zip(self.tried, self.stood):
            chance = (stood + GUESS_WEIGHT * guess) / (tried + GUESS_WEIGHT)
            guess = min(max(chance, 1 - SUREST), SUREST)
            chances.append(guess)
        return chances


class Acceptance:
    """How often drafts stand: a long memory, for it is exact, until a short one foretells rounds better.

    That is Page's test (1954) for a change, here of the kind of text: the long memory then begins anew from
    the short one.
    """

    def __init__(self, kept: Estimates | None) -> None:
        self.usual = kept.usual if kept else FIRST_GUESS
        self.long = Memory(LONG_ROUNDS, kept.tried, kept.stood) if kept else Memory(LONG_ROUNDS)
        self._short = Memory(SHORT_ROUNDS)
        self._usual_weight = USUAL_ROUNDS if kept else GUESS_WEIGHT
        self._doubt = 0.0

    def observe(self, done: RoundFacts) -> None:
        """Learn from a round."""
        if done.drafted:
            self._doubt += _surprise(done, self.long.chances(self.usual))
            self._doubt -= _surprise(done, self._short.chances(self.usual))
            self._doubt = max(self._doubt, 0.0)
            self._usual_weight = min(self._usual_weight + 1, USUAL_ROUNDS)
            self.usual += ((done.accepted > 0) - self.usual) / self._usual_weight
        self.long.observe(done)
        self._short.observe(done)
        if self._doubt > MOST_DOUBT:
            self._doubt = 0.0
            self.long = Memory(LONG_ROUNDS, self._short.tried, self._short.stood)

    def tokens_per_round(self) -> list[float]:
        """Expected tokens of a round of each length 0 to 16, the target's own one included."""
        reached = accumulate(self.long.chances(self.usual), mul, initial=1.0)
        return list(accumulate(reached))


def _surprise(done: RoundFacts, chances: Sequence[float]) -> float:
    """Of a round to someone who took these chances for true, in nats."""
    surprise = -sum(map(log, chances[: done.accepted]))
    return surprise - (log(1 - chances[done.accepted]) if done.accepted < done.drafted else 0)


class Costs:
    """Seconds of a round of each length, by the middle of the last ones: no single slow round counts.

    A length that was not seen often enough is put on the line between its neighbours that were.
    """

    def __init__(self, kept: Estimates | None) -> None:
        samples: list[list[float]] = kept.rounds_s if kept else [[] for _ in range(LENGTHS)]
        self._samples = [deque(((0, round_s) for round_s in some), maxlen=SAMPLES_KEPT) for some in samples]
        """By length: the number of the round and its seconds."""
        self._middle = [_middle(some) for some in samples]
        self._rounds = 0

    @property
    def rounds_s(self) -> list[list[float]]:
        """See Estimates."""
        return [[round_s for _, round_s in some] for some in self._samples]

    def observe(self, done: RoundFacts) -> None:
        """Learn from a round. A plain one counts if it is pipelined: only then does it show the plain pace."""
        self._rounds += 1
        if not (done.drafted or done.is_pipelined):
            return
        samples = self._samples[done.drafted]
        samples.append((self._rounds, min(max(done.round_s, SHORTEST_S), LONGEST_S)))
        while len(samples) > FEW_SAMPLES and samples[0][0] < self._rounds - OLD_ROUNDS:
            samples.popleft()
        self._middle[done.drafted] = _middle([round_s for _, round_s in samples])

    @property
    def knows_drafting(self) -> bool:
        """Rounds of some length other than 0 have been measured."""
        return any(self._middle[1:])

    def curve(self) -> list[float] | None:
        """Seconds of a round of each length 0 to 16; None until plain and drafting rounds were seen."""
        known = [(length, cost_s) for length, cost_s in enumerate(self._middle) if cost_s is not None]
        if len(known) < 2 or known[0][0]:
            return None
        (_, plain_s), (longest, longest_s) = known[0], known[-1]
        # Half of the slope so far, since the first draft costs most of it: hopeful, for what looks good is tried.
        beyond_s = max(longest_s - plain_s, 0) / longest / 2 * (LENGTHS - longest)
        known.append((LENGTHS, longest_s + beyond_s))
        curve = []
        for (left, left_s), (right, right_s) in pairwise(known):
            slope_s = (right_s - left_s) / (right - left)
            curve += [left_s + slope_s * step for step in range(right - left)]
        return curve


def _middle(samples: Sequence[float]) -> float | None:
    """Mean of the middle third; of a few, one of the shortest, since first rounds are often slow."""
    count, ordered = len(samples), sorted(samples)
    if count < FEW_SAMPLES:
        return ordered[count // 4] if count > 2 else None
    return fmean(ordered[count // 3 : count - count // 3])


class AdaptiveLength:
    """The length that promises the most tokens per second, by what the last rounds brought and cost.

    0 is one of them: the automatic off. What is known of the lengths that are not in use goes stale, so they
    are probed: of every token made a small share is set aside, and the probe that is most due is made once
    the savings cover what it will probably lose. So probes that lose little are made often, and hopeless
    ones hardly ever.
    """

    def __init__(self, start_length: int, kept: Estimates | None = None) -> None:
        """start_length: what to begin with where nothing is known. kept: what an earlier run learned."""
        self._acceptance = Acceptance(kept)
        self._start_length = self._length = start_length
        self._context_tokens = kept.context_tokens if kept else 0
        self._misses = 0
        self._savings = self._hoped = 0.0
        self._begin(kept)
        self._choose()

    def _begin(self, kept: Estimates | None = None) -> None:
        """With what is known of the costs of rounds; without, they are learned anew."""
        self._costs = Costs(kept)
        self._rounds = SETTLED_ROUNDS if kept else 0
        self._plain_rounds = self._probe_rounds = 0
        self._seen_at = [self._rounds] * LENGTHS

    @property
    def estimates(self) -> Estimates:
        """What an AdaptiveLength of a later run begins with."""
        return Estimates(
            usual=self._acceptance.usual,
            tried=self._acceptance.long.tried,
            stood=self._acceptance.long.stood,
            rounds_s=self._costs.rounds_s,
            version=VERSION,
            context_tokens=self._context_tokens,
        )

    def next_length(self) -> int:
        """See DraftLength."""
        return self._length

    def observe(self, done: RoundFacts) -> None:
        """See DraftLength."""
        if is_another_context(self._context_tokens, done.context_tokens):
            self._begin()
        self._context_tokens = done.context_tokens
        self._acceptance.observe(done)
        self._costs.observe(done)
        self._rounds += 1
        self._plain_rounds += done.is_pipelined
        self._seen_at[done.drafted] = self._rounds
        if done.drafted:
            self._misses = 0 if done.accepted else min(self._misses + 1, MOST_MISSES)
        is_settled = self._length > 0 and self._rounds > SETTLED_ROUNDS
        self._savings += (SETTLED_SHARE if is_settled else PROBING_SHARE) * (done.accepted + 1)
        # A pipelined round was begun before the drafting one that was asked for then.
        if self._probe_rounds and not (done.is_pipelined and self._length):
            self._end_probe_round(done)
        if not self._probe_rounds:
            self._choose()

    def _end_probe_round(self, done: RoundFacts) -> None:
        self._probe_rounds -= 1
        if self._length and done.drafted == self._length:
            # What a probe brings beyond hope pays for the next: a change for the better is seen sooner.
            self._savings += done.accepted + 1 - self._hoped

    def _choose(self) -> None:
        costs_s = self._costs.curve()
        if costs_s is None:
            self._length = self._start_length
            if self._costs.knows_drafting:
                self._probe(0, 0.0, 1.0)
            return
        tokens = self._acceptance.tokens_per_round()
        paces = [some / cost_s for some, cost_s in zip(tokens, costs_s)]
        best = self._length = paces.index(max(paces))
        patience = 1 if best else 2 ** max(0, self._misses - FREE_MISSES)

        def loss(length: int) -> float:
            """In tokens."""
            lost_s = costs_s[length] * (1 - paces[length] / paces[best])
            rounds = 1 if length else BURST_ROUNDS
            return (rounds * lost_s + PROBE_OVERHEAD * costs_s[0]) * paces[best] * patience

        if best:
            others = [length for length in range(LENGTHS) if length != best]
            due = min(others, key=lambda length: loss(length) / (self._rounds - self._seen_at[length] + 1))
        else:  # what matters is whether drafting pays again
            due = paces.index(max(paces[1:]), 1)
        if best and self._plain_rounds < PLAIN_ROUNDS_NEEDED and self._rounds >= FIRST_BURST_AFTER_ROUNDS:
            due = 0
        elif self._savings < loss(due):
            return
        self._probe(due, loss(due), tokens[due])

    def _probe(self, length: int, loss: float, hoped: float) -> None:
        self._savings -= loss
        self._hoped = hoped
        self._length = length
        self._probe_rounds = 1 if length else BURST_ROUNDS
