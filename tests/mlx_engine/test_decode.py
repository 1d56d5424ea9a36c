"""The real loop over scripted parts: what is read, committed, rolled back and emitted, round by round."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.decode import DecodeOptions, generate
from mlx_engine.network import prefix
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.protocol.events import RoundFacts
from mlx_engine.speculation.model_drafter import ModelDrafter
from mlx_engine.speculation.sampling import Sampler
from tests.fakes.markov import MarkovTarget, PointDrafter
from tests.mlx_engine.helpers import GREEDY, OracleDrafter, ScriptedControl, rounds, session_for, tokens

VOCAB = 12
PROMPT = [2, 3, 4]
STOP = frozenset([1])


def chain(*run: int) -> MarkovTarget:
    """A target whose greedy reply to PROMPT is `run`, each token leading to the next."""
    table = np.zeros((VOCAB, VOCAB))
    for last, following in zip((PROMPT[-1], *run), run):
        table[last, following] = 10
    return MarkovTarget(table)


def points(*pairs: tuple[int, int]) -> PointDrafter:
    """A drafter that knows these successions and otherwise says token 0."""
    table = np.zeros(VOCAB)
    for last, following in pairs:
        table[last] = following
    return PointDrafter(table)


RUN = (5, 6, 7, 8, 9, 10)
KNOWS_ALL = points((4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (9, 10))


def test_all_accepted_gives_a_bonus() -> None:
    target = chain(*RUN)
    done = rounds(target, KNOWS_ALL, PROMPT, 6, 2)
    assert [r.token_ids for r in done] == [(5, 6, 7), (8, 9, 10)]
    assert [(r.drafted, r.accepted) for r in done] == [(2, 2), (2, 2)]
    assert target.forwards == [(0, 2), (2, 3), (5, 3)]


def test_none_accepted_gives_the_targets_token() -> None:
    frontiers = []
    target = chain(*RUN)
    done = rounds(target, points(), PROMPT, 3, 2, on_round=lambda _, s: frontiers.append(s.prefix.cache.frontier))
    assert [r.token_ids for r in done] == [(5,), (6,), (7,)]
    assert all(r.accepted == 0 for r in done)
    assert frontiers == [3, 4, 5], "every rejected row is forgotten"


def test_the_middle_falls() -> None:
    target = chain(*RUN)
    done = rounds(target, points((4, 5), (5, 6), (6, 9)), PROMPT, 4, 4)
    assert done[0].token_ids == (5, 6, 7)
    assert (done[0].drafted, done[0].accepted) == (3, 2), "the fourth draft would have passed the budget"
    assert target.forwards[2] == (5, 1), "the next round starts behind the accepted drafts"


def test_a_stop_token_inside_an_accepted_run_cuts_it() -> None:
    target = chain(5, 6, 1, 8, 9)
    target.table[1, 8] = 10
    frontiers: list[int] = []
    drafter = points((4, 5), (5, 6), (6, 1), (1, 8))
    done = rounds(
        target,
        drafter,
        PROMPT,
        50,
        4,
        stop_tokens=STOP,
        on_round=lambda _, s: frontiers.append(s.prefix.cache.frontier),
    )
    assert [r.token_ids for r in done] == [(5, 6, 1)]
    assert (done[0].accepted, done.finish_reason) == (3, "stop")
    assert frontiers == [len(PROMPT) + 3], "nothing behind the stop token is kept"


def test_a_stop_token_from_the_target_ends_the_reply() -> None:
    done = rounds(chain(5, 1), points((4, 5)), PROMPT, 50, 1, stop_tokens=STOP)
    assert ([r.token_ids for r in done], done.finish_reason) == ([(5, 1)], "stop")


def test_the_first_token_may_stop() -> None:
    done = rounds(chain(1), points((4, 1)), PROMPT, 50, 3, stop_tokens=STOP)
    assert ([(r.token_ids, r.accepted) for r in done], done.finish_reason) == ([((1,), 1)], "stop")


@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_budget_of_one(length: int) -> None:
    target = chain(*RUN)
    done = rounds(target, KNOWS_ALL, PROMPT, 1, length)
    assert ([(r.token_ids, r.drafted) for r in done], done.finish_reason) == ([((5,), 0)], "length")
    assert len(target.forwards) == 2, "one pass for the prompt, one for the token, none ahead"


@pytest.mark.parametrize("budget", range(1, 7))
@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 16])
def test_any_budget_is_met_exactly(budget: int, length: int) -> None:
    done = rounds(chain(*RUN), KNOWS_ALL, PROMPT, budget, length)
    assert tokens(done) == list(RUN[:budget])
    assert done.finish_reason == "length"


@pytest.mark.parametrize("length", [0, 2])
def test_cancel_keeps_the_round_and_ends(length: int) -> None:
    target = chain(*RUN)
    session = session_for(target, KNOWS_ALL, PROMPT)
    steering = ScriptedControl([length])
    replies = generate(session, DecodeOptions(GREEDY, STOP, 50, steering))
    first = next(replies)
    assert session.finish_reason is None
    steering.is_cancelled = True
    rest = list(replies)
    assert len(rest) == 1
    assert session.finish_reason == "cancelled"
    assert rest[0].token_ids, "what the round found is committed"
    committed = len(first.token_ids) + len(rest[0].token_ids)
    assert session.prefix.cache.frontier == len(PROMPT) - 1 + committed, "nothing begun ahead is left in the cache"


def test_cancel_during_prefill_ends_before_any_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "PREFILL_CHUNK_TOKENS", 4)
    target = chain(*RUN)
    steering = ScriptedControl([0])

    def stop_at_once(done_tokens: int) -> None:
        steering.is_cancelled = True

    session = session_for(target, None, [3] * 20)
    done = list(generate(session, DecodeOptions(GREEDY, STOP, 6, steering), stop_at_once))
    assert done == [RoundFacts((), 0, 0, is_pipelined=False, context_tokens=4)]
    assert session.finish_reason == "cancelled"
    assert target.forwards == [(0, 4)]


def test_prefill_reads_in_chunks_and_stops_one_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "PREFILL_CHUNK_TOKENS", 4)
    target = chain(*RUN)
    seen: list[int] = []
    session = session_for(target, None, [3] * 9 + [4])
    list(generate(session, DecodeOptions(GREEDY, STOP, 1, ScriptedControl([0])), seen.append))
    assert target.forwards == [(0, 4), (4, 4), (8, 1), (9, 1)]
    assert seen == [4, 8, 9]


def test_plain_rounds_are_begun_ahead_of_reading() -> None:
    target = chain(*RUN)
    seen: list[tuple[int, bool]] = []
    rounds(target, None, PROMPT, 4, 0, on_round=lambda r, _: seen.append((len(target.forwards), r.is_pipelined)))
    assert seen == [(3, False), (4, True), (5, True), (5, True)], "always one pass ahead, none past the budget"


def test_drafting_can_change_in_the_middle_of_a_reply() -> None:
    done = rounds(chain(*RUN), KNOWS_ALL, PROMPT, 6, 0, 0, 3)
    assert tokens(done) == list(RUN)
    assert [r.drafted for r in done] == [0, 0, 0, 2], (
        "the round begun ahead is still plain; the budget cuts the draft"
    )


@pytest.mark.parametrize("length", [0, 1, 4])
def test_one_pass_and_one_wait_a_round(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = 0
    read = mx.array.tolist

    def counted(array: mx.array) -> object:
        nonlocal waits
        waits += 1
        return read(array)

    def forbidden(*args: object) -> None:
        raise AssertionError("the host waited for the device outside of the one read of a round")

    target = chain(*RUN)
    oracle = OracleDrafter(len(PROMPT), RUN, 1.0, VOCAB)
    session = session_for(target, oracle, PROMPT)
    replies = generate(session, DecodeOptions(GREEDY, STOP, 6, ScriptedControl([length])))
    monkeypatch.setattr(mx.array, "tolist", counted)
    monkeypatch.setattr(mx.array, "item", forbidden)
    first = next(replies)
    monkeypatch.setattr(mx, "eval", forbidden)  # prefill alone may wait
    done = [first, *replies]
    assert waits == session.host_syncs == session.target_passes == len(done)


@pytest.mark.parametrize(
    "sampler",
    [GREEDY, Sampler(1.0), Sampler(1.0, is_coupled=True), Sampler(0, repetition_penalty=1.2)],
    ids=["greedy", "rejection", "coupled", "penalty"],
)
def test_a_plain_round_asks_the_device_for_nothing_empty(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every kernel of Metal was made for no rows at all."""
    sizes: list[int] = []

    def watched(name: str) -> None:
        call = getattr(mx, name)

        def watching(given: Any, *args: Any, **settings: Any) -> Any:
            sizes.extend(each.size for each in (given if isinstance(given, list) else [given]))
            return call(given, *args, **settings)

        monkeypatch.setattr(mx, name, watching)

    session = session_for(chain(*RUN), None, PROMPT)
    for name in ("concatenate", "cumprod", "cumsum", "sum", "take"):
        watched(name)
    list(generate(session, DecodeOptions(sampler, STOP, 6, ScriptedControl([0]))))
    assert sizes
    assert 0 not in sizes


def test_every_draft_is_under_way_before_the_pass_that_reads_it_is_put_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    target = chain(*RUN)
    forward = target.forward

    def seen_forward(ids: mx.array, cache: TargetCache) -> mx.array:
        order.append("pass")
        return forward(ids, cache)

    drafter = ModelDrafter(chain(*RUN))
    session = session_for(target, drafter, PROMPT)
    replies = generate(session, DecodeOptions(GREEDY, STOP, 6, ScriptedControl([2])))
    next(replies)
    monkeypatch.setattr(target, "forward", seen_forward)
    monkeypatch.setattr(mx, "async_eval", lambda *arrays: order.append("begin"))
    list(replies)
    assert order == ["begin", "begin", "begin", "pass", "begin"], "what it had not read, two drafts, the verdict"
