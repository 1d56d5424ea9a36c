"""The Gemma 4 target: mlx-lm's own model classes with the interface that the loop needs.

Loads all text variants (E2B, E4B, 12B unified, 26B-A4B, 31B), in full precision or MLX-quantized, from a local
folder in the published format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

from mlx_engine.files.config_file import TARGET_TYPES, loaded_parts, read_config, target_text_config
from mlx_engine.files.tensor_names import target_names
from mlx_engine.network import checkpoint
from mlx_engine.network.kv_cache import FullCache, SlidingCache, TargetCache
from mlx_engine.network.layer_cache import LayerCache, Mask, Rows
from mlx_engine.network.layer_stack import LayerStack
from mlx_engine.network.mlx_lm_gemma4 import gemma4, gemma4_text
from mlx_engine.network.precision import convert_float16, convert_to_float32, has_float16
from mlx_engine.network.tapped_rows import EMBEDDING, TappedRows
from mlx_engine.protocol.errors import ModelFolderError

SLIDING = "sliding_attention"


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What drafters and front ends need to know about a target."""

    hidden_size: int
    vocab_size: int
    context_tokens: int
    sliding_window: int
    kv_geometry: dict[str, tuple[int, int]]
    """Layer type -> (K/V heads, head size) of the last layer of that type that owns a cache."""
    heads: int = 1
    is_moe: bool = False
    """Its layers have experts."""


