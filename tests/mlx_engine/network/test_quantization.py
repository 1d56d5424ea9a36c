"""Bits, group size and mode of every layer are those of its tensors, wherever config.json states them or not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model, quantize_model

from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.mlx_lm_gemma4 import gemma4
from mlx_engine.network.target import load_target
from mlx_engine.protocol.errors import ModelFolderError
from models.verify import verify_folder
from tests.fakes import quantized, tiny
from tests.mlx_engine.helpers import load_tensors

LOW: dict[str, Any]
HIGH: dict[str, Any]
LOW, HIGH = {"group_size": 64, "bits": 4}, {"group_size": 32, "bits": 8}


def check_same(folder: Path, network: gemma4.Model) -> None:
    target = load_target(folder)
    tokens = mx.array([quantized.TOKENS])
    logits = target.logits(target.forward(tokens, target.new_cache()))
    assert mx.allclose(logits, quantized.logits(network), atol=1e-4)


def high_mlp(path: str, layer: nn.Module) -> bool | dict[str, Any]:
    return dict(HIGH) if ".mlp." in path else True


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 8])
def test_affine_weights_of_any_bits_load(tmp_path: Path, bits: int) -> None:
    network = quantized.write(tmp_path, "31b", bits=bits, group_size=32)
    check_same(tmp_path, network)
    assert load_target(tmp_path).dtype_name == f"{bits}-bit"


def test_a_model_is_called_quantized_where_its_table_is_not(tmp_path: Path) -> None:
    network = quantized.write(tmp_path, "31b", lambda path, layer: "embed" not in path, **LOW)
    check_same(tmp_path, network)
    assert load_target(tmp_path).dtype_name == "4-bit"


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "mxfp8", "nvfp4"])
@pytest.mark.parametrize("layout", ["26b-a4b", "e2b"])
def test_every_mode_loads_beside_a_router_that_stays_affine(tmp_path: Path, mode: str, layout: str) -> None:
    network = quantized.write(tmp_path, layout, mode=mode, bits=None, group_size=None)
    check_same(tmp_path, network)


def test_experts_with_a_scale_for_each_tensor_load(tmp_path: Path) -> None:
    network = quantized.write(tmp_path, "26b-a4b", mode="nvfp4", bits=None, group_size=None, global_scale=True)
    loaded = dict(tree_flatten(load_target(tmp_path)._model.parameters()))
    assert any(name.endswith(".global_scale") for name in loaded)
    for name, array in tree_flatten(network.language_model.parameters()):  # MLX computes them on a GPU alone
        assert mx.array_equal(loaded[name], array)


@pytest.mark.parametrize(
    "prefix", ["language_model.model.", "model.language_model.", "model.", "language_model.", ""]
)
@pytest.mark.parametrize("suffix", ["", ".weight"])
def test_settings_of_single_layers_count_under_any_prefix(tmp_path: Path, prefix: str, suffix: str) -> None:
    network = quantized.write(tmp_path, "31b", high_mlp, **LOW)
    block = json.loads((tmp_path / "config.json").read_text())["quantization"]
    renamed = {
        re.sub(r"^language_model\.model\.(.*)", rf"{prefix}\1{suffix}", name): own for name, own in block.items()
    }
    quantized.set_block(tmp_path, renamed)
    check_same(tmp_path, network)


@pytest.mark.parametrize(
    "block",
    [
        LOW,
        HIGH,
        {"bits": 4},
        {"mode": "affine"},
        {"bits": 4.5, "group_size": 64},
        {"bits": "4", "group_size": 64.0, "mode": "mixed"},
        {"bits": 0, "group_size": 0},
        "4-bit",
        None,
    ],
)
def test_the_shapes_count_where_nothing_is_said_of_a_layer(tmp_path: Path, block: Any) -> None:
    network = quantized.write(tmp_path, "26b-a4b", high_mlp, **LOW)
    quantized.set_block(tmp_path, block)
    check_same(tmp_path, network)
    assert list(verify_folder(tmp_path, {})) == []


@pytest.mark.parametrize(
    "own", [{"bits": 8.0, "group_size": "32"}, {"bits": "8"}, {"bits": None, "quant_method": "x"}]
)
def test_settings_of_a_layer_are_read_as_people_write_them(tmp_path: Path, own: dict[str, Any]) -> None:
    network = quantized.write(tmp_path, "31b", high_mlp, **LOW)
    quantized.set_block(tmp_path, LOW | {"model.language_model.layers.0.mlp.up_proj": own})
    check_same(tmp_path, network)


@pytest.mark.parametrize("layout", ["e2b", "26b-a4b"])
def test_a_text_only_export_with_an_8_bit_mlp_and_router_loads_as_in_mlx_lm(tmp_path: Path, layout: str) -> None:
    network, config = quantized.model(layout)

    def choose(path: str, layer: nn.Module) -> bool | dict[str, Any]:
        return dict(HIGH) if ".mlp." in path or path.endswith("router.proj") else True

    text, config = quantize_model(
        network.language_model,
        config["text_config"] | {"model_type": "gemma4_text"},
        quant_predicate=choose,
        **LOW,
    )
    quantized.save(tmp_path, config, dict(tree_flatten(text.parameters())))
    in_mlx_lm, _ = load_model(tmp_path)
    check_same(tmp_path, in_mlx_lm)


def test_settings_that_contradict_a_layer_are_refused_by_its_name(tmp_path: Path) -> None:
    quantized.write(tmp_path, "31b", high_mlp, **LOW)
    layer = "language_model.model.layers.0.mlp.up_proj"
    quantized.set_block(tmp_path, LOW | {layer: LOW})
    with pytest.raises(ModelFolderError, match=rf"{layer} has 8 bits in groups of 32 \(affine\), but"):
        load_target(tmp_path)
    quantized.set_block(tmp_path, LOW | {layer: LOW, f"model.{layer}": HIGH})  # one of both is right
    load_target(tmp_path)


def test_scales_stored_as_8_bit_floats_load(tmp_path: Path) -> None:
    network = quantized.write(tmp_path, "31b", mode="mxfp4", bits=None, group_size=None)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    for name, entry in header.items():
        if name.endswith(".scales"):
            entry["dtype"] = "F8_E8M0"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    check_same(tmp_path, network)


def test_an_assistants_layers_count_as_well(tmp_path: Path) -> None:
    network = tiny.assistant("31b", hidden_size_of_assistant=64)
    config = {
        "model_type": "gemma4_assistant",
        "backbone_hidden_size": network.config.backbone_hidden_size,
        "text_config": tiny.text_config("31b")
        | {"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2, "hidden_size": 64},
        "quantization": LOW | {"layers.0.mlp.gate_proj": HIGH},
    }

    def choose(path: str, layer: nn.Module) -> bool | dict[str, Any]:
        is_wide = hasattr(layer, "to_quantized") and layer.weight.shape[-1] % 64 == 0
        return is_wide and (dict(HIGH) if ".mlp." in path else dict(LOW))

    nn.quantize(network, class_predicate=choose)
    quantized.save(tmp_path, config, dict(tree_flatten(network.parameters())))
    loaded = load_assistant(tmp_path)
    assert loaded.model.layers[1].mlp.up_proj.bits == 8
    assert loaded.model.layers[1].self_attn.q_proj.bits == 4
    for name, array in tree_flatten(network.parameters()):
        assert mx.array_equal(dict(tree_flatten(loaded.parameters()))[name], array)


@pytest.mark.parametrize("rows", [slice(0, -1), slice(0, 0)])
def test_scales_of_a_wrong_shape_are_refused(tmp_path: Path, rows: slice) -> None:
    quantized.write(tmp_path, "31b", **LOW)
    weights = load_tensors(tmp_path / "model.safetensors")
    name = "model.language_model.layers.0.mlp.up_proj.scales"
    mx.eval(weights)
    for wrong in (weights[name][rows], mx.zeros((64, 3)), mx.array(1.0)):
        mx.save_safetensors(str(tmp_path / "model.safetensors"), weights | {name: wrong})
        with pytest.raises(ModelFolderError, match="up_proj"):
            load_target(tmp_path)
