"""A run from warm-up to end: its order, its arithmetic, and what happens when something fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from random import Random

import pytest

from app.bench.plan import block_order, make_cases
from app.bench.results import ResultRow
from app.bench.rows import find_row, first_token_times, make_rows
from app.bench.runner import WARM_UP, Measured
from mlx_engine.protocol.events import Generate, SamplingOptions
from tests.app.bench.support import SETTINGS, Bench, plan, prompt
from tests.fakes.clockwork import ROUND_S

TRUE_SPEEDUPS = {"2": 2 / 1.25, "4": 4 / 1.6, "8": 5 / 2.4, "16": 6 / 4.0, "auto": 4 / 1.6}
"""The speedups that follow from the fake engine's costs and acceptance, if no reply ends inside a round."""


def measured_requests(bench: Bench) -> list[Generate]:
    """All requests except the warm-up and the first, uncached read of each prompt."""
    return [each for each in bench.engine.requests if each.messages != WARM_UP and each.max_tokens != 1]


def speedups(bench: Bench, measured: Measured) -> dict[str, float]:
    rows = make_rows(measured.replies, bench.plan.settings)
    found = {each: find_row(rows, "greedy", "short", "all", each) for each in bench.plan.settings}
    return {name: row.speedup.median for name, row in found.items() if row and row.speedup}


def test_the_arithmetic_on_a_steady_machine() -> None:
    bench = Bench(plan(max_tokens=60))
    measured = bench.run()
    assert speedups(bench, measured) == pytest.approx(TRUE_SPEEDUPS)
    rows = {row.setting: row for row in bench_rows(bench, measured)}
    assert rows["off"].ms_per_token is not None
    assert rows["off"].ms_per_token.median == pytest.approx(ROUND_S * 1000)
    assert rows["off"].tokens_per_s == pytest.approx(1 / ROUND_S)
    assert rows["off"].speedup is None
    assert rows["off"].acceptance is None
    assert rows["4"].tokens_per_s == pytest.approx(4 / (1.6 * ROUND_S))
    assert rows["4"].acceptance == pytest.approx(3 / 4)
    assert rows["4"].tokens_per_round == pytest.approx(4.0)
    assert rows["4"].peak_memory_bytes == 5_000_000
    assert all(reply.settled_memory_bytes is not None and reply.context_tokens for reply in measured.replies)
    assert rows["4"].energy_j_per_token is None
    assert measured.ended == "tight"


def bench_rows(bench: Bench, measured: Measured) -> list[ResultRow]:
    return [row for row in make_rows(measured.replies, bench.plan.settings) if row.kind == "all"]


def test_settings_are_interleaved_there_and_back_from_another_one_in_every_block() -> None:
    bench = Bench(plan(passes=2))
    bench.run()
    asked = measured_requests(bench)
    names = ["off" if each.draft_length == 0 else str(each.draft_length) for each in asked]
    blocks = [names[start : start + 12] for start in range(0, len(names), 12)]
    assert len(blocks) == 6
    assert blocks[0] == ["off", "2", "4", "8", "16", "auto", "auto", "16", "8", "4", "2", "off"]
    assert blocks[1] == ["2", "4", "8", "16", "auto", "off", "off", "auto", "16", "8", "4", "2"]
    assert {block[0] for block in blocks} == set(SETTINGS)
    assert all(block == block[::-1] for block in blocks)
    prompts = [len(list(same)) for _, same in groupby(asked, key=lambda each: each.messages)]
    assert prompts == [12] * 6, "all of a block answers one prompt"
    assert not any(each.measures_baseline for each in bench.engine.requests)


def test_the_order_of_a_block() -> None:
    assert block_order(("off", "2", "4"), 0) == ("off", "2", "4", "4", "2", "off")
    assert block_order(("off", "2", "4"), 4) == ("2", "4", "off", "off", "4", "2")