class Target(Protocol):
    """The interface that the loop needs. Token arrays are (1, L) int32."""

    facts: TargetFacts

    def new_cache(self) -> TargetCache:
        """An empty cache for one conversation."""
        ...

    def forward(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        """Read tokens (1, L) after those in `cache`; hidden states (1, L, hidden) after the final norm."""
        ...

    def read(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        """The same as `forward`, but only the last row's hidden state (1, 1, hidden) is computed to the end."""
        ...

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits (L, vocab) of the token after each row of hidden states (1, L, hidden)."""
        ...

    def embed(self, tokens: mx.array) -> mx.array:
        """Embeddings (1, L, hidden) as the model's first layer receives them: scaled by sqrt(hidden)."""
        ...


class Gemma4Target:
    """A `Target` over mlx-lm's Gemma 4 text model."""

    def __init__(
        self, model: gemma4_text.Model, is_compiled: bool = False, is_float32: bool = False, added_bytes: int = 0
    ) -> None:
        """is_float32: it was converted to float32 where it was not, which took `added_bytes`."""
        self.is_float32, self.added_bytes = is_float32, added_bytes
        self._model = model
        self._layers = LayerStack(model.layers, is_compiled)
        args = model.args
        owning = model.layers[: args.num_hidden_layers - args.num_kv_shared_layers]
        self._layer_types = [layer.layer_type for layer in model.layers]
        self._owned_types = [layer.layer_type for layer in owning]
        self._last_of_type = {kind: index for index, kind in enumerate(self._owned_types)}
        self._taps: list[tuple[int, ...]] = []
        self.facts = TargetFacts(
            hidden_size=args.hidden_size,
            vocab_size=args.vocab_size,
            context_tokens=args.max_position_embeddings,
            sliding_window=args.sliding_window,
            kv_geometry={
                kind: (owning[index].self_attn.n_kv_heads, owning[index].self_attn.head_dim)
                for kind, index in self._last_of_type.items()
            },
            heads=args.num_attention_heads,
            is_moe=bool(args.enable_moe_block),
        )

    def new_cache(self) -> TargetCache:
        """See Target."""
        layers: list[LayerCache] = [
            FullCache() if kind == "full_attention" else SlidingCache(self.facts.sliding_window)
            for kind in self._owned_types
        ]
        return TargetCache(layers, self._last_of_type, [TappedRows(taps) for taps in self._taps])

    def tap(self, layers: Sequence[int]) -> int:
        """Keep the outputs of these layers in caches made from now on; returns their index in TargetCache.tapped.

        Drafters with the same taps have rows of their own, since they take them. layers: indices, EMBEDDING for
        the embedding. Raises IndexError if there is no such layer.
        """
        taps = tuple(layers)
        if not taps or not all(EMBEDDING <= layer < len(self._layers) for layer in taps):
            raise IndexError(f"layers {list(taps)} of {len(self._layers)}")
        self._taps.append(taps)
        return len(self._taps) - 1

    @property
    def tap_count(self) -> int:
        """How often `tap` was called: the next index."""
        return len(self._taps)

    def untap(self, index: int) -> None:
        """Keep nothing there in caches made from now on: its drafter is not used."""
        self._taps[index] = ()

    def forward(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        """See Target."""
        return self._run(tokens, cache, None)

    def read(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        """See Target.

        From the attention of the last layer with a cache of its own on, a row changes nothing but its own hidden
        state, so only the last row is computed there. That saves more than half of E2B's work, and 4 layers in 10
        of E4B's. A layer that is tapped, and those below it, are computed for all rows.
        """
        highest_tap = max((layer for tapped in cache.tapped for layer in tapped.layers), default=EMBEDDING)
        last_row_from = max(len(self._owned_types) - 1, highest_tap + 1)
        if last_row_from >= len(self._layers):
            return self._run(tokens, cache, None)[:, -1:]
        return self._run(tokens, cache, last_row_from)

    def _run(self, tokens: mx.array, cache: TargetCache, last_row_from: int | None) -> mx.array:
        x, position = self.embed(tokens), cache.frontier
        tapped = [rows for rows in cache.tapped if rows.layers]
        outputs = {EMBEDDING: x} if tapped else None
        inputs = self._per_layer_inputs(tokens, x)
        last_row = None if last_row_from is None else (last_row_from, self.facts.sliding_window)
        attended = _PassAttention(self._layer_types, cache, tokens.shape[1], last_row)
        x = self._layers(x, position, attended, inputs, last_row_from, outputs)
        for rows in tapped:
            assert outputs is not None
            rows.append(outputs, position)
        return self._model.model.norm(x)

    def _per_layer_inputs(self, tokens: mx.array, embedded: mx.array) -> list[mx.array | None]:
        """The additional input of each layer in a model with per-layer embeddings, (1, L, size)."""
        body = self._model.model
        if not body.hidden_size_per_layer_input:
            return [None] * len(body.layers)
        projected = body._project_per_layer_inputs(embedded, body._get_per_layer_inputs(tokens))
        return [projected[:, :, index] for index in range(len(body.layers))]

    def logits(self, hidden: mx.array) -> mx.array:
        """See Target."""
        logits = self.uncapped_logits(hidden)
        cap = self._model.final_logit_softcapping
        return logits if cap is None else gemma4_text.logit_softcap(cap, logits)

    def uncapped_logits(self, hidden: mx.array) -> mx.array:
        """The LM head alone: logits (L, vocab) before the softcap."""
        if self._model.tie_word_embeddings:
            logits = self._model.model.embed_tokens.as_linear(hidden)
        else:
            logits = self._model.lm_head(hidden)
        return logits[0]

    def embed(self, tokens: mx.array) -> mx.array:
        """See Target."""
        body = self._model.model
        return body.embed_tokens(tokens) * body.embed_scale

    def embedding_rows(self, tokens: mx.array) -> mx.array:
        """Rows of the embedding table (1, L, hidden), not scaled."""
        rows: mx.array = self._model.model.embed_tokens(tokens)
        return rows

    @property
    def layer_count(self) -> int:
        """Its layers, those that share K/V included."""
        return len(self._layers)

    @property
    def is_compiled(self) -> bool:
        """The segments between attentions are compiled."""
        return self._layers.is_compiled

    @property
    def has_float16(self) -> bool:
        """Something is computed in float16, in which Gemma's numbers may overflow."""
        return has_float16(self._model)

    def widen_float16(self) -> str:
        """Compute float16 parts in a wider dtype from now on; its name. Caches made before are of no more use."""
        dtype_name = convert_float16(self._model)
        self._layers = LayerStack(self._model.layers, self._layers.is_compiled)
        return dtype_name

    @property
    def owned_types(self) -> list[str]:
        """The types of the layers that own a cache."""
        return list(self._owned_types)

    @property
    def row_shapes(self) -> list[tuple[int, int]]:
        """(K/V heads, head size) of each layer that owns a cache."""
        owning = self._model.layers[: len(self._owned_types)]
        return [(layer.self_attn.n_kv_heads, layer.self_attn.head_dim) for layer in owning]

    @property
    def dtype(self) -> mx.Dtype:
        """Of the activations and the K/V cache."""
        dtype: mx.Dtype = self._model.model.norm.weight.dtype
        return dtype

    @property
    def item_bytes(self) -> int:
        """Size of one number in the activations and the K/V cache."""
        return int(self._model.model.norm.weight.dtype.size)

    @property
    def dtype_name(self) -> str:
        """Precision for people: `float32`, `bfloat16` or `4-bit`."""
        table = self._model.model.embed_tokens
        parts = (table, self._model.layers[0].mlp.up_proj)  # some conversions leave the table as it is
        bits = next((part.bits for part in parts if hasattr(part, "bits")), None)
        return f"{bits}-bit" if bits else str(table.weight.dtype).removeprefix("mlx.core.")


class _PassAttention:
    """What each layer attends to during one pass: the rows of its own cache, or those of an earlier layer."""

    def __init__(
        self, layer_types: list[str], cache: TargetCache, rows: int, last_row: tuple[int, int] | None = None
    ) -> None:
        """rows: how many the pass appends. last_row: the layer from which on only the last row is computed, and
        how many rows it attends to in sliding layers."""
        self._types = layer_types
        self._cache = cache
        self._rows = rows
        self._last_row = last_row
        self._masks: dict[str, Mask] = {}
        """By layer type: its layers are all at the same position, so they share one mask."""
        self._latest: dict[str, Rows] = {}
        """By layer type: the rows of the latest layer that appended its own."""

    def __call__(self, index: int, new_rows: Rows | None) -> tuple[Rows, Mask]:
        kind = self._types[index]
        if kind not in self._masks:  # before appending: a mask depends on how many rows there were
            self._masks[kind] = self._cache.layers[index].make_mask(self._rows)
        if new_rows is not None:
            self._latest[kind] = self._cache.layers[index].update_and_fetch(*new_rows)
        if self._last_row and index == self._last_row[0]:
            self._narrow(self._last_row[1])
        return self._latest[kind], self._masks[kind]

    def _narrow(self, window: int) -> None:
        """The last row attends to all rows within its window, without a mask."""
        self._masks = dict.fromkeys(self._types)
        if SLIDING in self._latest:
            keys, values = self._latest[SLIDING]
            self._latest[SLIDING] = keys[..., -window:, :], values[..., -window:, :]


def load_target(
    folder: Path,
    bits: int | None = None,
    on_read: checkpoint.OnRead = lambda size_bytes: None,
    is_compiled: bool = False,
    is_float32: bool = False,
) -> Gemma4Target:
    """Load a Gemma 4 folder. Raises ModelFolderError.

    bits: quantize its weights to this many. is_float32: convert what is stored in half precision.
    """
    config = read_config(folder)
    model = build(config, folder)
    weights = target_weights(model, config, folder)
    checkpoint.fill_module(model, weights, config, folder, on_read)
    if bits:
        checkpoint.quantize(model, bits)
    weights.clear()
    added_bytes = convert_to_float32(model) if is_float32 else 0
    return Gemma4Target(model.language_model, is_compiled, is_float32, added_bytes)


def target_weights(model: gemma4.Model, config: dict[str, Any], folder: Path) -> dict[str, mx.array]:
    """The tensors of a folder that belong to the network, under its names. Raises ModelFolderError."""
    weights = checkpoint.load_weights(folder, config)
    names = target_names(weights, loaded_parts(config, folder / "config.json"), folder)
    return model.sanitize({renamed: weights[name] for name, renamed in names.items()})


def build(config: dict[str, Any], folder: Path) -> gemma4.Model:
    """The network that a folder's config.json describes, without its weights. Raises ModelFolderError."""
    if config.get("model_type") not in TARGET_TYPES:
        raise ModelFolderError(
            f"{folder} is a {str(config.get('model_type'))[:40]!r} model; Slipstream runs Gemma 4 "
            f"({', '.join(TARGET_TYPES)}). Use --model with the folder of a Gemma 4 model."
        )
    source = folder / "config.json"
    text = target_text_config(config, source)
    try:
        return gemma4.Model(gemma4.ModelArgs(model_type="gemma4", text_config=text, vocab_size=text["vocab_size"]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise ModelFolderError(f"{source} does not describe a Gemma 4 text model ({error!r}).") from None
