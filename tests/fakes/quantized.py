"""Quantized model folders of a tiny size, written as mlx-lm and other tools write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import quantize_model

from mlx_engine.network.mlx_lm_gemma4 import gemma4
from tests.fakes import tiny

WIDE = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "head_dim": 32,
    "global_head_dim": 64,
    "moe_intermediate_size": 64,
}
"""Wide enough for groups of 64."""
TOKENS = (2, 7, 9, 11, 40)

Settings = dict[str, Any]
Choose = Callable[[str, nn.Module], bool | Settings]


def model(layout: str) -> tuple[gemma4.Model, Settings]:
    """A random network in full precision, and its config."""
    text = tiny.text_config(layout) | WIDE
    if text["hidden_size_per_layer_input"]:
        text["hidden_size_per_layer_input"] = 32
    config = {"model_type": "gemma4", "vocab_size": tiny.VOCAB, "text_config": text}
    network = gemma4.Model(gemma4.ModelArgs.from_dict(json.loads(json.dumps(config))))
    tiny.randomise(network, 3)
    return network, config


def write(folder: Path, layout: str, choose: Choose | None = None, **settings: Any) -> gemma4.Model:
    """Write a folder that mlx-lm quantized with these settings; the network that it should load as."""
    network, config = model(layout)
    network, config = quantize_model(
        network, config, quant_predicate=choose or network.quant_predicate, **settings
    )
    save(folder, config, dict(tree_flatten(network.parameters())))
    return network


def save(folder: Path, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> None:
    """Write config and tensors as a published folder names them."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    named = {name.replace("language_model.model.", "model.language_model."): own for name, own in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), named)


def set_block(folder: Path, block: Mapping[str, Any] | None) -> None:
    """Replace the quantization block; None removes it."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization", None), config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config | ({} if block is None else {"quantization": block})))


def logits(network: gemma4.Model) -> mx.array:
    """Logits (rows, vocab) of a few tokens."""
    rows: mx.array = network(mx.array([TOKENS]))[0]
    return rows
