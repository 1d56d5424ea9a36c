"""Parts of Qwen3 and Llama layers, with the tensor names of their checkpoints: drafters are made of them."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn


class Qwen3Attention(nn.Module):
    """Projections, norms and rotation; `keys_and_values` in layer_stack.py reads them. Llama has no norms."""

    def __init__(self, config: dict[str, Any], input_size: int, has_norms: bool = True) -> None:
        super().__init__()
        hidden, bias = config["hidden_size"], bool(config.get("attention_bias", False))
        self.n_heads, self.n_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config.get("head_dim") or hidden // self.n_heads
        self.scale = self.head_dim**-0.5
        self.use_k_eq_v = False
        self.q_proj = nn.Linear(input_size, self.n_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(input_size, self.n_kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(input_size, self.n_kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, hidden, bias=bias)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=config["rms_norm_eps"]) if has_norms else nn.Identity()
        self.k_norm = nn.RMSNorm(self.head_dim, eps=config["rms_norm_eps"]) if has_norms else nn.Identity()
        self.rope = nn.RoPE(self.head_dim, traditional=False, base=_rope_theta(config))

    def v_norm(self, values: mx.array) -> mx.array:
        """Qwen3 has none."""
        return values


class SwiGLU(nn.Module):
    """The MLP."""

    def __init__(self, hidden: int, intermediate: int, has_bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=has_bias)
        self.up_proj = nn.Linear(hidden, intermediate, bias=has_bias)
        self.down_proj = nn.Linear(intermediate, hidden, bias=has_bias)

    def __call__(self, x: mx.array) -> mx.array:
        """Rows (1, L, hidden)."""
        rows: mx.array = self.down_proj(nn.silu(self.gate_proj(x)) * self.up_proj(x))
        return rows


def queries_of(attention: Any, x: mx.array, position: int) -> mx.array:
    """The queries (1, heads, L, head_dim), rotated, of rows (1, L, inputs), the first at `position`."""
    queries = attention.q_proj(x).reshape(*x.shape[:-1], attention.n_heads, attention.head_dim)
    rotated: mx.array = attention.rope(attention.q_norm(queries).transpose(0, 2, 1, 3), offset=position)
    return rotated


def sliding_mask(keys: int, rows: int, window: int) -> mx.array:
    """(rows, keys) bool: the last `rows` keys are the rows' own. By position, so that a row is never seen by
    another because of where it stands in a buffer."""
    queried = mx.arange(keys - rows, keys)[:, None]
    distance = queried - mx.arange(keys)[None]
    return (distance >= 0) & (distance < window)


def _rope_theta(config: dict[str, Any]) -> float:
    nested = config.get("rope_parameters") or {}
    return float(nested.get("rope_theta") or config.get("rope_theta") or 10_000.0)
