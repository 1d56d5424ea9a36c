"""How many tokens to draft in the next round. Plain numbers: no MLX, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Protocol

from mlx_engine.errors import RequestError
from mlx_engine.estimates import LENGTHS, SAMPLES_KEPT, VERSION, Estimates
from mlx_engine.events import MAX_DRAFT_LENGTH

FIRST_BURST_AFTER_ROUNDS = 8
BURST_EVERY_ROUNDS = 256
BURST_ROUNDS = 6
"""Plain rounds made now and then so that speedup has something measured to divide by: 2% of the rounds,
in bursts because a plain round shows the pace of plain decoding only behind another one."""

PLAIN_ROUNDS_NEEDED = 4
FIRST_GUESS = 0.7
"""Drafts of a drafter of which nothing is known yet; about what prose has."""
GUESS_WEIGHT = 2.0
"""Rounds that weigh as much as the guess for where little was seen."""
FADING = 1 - 1 / 40
"""A round counts a third of what it did 40 rounds ago."""
USUAL_ROUNDS = 400
PROBING_SHARE = 0.02
PROBE_OVERHEAD = 0.25
"""In plain rounds: what a change of length costs besides."""
MOST_MISSES = 3


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """What a finished round tells."""

    drafted: int
    accepted: int
    round_s: float
    is_pipelined: bool
    """A plain round begun before the one before it was read: the pace of plain decoding."""


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
        self._rounds = 0
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
        """See DraftLength."""
        self._rounds += 1


class Acceptance:
    """How often the draft at each position stands, given that those before it did.

    Drafts behind the first that fell tell nothing and count as not tried. Old rounds fade, since text
    changes its kind. Where little was seen, a position is taken to be as good as the one before it, and the
    first to be as good as it usually is.
    """

    def __init__(self, kept: Estimates | None) -> None:
        self.stood = list(kept.stood) if kept else [0.0] * MAX_DRAFT_LENGTH
        self.tried = list(kept.tried) if kept else [0.0] * MAX_DRAFT_LENGTH
        self.usual = kept.usual if kept else FIRST_GUESS
        self._usual_weight = USUAL_ROUNDS if kept else GUESS_WEIGHT

    def observe(self, done: RoundFacts) -> None:
        """Learn from a round, and let the others fade."""
        self.stood = [stood * FADING for stood in self.stood]
        self.tried = [tried * FADING for tried in self.tried]
        for position in range(min(done.accepted + 1, done.drafted)):
            self.tried[position] += 1
            self.stood[position] += position < done.accepted
        if done.drafted:
            self._usual_weight = min(self._usual_weight + 1, USUAL_ROUNDS)
            self.usual += ((done.accepted > 0) - self.usual) / self._usual_weight

    def tokens_per_round(self) -> list[float]:
        """Expected tokens of a round of each length 0 to 16, the target's own one included."""
        tokens, reached, likely = [1.0], 1.0, self.usual
        for stood, tried in zip(self.stood, self.tried):
            likely = (stood + GUESS_WEIGHT * likely) / (tried + GUESS_WEIGHT)
            reached *= likely
            tokens.append(tokens[-1] + reached)
        return tokens


class Costs:
    """Seconds of a round of each length, by the middle of the last ones: no single slow round counts.

    A length that was not seen often enough is put on the line between its neighbours that were.
    """

    def __init__(self, kept: Estimates | None) -> None:
        samples: list[list[float]] = kept.rounds_s if kept else [[] for _ in range(LENGTHS)]
        self.samples = [deque(some, maxlen=SAMPLES_KEPT) for some in samples]
        self._middle = [_middle(some) for some in self.samples]

    def observe(self, done: RoundFacts) -> None:
        """Learn from a round."""
        if done.round_s > 0 and (done.drafted or done.is_pipelined):
            self.samples[done.drafted].append(done.round_s)
            self._middle[done.drafted] = _middle(self.samples[done.drafted])

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
        known.append((LENGTHS, longest_s + max(longest_s - plain_s, 0) / longest * (LENGTHS - longest)))
        curve = []
        for (left, left_s), (right, right_s) in pairwise(known):
            slope_s = (right_s - left_s) / (right - left)
            curve += [left_s + slope_s * step for step in range(right - left)]
        return curve


