"""What the config.json of a block drafter or EAGLE-3 tells: the target it was made for, and the memory it needs.

The engine checks the rest when it loads one (mlx_engine/speculation).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_engine.files.config_bounds import out_of_range

DRAFTER_WINDOW = 4096
"""The most rows of the conversation that such a drafter keeps (mlx_engine/network/tapped_rows.py)."""
MAX_NUMBER = 1 << 31
TAP_KEYS = ("target_layer_ids", "aux_hidden_state_layer_ids", "eagle_aux_hidden_state_layer_ids")
USUAL_TAPS = 3
"""Of EAGLE-3 in speculators, where its config lists none."""


def drafter_layers(config: Mapping[str, Any], source: Path) -> dict[str, int]:
    """The numbers of its `LayerFacts`; its layers keep a window of the conversation.

    config: one that `is_drafter_packaging` knows. Raises ModelFolderError naming a wrong key.
    """
    own = config.get("transformer_layer_config") if "speculators_model_type" in config else config
    if not isinstance(own, Mapping):
        raise out_of_range(source, "transformer_layer_config", own, "an object")

    def number(key: str, default: int | None = None) -> int:
        value = own.get(key)
        value = default if value is None else value
        if type(value) is not int or not 0 < value < MAX_NUMBER:
            raise out_of_range(source, key, value, f"a whole number from 1 to {MAX_NUMBER - 1}")
        return value

    hidden_size, heads = number("hidden_size"), number("num_attention_heads")
    kv_heads, head_dim = number("num_key_value_heads", heads), number("head_dim", max(1, hidden_size // heads))
    if own.get("attention_k_eq_v"):  # Gemma 4's full layers
        kv_heads = number("num_global_key_value_heads", kv_heads)
    if own.get("model_type") == "gemma4_text":
        head_dim = number("global_head_dim", head_dim)
    return {
        "full_layers": 0,
        "sliding_layers": number("num_hidden_layers"),
        "full_kv_heads": kv_heads,
        "sliding_kv_heads": kv_heads,
        "full_head_dim": head_dim,
        "sliding_head_dim": head_dim,
        "window": DRAFTER_WINDOW,
        "heads": heads,
        "hidden_size": hidden_size,
        "intermediate_size": number("intermediate_size"),
        "vocab_size": number("vocab_size"),
        "max_context": number("max_position_embeddings", 131072),
    }


def tap_count(config: Mapping[str, Any]) -> int:
    """How many of the target's layers it reads. config: one that `is_drafter_packaging` knows."""
    nested = config.get("dflash_config")
    levels = [config, nested] if isinstance(nested, Mapping) else [config]
    lists = [level.get(key) for level in levels for key in TAP_KEYS]
    return next((len(ids) for ids in lists if isinstance(ids, list) and ids), USUAL_TAPS)
