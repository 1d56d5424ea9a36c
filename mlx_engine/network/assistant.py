"""The Gemma 4 multi-token-prediction assistant: a few layers that attend to the target's caches.

It has no keys and values of its own and keeps nothing between rounds. A step takes the target's embedding of the
last token and a hidden state, attends to the target's shared K/V, and gives a hidden state for its LM head and one
for its next step. All five published variants are this one network; those of E2B and E4B compute logits only for
the vocabulary clusters that their centroids select.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_engine.files.config_file import ASSISTANT_TYPES, assistant_text_config, loaded_parts, read_config
from mlx_engine.files.tensor_names import ORDERING, assistant_names, is_head
from mlx_engine.network import checkpoint
from mlx_engine.network.layer_cache import Mask, Rows
from mlx_engine.network.layer_stack import LayerStack
from mlx_engine.network.mlx_lm_gemma4 import gemma4_text
from mlx_engine.network.precision import convert_to_float32
from mlx_engine.protocol.errors import ModelFolderError

TABLE = "model.embed_tokens."
CENTROID_HEAD = ("masked_embedding", "model.embed_tokens")

SharedKV = dict[str, Rows]
"""By layer type: the target's own rows, never copied."""


@dataclass(frozen=True, slots=True)
class AssistantConfig:
    """The assistant's own keys; `text` describes its layers in the target's terms."""

    text: gemma4_text.ModelArgs
    backbone_hidden_size: int
    """Width of the target's hidden state and embedding."""
    use_ordered_embeddings: bool
    num_centroids: int
    centroid_top_k: int

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> AssistantConfig:
        """From a published config.json. Raises KeyError or TypeError for anything else."""
        text = dict(config["text_config"])
        # True of every assistant, but missing in some configs, where mlx-lm would assume E2B's values.
        text["num_kv_shared_layers"] = text["num_hidden_layers"]
        text |= {"use_double_wide_mlp": False, "hidden_size_per_layer_input": 0, "enable_moe_block": False}
        return cls(
            text=gemma4_text.ModelArgs.from_dict(text),
            backbone_hidden_size=int(config["backbone_hidden_size"]),
            use_ordered_embeddings=bool(config.get("use_ordered_embeddings", False)),
            num_centroids=int(config.get("num_centroids", 2048)),
            centroid_top_k=int(config.get("centroid_intermediate_top_k", 32)),
        )


class _Body(nn.Module):
    """The layers, named as in checkpoints (`model.*`)."""

    def __init__(self, args: gemma4_text.ModelArgs) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [gemma4_text.DecoderLayer(args, i) for i in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size, eps=args.rms_norm_eps)


class CentroidHead(nn.Module):
    """Selects the vocabulary clusters nearest to a hidden state; all other tokens get no logits.

    `token_ordering` lists the vocabulary cluster by cluster: cluster c consists of the `vocab / num_centroids`
    token ids from position `c * vocab / num_centroids` on.
    """

    def __init__(self, config: AssistantConfig) -> None:
        super().__init__()
        self.centroids = nn.Linear(config.text.hidden_size, config.num_centroids, bias=False)
        self.token_ordering = mx.arange(config.text.vocab_size, dtype=mx.int32)
        self._top_k = config.centroid_top_k

    def candidates(self, hidden: mx.array) -> mx.array:
        """Token ids of the selected clusters, (..., top_k * cluster size), for hidden states (..., hidden)."""
        similarity = self.centroids(hidden)
        nearest = mx.argpartition(similarity, kth=-self._top_k, axis=-1)[..., -self._top_k :]
        clusters = self.token_ordering.reshape(similarity.shape[-1], -1)
        return clusters[nearest].reshape(*hidden.shape[:-1], -1)


