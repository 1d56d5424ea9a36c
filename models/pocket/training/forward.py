"""Forward passes of the target as training needs them: whole batches, no rotating caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
from mlx_lm.models import gemma4
from mlx_lm.models.cache import KVCache

from models.pocket.training.fast_ops import softcap


@dataclass(frozen=True, slots=True)
class TargetView:
    """What an assistant can use of a target that has read `tokens` (rows, length)."""

    hidden: mx.array
    """(rows, length, hidden), after the final norm."""
    embedded: mx.array
    """(rows, length, hidden), scaled as the target's own first layer gets them."""
    shared_kv: dict[str, tuple[mx.array, mx.array]]
    """By layer type: keys and values of the last layer of that type that owns them, of all positions."""


def head_logits(model: gemma4.Model, hidden: mx.array) -> mx.array:
    """Logits over the vocabulary, for hidden states after the final norm."""
    text = model.language_model
    logits = text.model.embed_tokens.as_linear(hidden)
    return cast(mx.array, softcap(mx.array(text.final_logit_softcapping), logits))


def answer_logits(model: gemma4.Model, tokens: mx.array, rows: mx.array) -> mx.array:
    """Logits for the tokens after the positions `rows` of the flattened `tokens`."""
    hidden = model.language_model.model(tokens)
    return head_logits(model, hidden.reshape(-1, hidden.shape[-1])[rows])


def view_target(model: gemma4.Model, tokens: mx.array) -> TargetView:
    """Read `tokens` and return what the assistant may use."""
    body, args = model.language_model.model, model.language_model.args
    owned = args.num_hidden_layers - args.num_kv_shared_layers
    caches: list[Any] = [KVCache() for _ in range(owned)]
    hidden = body(tokens, cache=caches)
    shared_kv = {kind: cache.keys_and_values() for kind, cache in zip(args.layer_types or [], caches)}
    return TargetView(hidden, body.embed_tokens(tokens) * body.embed_scale, shared_kv)