def test_every_kind_has_its_turn_before_any_has_two() -> None:
    prompts = [prompt("chat-1"), prompt("chat-2"), prompt("code-1", "code"), prompt("code-2", "code")]
    cases = make_cases(prompts, ["short", "long"], ["greedy", "sampled"])
    named = [(case.prompt.name, case.context, case.mode) for case in cases]
    assert named == [
        ("chat-1", "short", "greedy"),
        ("code-1", "short", "greedy"),
        ("chat-1", "short", "sampled"),
        ("code-1", "short", "sampled"),
        ("chat-1", "long", "greedy"),
        ("code-1", "long", "greedy"),
        ("chat-1", "long", "sampled"),
        ("code-1", "long", "sampled"),
        ("chat-2", "short", "greedy"),
        ("code-2", "short", "greedy"),
        ("chat-2", "short", "sampled"),
        ("code-2", "short", "sampled"),
    ]


TOOK_S = 150.0
DRIFTS: dict[str, Callable[[float], float]] = {
    "steadily": lambda time_s: 1 + min((time_s - 1000) / TOOK_S, 1.0),
    "at once": lambda time_s: 1.0 if time_s < 1000 + TOOK_S / 2 else 2.0,
    "as heat comes": lambda time_s: 2 - 2 ** (-(time_s - 1000) / (TOOK_S / 6)),
    "and recovers": lambda time_s: 2.0 if time_s < 1000 + TOOK_S / 3 else 1.0,
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_a_machine_that_slows_by_half_does_not_move_the_speedup(drift: str) -> None:
    bench = Bench(plan(max_tokens=60))
    paces: list[float] = []

    def slowness(time_s: float) -> float:
        paces.append(DRIFTS[drift](time_s))
        return paces[-1]

    bench.engine.slowness = slowness
    measured = bench.run()
    assert max(paces) > 1.95 * min(paces), "it was as slow as that while it was measured"
    assert speedups(bench, measured) == pytest.approx(TRUE_SPEEDUPS, rel=0.03)


def test_within_one_block_too_a_slowing_machine_slows_both_sides_alike() -> None:
    bench = Bench(plan(1, max_tokens=60, passes=1))
    bench.engine.slowness = lambda time_s: 1 + (time_s - 1000) / 60
    measured = bench.run()
    off = [reply.decode_s for reply in measured.replies if reply.setting == "off"]
    assert off[1] > 1.3 * off[0]
    assert speedups(bench, measured) == pytest.approx(TRUE_SPEEDUPS, rel=0.03)


def test_identical_replies_and_where_the_first_difference_is() -> None:
    def tokens_of(request: Generate) -> list[int]:
        tokens = list(range(40))
        if request.draft_length == 8 and "chat-2" in request.messages[0].text:
            tokens[17] = 999
        if request.draft_length == 16:
            tokens = tokens[:33]
        return tokens[: request.max_tokens]

    bench = Bench(plan(passes=1))
    bench.engine.tokens_of = tokens_of
    rows = {row.setting: row for row in bench_rows(bench, bench.run())}
    assert (rows["off"].compared, rows["off"].same) == (3, 3), "off is compared with itself once a block"
    assert (rows["4"].compared, rows["4"].same, rows["4"].first_difference) == (6, 6, None)
    assert (rows["8"].compared, rows["8"].same) == (6, 4)
    assert rows["8"].first_difference == "token 18 of chat-2"
    assert rows["16"].same == 0
    assert rows["16"].first_difference == "token 34 of chat-1", "one of them ended"


@pytest.mark.parametrize(("rule", "is_compared"), [("rejection", False), ("coupled", True)])
def test_sampled_replies_are_compared_only_if_they_are_coupled(rule: str, is_compared: bool) -> None:
    cases = make_cases([prompt("chat-1")], ["short"], ["greedy", "sampled"])
    bench = Bench(plan(cases=cases, passes=1, sampling=SamplingOptions(temperature=0.7, seed=5, rule=rule)))  # type: ignore[arg-type]
    measured = bench.run()
    sampled = [reply for reply in measured.replies if reply.mode == "sampled"]
    assert any(reply.is_same is not None for reply in sampled) == is_compared
    assert all(reply.is_same for reply in measured.replies if reply.mode == "greedy" and reply.is_same is not None)
    asked = measured_requests(bench)
    assert {each.sampling.temperature for each in asked[:12]} == {0.0}
    assert {each.sampling.temperature for each in asked[12:]} == {0.7}
    assert {each.sampling.seed for each in asked[12:]} == {6}, "one seed for all replies of a block"


def test_the_first_token_is_timed_cold_and_apart() -> None:
    bench = Bench(plan(passes=1))
    measured = bench.run()
    (tokens, ttft) = first_token_times(measured.first_tokens)["short"]
    assert tokens == len("Please tell me all about chat-1, at length.") // 4
    assert ttft.median == pytest.approx(tokens * 0.001 + ROUND_S)
    assert ttft.count == 3


def test_a_medium_and_a_long_context_come_before_the_prompt() -> None:
    cases = make_cases([prompt("chat-1")], ["short", "medium", "long"], ["greedy"])
    bench = Bench(plan(cases=cases, passes=1))
    times = first_token_times(bench.run().first_tokens)
    assert times["medium"][0] == pytest.approx(1024, rel=0.08)
    assert times["long"][0] == pytest.approx(2048, rel=0.08)


def test_it_goes_on_until_the_interval_is_tight() -> None:
    steady = Bench(plan())
    assert steady.run().ended == "tight"
    assert len({reply.block for reply in steady.run().replies}) == 6, "six blocks are the fewest"
    random = Random(1)
    noisy = Bench(plan(limit_s=4000.0))
    noisy.engine.slowness = lambda time_s: random.choice([0.5, 1.0, 2.0])
    measured = noisy.run()
    assert measured.ended == "tight"
    assert len({reply.block for reply in measured.replies}) > 12
    assert speedups(noisy, measured) == pytest.approx(TRUE_SPEEDUPS, rel=0.1)


def test_the_time_is_kept_to_and_what_was_measured_stays() -> None:
    bench = Bench(plan(max_tokens=100, limit_s=20.0))
    measured = bench.run()
    assert measured.ended == "time"
    assert 20.0 <= bench.clock.time_s - 1000 < 26.0
    assert measured.replies
    assert len(bench.engine.requests) < 20


def test_a_cool_down_rests_behind_every_block() -> None:
    bench = Bench(plan(passes=1, cool_down_s=3.0))
    bench.run()
    assert bench.clock.slept_s == pytest.approx(9.0)


def test_an_interrupt_in_a_reply_keeps_all_before_it() -> None:
    bench = Bench(plan())
    bench.engine.hangs_at = 6 + 13 + 9

    def press(request: Generate) -> None:
        bench.stop.is_requested = len(bench.engine.requests) == bench.engine.hangs_at

    bench.engine.before_reply = press
    measured = bench.run()
    assert measured.ended == "interrupted"
    assert len(measured.replies) == 12 + 7, "a whole block, and the replies before the one that was cut"
    assert bench.engine.cancelled == [28]
    assert bench.blocks_kept == [12, 19]
    assert speedups(bench, measured) == pytest.approx(TRUE_SPEEDUPS, rel=0.05)
    counts = {row.speedup.count for row in bench_rows(bench, measured) if row.speedup}
    assert counts == {1}, "of the whole block only"


def test_an_interrupt_in_a_cool_down() -> None:
    bench = Bench(plan(cool_down_s=100.0))
    bench.clock.sleep_s = lambda seconds: setattr(bench.stop, "is_requested", True)  # type: ignore[method-assign]
    assert bench.run().ended == "interrupted"
    assert bench.blocks_kept == [12, 12]


def test_an_engine_that_dies_ends_the_run_with_what_there_is() -> None:
    bench = Bench(plan())
    bench.engine.dies_at = 6 + 13 + 3
    measured = bench.run()
    assert measured.ended == "failed"
    assert len(measured.replies) == 13
    assert "SIGKILL" in measured.notes[-1]


def test_a_prompt_that_is_refused_is_left_out_and_said() -> None:
    bench = Bench(plan())
    bench.engine.refuses = lambda request: "It is too long." if "chat-2" in request.messages[0].text else None
    measured = bench.run()
    assert {reply.prompt for reply in measured.replies} == {"chat-1", "chat-3"}
    assert measured.notes == ["chat-2 (short) was left out: It is too long."]


def test_a_reply_of_one_token_says_nothing() -> None:
    bench = Bench(replace(plan(), passes=1))
    bench.engine.tokens_of = lambda request: [1]
    measured = bench.run()
    assert measured.ended == "failed"
    assert not measured.replies
