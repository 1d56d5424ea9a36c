"""Figures as text."""

from __future__ import annotations

from datetime import datetime

import pytest

from app.text import figures


@pytest.mark.parametrize("value", [None, 0.0, 0.04, 9.96, 58.3, 99.94, 99.96, 412.0, 9999.0])
def test_speed_is_four_characters(value: float | None) -> None:
    assert len(figures.speed(value)) == 4


@pytest.mark.parametrize("value", [None, 0.0, 0.94, 1.8249, 9.994, 9.996, 16.2])
def test_speedup_is_five_characters(value: float | None) -> None:
    assert len(figures.times(value)) == 5


@pytest.mark.parametrize(
    ("value", "is_slower"), [(None, False), (0.994, True), (0.996, False), (1.0, False), (0.5, True)]
)
def test_slower_agrees_with_what_is_shown(value: float | None, *, is_slower: bool) -> None:
    assert figures.is_slower(value) is is_slower


def test_sizes() -> None:
    assert figures.size(17_200_000_000) == "17.2 GB"
    assert figures.size(48_000_000) == "  48 MB"
    assert figures.size(99_940_000_000) == "99.9 GB"
    assert figures.size(105_800_000_000) == " 106 GB"
    assert figures.thousands(812) == "812"
    assert figures.thousands(3120) == "3.1k"
    assert figures.thousands(131_072) == "131k"


def test_the_sparkline_is_scaled_and_newest_at_the_right() -> None:
    assert figures.sparkline([0.0, 5.0, 10.0], 5) == ["  ▁▅█"]
    assert figures.sparkline([0.0, 5.0, 10.0], 2) == ["▅█"]
    assert figures.sparkline([], 3) == ["   "]
    assert figures.sparkline([0.0], 1) == ["▁"]
    assert figures.sparkline([1.0, 10.0], 2, rows=2) == [" █", "▃█"]


def test_bars() -> None:
    assert figures.bar(0.5, 4) == "━━──"
    assert figures.bar(0.0, 4) == "────"
    assert figures.bar(1.5, 4) == "━━━━"


def test_days_are_named_as_people_name_them() -> None:
    now = datetime(2026, 11, 28, 12, 0)
    shown = {
        figures.day(moment.timestamp(), now)
        for moment in (
            datetime(2026, 11, 28, 0, 5),
            datetime(2026, 11, 27, 23, 59),
            datetime(2026, 11, 25, 9, 0),
            datetime(2026, 11, 20, 9, 0),
            datetime(2025, 11, 28, 9, 0),
            datetime(2026, 11, 29, 9, 0),
        )
    }
    assert shown == {
        "Today     00:05",
        "Yesterday 23:59",
        "Wednesday 09:00",
        "20 Nov    09:00",
        "28 Nov     2025",
        "29 Nov    09:00",
    }
    assert {len(day) for day in shown} == {15}
    assert len(figures.day(1e300)) == 15