class Assistant(nn.Module):
    """One drafting network; see the module docstring."""

    def __init__(self, config: AssistantConfig, is_compiled: bool = False) -> None:
        super().__init__()
        hidden = config.text.hidden_size
        self.config = config
        self.vocab_size = config.text.vocab_size
        """Only tokens below this id are drafted: a target may have fewer rows than the assistant."""
        self.model = _Body(config.text)
        self._stack = LayerStack(self.model.layers, is_compiled)
        self.pre_projection = nn.Linear(2 * config.backbone_hidden_size, hidden, bias=False)
        self.post_projection = nn.Linear(hidden, config.backbone_hidden_size, bias=False)
        if config.use_ordered_embeddings:
            self.masked_embedding = CentroidHead(config)

    def __call__(
        self,
        embedding: mx.array,
        hidden: mx.array,
        shared_kv: SharedKV,
        position: int | mx.array,
        masks: dict[str, mx.array] | None = None,
    ) -> tuple[mx.array, mx.array]:
        """One step for L rows.

        embedding: scaled target embeddings (1, L, backbone). hidden: (1, L, backbone), the target's after its
        final norm, or the second result of the previous step. position: of the first row. Without masks every row
        attends to all keys. Returns (1, L, hidden) for the LM head and (1, L, backbone) for the next step.
        """
        types = [layer.layer_type for layer in self.model.layers]

        def keys_and_mask(index: int, new_rows: Rows | None) -> tuple[Rows, Mask]:
            return shared_kv[types[index]], masks[types[index]] if masks else None

        x = self.pre_projection(mx.concatenate([embedding, hidden], axis=-1))
        x = self.model.norm(self._stack(x, position, keys_and_mask, [None] * len(types)))
        return x, self.post_projection(x)

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits (1, L, vocab); -inf for tokens that the centroid head does not select."""
        if not self.config.use_ordered_embeddings:
            return self.model.embed_tokens.as_linear(hidden)[..., : self.vocab_size]
        ids, logits = self._candidate_logits(hidden)
        nowhere = mx.full((*hidden.shape[:-1], self.config.text.vocab_size), -mx.inf, dtype=logits.dtype)
        rows = mx.put_along_axis(nowhere, ids, logits, axis=-1)
        if not self._is_padded:
            return rows
        rows = rows[..., : self.vocab_size]
        return mx.where(mx.max(rows, axis=-1, keepdims=True) == -mx.inf, 0, rows)  # only padding was selected

    def argmax(self, hidden: mx.array) -> mx.array:
        """The token with the largest logit per row, (1, L), without logits for the whole vocabulary."""
        if not self.config.use_ordered_embeddings:
            return mx.argmax(self.logits(hidden), axis=-1)
        ids, logits = self._candidate_logits(hidden)
        if self._is_padded:
            logits = mx.where(ids < self.vocab_size, logits, -mx.inf)
        best = mx.argmax(logits, axis=-1, keepdims=True)
        token = mx.take_along_axis(ids, best, axis=-1).squeeze(-1)
        return mx.minimum(token, self.vocab_size - 1) if self._is_padded else token

    @property
    def _is_padded(self) -> bool:
        return self.vocab_size < self.config.text.vocab_size

    def _candidate_logits(self, hidden: mx.array) -> tuple[mx.array, mx.array]:
        ids = self.masked_embedding.candidates(hidden)
        # An embedding lookup, so that only these rows of a quantized table are unpacked.
        rows = self.model.embed_tokens(ids)
        return ids, (rows @ hidden[..., None]).squeeze(-1)


def load_assistant(
    folder: Path,
    bits: int | None = None,
    on_read: checkpoint.OnRead = lambda size_bytes: None,
    is_compiled: bool = False,
    is_float32: bool = False,
) -> Assistant:
    """Load a `gemma4_assistant` or `gemma4_unified_assistant` folder.

    bits: quantize its weights to this many. is_float32: convert what is stored in half precision.
    A centroid head is never quantized: it is a small part of a small drafter, and reads single rows of its table.
    Raises ModelFolderError.
    """
    config = read_config(folder)
    assistant = build(config, folder, is_compiled)
    weights = assistant_weights(config, folder)
    checkpoint.fill_module(assistant, weights, config, folder, on_read)
    if assistant.config.use_ordered_embeddings:
        _check_ordering(assistant, folder)
    if bits:
        has_centroids = assistant.config.use_ordered_embeddings
        checkpoint.quantize(assistant, bits, kept=CENTROID_HEAD if has_centroids else ())
    weights.clear()
    if is_float32:
        convert_to_float32(assistant)
    return assistant


def build(config: dict[str, Any], folder: Path, is_compiled: bool = False) -> Assistant:
    """The network that a folder's config.json describes, without its weights. Raises ModelFolderError."""
    if config.get("model_type") not in ASSISTANT_TYPES:
        raise ModelFolderError(
            f"{folder} is a {str(config.get('model_type'))[:40]!r} model, not a Gemma 4 assistant. "
            "Use a folder whose name ends in -assistant, or --drafter none."
        )
    source = folder / "config.json"
    try:
        parsed = AssistantConfig.from_dict(config | {"text_config": assistant_text_config(config, source)})
        if parsed.use_ordered_embeddings and (
            parsed.text.vocab_size % parsed.num_centroids or parsed.centroid_top_k > parsed.num_centroids
        ):
            raise ValueError(f"num_centroids {parsed.num_centroids} does not fit the other numbers")
        return Assistant(parsed, is_compiled)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise ModelFolderError(f"{source} does not describe an assistant ({error!r}).") from None


def assistant_weights(config: dict[str, Any], folder: Path) -> dict[str, mx.array]:
    """The tensors of a folder that belong to the network. Raises ModelFolderError."""
    parts = loaded_parts(config, folder / "config.json")
    stored = checkpoint.load_weights(folder, config)
    names = assistant_names(stored, parts, folder)
    weights = {renamed: stored[name] for name, renamed in names.items() if not is_head(name)}
    if not parts.is_tied:
        # The network uses its own table as a head only: what it reads, it gets as the target's embeddings.
        weights = {name: array for name, array in weights.items() if not name.startswith(TABLE)}
        heads = {name: stored[name] for name in names if is_head(name)}
        weights |= {f"{TABLE}{name.rpartition('.')[2]}": array for name, array in heads.items()}
    if ORDERING in weights:
        weights[ORDERING] = weights[ORDERING].astype(mx.int32)
    return weights


def _check_ordering(assistant: Assistant, folder: Path) -> None:
    """Looking up an id beyond the table would read memory that does not belong to it."""
    ids = assistant.masked_embedding.token_ordering
    if not mx.all((ids >= 0) & (ids < assistant.config.text.vocab_size)).item():
        raise ModelFolderError(
            f"{folder}: tensor {ORDERING!r} names tokens outside the vocabulary. Pull the model again."
        )
