"""Tiny random pairs in the five layouts of the family: real networks, a thousandth of the size."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx.utils import tree_map_with_path

from mlx_engine.network.assistant import Assistant, AssistantConfig
from mlx_engine.network.mlx_lm_gemma4 import gemma4_text
from mlx_engine.network.target import Gemma4Target

VOCAB = 96
WINDOW = 16
PATTERN = ["sliding_attention", "sliding_attention", "full_attention"]

COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 16,
    "vocab_size": VOCAB,
    "vocab_size_per_layer_input": VOCAB,
    "sliding_window": WINDOW,
    "max_position_embeddings": 1024,
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
}
K_EQ_V = {"attention_k_eq_v": True}
LAYOUTS: dict[str, dict[str, Any]] = {
    "e2b": {"patterns": 2, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True, "num_key_value_heads": 1},
    "e4b": {"patterns": 2, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 3},
    "26b-a4b": {"patterns": 1, "enable_moe_block": True, "num_experts": 8, "top_k_experts": 2,
                "moe_intermediate_size": 16, "num_global_key_value_heads": 1, **K_EQ_V},
    "31b": {"patterns": 1, "num_key_value_heads": 4, "num_global_key_value_heads": 2, **K_EQ_V},
    "12b-unified": {"patterns": 1, "num_global_key_value_heads": 1, **K_EQ_V},
}  # fmt: skip
SEEDS = {"26b-a4b": 3, "31b": 21}
"""Where the first seed gives a network that soon repeats itself."""


def text_config(layout: str) -> dict[str, Any]:
    """The target's text_config in one of the layouts."""
    own = dict(LAYOUTS[layout])
    kinds = PATTERN * own.pop("patterns")
    return COMMON | own | {"layer_types": kinds, "num_hidden_layers": len(kinds)}


def target(layout: str, **changes: Any) -> Gemma4Target:
    """A random target whose scores are far from flat."""
    model = gemma4_text.Model(gemma4_text.ModelArgs.from_dict(text_config(layout) | changes))
    randomise(model, SEEDS.get(layout, 0))
    return Gemma4Target(model)


def assistant(
    layout: str, seed: int = 1, hidden_size_of_assistant: int = 16, is_compiled: bool = False
) -> Assistant:
    """A random assistant for the target of the same layout; it is right about as often as chance."""
    own = text_config(layout) | {"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2}
    own["hidden_size"] = hidden_size_of_assistant
    network = Assistant(
        AssistantConfig.from_dict(
            {
                "text_config": own,
                "backbone_hidden_size": text_config(layout)["hidden_size"],
                "use_ordered_embeddings": layout in ("e2b", "e4b"),
                "num_centroids": 12,
                "centroid_intermediate_top_k": 4,
            }
        ),
        is_compiled,
    )
    randomise(network, seed)
    return network


def randomise(module: Any, seed: int) -> None:
    """Fill a network with seeded noise."""
    keys = iter(mx.random.split(mx.random.key(seed), 10_000))

    def draw(path: str, old: mx.array) -> mx.array:
        if old.dtype != mx.float32:
            return old
        noise = mx.random.normal(old.shape, key=next(keys))
        if "norm" in path or "scal" in path:
            # Loud layers: a random model otherwise says the embedding it was given back, for ever.
            return (3.0 if "norm" in path and "post_" in path else 1.0) * (1 + 0.1 * noise)
        return noise * (0.3 if "embed" in path else 0.4)

    module.update(tree_map_with_path(draw, module.parameters()))
    module.eval()
    mx.eval(module.parameters())
