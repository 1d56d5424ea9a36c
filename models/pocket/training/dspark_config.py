"""The pocket DSpark drafter's layout: DeepSpec's packaging for Gemma 4, small; and its files in that format."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import gemma4

from mlx_engine.speculation.block_drafter import DSPARK, BlockFacts, DSparkModel, read_facts
from models.pocket.training.assistant_config import BRANCH_NORM
from models.pocket.training.target_config import HEAD_DIM, LAYERS, TEXT_CONFIG

HIDDEN = TEXT_CONFIG["hidden_size"]
BLOCK_LAYERS = 2
TAPS = [2, 9, 15, 22, 28]
"""Spread over the target's layers, as in the published drafters; the last layer is not one of them."""
SAME_AS_TARGET = (
    "vocab_size", "num_attention_heads", "attention_bias", "attention_dropout", "hidden_activation",
    "max_position_embeddings", "rms_norm_eps", "rope_parameters", "sliding_window", "final_logit_softcapping",
    "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
CONFIG: dict[str, Any] = {key: TEXT_CONFIG[key] for key in SAME_AS_TARGET} | {
    "architectures": [DSPARK],
    "model_type": "gemma4_text",
    "dtype": "float32",
    "tie_word_embeddings": False,
    "hidden_size": HIDDEN,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": TEXT_CONFIG["vocab_size"],
    "intermediate_size": 4 * HIDDEN,
    "num_hidden_layers": BLOCK_LAYERS,
    "num_kv_shared_layers": 0,
    "layer_types": ["full_attention"] * BLOCK_LAYERS,
    "num_key_value_heads": 1,
    "num_global_key_value_heads": 1,
    "head_dim": HEAD_DIM,
    "global_head_dim": 2 * HEAD_DIM,
    "attention_k_eq_v": True,
    "enable_moe_block": False,
    "use_double_wide_mlp": False,
    "target_model_type": "gemma4",
    "target_text_model_type": "gemma4_text",
    "num_target_layers": LAYERS,
    "block_size": 7,
    "mask_token_id": 4,
    "target_layer_ids": TAPS,
    "enable_confidence_head": False,
    "markov_rank": 32,
    "markov_head_type": "vanilla",
}


def facts() -> BlockFacts:
    """What its config says."""
    return read_facts(CONFIG, Path("config.json"))


def new_dspark(target: gemma4.Model) -> DSparkModel:
    """One that begins with the target's table as embedding and head, and corrects nothing yet."""
    model = DSparkModel(copy.deepcopy(CONFIG), facts(), HIDDEN)
    table = target.language_model.model.embed_tokens.weight
    # Copies: a compiled function takes no argument that is also a constant in it, and the target's are.
    model.embed_tokens.weight, model.lm_head.weight = table * 1, table * 1
    model.markov_w2.weight = mx.zeros_like(model.markov_w2.weight)
    for layer in model.network.layers:
        for norm in ("post_attention_layernorm", "post_feedforward_layernorm"):
            layer[norm].weight = layer[norm].weight * BRANCH_NORM
    mx.eval(model.parameters())
    return model


def save_dspark(model: DSparkModel, folder: Path) -> None:
    """Write config.json and model.safetensors with DeepSpec's tensor names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    weights = {_published_name(name): array for name, array in tree_flatten(model.parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})


def _published_name(name: str) -> str:
    return f"markov_head.{name}" if name.startswith("markov_") else name.removeprefix("network.")