def _middle(samples: Sequence[float]) -> float | None:
    """Mean of the middle third; None of fewer than three."""
    if len(samples) < 3:
        return None
    third = len(samples) // 3
    return fmean(sorted(samples)[third:-third])


class AdaptiveLength:
    """The length that promises the most tokens per second, by what the last rounds brought and cost.

    0 is one of them: the automatic off. What is known of the lengths that are not in use goes stale, so they
    are probed: of every token made a small share is set aside, and the probe that is most due is made once
    the savings cover what it will probably lose. So probes that lose little are made often, and hopeless
    ones hardly ever.
    """

    def __init__(self, start_length: int, kept: Estimates | None = None) -> None:
        """start_length: what to begin with where nothing is known. kept: what an earlier run learned."""
        self._acceptance, self._costs = Acceptance(kept), Costs(kept)
        self._start_length = start_length
        self._rounds = self._plain_rounds = 0
        self._savings = 0.0
        self._misses = 0
        self._seen_at = [0] * LENGTHS
        """The round in which each length was last used."""
        self._probe_rounds = 0
        """Rounds left of the probe that is being made."""
        self._length = start_length
        self._choose()

    @property
    def estimates(self) -> Estimates:
        """What an AdaptiveLength of a later run begins with."""
        return Estimates(
            usual=self._acceptance.usual,
            tried=self._acceptance.tried,
            stood=self._acceptance.stood,
            rounds_s=[list(samples) for samples in self._costs.samples],
            version=VERSION,
        )

    def next_length(self) -> int:
        """See DraftLength."""
        return self._length

    def observe(self, done: RoundFacts) -> None:
        """See DraftLength."""
        self._rounds += 1
        self._seen_at[done.drafted] = self._rounds
        self._plain_rounds += done.is_pipelined
        self._acceptance.observe(done)
        self._costs.observe(done)
        if done.drafted:
            self._misses = 0 if done.accepted else min(self._misses + 1, MOST_MISSES)
        self._savings += PROBING_SHARE * (done.accepted + 1)
        # A pipelined round was begun before a drafting one could be asked for.
        if self._probe_rounds and not (done.is_pipelined and self._length):
            self._probe_rounds -= 1
        if not self._probe_rounds:
            self._choose()

    def _choose(self) -> None:
        costs_s = self._costs.curve()
        if costs_s is None:
            self._length = self._start_length
            if self._costs.knows_drafting:
                self._probe(0, 0.0)
            return
        tokens = self._acceptance.tokens_per_round()
        best = max(range(LENGTHS), key=lambda length: tokens[length] / costs_s[length])
        pace = tokens[best] / costs_s[best]
        overhead = PROBE_OVERHEAD * costs_s[0] * pace

        def loss(length: int) -> float:
            rounds = 1 if length else BURST_ROUNDS
            tried = rounds * (costs_s[length] * pace - tokens[length]) + overhead
            return tried * 2**self._misses if best == 0 else tried

        self._length = best
        others = [length for length in range(LENGTHS) if length != best]
        due = min(others, key=lambda length: loss(length) / (self._rounds - self._seen_at[length] + 1))
        if self._rounds >= FIRST_BURST_AFTER_ROUNDS and self._plain_rounds < PLAIN_ROUNDS_NEEDED and best:
            self._probe(0, loss(0))
        elif self._savings >= loss(due):
            self._probe(due, loss(due))

    def _probe(self, length: int, loss: float) -> None:
        self._savings -= loss
        self._length = length
        self._probe_rounds = 1 if length else BURST_ROUNDS
