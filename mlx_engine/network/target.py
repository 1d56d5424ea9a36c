"""The Gemma 4 target: mlx-lm's own model classes, seen as the loop needs them.

Loads all text variants (E2B, E4B, 12B unified, 26B-A4B, 31B), in full precision or MLX-quantized, from
a local folder in the published format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx

from mlx_engine.files.config_file import read_config, target_text_config
from mlx_engine.network import checkpoint
from mlx_engine.network.kv_cache import FullCache, LayerCache, Mask, Rows, SlidingCache, TargetCache
from mlx_engine.network.layer_stack import LayerStack
from mlx_engine.network.mlx_lm_gemma4 import gemma4, gemma4_text
from mlx_engine.protocol.errors import ModelFolderError

SLIDING = "sliding_attention"
MODEL_TYPES = ("gemma4", "gemma4_unified", "gemma4_text")


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What a drafter and a front end need to know of a target."""

    hidden_size: int
    vocab_size: int
    context_tokens: int
    sliding_window: int
    kv_geometry: dict[str, tuple[int, int]]
    """Layer type -> (K/V heads, head size) of the last layer of that type that owns a cache."""


class Target(Protocol):
    """What the loop asks of a target. Token arrays are (1, L) int32."""

    facts: TargetFacts

    def new_cache(self) -> TargetCache:
        """An empty cache for one conversation."""
        ...

    def forward(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        """Read tokens (1, L) after what `cache` holds; hidden states (1, L, hidden) after the final norm."""
        ...

    def read(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        """As `forward`, for when only the last row's hidden state (1, 1, hidden) is wanted."""
        ...

    def logits(self, hidden: mx.array) -> mx.array:
        """Scores (L, vocab) of what follows each row of hidden states (1, L, hidden)."""
        ...

    def embed(self, tokens: mx.array) -> mx.array:
        """Embeddings (1, L, hidden) as the model's own first layer gets them: scaled by sqrt(hidden)."""
        ...


class Gemma4Target:
    """A `Target` over mlx-lm's Gemma 4 text model."""

    def __init__(self, model: gemma4_text.Model, is_compiled: bool = False) -> None:
        self._model = model
        self._layers = LayerStack(model.layers, is_compiled)
        args = model.args
        owning = model.layers[: args.num_hidden_layers - args.num_kv_shared_layers]
        self._owned_types = [layer.layer_type for layer in owning]
        self._last_of_type = {kind: index for index, kind in enumerate(self._owned_types)}
        self.facts = TargetFacts(
            hidden_size=args.hidden_size,
            vocab_size=args.vocab_size,
            context_tokens=args.max_position_embeddings,
            sliding_window=args.sliding_window,
            kv_geometry={
                kind: (owning[index].self_attn.n_kv_heads, owning[index].self_attn.head_dim)
                for kind, index in self._last_of_type.items()
            },
        )

    def new_cache(self) -> TargetCache:
        """See Target."""
        layers: list[LayerCache] = [
            FullCache() if kind == "full_attention" else SlidingCache(self.facts.sliding_window)
            for kind in self._owned_types
        ]
        return TargetCache(layers, self._last_of_type)

    def forward(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        """See Target."""
        x = self.embed(tokens)
        inputs = self._per_layer_inputs(tokens, x)
        sight = _Sight(self._model.model.layers, cache, tokens.shape[1])
        return self._model.model.norm(self._layers(x, cache.frontier, sight, inputs))

    def read(self, tokens: mx.array, cache: TargetCache) -> mx.array:
        """See Target.

        From the attention of the last layer that owns a cache on, a row leaves nothing behind but its hidden
        state, so the last row alone goes there: that is more than half of E2B's work, and 4 layers in 10 of E4B's.
        """
        x = self.embed(tokens)
        inputs = self._per_layer_inputs(tokens, x)
        alone_from = len(self._owned_types) - 1
        sight = _Sight(self._model.model.layers, cache, tokens.shape[1], (alone_from, self.facts.sliding_window))
        return self._model.model.norm(self._layers(x, cache.frontier, sight, inputs, alone_from))

    def _per_layer_inputs(self, tokens: mx.array, embedded: mx.array) -> list[mx.array | None]:
        """What each layer of a model with per-layer embeddings gets besides, (1, L, size)."""
        body = self._model.model
        if not body.hidden_size_per_layer_input:
            return [None] * len(body.layers)
        projected = body._project_per_layer_inputs(embedded, body._get_per_layer_inputs(tokens))
        return [projected[:, :, index] for index in range(len(body.layers))]

    def logits(self, hidden: mx.array) -> mx.array:
        """See Target."""
        if self._model.tie_word_embeddings:
            scores = self._model.model.embed_tokens.as_linear(hidden)
        else:
            scores = self._model.lm_head(hidden)
        if self._model.final_logit_softcapping is not None:
            scores = gemma4_text.logit_softcap(self._model.final_logit_softcapping, scores)
        return scores[0]

    def embed(self, tokens: mx.array) -> mx.array:
        """See Target."""
        body = self._model.model
        return body.embed_tokens(tokens) * body.embed_scale

    @property
    def is_compiled(self) -> bool:
        """Whether what lies between attentions is."""
        return self._layers.is_compiled

    @property
    def dtype_name(self) -> str:
        """Precision in words: `float32`, `bfloat16`, or `4-bit`."""
        table = self._model.model.embed_tokens
        bits = getattr(table, "bits", None)
        return f"{bits}-bit" if bits else str(table.weight.dtype).removeprefix("mlx.core.")


class _Sight:
    """What each layer attends to while `rows` rows are appended: its own cache, or that of an earlier layer."""

    def __init__(
        self, layers: list[Any], cache: TargetCache, rows: int, alone: tuple[int, int] | None = None
    ) -> None:
        """alone: the layer from which on there is only the last row, and how far it sees in sliding layers."""
        self._types = [layer.layer_type for layer in layers]
        self._cache = cache
        self._alone = alone
        self._masks: dict[str, Mask] = {
            kind: layer.make_mask(rows) for kind, layer in zip(self._types, cache.layers)
        }
        self._last: dict[str, Rows] = {}

    def __call__(self, index: int, own: Rows | None) -> tuple[Rows, Mask]:
        kind = self._types[index]
        if own is not None:
            self._last[kind] = self._cache.layers[index].update_and_fetch(*own)
        if self._alone and index == self._alone[0]:
            self._narrow(self._alone[1])
        return self._last[kind], self._masks[kind]

    def _narrow(self, window: int) -> None:
        """The last row sees all but what its window has left behind."""
        self._masks = dict.fromkeys(self._masks)
        if SLIDING in self._last:
            keys, values = self._last[SLIDING]
            self._last[SLIDING] = keys[..., -window:, :], values[..., -window:, :]


def load_target(
    folder: Path,
    bits: int | None = None,
    on_read: checkpoint.OnRead = lambda size_bytes: None,
    is_compiled: bool = False,
) -> Gemma4Target:
    """Load a Gemma 4 folder; `bits`: quantize its weights to so many. Raises ModelFolderError."""
    config = read_config(folder)
    model = build(config, folder)
    weights = checkpoint.load_weights(folder)
    if config["model_type"] == "gemma4_text":
        weights = {f"language_model.{name}": array for name, array in weights.items()}
    weights = model.sanitize(weights)
    if model.language_model.args.tie_word_embeddings:
        weights.pop("language_model.lm_head.weight", None)
    checkpoint.fill_module(model, weights, config, folder, on_read)
    if bits:
        checkpoint.quantize(model, bits)
    return Gemma4Target(model.language_model, is_compiled)


def build(config: dict[str, Any], folder: Path) -> gemma4.Model:
    """The network that a folder's config.json describes, without its weights. Raises ModelFolderError."""
    if config.get("model_type") not in MODEL_TYPES:
        raise ModelFolderError(
            f"{folder} is a {str(config.get('model_type'))[:40]!r} model; Slipstream runs Gemma 4 "
            f"({', '.join(MODEL_TYPES)}). Name the folder of a Gemma 4 target with --model."
        )
    source = folder / "config.json"
    text = target_text_config(config, source)
    try:
        return gemma4.Model(gemma4.ModelArgs(model_type="gemma4", text_config=text, vocab_size=text["vocab_size"]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise ModelFolderError(f"{source} does not describe a Gemma 4 text model ({error!r}).") from None
