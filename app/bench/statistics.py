"""Medians and how sure they are, by ranks: no assumption about how noise is distributed, and nothing random.

For n values in order, the median of what they were drawn from lies between the k-th value from below and the k-th
from above with probability 1 - 2 * sum(C(n, i) for i < k) / 2**n (David and Nagaraja, Order Statistics, 7.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median

import msgspec

WANTED_COVERAGE = 0.95
TIGHT = 0.05
"""Half the width of an interval against its median, below which more repeats say nothing new."""
FEWEST_VALUES = 6
"""Fewer values have no interval of that coverage: even from the smallest to the largest it is 94% at most."""


class Estimate(msgspec.Struct, frozen=True):
    """A median, and the interval that holds the true one with probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float
    """At least 95% from six values on; less below, where the interval is from the smallest to the largest."""
    count: int

    @property
    def is_tight(self) -> bool:
        """Whether it is sure enough to stop."""
        if self.count < FEWEST_VALUES:
            return False
        return self.high - self.low <= 2 * TIGHT * abs(self.median)

    def excludes(self, value: float) -> bool:
        """Whether the true median is another one than `value`, with the wanted coverage."""
        return self.coverage >= WANTED_COVERAGE and not self.low <= value <= self.high


def estimate(values: Sequence[float]) -> Estimate | None:
    """Median and interval; None of nothing. Of a single value the interval is that value, at coverage 0."""
    if not values:
        return None
    ordered, count = sorted(values), len(values)
    rank = 1
    while rank < (count + 1) // 2 and _outside(count, rank + 1) <= 1 - WANTED_COVERAGE:
        rank += 1
    coverage = max(0.0, 1 - _outside(count, rank))
    return Estimate(median(ordered), ordered[rank - 1], ordered[count - rank], coverage, count)


def _outside(count: int, rank: int) -> float:
    """Probability that the true median is below the rank-th smallest value, or above the rank-th largest."""
    return 2.0 * sum(comb(count, below) for below in range(rank)) / float(2**count)
