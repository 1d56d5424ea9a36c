"""The limits of a config.json. A number out of range is refused by name, before anything is allocated from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_engine.protocol.errors import ModelFolderError

WHOLE: dict[str, tuple[int, int]] = {
    "num_hidden_layers": (1, 512),
    "hidden_size": (1, 1 << 16),
    "intermediate_size": (1, 1 << 18),
    "vocab_size": (1, 1 << 20),
    "vocab_size_per_layer_input": (0, 1 << 20),
    "hidden_size_per_layer_input": (0, 1 << 14),
    "num_attention_heads": (1, 1 << 10),
    "num_key_value_heads": (1, 1 << 10),
    "num_global_key_value_heads": (0, 1 << 10),
    "head_dim": (1, 1 << 12),
    "global_head_dim": (1, 1 << 12),
    "num_kv_shared_layers": (0, 512),
    "sliding_window": (1, 1 << 20),
    "sliding_window_pattern": (1, 512),
    "max_position_embeddings": (1, 1 << 24),
    "num_experts": (0, 1 << 12),
    "top_k_experts": (0, 1 << 12),
    "moe_intermediate_size": (0, 1 << 18),
    "backbone_hidden_size": (1, 1 << 16),
    "num_centroids": (1, 1 << 20),
    "centroid_intermediate_top_k": (1, 1 << 20),
    "markov_rank": (0, 1 << 16),
    "num_target_layers": (1, 512),
}
"""Smallest and largest value of each key. Beyond these a config is a mistake or an attack."""
REAL: dict[str, tuple[float, float]] = {
    "rms_norm_eps": (0.0, 1.0),
    "final_logit_softcapping": (1e-3, 1e6),
    "global_partial_rotary_factor": (0.0, 1.0),
    "partial_rotary_factor": (0.0, 1.0),
    "rope_theta": (1.0, 1e12),
}
FLAGS = (
    "attention_k_eq_v", "enable_moe_block", "tie_word_embeddings", "use_double_wide_mlp", "rope_traditional",
    "attention_bias", "mlp_bias", "fc_norm", "norm_before_fc", "norm_before_residual", "norm_output",
    "sample_from_anchor", "sliding_window_non_causal",
)  # fmt: skip
NEEDED = ("num_hidden_layers", "hidden_size", "vocab_size")
FULL, SLIDING = "full_attention", "sliding_attention"
KINDS = {FULL, SLIDING}


def check_network(values: Mapping[str, Any], source: Path) -> None:
    """Check one level of a config; None counts as absent. Raises ModelFolderError naming the key."""
    for key, (least, most) in WHOLE.items():
        value = values.get(key)
        if value is not None and (type(value) is not int or not least <= value <= most):
            raise out_of_range(source, key, value, f"a whole number from {least} to {most}")
    for key, (low, high) in REAL.items():
        value = values.get(key)
        if value is not None and not (_is_real(value) and low <= value <= high):
            raise out_of_range(source, key, value, f"a number from {low:g} to {high:g}")
    for key in FLAGS:
        if values.get(key) is not None and not isinstance(values[key], bool):
            raise out_of_range(source, key, values[key], "true or false")


def check_layers(text: Mapping[str, Any], source: Path) -> None:
    """Check a text config and whether its numbers agree. Raises ModelFolderError naming the key."""
    _check_shape(text, source)
    if text.get("layer_types") is None:
        # transformers and mlx-lm have different patterns for a config without kinds.
        raise _other_kinds(text, source)
    if (text.get("top_k_experts") or 1) > (text.get("num_experts") or 1):
        raise out_of_range(source, "top_k_experts", text["top_k_experts"], "at most num_experts")
    ropes = text.get("rope_parameters")
    if ropes is not None:
        if not isinstance(ropes, dict) or not all(isinstance(rope, dict) for rope in ropes.values()):
            raise out_of_range(source, "rope_parameters", ropes, "one object for each kind of layer")
        for rope in ropes.values():
            check_network(rope, source)


def check_drafter_layers(layers: Mapping[str, Any], source: Path) -> None:
    """Check the layers of a block drafter or of EAGLE-3. Raises ModelFolderError naming the key."""
    _check_shape(layers, source)
    if SLIDING in (layers.get("layer_types") or ()) and layers.get("sliding_window") is None:
        raise out_of_range(source, "sliding_window", None, "a number")


def _check_shape(layers: Mapping[str, Any], source: Path) -> None:
    check_network(layers, source)
    for key in NEEDED:
        if layers.get(key) is None:
            raise out_of_range(source, key, None, "a number")
    kinds = layers.get("layer_types")
    if kinds is not None and not (
        isinstance(kinds, list) and len(kinds) == layers["num_hidden_layers"] and _are_kinds(kinds)
    ):
        raise _other_kinds(layers, source)
    heads = layers.get("num_attention_heads") or 8
    for key in ("num_key_value_heads", "num_global_key_value_heads"):
        if heads % (layers.get(key) or 1):
            raise out_of_range(source, key, layers[key], f"a divisor of num_attention_heads, {heads},")


def _other_kinds(layers: Mapping[str, Any], source: Path) -> ModelFolderError:
    expected = f"a list of {layers['num_hidden_layers']} of {' and '.join(sorted(KINDS))}"
    return out_of_range(source, "layer_types", layers.get("layer_types"), expected)


def _are_kinds(kinds: list[Any]) -> bool:
    return all(isinstance(kind, str) and kind in KINDS for kind in kinds)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def out_of_range(source: Path, key: str, value: Any, expected: str) -> ModelFolderError:
    """The error for a key whose value is not the `expected` one."""
    return ModelFolderError(
        f"{source}: {key} is {repr(value)[:40]}, where {expected} is expected. Pull the model again."
    )


def tables_too_small(folder: Path, tokens: int, rows: int) -> ModelFolderError:
    """The error for a tokenizer with more ids than an embedding table has rows."""
    return ModelFolderError(
        f"{folder}: its tokenizer has {tokens} tokens, its weights {rows}. "
        "The folder mixes two models: pull the model again."
    )
