"""Medians with intervals by rank: no assumption about the distribution of noise, and nothing random.

For n sorted values, the median of the distribution lies between the k-th smallest and the k-th largest value with
probability 1 - 2 * sum(C(n, i) for i < k) / 2**n (David and Nagaraja, Order Statistics, 7.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median

import msgspec

MIN_COVERAGE = 0.95
TIGHT = 0.05
"""Half the width of an interval relative to its median, below which repeating is not worth the time."""
FEWEST_VALUES = 6
"""Fewer values have no interval with that coverage: even smallest to largest has 94% at most."""


class Estimate(msgspec.Struct, frozen=True):
    """A median, and an interval that contains the true one with probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float
    """At least 95% from six values on. Less with fewer, where the interval is from the smallest to the largest."""
    count: int

    @property
    def is_tight(self) -> bool:
        """Whether the interval is narrow enough to stop measuring."""
        if self.count < FEWEST_VALUES:
            return False
        return self.high - self.low <= 2 * TIGHT * abs(self.median)

    def excludes(self, value: float) -> bool:
        """Whether the true median differs from `value`, with the minimum coverage."""
        return self.coverage >= MIN_COVERAGE and not self.low <= value <= self.high


def estimate(values: Sequence[float]) -> Estimate | None:
    """Median and interval; None for no values. For a single value the interval is that value, with coverage 0."""
    if not values:
        return None
    ordered, count = sorted(values), len(values)
    rank = 1
    while rank < (count + 1) // 2 and _outside(count, rank + 1) <= 1 - MIN_COVERAGE:
        rank += 1
    coverage = max(0.0, 1 - _outside(count, rank))
    return Estimate(median(ordered), ordered[rank - 1], ordered[count - rank], coverage, count)


def _outside(count: int, rank: int) -> float:
    """Probability that the true median is below the rank-th smallest value, or above the rank-th largest."""
    return 2.0 * sum(comb(count, below) for below in range(rank)) / float(2**count)
