"""Runs mlx-lm's Gemma 4 layers, with each attention separate from the segment between it and the next one.

Only the shapes of an attention grow with the context. A segment, from one layer's output projection to the next
layer's queries, keys and values, depends on the number of rows alone, so it can be compiled: it is traced once per
number of rows, and is then a single call with its elementwise operations fused. In a drafting round the device has
little to do while the host builds each pass; compiling saves that time.

The arithmetic is mlx-lm's, operation for operation; test_layer_stack.py compares both bit by bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.network import metal_settings
from mlx_engine.network.layer_cache import Mask, Rows
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH

metal_settings.choose_settings(os.environ, mx.device_info().get("architecture"))

MOST_COMPILED_ROWS = 1 + MAX_DRAFT_LENGTH
"""The most rows of a round. Chunks of a prompt have all lengths, and are long enough to hide the host's work."""

KeysAndMask = Callable[[int, Rows | None], tuple[Rows, Mask]]
"""What a layer attends to: takes its index and its new keys and values, if it makes any."""

Attended = tuple[mx.array, mx.array | None, mx.array]
"""The input of the rest of a layer: the output of its attention, its per-layer input, and its scalar."""
Segment = Callable[[mx.array, mx.array, Attended | None], tuple[mx.array, ...]]


class LayerStack:
    """A model's decoder layers, in order."""

    def __init__(self, layers: Sequence[Any], is_compiled: bool = False) -> None:
        """layers: mlx-lm's `DecoderLayer`s. Once compiled, their weights must not change."""
        self._layers = list(layers)
        self.is_compiled = is_compiled
        self._compiled: dict[int, Segment] = {}

    def __len__(self) -> int:
        return len(self._layers)

    def __call__(
        self,
        x: mx.array,
        position: int | mx.array,
        keys_and_mask: KeysAndMask,
        inputs: Sequence[mx.array | None],
        last_row_from: int | None = None,
        outputs: dict[int, mx.array] | None = None,
    ) -> mx.array:
        """Run rows (1, L, hidden) through the layers; returns the same shape.

        position: of the first row. inputs: one per layer, (1, L, size) if the model has per-layer embeddings.
        last_row_from: from the attention of this layer on, only the last row is computed; returns (1, 1, hidden).
        outputs: filled with the output of each layer by its index, (1, L, hidden), for those who tap them.
        """
        position = mx.array(position)
        is_compiled = self.is_compiled and last_row_from is None and x.shape[1] <= MOST_COMPILED_ROWS
        segment = self._compiled_segment if is_compiled else self._segment
        x, *projections = segment(0)(x, position, None)
        for index, layer in enumerate(self._layers):
            queries, *new_rows = projections
            (keys, values), mask = keys_and_mask(index, (new_rows[0], new_rows[1]) if new_rows else None)
            if index == last_row_from:
                position = position + (x.shape[1] - 1)
                x, queries = x[:, -1:], queries[:, :, -1:]
                inputs = [None if rows is None else rows[:, -1:] for rows in inputs]
            attention = mx.fast.scaled_dot_product_attention(
                queries, keys, values, scale=layer.self_attn.scale, mask=mask
            )
            attended = (attention, inputs[index], layer.layer_scalar)
            x, *projections = segment(index + 1)(x, position, attended)
            if outputs is not None:
                outputs[index] = x
        return x

    def _segment(self, index: int) -> Segment:
        """From behind the attention of layer index - 1 up to the attention of layer index."""
        before = self._layers[index - 1] if index else None
        after = self._layers[index] if index < len(self._layers) else None

        def segment(x: mx.array, position: mx.array, attended: Attended | None) -> tuple[mx.array, ...]:
            if attended is not None:
                x = after_attention(before, x, attended)
            return (x, *(before_attention(after, x, position) if after is not None else ()))

        return segment

    def _compiled_segment(self, index: int) -> Segment:
        if index not in self._compiled:
            self._compiled[index] = mx.compile(self._segment(index))
        return self._compiled[index]


def before_attention(layer: Any, x: mx.array, position: mx.array) -> tuple[mx.array, ...]:
    """Queries (1, heads, L, head_dim), rotated; also keys and values if the layer makes its own."""
    attention = layer.self_attn
    x = layer.input_layernorm(x)
    queries = _heads_first(attention.q_norm(_split_heads(attention, attention.q_proj(x), attention.n_heads)))
    queries = attention.rope(queries, offset=position)
    return (queries, *keys_and_values(attention, x, position)) if attention.has_kv else (queries,)


def keys_and_values(attention: Any, x: mx.array, position: int | mx.array) -> Rows:
    """The keys, rotated, and values of rows (1, L, hidden), the first at `position`."""
    keys = _split_heads(attention, attention.k_proj(x), attention.n_kv_heads)
    values = keys
    if not attention.use_k_eq_v:
        values = _split_heads(attention, attention.v_proj(x), attention.n_kv_heads)
    keys = attention.rope(_heads_first(attention.k_norm(keys)), offset=position)
    return keys, _heads_first(attention.v_norm(values))


def _split_heads(attention: Any, projected: mx.array, count: int) -> mx.array:
    return projected.reshape(*projected.shape[:-1], count, attention.head_dim)


def _heads_first(rows: mx.array) -> mx.array:
    return rows.transpose(0, 2, 1, 3)


def after_attention(layer: Any, x: mx.array, attended: Attended) -> mx.array:
    """The rest of a layer: rows (1, L, hidden)."""
    # The scalar is an argument: as a constant it would become part of a compiled kernel's source, and every layer
    # would need a kernel of its own.
    rows, per_layer_input, scalar = attended
    rows = rows.transpose(0, 2, 1, 3).reshape(*x.shape[:-1], -1)
    x = x + layer.post_attention_layernorm(layer.self_attn.o_proj(rows))
    x = x + layer.post_feedforward_layernorm(_feed_forward(layer, x))
    if per_layer_input is not None:
        gate = nn.gelu_approx(layer.per_layer_input_gate(x)) * per_layer_input
        x = x + layer.post_per_layer_input_norm(layer.per_layer_projection(gate))
    return x * scalar


def _feed_forward(layer: Any, x: mx.array) -> mx.array:
    dense: mx.array = layer.mlp(layer.pre_feedforward_layernorm(x))
    if not layer.enable_moe:
        return dense
    experts = layer.experts(layer.pre_feedforward_layernorm_2(x), *layer.router(x))
    return layer.post_feedforward_layernorm_1(dense) + layer.post_feedforward_layernorm_2(experts)
