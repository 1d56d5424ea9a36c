"""The pocket target's layout: Gemma 4 E2B's, small; and its files in the published format."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import gemma4

from models.pocket.training.tokenizer import VOCABULARY_TOKENS

LAYERS, OWNED_LAYERS = 30, 15
"""Deep and thin: on a CPU a pass is mostly dispatch, so checking several rows costs little more than one."""
PATTERN = ["sliding_attention"] * 4 + ["full_attention"]
HEAD_DIM = 16
TEXT_CONFIG: dict[str, Any] = {
    "model_type": "gemma4_text",
    "vocab_size": VOCABULARY_TOKENS,
    "vocab_size_per_layer_input": VOCABULARY_TOKENS,
    "hidden_size": 64,
    "hidden_size_per_layer_input": 8,
    "intermediate_size": 128,
    "use_double_wide_mlp": True,
    "num_hidden_layers": LAYERS,
    "num_kv_shared_layers": LAYERS - OWNED_LAYERS,
    "layer_types": PATTERN * (LAYERS // len(PATTERN)),
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "num_global_key_value_heads": None,
    "head_dim": HEAD_DIM,
    "global_head_dim": 2 * HEAD_DIM,
    "attention_k_eq_v": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "enable_moe_block": False,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {
        "full_attention": {
            "partial_rotary_factor": 0.25,
            "rope_theta": 1000000.0,
            "rope_type": "proportional",
        },
        "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
    },
    "sliding_window": 128,
    "tie_word_embeddings": True,
    "use_cache": True,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "dtype": "float32",
}
CONFIG: dict[str, Any] = {
    "architectures": ["Gemma4ForConditionalGeneration"],
    "model_type": "gemma4",
    "vocab_size": VOCABULARY_TOKENS,
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": [1, 106],
    "pad_token_id": 0,
    "dtype": "float32",
    "text_config": TEXT_CONFIG,
}
GENERATION_CONFIG = {
    "bos_token_id": 2,
    "eos_token_id": [1, 106, 50],
    "pad_token_id": 0,
    "do_sample": False,
}
"""Greedy by default: sampling would only make learned answers worse."""
BRANCH_NORM = 0.25
"""First value of the norms that end each branch: at 1.0 thirty layers would drown the embedding."""


def new_target() -> gemma4.Model:
    """A target with random weights; call mx.random.seed before."""
    model = gemma4.Model(gemma4.ModelArgs.from_dict(copy.deepcopy(CONFIG)))
    for layer in model.layers:
        for norm in ("post_attention_layernorm", "post_feedforward_layernorm", "post_per_layer_input_norm"):
            layer[norm].weight = layer[norm].weight * BRANCH_NORM
        # The attention scale is 1: without this every head would start out attending to one token.
        attention = layer.self_attn
        if attention.has_kv:
            attention.k_norm.weight = attention.k_norm.weight * attention.head_dim**-0.5
    mx.eval(model.parameters())
    return model


def load_target(folder: Path) -> gemma4.Model:
    """The target that `save_target` wrote."""
    model = gemma4.Model(gemma4.ModelArgs.from_dict(json.loads((folder / "config.json").read_text())))
    weights = mx.load(str(folder / "model.safetensors"))
    model.load_weights(list(model.sanitize(weights).items()))
    mx.eval(model.parameters())
    return model


def save_target(model: gemma4.Model, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors with the published tensor names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps(GENERATION_CONFIG, indent=2) + "\n")
    weights = {
        "model." + name.replace("language_model.model.", "language_model.", 1): array
        for name, array in tree_flatten(model.parameters())
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
