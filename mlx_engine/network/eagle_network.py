"""The network of EAGLE-3 (Li et al. 2025): a layer or two that continue the target's own hidden states.

A row reads the embedding of a token and a state. The state of a committed row is projected from the target's
tapped layers at the token before; that of a drafted row is what the network made of the row before it. The layers
keep keys and values of their own for all rows, and a row sees only those before it.

Layers are Llama's or Qwen3's (speculators) or Gemma 4's (DeepSpec), with the tensor names of their checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.network.kv_cache import SlidingCache
from mlx_engine.network.layer_stack import after_attention, keys_and_values
from mlx_engine.network.mlx_lm_gemma4 import gemma4_text
from mlx_engine.network.qwen3_layers import Qwen3Attention, SwiGLU, queries_of, sliding_mask
from mlx_engine.network.tapped_rows import MOST_ROWS, TappedRows

ROWS_AT_ONCE = 512
"""Of a prompt: the attention weights of these rows are in memory at once."""

Embed = Callable[[mx.array], mx.array]
"""Rows (1, L, hidden) for tokens (1, L)."""


class EagleLayer(nn.Module):
    """A layer of Llama or Qwen3. The first one reads embedding and state side by side."""

    def __init__(self, config: dict[str, Any], index: int, residual_is_normed: bool) -> None:
        super().__init__()
        hidden, eps = config["hidden_size"], config["rms_norm_eps"]
        types = config.get("layer_types") or ["full_attention"] * config["num_hidden_layers"]
        self.window = config["sliding_window"] if types[index] == "sliding_attention" else MOST_ROWS
        self.reads_embedding = index == 0
        self._residual_is_normed = residual_is_normed
        inputs = 2 * hidden if self.reads_embedding else hidden
        self.self_attn = Qwen3Attention(config, inputs, has_norms=config["model_type"] == "qwen3")
        self.mlp = SwiGLU(hidden, config["intermediate_size"], bool(config.get("mlp_bias", False)))
        self.input_layernorm = nn.RMSNorm(hidden, eps=eps)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps=eps)
        if self.reads_embedding:
            self.hidden_norm = nn.RMSNorm(hidden, eps=eps)

    def inputs(self, embedded: mx.array, state: mx.array) -> tuple[mx.array, mx.array]:
        """What the attention reads, and what is added to its output."""
        if not self.reads_embedding:
            return self.input_layernorm(state), state
        normed = self.hidden_norm(state)
        read = mx.concatenate([self.input_layernorm(embedded), normed], axis=-1)
        return read, normed if self._residual_is_normed else state

    def finish(self, residual: mx.array, attention: mx.array) -> mx.array:
        """The rest of the layer, from the output of the attention on."""
        rows = attention.transpose(0, 2, 1, 3).reshape(*residual.shape[:-1], -1)
        x = residual + self.self_attn.o_proj(rows)
        finished: mx.array = x + self.mlp(self.post_attention_layernorm(x))
        return finished


class Gemma4EagleLayer(gemma4_text.DecoderLayer):
    """A full layer of Gemma 4 that reads embedding and state side by side."""

    window = MOST_ROWS

    def __init__(self, args: Any, index: int) -> None:
        super().__init__(args, index)
        attention = self.self_attn
        for name in ("q_proj", "k_proj", "v_proj"):
            if name in attention:
                rows = attention[name].weight.shape[0]
                attention[name] = nn.Linear(2 * args.hidden_size, rows, bias=False)
        self.hidden_norm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)

    def inputs(self, embedded: mx.array, state: mx.array) -> tuple[mx.array, mx.array]:
        """See EagleLayer."""
        read = mx.concatenate([self.input_layernorm(embedded), self.hidden_norm(state)], axis=-1)
        return read, state

    def finish(self, residual: mx.array, attention: mx.array) -> mx.array:
        """See EagleLayer."""
        return after_attention(self, residual, (attention, None, self.layer_scalar))


class EagleNetwork(nn.Module):
    """The projection of the taps, the layers and the final norm; embedding and head belong to the drafter."""

    def __init__(self, layers: Sequence[Any], sizes: tuple[int, int, int], eps: float, norms: str = "") -> None:
        """sizes: number of taps, the target's hidden size, the drafter's. norms: of the taps, "each" or "all"."""
        super().__init__()
        taps, target_hidden, hidden = sizes
        self.fc = nn.Linear(taps * target_hidden, hidden, bias=False)
        self.layers = list(layers)
        self.norm = nn.RMSNorm(hidden, eps=eps)
        if norms == "each":
            self.fc_norm = [nn.RMSNorm(target_hidden, eps=eps) for _ in range(taps)]
        if norms == "all":
            self.input_norm = nn.RMSNorm(taps * target_hidden, eps=eps)

    def states(self, taps: mx.array) -> mx.array:
        """States (1, n, hidden) of tapped rows (1, n, taps * target's hidden)."""
        if "fc_norm" in self:
            parts = mx.split(taps, len(self.fc_norm), axis=-1)
            taps = mx.concatenate([norm(part) for norm, part in zip(self.fc_norm, parts)], axis=-1)
        if "input_norm" in self:
            taps = self.input_norm(taps)
        states: mx.array = self.fc(taps)
        return states

    def __call__(self, embedded: mx.array, state: mx.array, caches: Sequence[SlidingCache]) -> mx.array:
        """Append rows (1, L, hidden) to the caches; the last one's state (1, 1, hidden), before the final norm."""
        for layer, cache in zip(self.layers, caches):
            attention, position = layer.self_attn, cache.offset
            read, residual = layer.inputs(embedded, state)
            keys, values = cache.update_and_fetch(*keys_and_values(attention, read, position))
            if layer is self.layers[-1]:  # of the rows before, only keys and values are needed
                position, read, residual = position + read.shape[1] - 1, read[:, -1:], residual[:, -1:]
            rows = read.shape[1]
            is_whole = rows == 1 and keys.shape[2] <= layer.window
            attended = mx.fast.scaled_dot_product_attention(
                queries_of(attention, read, position),
                keys,
                values,
                scale=attention.scale,
                mask=None if is_whole else sliding_mask(keys.shape[2], rows, layer.window),
            )
            state = layer.finish(residual, attended)
        return state


class EagleContext:
    """The rows of one conversation: keys and values by layer, and the states that they were made from."""

    def __init__(self, network: EagleNetwork, embed: Embed) -> None:
        self._network = network
        self._embed = embed
        self._start_anew(0)

    def _start_anew(self, start: int) -> None:
        self.caches = [SlidingCache(MOST_ROWS, start) for _ in self._network.layers]
        self._states = SlidingCache(MOST_ROWS, start)
        """The projected taps, in a cache's form: (1, 1, n, hidden)."""
        self._start = start
        self._next_token: int | None = None
        """With which the last row was read: the one that follows it."""
        self._state: mx.array | None = None

    def copied(self) -> EagleContext:
        """See DrafterContext."""
        other = EagleContext(self._network, self._embed)
        other.caches, other._states = [cache.copy() for cache in self.caches], self._states.copy()
        other._start, other._next_token, other._state = self._start, self._next_token, self._state
        return other

    @property
    def nbytes(self) -> int:
        """See DrafterContext."""
        return sum(cache.nbytes for cache in (*self.caches, self._states))

    def follow(self, tapped: TappedRows, tokens: Sequence[int]) -> mx.array:
        """Drop what the target rolled back, and read the rows that it has read since.

        Returns the last row's state (1, 1, hidden), before the final norm. tokens: the conversation, ending in
        the token that the target has not read yet.
        """
        taken = tapped.take()
        reach = max(cache.oldest_frontier for cache in (*self.caches, self._states))
        can_return = self._start == reach <= taken.kept or reach < taken.kept
        pending = None if taken.rows is None else self._network.states(taken.rows)
        if taken.position != taken.kept or not can_return or taken.kept > self._states.offset:
            self._start_anew(taken.position)
        elif taken.kept < self._states.offset or tokens[taken.kept] != self._next_token:
            pending = self._returned_to(taken.kept, pending)
        if pending is not None:
            self._read(pending, tokens)
        assert self._state is not None, "the target has read a row"
        return self._state

    def _returned_to(self, frontier: int, pending: mx.array | None) -> mx.array | None:
        """Roll back to `frontier`; the rows to read from there.

        The token after the last row may be another one now, so that row is read again.
        """
        again = frontier - 1 if frontier > self._start else frontier
        for cache in (*self.caches, self._states):
            cache.rollback(cache.offset - frontier)
        if again == frontier:
            return pending
        last = self._states.view()[0][:, 0, -1:]
        for cache in (*self.caches, self._states):
            cache.rollback(1)
        return last if pending is None else mx.concatenate([last, pending], axis=1)

    def _read(self, states: mx.array, tokens: Sequence[int]) -> None:
        for begin in range(0, states.shape[1], ROWS_AT_ONCE):
            part = states[:, begin : begin + ROWS_AT_ONCE]
            position = self._states.offset
            following = tokens[position + 1 : position + 1 + part.shape[1]]
            embedded = self._embed(mx.array([following], dtype=mx.int32))
            self._state = self._network(embedded, part, self.caches)
            self._states.update_and_fetch(part[:, None], part[:, None, :, :1])
            self._next_token = following[-1]

    def forget(self, rows: int) -> None:
        """Drop the newest rows, which were drafted."""
        for cache in self.caches:
            cache.rollback(rows)
