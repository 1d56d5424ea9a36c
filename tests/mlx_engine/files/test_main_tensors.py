"""Where the main tensors do not fit the config, `models verify` says so without loading the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.target import load_target
from mlx_engine.protocol.errors import ModelFolderError
from models.verify import verify_folder
from tests.fakes import quantized
from tests.fakes.packagings import Tensors, copied, edited_config, resaved, reweighted
from tests.paths import GOLDEN

LAYOUTS = ["e2b", "e4b", "12b-unified", "26b-a4b", "31b"]
TARGET = "model.language_model."


def problems(folder: Path) -> list[str]:
    """What verifying says; loading refuses such a folder as well."""
    with pytest.raises(ModelFolderError):
        (load_assistant if folder.name == "assistant" else load_target)(folder)
    return [finding.problem for finding in verify_folder(folder, {})]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", ["target", "assistant"])
def test_a_folder_that_loads_has_no_findings(layout: str, part: str) -> None:
    assert list(verify_folder(GOLDEN / layout / part, {})) == []


@pytest.mark.parametrize("settings", [{"bits": 1, "group_size": 32}, {"mode": "mxfp8"}, {"mode": "nvfp4"}])
@pytest.mark.parametrize("layout", ["e2b", "26b-a4b"])
def test_nor_has_a_quantized_one(tmp_path: Path, layout: str, settings: dict[str, Any]) -> None:
    quantized.write(tmp_path, layout, **({"bits": None, "group_size": None} | settings))
    assert list(verify_folder(tmp_path, {})) == []


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("target", f"{TARGET}embed_tokens.weight"),
        ("target", f"{TARGET}embed_tokens_per_layer.weight"),
        ("target", f"{TARGET}layers.3.self_attn.q_proj.weight"),
        ("assistant", "model.embed_tokens.weight"),
        ("assistant", "pre_projection.weight"),
    ],
)
def test_a_tensor_of_another_shape_is_named_with_both(tmp_path: Path, part: str, name: str) -> None:
    folder = copied(GOLDEN / "e2b" / part, tmp_path / part)
    reweighted(folder, lambda weights: weights | {name: weights[name][:-1]})
    (said,) = problems(folder)
    assert name.removeprefix(TARGET).removeprefix("model.") in said
    assert "but config.json says" in said

    def without(weights: Tensors) -> Tensors:
        return {own: array for own, array in weights.items() if own != name}

    reweighted(folder, without)
    (said,) = problems(folder)
    assert "is missing. The weights do not fit config.json" in said


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", ["target", "assistant"])
def test_head_sizes_that_a_config_has_lost_are_noticed(tmp_path: Path, layout: str, part: str) -> None:
    folder = copied(GOLDEN / layout / part, tmp_path / part)
    with edited_config(folder) as config:
        resaved(config["text_config"])
        del config["text_config"]["per_layer_config"]
    (said,) = problems(folder)
    assert "self_attn.q_proj.weight' has shape" in said


def test_packed_weights_that_mlx_does_not_have_are_noticed(tmp_path: Path) -> None:
    quantized.write(tmp_path, "31b", bits=4, group_size=64)
    name = f"{TARGET}embed_tokens.scales"
    reweighted(tmp_path, lambda weights: weights | {name: weights[name][:, :0]})
    (said,) = problems(tmp_path)
    assert "has a quantization that is not MLX's ('embed_tokens.scales')" in said


def test_the_method_of_another_tool_is_named(tmp_path: Path) -> None:
    folder = copied(GOLDEN / "31b" / "target", tmp_path / "target")
    name = f"{TARGET}layers.0.self_attn.q_proj.weight"
    reweighted(folder, lambda weights: {own.replace(name, f"{name}.trellis"): a for own, a in weights.items()})
    with edited_config(folder) as config:
        config["quantization_config"] = {"quant_method": "exl3"}
    (said,) = problems(folder)
    assert "is quantized with exl3" in said
