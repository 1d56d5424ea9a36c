"""What is stored in half precision is computed in float32 where half precision is slow."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_engine.loading.convert import convert
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.target import Gemma4Target, load_target
from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Message
from mlx_engine.speculation.guarded import GuardedDrafter
from mlx_engine.speculation.model_drafter import ModelDrafter
from tests.fakes.folders import write_pair
from tests.mlx_engine.helpers import load_tensors
from tests.mlx_engine.rig import Rig, only, token_ids

HALF = [mx.bfloat16, mx.float16]


@pytest.fixture(scope="module", params=HALF, ids=str)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return half(write_pair(tmp_path_factory.mktemp("pair")), request.param)


def half(pair: tuple[Path, Path], dtype: mx.Dtype) -> tuple[Path, Path]:
    """The pair, with its numbers in half precision."""
    for folder in pair:
        path = folder / "model.safetensors"
        tensors = {
            name: array.astype(dtype) if array.dtype == mx.float32 else array * 1
            for name, array in load_tensors(path).items()
        }
        mx.eval(tensors)
        mx.save_safetensors(str(path), tensors)
    return pair


def floats(module: nn.Module) -> set[mx.Dtype]:
    return {array.dtype for _, array in tree_flatten(module.parameters())} - {mx.int32, mx.uint32}


def weights_bytes(module: nn.Module) -> int:
    return sum(array.nbytes for _, array in tree_flatten(module.parameters()))


def test_all_that_is_computed_is_float32(stored: tuple[Path, Path]) -> None:
    target, assistant = load_target(stored[0], is_float32=True), load_assistant(stored[1], is_float32=True)
    assert floats(target._model) == floats(assistant) == {mx.float32}
    cache = target.new_cache()
    hidden = target.forward(mx.array([[2, 7, 9]]), cache)
    assert {array.dtype for array in (hidden, target.logits(hidden), *cache.arrays())} == {mx.float32}
    state, following = assistant(target.embed(mx.array([[5]])), hidden[:, -1:], cache.shared_kv(), 2)
    assert {array.dtype for array in (state, following, assistant.logits(state))} == {mx.float32}


def test_the_numbers_are_those_that_were_stored(stored: tuple[Path, Path]) -> None:
    kept, converted = load_target(stored[0]), load_target(stored[0], is_float32=True)
    assert kept.added_bytes == 0
    assert converted.added_bytes == weights_bytes(converted._model) - weights_bytes(kept._model) > 0
    for (name, one), (_, other) in zip(
        tree_flatten(kept._model.parameters()), tree_flatten(converted._model.parameters()), strict=True
    ):
        assert mx.array_equal(one.astype(mx.float32), other.astype(mx.float32)), name


def test_quantized_weights_stay_packed(stored: tuple[Path, Path], tmp_path: Path) -> None:
    convert(stored[0], tmp_path / "t4", bits=4, group_size=32)
    kept, converted = load_target(tmp_path / "t4"), load_target(tmp_path / "t4", is_float32=True)
    assert converted.dtype_name == "4-bit"
    for name, array in tree_flatten(converted._model.parameters()):
        assert array.dtype == (mx.uint32 if name.endswith("proj.weight") else array.dtype), name
    assert floats(converted._model) == {mx.float32}
    assert 0 < converted.added_bytes < weights_bytes(kept._model)


def test_a_drafter_quantized_while_loading_is_converted_too(stored: tuple[Path, Path]) -> None:
    assert floats(load_assistant(stored[1], bits=4, is_float32=True)) == {mx.float32}


def test_at_most_one_array_exists_twice(stored: tuple[Path, Path]) -> None:
    gc.collect()  # what other tests left must not be freed in the meantime
    before_cache = mx.set_cache_limit(0)
    try:
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        target = load_target(stored[0], is_float32=True)
        after, peak = mx.get_active_memory() - before, mx.get_peak_memory() - before
        largest = max(array.nbytes for _, array in tree_flatten(target._model.parameters()))
        assert peak <= after + largest
    finally:
        mx.set_cache_limit(before_cache)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "is_converted"), [(None, not mx.metal.is_available()), (True, True), (False, False)]
)
def test_the_engine_says_what_it_did(stored: tuple[Path, Path], setting: bool | None, is_converted: bool) -> None:
    rig = Rig(*stored, is_float32=setting)
    (ready,) = only(events.Ready, rig.emitted)
    notices = [event.message for event in only(events.Notice, rig.emitted)]
    assert (ready.float32_bytes > 0) == is_converted
    assert (ready.precision == "float32") == is_converted
    assert (
        any("converted to float32" in notice and "--float32 off" in notice for notice in notices) == is_converted
    )
    assert rig.engine._target.is_float32 == is_converted


@pytest.mark.slow
def test_nothing_is_said_where_nothing_was_converted(tmp_path: Path) -> None:
    rig = Rig(*write_pair(tmp_path), is_float32=True)
    assert only(events.Ready, rig.emitted)[0].float32_bytes == 0
    assert not only(events.Notice, rig.emitted)


@pytest.mark.slow
def test_drafting_changes_no_token_of_a_converted_pair(tmp_path: Path) -> None:
    rig = Rig(*half(write_pair(tmp_path), mx.bfloat16), is_float32=True)
    hello = (Message("user", "Hello there, how are you?"),)
    replies = {tuple(token_ids(rig.ask(Generate(1, hello, max_tokens=40, draft_length=k)))) for k in (0, 4)}
    assert len(replies) == 1


@pytest.mark.slow
def test_a_draft_model_is_converted_like_its_target(stored: tuple[Path, Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(stored[0], tmp_path / "other"))
    rig = Rig(stored[0], other, is_float32=True)
    (guarded,) = rig.engine._drafters.values()
    assert isinstance(guarded, GuardedDrafter)
    drafter = guarded._drafter
    assert isinstance(drafter, ModelDrafter)
    assert isinstance(drafter._model, Gemma4Target)
    assert floats(drafter._model._model) == {mx.float32}
