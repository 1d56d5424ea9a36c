"""Half a minute of measurements: what is measured and how often. Their figures are not looked at."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_engine import micro_bench
from mlx_engine.micro_bench import ALL_ROWS, Extent, MicroBench
from mlx_engine.network.target import Gemma4Target
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.micro_figures import MicroFigures, row_steps
from mlx_engine.speculation.steering import ReplyControl
from tests.fakes.folders import write_pair
from tests.mlx_engine.rig import Rig, only, token_ids

pytestmark = pytest.mark.slow

CONTEXT = 128
ROUNDS = 2
SMALL = Extent(
    limit_s=1e9,
    rounds=ROUNDS,
    product_shape=(64, 128),
    matrices=2,
    keys=32,
    prompt_tokens=24,
    chunks=(16, 32, 64, 256),
)
HELLO = (events.Message("user", "Hello there, how are you?"),)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"), CONTEXT)


@pytest.fixture(autouse=True)
def is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_bench, "extent_of_device", lambda: SMALL)


def measured(rig: Rig, extent: Extent = SMALL, room_bytes: int | None = None) -> MicroFigures:
    """With a clock that goes on by a second a look."""
    ticks = count()
    drafters = list(rig.engine._drafters.values())
    control = Control()
    return MicroBench(rig.engine._target, drafters, control, lambda: float(next(ticks)), room_bytes, extent).run()


class Control:
    """Cancelled when it has been asked this often."""

    def __init__(self, looks: int | None = None) -> None:
        self._looks = looks
        self.asked = 0

    @property
    def is_cancelled(self) -> bool:
        self.asked += 1
        return self._looks is not None and self.asked > self._looks

    def next_draft(self, offers: Any) -> Any:
        raise AssertionError("nothing is decoded")


def test_every_number_of_rows_is_measured(pair: tuple[Path, Path]) -> None:
    rig = Rig(*pair)
    figures = rig.engine.measure(ReplyControl(0))
    assert list(figures.product_s) == list(figures.verify_s) == list(ALL_ROWS) == list(range(1, 18))
    assert {size: list(times) for size, times in figures.attention_s.items()} == {
        256: list(ALL_ROWS), 512: list(ALL_ROWS),
    }  # fmt: skip
    assert list(figures.drafter_step_s) == ["assistant"]
    assert list(figures.prefill_s) == list(figures.prefill_peak_bytes) == [16, 32, 64], "the context has 128"
    assert figures.peak_memory_bytes >= max(figures.prefill_peak_bytes.values()) > 0


def test_a_pass_is_made_to_warm_up_and_then_one_a_round(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Counter[tuple[str, int]] = Counter()
    for name in ("forward", "read"):
        own = getattr(Gemma4Target, name)

        def counting(self: Gemma4Target, ids: mx.array, *rest: Any, own: Any = own, name: str = name) -> Any:
            made[name, ids.shape[1]] += 1
            return own(self, ids, *rest)

        monkeypatch.setattr(Gemma4Target, name, counting)
    rig = Rig(*pair)
    made.clear()
    measured(rig)
    assert {made["forward", rows] for rows in ALL_ROWS} == {1 + ROUNDS}
    assert [made["read", chunk] for chunk in (16, 32, 64, 256)] == [1 + ROUNDS, 1 + ROUNDS, 1 + ROUNDS, 0]
    made.clear()
    measured(rig, Extent(limit_s=0, product_shape=(64, 128), matrices=1, keys=32, prompt_tokens=24, chunks=(16,)))
    assert {made["forward", rows] for rows in ALL_ROWS} == {2}, "a part makes one round, however long it takes"


def test_a_chunk_is_left_out_where_it_would_take_too_much_memory(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(*pair)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 1000)
    monkeypatch.setattr(mx, "get_peak_memory", lambda: 2000)
    tried = [list(measured(rig, room_bytes=room).prefill_s) for room in (999, 2999, 3000)]
    assert tried == [[], [16], [16, 32, 64]], "a chunk may need twice as much as one of half its length"


def test_a_chunk_is_left_out_where_it_would_take_too_long(pair: tuple[Path, Path]) -> None:
    rig = Rig(*pair)

    def tried(limit_s: float) -> list[int]:
        limit_s *= 2 / micro_bench.SHARES["prefill"]
        return list(measured(rig, dataclasses.replace(SMALL, limit_s=limit_s)).prefill_s)

    # Each of the looks at the clock takes a second: a chunk takes one, and the next one perhaps two.
    assert [tried(limit_s) for limit_s in (4.9, 5.1, 7.1)] == [[16], [16, 32], [16, 32, 64]]


@pytest.mark.parametrize("looks", [0, 5, 60])
def test_it_stops_when_it_is_cancelled(pair: tuple[Path, Path], looks: int) -> None:
    rig = Rig(*pair)
    control = Control(looks)
    bench = MicroBench(rig.engine._target, [], control, lambda: 0.0, None, SMALL)
    with pytest.raises(RequestError, match="stopped"):
        bench.run()
    assert control.asked == looks + 1


def test_a_conversation_goes_on_as_if_nothing_had_been_measured(pair: tuple[Path, Path]) -> None:
    rig, other = Rig(*pair), Rig(*pair)
    request = events.Generate(1, HELLO, events.SamplingOptions(temperature=0), max_tokens=12)
    for each in (rig, other):
        each.ask(request)
    rig.engine.measure(ReplyControl(0))
    longer = events.Generate(
        2,
        (*HELLO, events.Message("assistant", "Fine."), events.Message("user", "Good.")),
        events.SamplingOptions(temperature=0),
        max_tokens=12,
    )
    answers = [each.ask(longer) for each in (rig, other)]
    assert token_ids(answers[0]) == token_ids(answers[1])
    started = [only(events.Started, answer)[0].cached_tokens for answer in answers]
    assert started[0] == started[1]


def test_steps_are_where_a_row_makes_it_clearly_slower() -> None:
    assert row_steps({1: 1.0, 2: 1.02, 3: 1.1, 4: 1.4, 5: 1.45, 8: 2.0}) == (4, 8)
    assert row_steps({}) == ()
