"""Two things measured in turn, A B B A, so that what the machine does besides hits both alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

Run = Callable[[], float]
"""Does the work once; how good that was, such as tokens/s."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """A over B, once per A B B A."""

    ratios: tuple[float, ...]
    a: float
    """Median of A by itself."""
    b: float

    @property
    def value(self) -> float:
        """The median ratio."""
        return median(self.ratios)

    @property
    def low(self) -> float:
        """The least of them."""
        return min(self.ratios)

    @property
    def high(self) -> float:
        """The largest of them."""
        return max(self.ratios)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    repeats: int
    row_s: float
    """No further repeat is begun after so many seconds."""
    replies: int
    """Prompts per run."""
    tokens: int
    """Length of a reply."""
    looks: int
    """At every length before one is called the best: after a single look it may only have been lucky."""
    learning_rounds: int
    """What `auto` has made before it is measured."""
    of_a_kind: int
    """Prompts of one kind, at most: few short replies favour whatever length divides them well."""


def abba(run_a: Run, run_b: Run, effort: Effort) -> Ratio:
    """At least one A B B A, then more up to the effort allowed."""
    ends_at_s = time.monotonic() + effort.row_s
    a: list[float] = []
    b: list[float] = []
    ratios: list[float] = []
    while not ratios or (len(ratios) < effort.repeats and time.monotonic() < ends_at_s):
        first, second, third, fourth = run_a(), run_b(), run_b(), run_a()
        a += [first, fourth]
        b += [second, third]
        ratios.append((first + fourth) / (second + third))
    return Ratio(tuple(ratios), median(a), median(b))


def best(candidates: Sequence[Run], passes: int) -> int:
    """The index of the candidate that does best, by the median of so many interleaved passes."""
    seen = [[run() for run in candidates] for _ in range(passes)]
    medians = [median(column) for column in zip(*seen)]
    return max(range(len(candidates)), key=medians.__getitem__)
