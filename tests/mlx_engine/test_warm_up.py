"""The passes before the first reply: counted, since each takes seconds on a slow machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_engine.network.target import Gemma4Target
from mlx_engine.protocol import events
from mlx_engine.protocol.events import LOOKUP
from tests.fakes.folders import write_pair
from tests.mlx_engine.helpers import load_tensors
from tests.mlx_engine.rig import Rig, only

pytestmark = pytest.mark.slow

START_LENGTH = 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(method, rows) of every pass of a target."""
    made: list[tuple[str, int]] = []
    for name in ("forward", "read"):
        own = getattr(Gemma4Target, name)

        def counting(self: Gemma4Target, ids: mx.array, *rest: Any, own: Any = own, name: str = name) -> mx.array:
            made.append((name, ids.shape[1]))
            return own(self, ids, *rest)  # type: ignore[no-any-return]

        monkeypatch.setattr(Gemma4Target, name, counting)
    return made


def test_a_processor_makes_the_three_smallest_passes(
    pair: tuple[Path, Path], passes: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    Rig(*pair, start_length=START_LENGTH)
    assert passes == [("read", 1), ("forward", 1), ("forward", 2)]


def test_what_is_compiled_by_rows_is_run_with_the_rows_of_a_first_reply(
    pair: tuple[Path, Path], passes: list[tuple[str, int]]
) -> None:
    rig = Rig(*pair, start_length=START_LENGTH, is_compiled=True)
    prompt = rig.engine._format.render([events.Message("user", "Hello")]).ids
    assert passes == [("read", len(prompt) - 1), ("forward", 1), ("forward", START_LENGTH + 1)]


@pytest.mark.parametrize("drafter", [None, LOOKUP])
def test_without_drafts_two_passes_are_made(
    pair: tuple[Path, Path], passes: list[tuple[str, int]], drafter: str | None
) -> None:
    Rig(pair[0], drafter, is_compiled=False)
    assert [name for name, _ in passes] == ["read", "forward"]


def test_a_drafter_with_broken_numbers_is_left_out_although_replies_are_greedy(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    target, drafter = write_pair(tmp_path)
    tensors = load_tensors(drafter / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * float("nan")
    mx.eval(tensors)
    mx.save_safetensors(str(drafter / "model.safetensors"), tensors)
    (ready,) = only(events.Ready, Rig(target, drafter).emitted)
    assert ready.drafter is None
    assert "NaN" in (ready.refusal or "")
