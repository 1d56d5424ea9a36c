"""The line of figures under a reply."""

from __future__ import annotations

from app.core.reply_facts import ReplyFacts
from app.core.turn_stats import reply_line, short_line, turn_stats
from mlx_engine.protocol.events import Finished, FinishReason, Started
from tests.app.tui.test_chat_gauges import a_round


def facts_of(plain_s: float, drafting_s: float) -> ReplyFacts:
    facts = ReplyFacts()
    for done in (*[a_round(is_plain=True, round_s=plain_s)] * 4, a_round(round_s=drafting_s)):
        facts.add(done)
    return facts


def line_of(facts: ReplyFacts, reason: FinishReason) -> str:
    facts.add(Finished(1, reason, "", "", target_passes=5, host_syncs=5, peak_memory_bytes=1))
    return reply_line(turn_stats(facts, None))


def test_the_line_under_a_reply() -> None:
    line = "8 tok · 13.3 tok/s · 75% acc · 1.6 tok/rd · 1.33× · TTFT 0.41 s"
    assert line_of(facts_of(0.1, 0.2), "stop") == line
    assert line_of(facts_of(0.1, 0.2), "cancelled") == f"{line} · stopped"
    assert line_of(facts_of(0.1, 0.2), "length") == f"{line} · reached the token limit"
    assert reply_line(turn_stats(facts_of(0.1, 0.2), None), broke_off=True) == f"{line} · broke off"
    assert "0.67× (slower)" in line_of(facts_of(0.1, 0.8), "stop")


def test_the_short_line_names_the_most_important() -> None:
    stats = turn_stats(facts_of(0.1, 0.2), None)
    assert short_line(stats) == "8 tok · 13.3 tok/s · 1.33×"
    assert short_line(stats, broke_off=True) == "8 tok · 13.3 tok/s · 1.33× · broke off"
    assert short_line(turn_stats(facts_of(0.1, 0.8), None)).endswith("0.67× (slower)")


def test_only_what_was_measured_is_named() -> None:
    plain = ReplyFacts()
    plain.add(a_round(is_plain=True, round_s=0.1))
    assert line_of(plain, "stop") == "1 tok · 10.0 tok/s · 1.0 tok/rd · TTFT 0.41 s"


def test_a_reply_without_tokens_has_no_speed() -> None:
    assert line_of(ReplyFacts(), "cancelled") == "0 tok · stopped"


def test_the_line_says_how_much_of_the_prompt_was_read() -> None:
    facts = facts_of(0.1, 0.2)
    facts.add(Started(1, prompt_tokens=4022, cached_tokens=4000))
    assert line_of(facts, "stop").endswith("TTFT 0.41 s · 22 of 4022 prompt tok read")
    assert "prompt" not in short_line(turn_stats(facts, None))


def test_the_line_says_how_much_came_from_disk() -> None:
    facts = facts_of(0.1, 0.2)
    facts.add(Started(1, prompt_tokens=4022, cached_tokens=4000, disk_tokens=3990))
    assert line_of(facts, "stop").endswith("TTFT 0.41 s · 22 of 4022 prompt tok read, 3990 from disk")
    assert turn_stats(facts, None).disk_tokens == 3990
