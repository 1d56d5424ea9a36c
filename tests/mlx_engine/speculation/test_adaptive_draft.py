"""The automatic draft length against the best fixed one, on published costs and acceptance.

The best is known from the curve; the policy has to find it through noise and stalls. `python -m
tests.mlx_engine.speculation.drafting_simulator` prints the whole table.
"""

from __future__ import annotations

from itertools import chain
from math import inf
from statistics import fmean
from typing import Any

import msgspec
import pytest

from mlx_engine.protocol.events import LOOKUP
from mlx_engine.protocol.stats import PLAIN_ROUNDS_NEEDED
from mlx_engine.speculation.adaptive_draft import AdaptiveDraft
from mlx_engine.speculation.draft_choice import DraftPolicy, FixedLength, Offer
from mlx_engine.speculation.estimates import AcceptanceEstimates
from mlx_engine.speculation.learned_costs import Costs
from tests.mlx_engine.speculation.drafting_simulator import (
    CURVES,
    DRAFTER,
    KINDS,
    THIN,
    SimulatedDrafters,
    SimulatedPair,
    adaptive,
    best_throughput,
    changed,
    fading,
    line,
    next_length,
    round_facts,
    runs_in_turn,
    settled,
    start_length,
    through,
)

SEEDS = range(4)
TEXTS = [kind for kind in KINDS if kind != "always wrong"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("curve", CURVES)
def test_within_3_percent_of_the_best_fixed_length(curve: str, kind: str) -> None:
    early, late = map(fmean, zip(*(settled(curve, kind, seed) for seed in SEEDS)))
    length, best = best_throughput(CURVES[curve], KINDS[kind])
    # Where drafting wins less than a tenth, noise of that size makes it stop now and then.
    assert late >= (0.95 if 1 < best < 1.1 else 0.97)
    if length == 0:
        assert early >= 0.93, "also while it learns that drafting does not pay"


@pytest.mark.parametrize(
    ("curve", "before", "after"),
    [
        ("31B M3 Ultra", "prose", "code"),
        ("31B M3 Ultra", "enumeration", "story"),
        ("12B M3 Ultra", "story", "enumeration"),
        ("12B M1 Ultra", "enumeration", "story"),
        ("12B M1 Ultra", "story", "enumeration"),
        ("12B M5 Max", "prose", "enumeration"),
        ("12B M5 Max", "enumeration", "prose"),
        ("26B-A4B, experts per row", "code", "story"),
        ("26B-A4B, experts per row", "story", "code"),
        ("weights read per five rows", "code", "story"),
        ("12B M3 Ultra", "enumeration", "always wrong"),
    ],
)
def test_within_5_percent_64_rounds_after_the_text_changes(curve: str, before: str, after: str) -> None:
    assert fmean(changed(curve, before, after, seed) for seed in SEEDS) >= 0.95


@pytest.mark.parametrize("curve", CURVES)
def test_a_drafter_that_is_always_wrong_costs_at_most_5_percent_of_a_reply(curve: str) -> None:
    shares = []
    for seed in SEEDS:
        machine = SimulatedPair(CURVES[curve], KINDS["always wrong"], seed)
        shares.append(machine.run(adaptive(start_length(curve)), 300))
    assert fmean(shares) >= 0.95


def test_a_drafter_that_was_always_wrong_is_tried_again_and_used() -> None:
    machine, policy = SimulatedPair(CURVES["31B M3 Ultra"], KINDS["always wrong"]), adaptive(4)
    machine.run(policy, 1000)
    machine.hazards = KINDS["prose"]
    machine.run(policy, 600)
    assert machine.run(policy, 200) >= 0.95 * best_throughput(machine.curve, machine.hazards)[1]


def test_plain_rounds_that_were_slow_for_a_while_do_not_keep_a_drafter_that_is_always_wrong() -> None:
    machine, policy = SimulatedPair(THIN, KINDS["always wrong"]), adaptive(4)
    for _ in range(40):
        policy.observe(round_facts(0, 0, is_pipelined=True), 3 * machine.plain_s)
    for _ in range(10):
        policy.observe(round_facts(1, 0, is_pipelined=False), THIN[1] * machine.plain_s)

    assert machine.run(policy, 200) >= 0.9


@pytest.mark.parametrize("odd_s", [0.5, 30.0, 0.0, inf])
def test_one_odd_time_changes_nothing(odd_s: float) -> None:
    for length in (0, 3, 4):
        policy = adaptive(4)
        machine = SimulatedPair(CURVES["31B M3 Ultra"], KINDS["prose"])
        machine.run(policy, 300)
        policy.observe(round_facts(length, 0, length == 0), odd_s)
        assert machine.run(policy, 100) >= 0.95 * best_throughput(machine.curve, machine.hazards)[1]


@pytest.mark.parametrize("kind", ["code", "story"])
def test_stalls_and_slow_first_rounds_do_not_fool_it(kind: str) -> None:
    for curve in ("31B M3 Ultra", "12B M1 Ultra"):
        shares = []
        for seed in SEEDS:
            machine = SimulatedPair(CURVES[curve], KINDS[kind], seed, noise=0.3, stalls=0.1, slow_first=15)
            policy = adaptive(start_length(curve))
            machine.run(policy, 200)
            shares.append(machine.run(policy, 600) / best_throughput(machine.curve, machine.hazards)[1])
        assert fmean(shares) >= 0.95


def test_old_costs_are_forgotten_as_the_context_grows() -> None:
    machine, policy = SimulatedPair(CURVES["12B M1 Ultra"], KINDS["prose"], growth=0.0003), adaptive(2)
    machine.run(policy, 1000)
    assert machine.run(policy, 1000) >= 0.95 * best_throughput(machine.curve, machine.hazards)[1]


def test_a_machine_whose_long_rounds_get_slower_is_followed() -> None:
    machine, policy = SimulatedPair(CURVES["12B M3 Ultra"], KINDS["prose"]), adaptive(4)
    machine.run(policy, 400)
    machine.curve = CURVES["26B-A4B, experts per row"]
    machine.run(policy, 200)
    assert machine.run(policy, 400) >= 0.95 * best_throughput(machine.curve, machine.hazards)[1]


def test_16_rows_are_measured_for_themselves_where_long_drafts_pay() -> None:
    """Between 9 and 16 rows is a hill that no line shows. 12B's LM head on an M5 Max took 3.41 ms for 8 rows and
    2.56 for 16."""
    curve = through((1, 20), (9, 36), (10, 90), (15, 110), (16, 45), (17, 50))
    found = []
    for seed in SEEDS:
        machine, policy = SimulatedPair(curve, KINDS["enumeration"], seed), adaptive(4)
        rounds = 0
        while not policy._costs.is_measured(DRAFTER, 15) and rounds < 3000:
            machine.run(policy, 10)
            rounds += 10
        found.append(rounds)
        machine.run(policy, 200)
        assert machine.run(policy, 400) >= 0.95 * best_throughput(curve, KINDS["enumeration"])[1]
    assert max(found) <= 500, found
    prose = adaptive(4)
    SimulatedPair(curve, KINDS["story"]).run(prose, 300)
    assert not prose._costs.is_measured(DRAFTER, 15), "where only few drafts pay it is not tried early"


NEW_CHAT = {"curve": CURVES["31B M3 Ultra"], "hazards": KINDS["prose"], "plain_s": 0.03, "context_tokens": 50}
LONG_CHAT = {"curve": line(1.9, 0.15), "hazards": KINDS["story"], "plain_s": 0.04, "context_tokens": 16_000}
"""Looking back costs as much as the weights, for every row: drafting does not pay."""


@pytest.mark.parametrize(("before", "after"), [(LONG_CHAT, NEW_CHAT), (NEW_CHAT, LONG_CHAT)])
def test_what_rounds_cost_in_another_chat_is_learned_anew(before: dict[str, Any], after: dict[str, Any]) -> None:
    shares = []
    for seed in SEEDS:
        policy = adaptive(4)
        SimulatedPair(**before, seed=seed).run(policy, 1500)
        machine = SimulatedPair(**after, seed=seed)
        machine.run(policy, 64)
        shares.append(machine.run(policy, 200) / best_throughput(machine.curve, machine.hazards)[1])
    assert fmean(shares) >= 0.93


def test_in_another_context_the_plain_pace_is_measured_anew() -> None:
    for policy in (FixedLength(4), adaptive(4)):
        for context_tokens in (9_000, 50):
            lengths = []
            for _ in range(20):
                lengths.append(next_length(policy))
                policy.observe(round_facts(lengths[-1], lengths[-1], False, context_tokens), 0.03)
            assert lengths.count(0) >= PLAIN_ROUNDS_NEEDED
            for _ in range(200):
                policy.observe(round_facts(next_length(policy), 4, False, context_tokens), 0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_pace_is_measured_early_in_every_run(kind: str) -> None:
    machine, policy = SimulatedPair(CURVES["31B M3 Ultra"], KINDS[kind]), adaptive(4)
    for _ in range(2):
        begin = len(machine.chosen)
        machine.run(policy, 20)
        pipelined = sum(is_pipelined for _, is_pipelined in machine.chosen[begin:])
        assert pipelined >= PLAIN_ROUNDS_NEEDED
        machine.run(policy, 300)
        policy = adaptive(4, policy.estimates)


def test_the_plain_pace_is_measured_where_only_copies_are_drafted() -> None:
    """A text that is copied from beginning to end leaves no plain round by itself."""
    policy, lengths = AdaptiveDraft((LOOKUP,), 4), list[int]()
    for _ in range(100):
        lengths.append(policy.choose([Offer(16, [0.97] * 16)]).length)
        is_pipelined = lengths[-2:] == [0, 0]
        policy.observe(round_facts(lengths[-1], lengths[-1], is_pipelined, drafter=LOOKUP), 0.03)
    assert PLAIN_ROUNDS_NEEDED <= lengths.count(0) <= 8
    assert 0 not in lengths[:8]


@pytest.mark.parametrize("context_tokens", [0, 16_000])
def test_a_second_run_begins_where_the_first_ended(context_tokens: int) -> None:
    machine, policy = SimulatedPair(CURVES["12B M1 Ultra"], KINDS["always wrong"]), adaptive(2)
    machine.context_tokens = context_tokens
    machine.run(policy, 300)
    assert machine.run(adaptive(2, policy.estimates), 100) >= 0.96


@pytest.mark.parametrize("chance", [0.0, 0.08, 0.3])
def test_where_drafting_does_not_pay_short_runs_soon_cost_nothing(chance: float) -> None:
    runs = [runs_in_turn(THIN, fading(then=chance), 12, seed) for seed in range(8)]
    assert fmean(share for run in runs for share in run[2:]) >= 0.98


def test_a_useful_drafter_is_used_from_the_beginning_of_short_runs() -> None:
    curve, hazards = CURVES["31B M3 Ultra"], KINDS["prose"]
    runs = [runs_in_turn(curve, hazards, 12, seed) for seed in range(8)]
    assert fmean(share for run in runs for share in run[2:]) >= 0.9 * best_throughput(curve, hazards)[1]


def test_short_runs_try_a_drafter_again_that_was_always_wrong() -> None:
    kept = None
    for run in range(40):
        machine = SimulatedPair(CURVES["31B M3 Ultra"], KINDS["always wrong" if run < 8 else "prose"], run)
        policy = adaptive(4, kept)
        machine.run(policy, 150)
        kept = policy.estimates
    assert machine.throughput() >= 0.9 * best_throughput(machine.curve, machine.hazards)[1]


@pytest.mark.parametrize("slowness", [0.5, 3.0])
def test_a_machine_that_is_slower_or_faster_than_when_it_was_measured(slowness: float) -> None:
    curve = CURVES["31B M3 Ultra"]
    first = adaptive(4)
    SimulatedPair(curve, KINDS["code"], noise=0.0, stalls=0.0).run(first, 400)
    costs = Costs((DRAFTER,), first.estimates)
    before = costs.curve(DRAFTER)
    for _ in range(6):
        costs.observe(round_facts(0, 0, is_pipelined=True), 0.03 * slowness)
    after = costs.curve(DRAFTER)
    assert before
    assert after == pytest.approx([round_s * slowness for round_s in before])
    assert fmean(costs.rounds_s(DRAFTER)[3]) == pytest.approx(0.03 * slowness * curve[4])


def test_the_first_round_of_a_length_in_a_run_may_take_long() -> None:
    first = adaptive(4)
    SimulatedPair(CURVES["31B M3 Ultra"], KINDS["code"], noise=0.0, stalls=0.0).run(first, 400)
    costs = Costs((DRAFTER,), first.estimates)
    before = costs.curve(DRAFTER)
    assert before
    for length, rounds_s in enumerate(first.estimates.drafters[DRAFTER].rounds_s, 1):
        if len(rounds_s) > 2:
            costs.observe(round_facts(length, 0, is_pipelined=False), 3.0)
            costs.observe(round_facts(0, 0, is_pipelined=True), before[0])
            costs.observe(round_facts(0, 0, is_pipelined=True), before[0])
    assert max(chain(*costs.rounds_s(DRAFTER))) < 3.0


def test_plain_rounds_of_a_reply_with_drafting_off_do_not_keep_it_from_beginning() -> None:
    policy = adaptive(4)
    for _ in range(50):
        policy.observe(round_facts(0, 0, True), 0.03)
    assert next_length(policy) == 4


def test_a_probe_that_the_drafter_has_nothing_for_is_over() -> None:
    policy, asked = adaptive(4), []
    for drafted in [4] * 8 + [0] * 300:  # always wrong, then a drafter that finds nothing to propose
        asked.append(next_length(policy))
        policy.observe(round_facts(drafted, 0, drafted == asked[-1] == 0), 0.09 if drafted else 0.03)
    assert asked[0] == 4
    assert 0 < sum(length > 0 for length in asked[20:]) < 20


@pytest.mark.parametrize("first_draft", [0.0, 1.0])
def test_what_was_held_for_certain_may_turn_out_otherwise(first_draft: float) -> None:
    kept = adaptive(16).estimates
    acceptance = AcceptanceEstimates(first_draft)
    drafter = msgspec.structs.replace(kept.drafters[DRAFTER], acceptance=acceptance)
    policy = adaptive(16, msgspec.structs.replace(kept, drafters={DRAFTER: drafter}))
    for _ in range(600):
        policy.observe(round_facts(16, 16, False), 0.03)
    policy.observe(round_facts(16, 12, False), 0.03)
    for _ in range(600):
        policy.observe(round_facts(16, 0, False), 0.03)
    policy.observe(round_facts(16, 16, False), 0.03)


def test_asking_changes_nothing() -> None:
    policy = adaptive(4)
    machine = SimulatedPair(CURVES["12B M5 Max"], KINDS["code"])
    for _ in range(50):
        assert next_length(policy) == next_length(policy)
        machine.run(policy, 1)


def lengths_of(policy: DraftPolicy, rounds: int) -> list[int]:
    lengths = []
    for _ in range(rounds):
        lengths.append(next_length(policy))
        policy.observe(round_facts(lengths[-1], 0, False), 0.03)
    return lengths


STEPS = [1.0] + [1.05 + 0.10 * n + (0.25 if n > 5 else 0) - (0.30 if n > 12 else 0) for n in range(1, 17)]
"""Not monotone: kernels for many rows begin at thirteen drafts."""
DEEP = fading(0.90, 0.80, 0.60, 0.40, then=0.20)
"""Gets worse with depth, as a block drafter in a long context does."""
ASSISTANT_AND_BLOCK = {
    "block better": ((line(1.0, 0.15), KINDS["prose"]), (line(1.0, 0.06), KINDS["prose"])),
    "assistant better": ((line(1.0, 0.12), KINDS["code"]), (line(1.0, 0.06), KINDS["story"])),
    "half the cost, half the acceptance": ((line(1.0, 0.20), KINDS["code"]), (line(1.0, 0.10), fading(then=0.45))),
    "worse with depth": ((line(1.0, 0.15), KINDS["prose"]), (line(1.0, 0.05), DEEP)),
    "not monotone": ((line(1.0, 0.15), KINDS["prose"]), (STEPS, KINDS["enumeration"])),
}


def drafters(case: str, seed: int) -> SimulatedDrafters:
    assistant, block = (
        SimulatedPair(*facts, seed=seed + at) for at, facts in enumerate(ASSISTANT_AND_BLOCK[case])
    )
    return SimulatedDrafters({"assistant": assistant, "block": block})


@pytest.mark.parametrize("case", ASSISTANT_AND_BLOCK)
def test_within_3_percent_of_the_best_drafter_and_length(case: str) -> None:
    shares = []
    for seed in SEEDS:
        machine, policy = drafters(case, seed), AdaptiveDraft(("assistant", "block"), 4)
        machine.run(policy, 200)
        shares.append(machine.run(policy, 600) / machine.best)
    assert fmean(shares) >= 0.97


def test_another_drafter_takes_over_when_the_first_gets_worse() -> None:
    shares = []
    for seed in SEEDS:
        machine, policy = drafters("block better", seed), AdaptiveDraft(("assistant", "block"), 4)
        machine.run(policy, 400)
        machine.drafters["block"].hazards = fading(0.3, then=0.1)
        machine.run(policy, 64)
        shares.append(machine.run(policy, 200) / machine.best)
    assert fmean(shares) >= 0.95
