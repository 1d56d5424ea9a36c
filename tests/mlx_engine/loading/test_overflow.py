"""A target stored in float16 is computed wider where its numbers overflow, and people are told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_engine.loading.convert import convert
from mlx_engine.network.assistant import Assistant, load_assistant
from mlx_engine.network.target import load_target
from mlx_engine.protocol.errors import BrokenNumbersError, ModelFolderError
from mlx_engine.protocol.events import Generate, Message, Notice, Ready
from tests.fakes.folders import write_pair
from tests.mlx_engine.helpers import load_tensors
from tests.mlx_engine.rig import Rig, only, token_ids

HELLO = (Message("user", "Hello there, how are you?"),)
LOUD = "model.language_model.layers.1.post_feedforward_layernorm.weight"
"""Its output, 30,000 times the norm of a row, is added to the hidden state."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def pair(written: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    target, assistant = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in written)
    return target, assistant


def store(folder: Path, dtype: mx.Dtype, factor: float = 1) -> None:
    """Store all floats of the folder as `dtype`, and one norm multiplied."""
    weights = load_tensors(folder / "model.safetensors")
    if factor != 1:
        weights[LOUD] = mx.full(weights[LOUD].shape, float(factor))
    weights = {
        name: array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) else array
        for name, array in weights.items()
    }
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


def ready_and_notices(rig: Rig) -> tuple[Ready, list[str]]:
    (ready,) = only(Ready, rig.emitted)
    return ready, [notice.message for notice in only(Notice, rig.emitted)]


def test_an_overflowing_target_is_computed_wider_and_this_is_said(pair: tuple[Path, Path]) -> None:
    store(pair[0], mx.float16, 30_000)
    rig = Rig(*pair, is_float32=False)
    ready, notices = ready_and_notices(rig)
    assert (
        "target is stored in float16, and its numbers overflow there. It is computed in float32 instead."
        in notices
    )
    assert (ready.precision, ready.drafter) == ("float32", "target-assistant")
    plain, drafted = (
        token_ids(rig.ask(Generate(1, HELLO, draft_length=length, max_tokens=20))) for length in (0, 4)
    )
    assert plain == drafted
    store(pair[0], mx.float32)
    assert plain == token_ids(Rig(pair[0], None).ask(Generate(1, HELLO, max_tokens=20)))


def test_what_is_converted_to_float32_does_not_overflow(pair: tuple[Path, Path]) -> None:
    store(pair[0], mx.float16, 30_000)
    ready, notices = ready_and_notices(Rig(pair[0], None, is_float32=True))
    assert ready.precision == "float32"
    assert not any("overflow" in notice for notice in notices)


def test_float16_that_suffices_is_left_as_it_is(pair: tuple[Path, Path]) -> None:
    store(pair[0], mx.float16)
    ready, notices = ready_and_notices(Rig(pair[0], None, is_float32=False))
    assert (ready.precision, notices) == ("float16", [])


def test_bfloat16_does_not_overflow(pair: tuple[Path, Path]) -> None:
    store(pair[0], mx.bfloat16, 30_000)
    ready, notices = ready_and_notices(Rig(pair[0], None, is_float32=False))
    assert (ready.precision, notices) == ("bfloat16", [])


def test_weights_that_are_not_numbers_are_still_refused(pair: tuple[Path, Path]) -> None:
    store(pair[0], mx.float16, float("nan"))
    with pytest.raises(ModelFolderError, match="no usable numbers"):
        Rig(pair[0], None, is_float32=False)


def test_an_overflow_in_a_reply_is_named_and_the_next_reply_is_computed_wider(pair: tuple[Path, Path]) -> None:
    store(pair[0], mx.float16)
    rig = Rig(pair[0], None, is_float32=False)
    model = rig.engine._target._model
    loud = model.model.layers[1].post_feedforward_layernorm
    loud.weight = mx.full(loud.weight.shape, 30_000, dtype=mx.float16)
    with pytest.raises(
        BrokenNumbersError, match=r"float16, and its numbers overflowed.*now on .* in float32: ask"
    ):
        rig.ask(Generate(1, HELLO, max_tokens=20))
    assert len(token_ids(rig.ask(Generate(1, HELLO, max_tokens=20)))) == 20


@pytest.mark.parametrize("is_gpu", [True, False])
def test_a_float16_drafter_follows_a_target_of_another_dtype(
    pair: tuple[Path, Path], is_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[Assistant] = []

    def kept(*arguments: Any) -> Assistant:
        networks.append(load_assistant(*arguments))
        return networks[0]

    monkeypatch.setattr("mlx_engine.speculation.assistant_drafter.load_assistant", kept)
    monkeypatch.setattr("mlx_engine.network.precision.has_gpu", lambda: is_gpu)
    store(pair[1], mx.float16)
    ready, _ = ready_and_notices(Rig(*pair, is_float32=False))
    assert ready.drafter == "target-assistant"
    assert networks[0].pre_projection.weight.dtype == (mx.bfloat16 if is_gpu else mx.float32)


def test_a_quantized_target_is_widened_too(pair: tuple[Path, Path], tmp_path: Path) -> None:
    store(pair[0], mx.float16, 30_000)
    convert(pair[0], tmp_path / "copy", bits=8, group_size=32)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "copy" / name).exists()
    assert load_target(tmp_path / "copy").has_float16
    ready, notices = ready_and_notices(Rig(tmp_path / "copy", None, is_float32=False))
    assert ready.precision == "8-bit"
    assert "overflow" in notices[0]
