"""Networks that draft a whole block of tokens in one pass: DFlash (Chen et al. 2026) and DSpark (DeepSpec).

A block is the last committed token followed by mask tokens. Every layer attends to the context, which is projected
from the outputs of some of the target's layers, and to the block itself. The context's keys and values are kept
from round to round; those of a block are dropped.

Layers are Gemma 4's (DeepSpec's packagings) or Qwen3's (z-lab's), with the tensor names of their checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.network.kv_cache import SlidingCache
from mlx_engine.network.layer_cache import Rows
from mlx_engine.network.layer_stack import after_attention, before_attention, keys_and_values
from mlx_engine.network.mlx_lm_gemma4 import gemma4_text
from mlx_engine.network.qwen3_layers import Qwen3Attention, SwiGLU, queries_of, sliding_mask
from mlx_engine.network.tapped_rows import MOST_ROWS, TappedRows

NO_SCALAR = mx.array(1.0)


class Gemma4BlockLayer(gemma4_text.DecoderLayer):
    """A full layer of Gemma 4: one projection for keys and values, partial rotation, four norms and a scalar."""

    window: int | None = None

    def mask(self, keys: int, rows: int) -> mx.array | None:
        """Of the block's rows, the last of `keys`, (rows, keys) bool; None if they see everything."""
        return None if self.window is None else sliding_mask(keys, rows, self.window)

    def project(self, x: mx.array, position: int) -> tuple[mx.array, mx.array, mx.array]:
        """Queries, keys and values of the block's rows (1, L, hidden)."""
        queries, keys, values = before_attention(self, x, mx.array(position))
        return queries, keys, values

    def context(self, rows: mx.array, position: int) -> Rows:
        """Keys and values of context rows (1, n, hidden)."""
        return keys_and_values(self.self_attn, rows, position)

    def finish(self, x: mx.array, attention: mx.array) -> mx.array:
        """The rest of the layer, from the output of the attention on."""
        return after_attention(self, x, (attention, None, self.layer_scalar))


class Qwen3BlockLayer(nn.Module):
    """A layer of Qwen3. A sliding one is causal inside the block and sees `window` positions, itself included."""

    def __init__(self, config: dict[str, Any], index: int) -> None:
        super().__init__()
        types = config.get("layer_types") or ["full_attention"] * config["num_hidden_layers"]
        self.window = config["sliding_window"] if types[index] == "sliding_attention" else None
        self.self_attn = Qwen3Attention(config, config["hidden_size"])
        self.mlp = SwiGLU(config["hidden_size"], config["intermediate_size"])
        self.input_layernorm = nn.RMSNorm(config["hidden_size"], eps=config["rms_norm_eps"])
        self.post_attention_layernorm = nn.RMSNorm(config["hidden_size"], eps=config["rms_norm_eps"])

    def mask(self, keys: int, rows: int) -> mx.array | None:
        """See Gemma4BlockLayer."""
        return None if self.window is None else sliding_mask(keys, rows, self.window)

    def project(self, x: mx.array, position: int) -> tuple[mx.array, mx.array, mx.array]:
        """See Gemma4BlockLayer."""
        attention, x = self.self_attn, self.input_layernorm(x)
        return (queries_of(attention, x, position), *keys_and_values(attention, x, position))

    def context(self, rows: mx.array, position: int) -> Rows:
        """See Gemma4BlockLayer."""
        return keys_and_values(self.self_attn, rows, position)

    def finish(self, x: mx.array, attention: mx.array) -> mx.array:
        """See Gemma4BlockLayer."""
        x = x + self.self_attn.o_proj(attention.transpose(0, 2, 1, 3).reshape(*x.shape[:-1], -1))
        rows: mx.array = x + self.mlp(self.post_attention_layernorm(x))
        return rows


class SpeculatorsBlockLayer(Qwen3BlockLayer):
    """A layer of speculators' packagings: in a sliding one the whole block sees the same rows of the context."""

    is_causal: bool
    """Inside the block of a sliding layer."""

    def __init__(self, config: dict[str, Any], index: int) -> None:
        super().__init__(config, index)
        self.is_causal = not config.get("sliding_window_non_causal")

    def mask(self, keys: int, rows: int) -> mx.array | None:
        """See Gemma4BlockLayer."""
        if self.window is None:
            return None
        columns, context = mx.arange(keys)[None], keys - rows
        is_context = (columns >= context - self.window) & (columns < context)
        last_seen = mx.arange(context, keys)[:, None] if self.is_causal else mx.full((rows, 1), keys)
        return is_context | ((columns >= context) & (columns <= last_seen))


class BlockNetwork(nn.Module):
    """Context projection, layers and final norm of a block drafter; embedding and heads belong to the drafter."""

    def __init__(self, layers: Sequence[Any], context_size: int, hidden_size: int, eps: float) -> None:
        """context_size: of the taps side by side."""
        super().__init__()
        self.fc = nn.Linear(context_size, hidden_size, bias=False)
        self.hidden_norm = nn.RMSNorm(hidden_size, eps=eps)
        self.layers = list(layers)
        self.norm = nn.RMSNorm(hidden_size, eps=eps)

    def __call__(self, x: mx.array, context: BlockContext) -> mx.array:
        """Hidden states (1, block, hidden) after the final norm, for embedded rows (1, block, hidden)."""
        for layer, cache in zip(self.layers, context.caches):
            position = cache.offset
            queries, keys, values = layer.project(x, position)
            keys, values = cache.update_and_fetch(keys, values)
            mask = layer.mask(keys.shape[2], x.shape[1])
            attention = mx.fast.scaled_dot_product_attention(
                queries, keys, values, scale=layer.self_attn.scale, mask=mask
            )
            x = layer.finish(x, attention)
            cache.rollback(x.shape[1])
        hidden: mx.array = self.norm(x)
        return hidden


class BlockContext:
    """The keys and values of one conversation's context, by layer: up to MOST_ROWS of the newest rows."""

    def __init__(self, network: BlockNetwork) -> None:
        self._network = network
        self.caches = self._new_caches(0)

    def _new_caches(self, start: int) -> list[SlidingCache]:
        return [SlidingCache(MOST_ROWS, start) for _ in self._network.layers]

    def copied(self) -> BlockContext:
        """See DrafterContext."""
        other = BlockContext(self._network)
        other.caches = [cache.copy() for cache in self.caches]
        return other

    @property
    def nbytes(self) -> int:
        """See DrafterContext."""
        return sum(cache.nbytes for cache in self.caches)

    def follow(self, tapped: TappedRows) -> None:
        """Drop what the target rolled back, and append the rows that it has read since."""
        taken = tapped.take()
        cache = self.caches[0]
        can_return = cache.oldest_frontier <= taken.kept <= cache.offset
        if taken.position != taken.kept or not can_return:
            self.caches = self._new_caches(taken.position)
        else:
            for cache in self.caches:
                cache.rollback(cache.offset - taken.kept)
        if taken.rows is None:
            return
        network = self._network
        rows = network.hidden_norm(network.fc(taken.rows))
        for layer, cache in zip(network.layers, self.caches):
            cache.update_and_fetch(*layer.context(rows, taken.position))
