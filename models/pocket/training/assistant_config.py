"""The pocket assistant's layout: a Gemma 4 E2B assistant's, small; and its files in the published format."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_engine.network.assistant import Assistant, AssistantConfig
from models.pocket.training.target_config import TEXT_CONFIG

HIDDEN = 64
LAYER_TYPES = ["sliding_attention", "full_attention"]
CENTROIDS, CENTROID_TOP_K = 64, 16
BRANCH_NORM = 0.5
CENTROID_HEAD = "masked_embedding."
SAME_AS_TARGET = (
    "vocab_size", "num_attention_heads", "num_key_value_heads", "num_global_key_value_heads", "head_dim",
    "global_head_dim", "attention_k_eq_v", "attention_bias", "attention_dropout", "hidden_activation",
    "max_position_embeddings", "rms_norm_eps", "rope_parameters", "sliding_window", "tie_word_embeddings",
    "bos_token_id", "eos_token_id", "pad_token_id", "dtype",
)  # fmt: skip
CONFIG: dict[str, Any] = {
    "architectures": ["Gemma4AssistantForCausalLM"],
    "model_type": "gemma4_assistant",
    "backbone_hidden_size": TEXT_CONFIG["hidden_size"],
    "use_ordered_embeddings": True,
    "num_centroids": CENTROIDS,
    "centroid_intermediate_top_k": CENTROID_TOP_K,
    "tie_word_embeddings": True,
    "dtype": "float32",
    "text_config": {key: TEXT_CONFIG[key] for key in SAME_AS_TARGET}
    | {
        "model_type": "gemma4_text",
        "hidden_size": HIDDEN,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 0,  # transformers and vLLM refuse an assistant without it
        "intermediate_size": 4 * HIDDEN,
        "num_hidden_layers": len(LAYER_TYPES),
        "num_kv_shared_layers": len(LAYER_TYPES),
        "layer_types": LAYER_TYPES,
        "use_double_wide_mlp": False,
        "enable_moe_block": False,
        "final_logit_softcapping": None,
    },
}


def new_assistant() -> Assistant:
    """An assistant with seeded random weights and a plain head; `save_assistant` adds the centroid head."""
    assistant = Assistant(AssistantConfig.from_dict(copy.deepcopy(CONFIG) | {"use_ordered_embeddings": False}))
    for layer in assistant.model.layers:
        for norm in ("post_attention_layernorm", "post_feedforward_layernorm"):
            layer[norm].weight = layer[norm].weight * BRANCH_NORM
    mx.eval(assistant.parameters())
    return assistant


def save_assistant(assistant: Assistant, centroids: mx.array, ordering: mx.array, folder: Path) -> None:
    """Write config.json and model.safetensors; `ordering` lists the vocabulary cluster by cluster."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    weights = dict(tree_flatten(assistant.parameters()))
    weights[f"{CENTROID_HEAD}centroids.weight"] = centroids
    weights[f"{CENTROID_HEAD}token_ordering"] = ordering.astype(mx.int64)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
