"""How long rounds take, learned from round to round. No MLX, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from itertools import pairwise
from statistics import fmean

from mlx_engine.protocol.events import RoundFacts
from mlx_engine.speculation.estimates import LENGTHS, LONGEST_S, SAMPLES_KEPT, SHORTEST_S, Estimates

FEW_SAMPLES = 6
"""Fewer samples may be mostly stalls and first rounds."""
CERTAIN_SAMPLES = 2 * FEW_SAMPLES
"""Of so many rounds noise does not decide what is typical."""
OLD_ROUNDS = 500
"""Samples this old are dropped: the context has grown by a thousand tokens since, or the machine has warmed up."""

NOISE = 0.1
"""By how much plain rounds may seem slower than drafting ones by chance."""
LEAST_DRAFT_COST = 0.02
"""What a drafting round takes longer than a plain one at least: it reads the same weights, and more rows."""


class _Samples:
    """Seconds of the recent rounds of one drafter and length."""

    def __init__(self, kept_s: Sequence[float]) -> None:
        """kept_s: of an earlier run."""
        self._kept_s = kept_s
        self._samples: deque[tuple[int, float]] = deque(maxlen=SAMPLES_KEPT)
        """The number of the round and its seconds."""
        self._recent_s: float | None = None
        """What is typical of them; None if that has to be calculated anew."""
        self.kept_typical_s = _typical(kept_s)

    def add(self, round_number: int, round_s: float) -> None:
        samples = self._samples
        samples.append((round_number, round_s))
        while len(samples) > FEW_SAMPLES and samples[0][0] < round_number - OLD_ROUNDS:
            samples.popleft()
        self._recent_s = None

    def scale(self, factor: float) -> None:
        """As if the machine had been faster, or slower, in all these rounds."""
        self._kept_s = [round_s * factor for round_s in self._kept_s]
        self.kept_typical_s = _typical(self._kept_s)
        self._samples = deque(((at, round_s * factor) for at, round_s in self._samples), maxlen=SAMPLES_KEPT)
        self._recent_s = None

    def since(self, round_number: int) -> list[float]:
        """Seconds of the rounds after that one."""
        return [round_s for at, round_s in self._samples if at > round_number]

    @property
    def latest(self) -> int:
        """The number of the latest round; 0 if there was none in this run."""
        return self._samples[-1][0] if self._samples else 0

    def typical_s(self, slowness: float) -> float | None:
        """None if there are too few rounds. slowness: how long rounds take, relative to the earlier run."""
        count = len(self._samples)
        if self.kept_typical_s and count < FEW_SAMPLES:
            kept_s = self.kept_typical_s * slowness
            return _typical([*self._seconds, *[kept_s] * (FEW_SAMPLES - count)]) if count else kept_s
        if count == 0:
            return None
        if self._recent_s is None:
            self._recent_s = _typical(self._seconds)
        return self._recent_s

    def rounds_s(self, slowness: float) -> list[float]:
        """As if all of them were of this run."""
        kept_s = [] if len(self._samples) >= FEW_SAMPLES else [_bounded(each * slowness) for each in self._kept_s]
        return [*kept_s, *self._seconds][-SAMPLES_KEPT:]

    @property
    def has_recent(self) -> bool:
        """A round of this run was measured."""
        return bool(self._samples)

    @property
    def _seconds(self) -> list[float]:
        return [round_s for _, round_s in self._samples]


class Costs:
    """Typical seconds of a round, by drafter and length; a single slow round does not matter.

    A length without enough samples is put on the line between its neighbours that have them. What an earlier run
    measured is used in proportion: the machine may be faster or slower now, and all rounds with it.
    """

    def __init__(self, drafters: Collection[str], kept: Estimates | None, *, pipelines_plain: bool = True) -> None:
        """pipelines_plain: see AdaptiveDraft."""
        self._pipelines_plain = pipelines_plain
        self._rounds = 0
        self._plain = _Samples(kept.plain_rounds_s if kept else ())
        self._drafting = {
            name: [_Samples(rounds_s) for rounds_s in _kept_rounds_s(kept, name)] for name in drafters
        }
        self._ratios: deque[float] = deque(maxlen=SAMPLES_KEPT)
        """Of recent rounds to those of the earlier run."""
        self._known_slowness: float | None = 1.0
        self._curves: dict[str, list[float] | None] = {}
        """What `curve` returned since the latest round."""

    @property
    def plain_s(self) -> float | None:
        """Seconds of a plain round; None while too few were measured."""
        return self._plain.typical_s(self._slowness)

    @property
    def plain_rounds_s(self) -> list[float]:
        """See Estimates."""
        return self._plain.rounds_s(self._slowness)

    def rounds_s(self, drafter: str) -> list[list[float]]:
        """See DrafterEstimates."""
        return [samples.rounds_s(self._slowness) for samples in self._drafting[drafter]]

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """Learn from a round. Where plain ones are pipelined only those count that were: others waited for the
        host."""
        self._rounds += 1
        if done.drafted and done.drafter in self._drafting:
            samples = self._drafting[done.drafter][done.drafted - 1]
        elif done.is_pipelined or not (done.drafted or self._pipelines_plain):
            samples = self._plain
        else:
            return
        round_s = _bounded(round_s)
        if samples.kept_typical_s:
            self._ratios.append(round_s / samples.kept_typical_s)
            self._known_slowness = None
            if not samples.has_recent:  # something compiles, or is cold
                round_s = min(round_s, samples.kept_typical_s * self._slowness)
        samples.add(self._rounds, round_s)
        if samples is not self._plain:
            self._compare_with_plain(samples)
        self._curves.clear()

    def _compare_with_plain(self, drafting: _Samples) -> None:
        """Where plain rounds seem slower than drafting ones made since, the machine was slower while they were
        measured. Without this a drafter that is never right could look faster for hundreds of rounds."""
        plain_s = self._plain.typical_s(self._slowness)
        if plain_s is None or (drafting.typical_s(self._slowness) or plain_s) >= plain_s:
            return
        since_s = drafting.since(self._plain.latest)
        most_s = (_typical(since_s) or plain_s) / (1 + LEAST_DRAFT_COST)
        if len(since_s) >= CERTAIN_SAMPLES and most_s < (1 - NOISE) * plain_s:
            self._plain.scale(most_s / plain_s)

    @property
    def _slowness(self) -> float:
        if self._known_slowness is None:
            self._known_slowness = _typical(self._ratios) or 1.0
        return self._known_slowness

    def knows(self, drafter: str) -> bool:
        """Rounds of this drafter have been measured, of one length at least."""
        return any(samples.typical_s(self._slowness) for samples in self._drafting[drafter])

    def is_measured(self, drafter: str, length: int) -> bool:
        """Enough rounds of this length were measured."""
        return self._drafting[drafter][length - 1].typical_s(self._slowness) is not None

    def curve(self, drafter: str) -> list[float] | None:
        """Seconds of a round of each length 0 to 16; None until plain and this drafter's rounds were measured."""
        if drafter not in self._curves:
            self._curves[drafter] = self._new_curve(drafter)
        return self._curves[drafter]

    def _new_curve(self, drafter: str) -> list[float] | None:
        plain_s = self.plain_s
        if plain_s is None:
            return None
        known, slowness = [(0, plain_s)], self._slowness
        for length, samples in enumerate(self._drafting[drafter], 1):
            typical_s = samples.typical_s(slowness)
            if typical_s is not None:
                known.append((length, typical_s))
        longest, longest_s = known[-1]
        if longest == 0:
            return None
        # Half of the slope so far, since the first draft costs most of it. This is optimistic on purpose: a length
        # that looks good is tried, and measured.
        beyond_s = max(longest_s - plain_s, 0) / longest / 2 * (LENGTHS - longest)
        known.append((LENGTHS, longest_s + beyond_s))
        curve = []
        for (left, left_s), (right, right_s) in pairwise(known):
            slope_s = (right_s - left_s) / (right - left)
            curve += [left_s + slope_s * step for step in range(right - left)]
        return curve


def _kept_rounds_s(kept: Estimates | None, drafter: str) -> Sequence[Sequence[float]]:
    nothing: Sequence[Sequence[float]] = [()] * (LENGTHS - 1)
    return kept.drafters[drafter].rounds_s if kept and drafter in kept.drafters else nothing


def _bounded(round_s: float) -> float:
    return min(max(round_s, SHORTEST_S), LONGEST_S)


def _typical(samples: Collection[float]) -> float | None:
    """Mean of the middle third; of few samples, one of the shortest, since first rounds are often slow."""
    count, ordered = len(samples), sorted(samples)
    if count < FEW_SAMPLES:
        return ordered[count // 4] if count > 2 else None
    return fmean(ordered[count // 3 : count - count // 3])
