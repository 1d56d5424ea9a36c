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
OLD_ROUNDS = 500
"""Samples this old are dropped: the context has grown by a thousand tokens since, or the machine has warmed up."""


class _Samples:
    """Seconds of the recent rounds of one drafter and length."""

    def __init__(self, rounds_s: Sequence[float]) -> None:
        self._samples = deque(((0, round_s) for round_s in rounds_s), maxlen=SAMPLES_KEPT)
        """The number of the round and its seconds."""
        self.typical_s = _typical(rounds_s)

    def add(self, round_number: int, round_s: float) -> None:
        samples = self._samples
        samples.append((round_number, min(max(round_s, SHORTEST_S), LONGEST_S)))
        while len(samples) > FEW_SAMPLES and samples[0][0] < round_number - OLD_ROUNDS:
            samples.popleft()
        self.typical_s = _typical([sample_s for _, sample_s in samples])

    @property
    def rounds_s(self) -> list[float]:
        return [round_s for _, round_s in self._samples]


class Costs:
    """Typical seconds of a round, by drafter and length; a single slow round does not matter.

    A length without enough samples is put on the line between its neighbours that have them.
    """

    def __init__(self, drafters: Collection[str], kept: Estimates | None) -> None:
        self._rounds = 0
        self._plain = _Samples(kept.plain_rounds_s if kept else ())
        self._drafting = {
            name: [_Samples(rounds_s) for rounds_s in _kept_rounds_s(kept, name)] for name in drafters
        }

    @property
    def plain_s(self) -> float | None:
        """Seconds of a plain round; None while too few were measured."""
        return self._plain.typical_s

    @property
    def plain_rounds_s(self) -> list[float]:
        """See Estimates."""
        return self._plain.rounds_s

    def rounds_s(self, drafter: str) -> list[list[float]]:
        """See DrafterEstimates."""
        return [samples.rounds_s for samples in self._drafting[drafter]]

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """Learn from a round. A plain one counts only if it was pipelined: others waited for the host."""
        self._rounds += 1
        if done.drafted and done.drafter in self._drafting:
            self._drafting[done.drafter][done.drafted - 1].add(self._rounds, round_s)
        elif done.is_pipelined:
            self._plain.add(self._rounds, round_s)

    def knows(self, drafter: str) -> bool:
        """Rounds of this drafter have been measured, of one length at least."""
        return any(samples.typical_s for samples in self._drafting[drafter])

    def is_measured(self, drafter: str, length: int) -> bool:
        """Enough rounds of this length were measured."""
        return self._drafting[drafter][length - 1].typical_s is not None

    def curve(self, drafter: str) -> list[float] | None:
        """Seconds of a round of each length 0 to 16; None until plain and this drafter's rounds were measured."""
        if self.plain_s is None or not self.knows(drafter):
            return None
        known = [(0, self.plain_s)]
        for length, samples in enumerate(self._drafting[drafter], 1):
            if samples.typical_s is not None:
                known.append((length, samples.typical_s))
        longest, longest_s = known[-1]
        # Half of the slope so far, since the first draft costs most of it. This is optimistic on purpose: a length
        # that looks good is tried, and measured.
        beyond_s = max(longest_s - self.plain_s, 0) / longest / 2 * (LENGTHS - longest)
        known.append((LENGTHS, longest_s + beyond_s))
        curve = []
        for (left, left_s), (right, right_s) in pairwise(known):
            slope_s = (right_s - left_s) / (right - left)
            curve += [left_s + slope_s * step for step in range(right - left)]
        return curve


def _kept_rounds_s(kept: Estimates | None, drafter: str) -> Sequence[Sequence[float]]:
    nothing: Sequence[Sequence[float]] = [()] * (LENGTHS - 1)
    return kept.drafters[drafter].rounds_s if kept and drafter in kept.drafters else nothing


def _typical(samples: Sequence[float]) -> float | None:
    """Mean of the middle third; of few samples, one of the shortest, since first rounds are often slow."""
    count, ordered = len(samples), sorted(samples)
    if count < FEW_SAMPLES:
        return ordered[count // 4] if count > 2 else None
    return fmean(ordered[count // 3 : count - count // 3])
