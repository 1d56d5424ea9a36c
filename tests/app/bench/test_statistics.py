"""The interval of a median contains the true median as often as it claims."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bench.statistics import FEWEST_VALUES, estimate


@pytest.mark.parametrize(
    ("count", "rank", "coverage"),
    [
        (2, 1, 0.5),
        (3, 1, 0.75),
        (5, 1, 0.9375),
        (6, 1, 0.96875),
        (8, 1, 0.9921875),
        (9, 2, 0.9609375),
        (20, 6, 0.9586),
    ],
)
def test_the_ranks_of_the_tables(count: int, rank: int, coverage: float) -> None:
    found = estimate([float(value) for value in range(1, count + 1)])
    assert found
    assert (found.low, found.high) == (rank, count + 1 - rank)
    assert found.coverage == pytest.approx(coverage, abs=1e-4)


def test_nothing_and_a_single_value() -> None:
    assert estimate([]) is None
    one = estimate([2.5])
    assert one
    assert (one.median, one.low, one.high, one.coverage) == (2.5, 2.5, 2.5, 0.0)
    assert not one.is_tight
    assert not one.excludes(1.0)


def test_tight_needs_six_values_however_alike_they_are() -> None:
    five, six = estimate([2.0] * (FEWEST_VALUES - 1)), estimate([2.0] * FEWEST_VALUES)
    assert five
    assert six
    assert (five.is_tight, six.is_tight) == (False, True)
    assert (five.excludes(1.0), six.excludes(1.0)) == (False, True)


def test_it_holds_the_median_as_often_as_it_says() -> None:
    random = Random(3)
    held, coverage = 0, 0.0
    for _ in range(2000):
        found = estimate([random.expovariate(1.0) for _ in range(11)])
        assert found
        held += found.low <= 0.693147 <= found.high
        coverage = found.coverage
    assert held / 2000 == pytest.approx(coverage, abs=0.015)


@settings(max_examples=50)
@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=60))
def test_the_median_lies_in_its_interval_and_order_does_not_matter(values: list[float]) -> None:
    found = estimate(values)
    assert found
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert 0.0 <= found.coverage < 1.0
    assert found == estimate(values[::-1])
