"""The arithmetic of the gauges, on rounds made up by hand."""

from __future__ import annotations

from mlx_engine.protocol.events import Round
from mlx_engine.protocol.stats import PLAIN_ROUNDS_NEEDED, BaselineSpeed, RecentRounds, ReplyStats
from mlx_engine.speculation.draft_choice import (
    BURST_ROUNDS,
)


def done(
    tokens: int,
    drafted: int,
    accepted: int,
    round_s: float,
    *,
    pipelined: bool = False,
    context_tokens: int = 0,
    at_s: float = 1,
) -> Round:
    tokens_made = tuple(range(tokens))
    return Round(
        tokens_made, drafted, accepted, pipelined, context_tokens,
        id=1, text="", thinking="", round_s=round_s, memory_bytes=0, elapsed_s=at_s,
    )  # fmt: skip


def test_nothing_is_known_before_the_first_round() -> None:
    stats = ReplyStats(BaselineSpeed())
    figures = (stats.acceptance, stats.tokens_per_round, stats.tokens_per_s, stats.speedup, stats.ttft_s)
    assert figures == (None,) * 5


def test_acceptance_tokens_per_round_and_pace() -> None:
    stats = ReplyStats(BaselineSpeed())
    stats.add(done(4, 4, 3, 0.5, at_s=0.75))
    stats.add(done(1, 4, 0, 0.5))
    stats.add(done(1, 0, 0, 0.25))
    assert stats.acceptance == 3 / 8
    assert stats.tokens_per_round == 2.0
    assert stats.tokens_per_s == 6 / 1.25
    assert stats.ttft_s == 0.75
    assert stats.drafted_by_position[:5] == [2, 2, 2, 2, 0]
    assert stats.accepted_by_position[:5] == [1, 1, 1, 0, 0]


def test_speedup_is_pace_over_measured_plain_pace() -> None:
    pace = BaselineSpeed()
    stats = ReplyStats(pace)
    stats.add(done(6, 4, 4, 1.0))
    for _ in range(PLAIN_ROUNDS_NEEDED - 1):
        pace.add(done(1, 0, 0, 0.5, pipelined=True))
        assert stats.speedup is None, "too little to divide by"
    pace.add(done(1, 0, 0, 99.0, pipelined=True))
    assert stats.baseline_tokens_per_s == 2.0, "one slow round does not tell the pace"
    assert stats.speedup == stats.drafting_speedup == 3.0


def test_the_plain_rounds_that_measure_cost_speedup_but_not_that_of_drafting() -> None:
    pace = BaselineSpeed()
    stats = ReplyStats(pace)
    for _ in range(PLAIN_ROUNDS_NEEDED):
        pace.add(done(1, 0, 0, 0.5, pipelined=True))
        stats.add(done(1, 0, 0, 0.5, pipelined=True))
    assert stats.speedup is None, "nothing was drafted"
    stats.add(done(6, 5, 5, 1.0))
    assert stats.tokens_per_s is not None
    assert stats.baseline_tokens_per_s is not None
    assert stats.speedup == stats.tokens_per_s / stats.baseline_tokens_per_s == 10 / 3.0 / 2.0
    assert stats.drafting_speedup == 3.0


def test_a_plain_round_that_waited_for_the_host_does_not_tell_the_pace() -> None:
    pace = BaselineSpeed()
    for _ in range(50):
        pace.add(done(1, 0, 0, 0.5))
    assert pace.tokens_per_s is None


def test_the_pace_follows_the_machine() -> None:
    pace = BaselineSpeed()
    for round_s in [0.1] * 100 + [0.2] * 100:
        pace.add(done(1, 0, 0, round_s, pipelined=True))
    assert pace.tokens_per_s == 5.0


def test_the_pace_and_the_recent_rounds_are_those_of_the_context() -> None:
    pace = BaselineSpeed()
    recent = RecentRounds(pace)
    for context_tokens, round_s in ((20_000, 0.2), (50, 0.1)):
        for _ in range(PLAIN_ROUNDS_NEEDED):
            assert pace.tokens_per_s is None
            pace.add(done(1, 0, 0, round_s, pipelined=True, context_tokens=context_tokens))
        recent.add(done(4, 4, 3, round_s, context_tokens=context_tokens))
        assert pace.tokens_per_s == 1 / round_s
        assert recent.figures().tokens_per_s == 4 / round_s
        pace.add(done(1, 0, 0, round_s, context_tokens=context_tokens + 500))
        assert pace.tokens_per_s == 1 / round_s, "a context that grows is the same one"
        pace.add(done(1, 0, 0, round_s, context_tokens=0))


def test_recent_rounds_forget_the_old_ones() -> None:
    recent = RecentRounds(BaselineSpeed(), rounds=2)
    for accepted in (0, 4, 2):
        recent.add(done(accepted + 1, 4, accepted, 0.1))
    assert recent.figures().acceptance == 6 / 8


def test_a_burst_of_plain_rounds_is_not_the_rule() -> None:
    first_reply = [4, 4, 4] + [0] * BURST_ROUNDS
    for drafted, usual in [
        ([], None),
        (first_reply, 4),
        ([*first_reply, 3, 3, 3, 3, 3], 3),
        ([0] * 7 + [4, 4], None),
        ([0] * 11 + [2], 0),
        ([4] * 4 + [0] * 12, 0),
    ]:
        recent = RecentRounds(BaselineSpeed(), rounds=12)
        for length in drafted:
            recent.add(done(1, length, 0, 0.5))
        assert recent.typical_length == usual, drafted


def test_a_reply_stopped_while_its_prompt_was_read_has_no_figures() -> None:
    stopped = done(0, 0, 0, 0.5)
    baseline = BaselineSpeed()
    stats, recent = ReplyStats(baseline), RecentRounds(baseline)
    stats.add(stopped)
    recent.add(stopped)
    for figures in (stats, recent.figures()):
        assert (figures.tokens_per_s, figures.tokens_per_round, figures.rounds) == (None, None, 0)


def test_a_stopped_reply_changes_no_figures_of_those_before() -> None:
    baseline = BaselineSpeed()
    recent = RecentRounds(baseline)
    for _ in range(PLAIN_ROUNDS_NEEDED):
        now = done(1, 0, 0, 0.5, pipelined=True, context_tokens=9000)
        baseline.add(now)
        recent.add(now)
    stopped = done(0, 0, 0, 30.0)
    baseline.add(stopped)
    recent.add(stopped)
    assert baseline.tokens_per_s == recent.figures().tokens_per_s == 2.0
