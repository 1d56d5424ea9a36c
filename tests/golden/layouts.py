"""The five toy layouts of the golden fixtures and the `config.json` each one's checkpoints carry.

Configs are written by hand, because newer `save_pretrained` drops `global_head_dim` and
`num_global_key_value_heads`, which published checkpoints have.
This file needs neither torch nor transformers.
"""

from dataclasses import dataclass
from typing import Any

SLIDING, FULL = "sliding_attention", "full_attention"
VOCAB_SIZE = 320
HIDDEN_SIZE = 32
HEAD_DIM = 8
GLOBAL_HEAD_DIM = 16
PAD, BOS, TURN_START, TURN_END = 0, 2, 105, 106
STOP_IDS = (1, 106, 50)


@dataclass(frozen=True, slots=True)
class Layout:
    """One member of the family at toy size, with a seed whose goldens pass the checks of make_goldens.py."""

    name: str
    seed: int
    layer_pattern: str  # "s" sliding, "f" full
    heads: int
    kv_heads: int
    window: int
    intermediate_size: int = 16
    global_kv_heads: int | None = None
    k_eq_v: bool = False
    kv_shared_layers: int = 0
    per_layer_input_size: int = 0
    double_wide: bool = False
    experts: int | None = None
    ordered_embeddings: bool = False
    unified: bool = False


LAYOUTS = (
    Layout(
        name="e2b",
        seed=47,
        layer_pattern="ssfssf",
        heads=2,
        kv_heads=1,
        window=16,
        kv_shared_layers=3,
        per_layer_input_size=4,
        double_wide=True,
        ordered_embeddings=True,
    ),
    Layout(
        name="e4b",
        seed=2,
        layer_pattern="sssfsf",
        heads=4,
        kv_heads=2,
        window=24,
        kv_shared_layers=2,
        per_layer_input_size=4,
        ordered_embeddings=True,
    ),
    Layout(
        name="26b-a4b",
        seed=77,
        layer_pattern="ssfssf",
        heads=4,
        kv_heads=2,
        window=16,
        global_kv_heads=1,
        k_eq_v=True,
        experts=4,
    ),
    Layout(
        name="31b",
        seed=133,
        layer_pattern="ssfssf",
        heads=4,
        kv_heads=4,
        window=24,
        intermediate_size=32,
        global_kv_heads=2,
        k_eq_v=True,
    ),
    Layout(
        name="12b-unified",
        seed=392,
        layer_pattern="sssssf",
        heads=4,
        kv_heads=2,
        window=24,
        global_kv_heads=1,
        k_eq_v=True,
        unified=True,
    ),
)


def shared_text_config(layout: Layout) -> dict[str, Any]:
    """The keys of a `text_config` in which target and assistant agree: the K/V geometry above all."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": layout.k_eq_v,
        "bos_token_id": BOS,
        "dtype": "float32",
        "eos_token_id": 1,
        "global_head_dim": GLOBAL_HEAD_DIM,
        "head_dim": HEAD_DIM,
        "hidden_activation": "gelu_pytorch_tanh",
        "initializer_range": 0.02,
        "max_position_embeddings": 4096,
        "model_type": "gemma4_unified_text" if layout.unified else "gemma4_text",
        "num_attention_heads": layout.heads,
        "num_global_key_value_heads": layout.global_kv_heads,
        "num_key_value_heads": layout.kv_heads,
        "pad_token_id": PAD,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {
            FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
            SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
        },
        "sliding_window": layout.window,
        "tie_word_embeddings": True,
        "use_bidirectional_attention": "vision" if layout.k_eq_v else None,
        "use_cache": True,
        "vocab_size": VOCAB_SIZE,
    }


def target_config(layout: Layout) -> dict[str, Any]:
    """`config.json` of the target. mlx-lm overwrites the inner vocab_size with the outer one: write both."""
    text = shared_text_config(layout) | {
        "enable_moe_block": layout.experts is not None,
        "final_logit_softcapping": 30.0,
        "hidden_size": HIDDEN_SIZE,
        "hidden_size_per_layer_input": layout.per_layer_input_size,
        "intermediate_size": layout.intermediate_size,
        "layer_types": [SLIDING if kind == "s" else FULL for kind in layout.layer_pattern],
        "moe_intermediate_size": None if layout.experts is None else 4,
        "num_experts": layout.experts,
        "num_hidden_layers": len(layout.layer_pattern),
        "num_kv_shared_layers": layout.kv_shared_layers,
        "top_k_experts": None if layout.experts is None else 2,
        "use_double_wide_mlp": layout.double_wide,
        "vocab_size_per_layer_input": VOCAB_SIZE,
    }
    return {
        "architectures": [
            "Gemma4UnifiedForConditionalGeneration" if layout.unified else "Gemma4ForConditionalGeneration"
        ],
        "dtype": "float32",
        "eos_token_id": [1, 106],
        "model_type": "gemma4_unified" if layout.unified else "gemma4",
        "text_config": text,
        "tie_word_embeddings": True,
        "vocab_size": VOCAB_SIZE,
    }


def assistant_config(layout: Layout) -> dict[str, Any]:
    """`config.json` of the assistant: everything of its four layers sits in `text_config`."""
    text = shared_text_config(layout) | {
        "enable_moe_block": False,
        "final_logit_softcapping": None,
        "hidden_size": HIDDEN_SIZE // 2,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": 16,
        "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
        "moe_intermediate_size": None,
        "num_experts": None,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 4,
        "top_k_experts": None,
        "use_double_wide_mlp": False,
        "vocab_size_per_layer_input": 0,
    }
    return {
        "architectures": ["Gemma4UnifiedAssistantForCausalLM" if layout.unified else "Gemma4AssistantForCausalLM"],
        "backbone_hidden_size": HIDDEN_SIZE,
        "centroid_intermediate_top_k": 4,
        "dtype": "float32",
        "model_type": "gemma4_unified_assistant" if layout.unified else "gemma4_assistant",
        "num_centroids": 16,
        "text_config": text,
        "tie_word_embeddings": True,
        "use_ordered_embeddings": layout.ordered_embeddings,
    }


def generation_config() -> dict[str, Any]:
    return {
        "bos_token_id": BOS,
        "do_sample": True,
        "eos_token_id": list(STOP_IDS),
        "pad_token_id": PAD,
        "temperature": 1.0,
        "top_k": 64,
        "top_p": 0.95,
    }
