"""Tapped rows: the outputs of layers for every committed row, whatever was read, rolled back or dropped."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_engine.network import tapped_rows
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.tapped_rows import EMBEDDING, TappedRows
from tests.fakes import tiny

TEXT = [(31 * at + 7) % tiny.VOCAB for at in range(60)]


def taken(rows: TappedRows) -> tuple[int, int, list[float]]:
    took = rows.take()
    values = [] if took.rows is None else [float(value) for value in np.array(took.rows[0, :, 0])]
    return took.kept, took.position, values


def appended(rows: TappedRows, values: Sequence[float]) -> None:
    output = mx.array(list(values), dtype=mx.float32)[None, :, None]
    rows.append({3: output}, rows.offset)


@given(st.lists(st.tuples(st.sampled_from(["append", "rollback", "take"]), st.integers(0, 9)), max_size=30))
def test_a_drafter_that_follows_has_the_rows_of_the_text(steps: list[tuple[str, int]]) -> None:
    rows, text, mirror = TappedRows([3]), list[float](), list[float]()
    fresh = iter(range(10_000))

    def follow() -> None:
        kept, position, values = taken(rows)
        assert position == kept, "nothing was dropped"
        mirror[kept:] = values

    for step, count in steps:
        match step:
            case "append" if count:
                new = [float(next(fresh)) for _ in range(count)]
                appended(rows, new)
                text += new
            case "rollback":
                del text[max(0, len(text) - count) :]
                rows.rollback(len(text))
            case "take":
                follow()
    follow()
    assert mirror == text


def test_only_the_newest_rows_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tapped_rows, "MOST_ROWS", 8)
    rows = TappedRows([3])
    for begin in range(0, 30, 3):
        appended(rows, [float(value) for value in range(begin, begin + 3)])
    assert taken(rows) == (0, 22, [float(value) for value in range(22, 30)])
    appended(rows, [30.0])
    assert taken(rows) == (30, 30, [30.0])


def test_plain_rounds_cost_the_same_however_many_rows_wait() -> None:
    asked = 0

    class Row:
        @property
        def shape(self) -> tuple[int, int, int]:
            nonlocal asked
            asked += 1
            return 1, 1, 1

    rows = TappedRows([3])
    for position in range(200):
        rows.append({3: Row()}, position)  # type: ignore[dict-item]
        rows.rollback(position + 1)
    assert asked <= 4 * 200


def test_rows_behind_others_that_were_not_tapped_begin_anew() -> None:
    rows = TappedRows([3])
    rows.append({3: mx.zeros((1, 2, 1))}, 50)
    assert taken(rows) == (0, 50, [0.0, 0.0])


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_a_prompt_in_chunks_taps_what_one_pass_taps(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers where usually the last row is enough included."""
    target = tiny.target(layout)
    depth = len(tiny.text_config(layout)["layer_types"])
    taps = target.tap([EMBEDDING, 1, depth - 1])
    whole = target.new_cache()
    target.forward(mx.array([TEXT]), whole)
    expected = whole.tapped[taps].take().rows
    assert expected is not None
    monkeypatch.setattr("mlx_engine.network.prefix.PREFILL_CHUNK_TOKENS", 13)
    prefix = PrefixCache(target)
    prefix.resume([*TEXT, 1])
    for _ in prefix.prefill():
        pass
    rows = prefix.cache.tapped[taps].take().rows
    assert rows is not None
    assert rows.shape == (1, len(TEXT), 3 * 32)
    assert mx.allclose(rows, expected, atol=1e-4).item()
    assert mx.array_equal(rows[:, :, :32], target.embed(mx.array([TEXT]))).item()


def test_a_target_without_taps_keeps_nothing() -> None:
    target = tiny.target("e2b")
    cache = target.new_cache()
    assert not cache.tapped
    with pytest.raises(IndexError, match="6"):
        target.tap([6])
