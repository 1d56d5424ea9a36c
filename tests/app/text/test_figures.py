"""Figures as text."""

from __future__ import annotations

import pytest

from app.core.turn_stats import reply_line, turn_stats
from app.text import figures
from mlx_engine.protocol.events import Finished, FinishReason
from mlx_engine.protocol.stats import BaselineSpeed, ReplyStats
from tests.app.tui.test_chat_gauges import a_round


def stats(plain_s: float, drafting_s: float) -> ReplyStats:
    pace = BaselineSpeed()
    folded = ReplyStats(pace)
    for done in (*[a_round(is_plain=True, round_s=plain_s)] * 4, a_round(round_s=drafting_s)):
        pace.add(done)
        folded.add(done)
    return folded


def line_of(measured: ReplyStats, reason: FinishReason) -> str:
    finished = Finished(1, reason, "", "", target_passes=5, host_syncs=5, peak_memory_bytes=1)
    return reply_line(turn_stats(measured, None, None, finished))


def test_the_line_under_a_reply() -> None:
    line = "8 tok · 13.3 tok/s · 75% acc · 1.6 tok/rd · 1.33× · TTFT 0.41 s"
    assert line_of(stats(0.1, 0.2), "stop") == line
    assert line_of(stats(0.1, 0.2), "cancelled") == f"{line} · stopped"
    assert line_of(stats(0.1, 0.2), "length") == f"{line} · reached the token limit"
    assert reply_line(turn_stats(stats(0.1, 0.2), None, None, None), broke_off=True) == f"{line} · broke off"
    assert "0.67× slower" in line_of(stats(0.1, 0.8), "stop")


def test_only_what_was_measured_is_named() -> None:
    plain = ReplyStats(BaselineSpeed())
    plain.add(a_round(is_plain=True, round_s=0.1))
    assert line_of(plain, "stop") == "1 tok · 10.0 tok/s · 1.0 tok/rd · TTFT 0.41 s"


def test_a_reply_without_a_word_has_no_pace() -> None:
    assert line_of(ReplyStats(BaselineSpeed()), "cancelled") == "0 tok · stopped"


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
