"""mlx-lm's Gemma 4 layers, each attention run apart from what lies between it and the next.

Only an attention's shapes grow with the context. What lies between two of them, from one layer's output
projection to the next one's queries, keys and values, depends on the number of rows alone, so it can be compiled:
traced once per number of rows, and from then on one call that fuses what goes element by element. A round of
drafting has the host put together a pass while the device has little to do; that is the time this saves.

The arithmetic is mlx-lm's, operation for operation; test_layer_stack.py holds both to the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.network.kv_cache import Mask, Rows
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH

# Past 1,024 keys MLX's Metal backend has a kernel of its own for one row at head size 512. M1's GPUs may refuse as
# many threads as it asks for (ml-explore/mlx#3885), which ends the process in the middle of a long chat; and it
# rounds otherwise than what several rows go through, so that drafted and plain replies would part more often.
os.environ.setdefault("MLX_SDPA_D512_MIN_KL", str(1 << 30))

MOST_COMPILED_ROWS = 1 + MAX_DRAFT_LENGTH
"""As many as a round has. The chunks of a prompt are of all lengths, and long enough to hide the host's work."""

See = Callable[[int, Rows | None], tuple[Rows, Mask]]
"""What the queries of a layer, by its index, may attend to; given its own new rows, if it makes any."""

Attended = tuple[mx.array, mx.array | None, mx.array]
"""What the rest of a layer begins with: what its attention gave, its per-layer input, and its scalar."""
Stretch = Callable[[mx.array, mx.array, Attended | None], tuple[mx.array, ...]]


class LayerStack:
    """A model's decoder layers, in order."""

    def __init__(self, layers: Sequence[Any], is_compiled: bool = False) -> None:
        """layers: of mlx-lm's class `DecoderLayer`; compiled ones must not change their weights any more."""
        self._layers = list(layers)
        self.is_compiled = is_compiled
        self._compiled: dict[int, Stretch] = {}

    def __len__(self) -> int:
        return len(self._layers)

    def __call__(
        self,
        x: mx.array,
        position: int | mx.array,
        see: See,
        inputs: Sequence[mx.array | None],
        alone_from: int | None = None,
    ) -> mx.array:
        """Run rows (1, L, hidden) through the layers; the same shape comes back.

        position: of the first row; inputs: per layer, (1, L, size) where the model has per-layer embeddings.
        alone_from: from the attention of this layer on only the last row is wanted, and (1, 1, hidden) comes back.
        """
        position = mx.array(position)
        is_compiled = self.is_compiled and alone_from is None and x.shape[1] <= MOST_COMPILED_ROWS
        between = self._compiled_stretch if is_compiled else self._stretch
        x, *made = between(0)(x, position, None)
        for index, layer in enumerate(self._layers):
            queries, *own = made
            (keys, values), mask = see(index, (own[0], own[1]) if own else None)
            if index == alone_from:
                position = position + (x.shape[1] - 1)
                x, queries = x[:, -1:], queries[:, :, -1:]
                inputs = [None if each is None else each[:, -1:] for each in inputs]
            rows = mx.fast.scaled_dot_product_attention(
                queries, keys, values, scale=layer.self_attn.scale, mask=mask
            )
            x, *made = between(index + 1)(x, position, (rows, inputs[index], layer.layer_scalar))
        return x

    def _stretch(self, index: int) -> Stretch:
        """What lies between the attentions of layer index - 1 and layer index."""
        before = self._layers[index - 1] if index else None
        after = self._layers[index] if index < len(self._layers) else None

        def stretch(x: mx.array, position: mx.array, attended: Attended | None) -> tuple[mx.array, ...]:
            if attended is not None:
                x = _after_attention(before, x, attended)
            return (x, *(_before_attention(after, x, position) if after is not None else ()))

        return stretch

    def _compiled_stretch(self, index: int) -> Stretch:
        if index not in self._compiled:
            self._compiled[index] = mx.compile(self._stretch(index))
        return self._compiled[index]


def _before_attention(layer: Any, x: mx.array, position: mx.array) -> tuple[mx.array, ...]:
    """Queries (1, heads, L, head_dim), rotated; keys and values as well, of a layer that makes its own."""
    attention = layer.self_attn
    x = layer.input_layernorm(x)

    def heads(projected: mx.array, count: int) -> mx.array:
        return projected.reshape(*x.shape[:-1], count, attention.head_dim)

    def first(rows: mx.array) -> mx.array:
        return rows.transpose(0, 2, 1, 3)

    queries = first(attention.q_norm(heads(attention.q_proj(x), attention.n_heads)))
    queries = attention.rope(queries, offset=position)
    if not attention.has_kv:
        return (queries,)
    keys = heads(attention.k_proj(x), attention.n_kv_heads)
    values = keys if attention.use_k_eq_v else heads(attention.v_proj(x), attention.n_kv_heads)
    keys = attention.rope(first(attention.k_norm(keys)), offset=position)
    return queries, keys, first(attention.v_norm(values))


def _after_attention(layer: Any, x: mx.array, attended: Attended) -> mx.array:
    """The rest of a layer: rows (1, L, hidden)."""
    # The scalar is handed over: as a constant it would be written into the source of a kernel, and each layer
    # would have to wait for a kernel of its own.
    rows, per_layer_input, scalar = attended
    rows = rows.transpose(0, 2, 1, 3).reshape(*x.shape[:-1], -1)
    x = x + layer.post_attention_layernorm(layer.self_attn.o_proj(rows))
    x = x + layer.post_feedforward_layernorm(_feed_forward(layer, x))
    if per_layer_input is not None:
        gate = nn.gelu_approx(layer.per_layer_input_gate(x)) * per_layer_input
        x = x + layer.post_per_layer_input_norm(layer.per_layer_projection(gate))
    return x * scalar


def _feed_forward(layer: Any, x: mx.array) -> mx.array:
    own: mx.array = layer.mlp(layer.pre_feedforward_layernorm(x))
    if not layer.enable_moe:
        return own
    experts = layer.experts(layer.pre_feedforward_layernorm_2(x), *layer.router(x))
    return layer.post_feedforward_layernorm_1(own) + layer.post_feedforward_layernorm_2(experts)
