"""A quick run of a slow model: less of everything, and never nothing."""

from __future__ import annotations

import pytest

from app.bench.plan import BenchPlan, make_cases
from app.bench.prompts import BUNDLED_KINDS
from app.bench.results import OFF
from app.bench.rows import find_row, make_rows
from tests.app.bench.support import Bench, prompt
from tests.fakes.clockwork import ROUND_S

LIMIT_S = 40.0


def quick_plan() -> BenchPlan:
    cases = make_cases([prompt(f"{kind}-1", kind) for kind in BUNDLED_KINDS], ["short"], ["greedy"])
    return BenchPlan(
        cases, ("off", "2", "4", "8", "auto"), max_tokens=32, limit_s=LIMIT_S, passes=1, is_fitted=True
    )


def run(tokens_per_s: float) -> Bench:
    bench = Bench(quick_plan())
    bench.engine.slowness = lambda time_s: 1 / (tokens_per_s * ROUND_S)
    bench.measured = bench.run()  # type: ignore[attr-defined]
    return bench


def test_a_fast_model_is_measured_whole() -> None:
    bench = run(tokens_per_s=200)
    measured = bench.measured  # type: ignore[attr-defined]
    assert measured.plan == quick_plan()
    assert {reply.kind for reply in measured.replies} == set(BUNDLED_KINDS)
    assert measured.ended == "passes"
    assert not measured.notes


@pytest.mark.parametrize("tokens_per_s", [30, 10, 3, 1, 0.2])
def test_a_slow_model_is_measured_in_part_and_in_time(tokens_per_s: float) -> None:
    bench = run(tokens_per_s)
    measured = bench.measured  # type: ignore[attr-defined]
    plan = measured.plan
    assert measured.ended == "passes", "what was begun is finished"
    assert len(measured.replies) == 2 * len(plan.settings) * len(plan.cases)
    assert max(reply.tokens for reply in measured.replies) <= plan.max_tokens
    speedups = [find_row(make_rows(measured.replies, plan.settings), "greedy", "short", "all", each)
                for each in plan.settings if each != OFF]  # fmt: skip
    assert speedups
    assert all(row is not None and row.speedup is not None for row in speedups)
    if tokens_per_s >= 1:
        assert bench.clock.time_s - 1000 <= LIMIT_S
    assert any("tokens/s here" in note for note in measured.notes)


def test_the_slower_the_less_is_measured() -> None:
    sizes = []
    for tokens_per_s in (200, 30, 10, 3, 1, 0.2):
        plan = run(tokens_per_s).measured.plan  # type: ignore[attr-defined]
        sizes.append(len(plan.cases) * len(plan.settings) * plan.max_tokens)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1 * 2 * 4


def test_a_stop_ends_a_quick_run_at_once() -> None:
    bench = Bench(quick_plan())
    bench.engine.slowness = lambda time_s: 1000.0
    bench.engine.before_reply = lambda request: setattr(bench.stop, "is_requested", len(bench.engine.requests) > 3)
    assert bench.run().ended == "interrupted"
