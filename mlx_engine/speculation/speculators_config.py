"""Reads the config.json of drafters in speculators' packaging (vllm-project/speculators), as data.

Its layers are a whole config of their own inside (transformer_layer_config). It names layers by the state that
enters them, and may name code of its own (auto_map), which is never run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_engine.files.config_bounds import check_drafter_layers, check_network
from mlx_engine.protocol.errors import ModelFolderError, PairMismatchError

LAYER_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": False, "mlp_bias": False, "rms_norm_eps": 1e-6},
    "qwen3": {"attention_bias": False, "head_dim": 128, "rms_norm_eps": 1e-6},
}
"""By the kind of layer: what transformers takes where a key is absent."""
MOST_VOCABULARY = 1 << 24
MOST_LAYERS = 64


@dataclass(frozen=True, slots=True)
class SpeculatorsConfig:
    """What all kinds of this packaging say."""

    layer: dict[str, Any]
    """Of the layers, with the names of their model's own config."""
    taps: tuple[int, ...]
    """Whose outputs are tapped; -1 (EMBEDDING) for the embedding."""
    vocab_size: int
    draft_vocab_size: int


def kind_of(config: Mapping[str, Any]) -> str | None:
    """eagle3, dflash or dspark; None for another packaging."""
    kind = config.get("speculators_model_type")
    return kind if isinstance(kind, str) else None


def number(values: Mapping[str, Any], name: str, bounds: tuple[int, int], source: Path) -> int:
    """A whole number within bounds. Raises ModelFolderError naming the key."""
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not bounds[0] <= value <= bounds[1]:
        raise ModelFolderError(
            f"{source}: {name} is {shown(value)}; it must be a whole number from {bounds[0]} to {bounds[1]}. "
            "Pull the drafter again."
        )
    return value


def shown(value: object) -> str:
    """A value of anybody's file, as short as a sentence needs it."""
    return repr(value)[:80]


def read(config: Mapping[str, Any], taps_key: str, target_layers: int, source: Path) -> SpeculatorsConfig:
    """Raises ModelFolderError. taps_key: where this kind lists its layers."""
    layer = config.get("transformer_layer_config")
    if not isinstance(layer, Mapping):
        raise ModelFolderError(f"{source} has no transformer_layer_config. Pull the drafter again.")
    kind = str(layer.get("model_type", "qwen3"))
    if kind not in LAYER_DEFAULTS:
        raise ModelFolderError(
            f"{source}: the drafter's layers are {kind[:40]!r}; llama and qwen3 can be run. Use another drafter."
        )
    number(layer, "num_hidden_layers", (1, MOST_LAYERS), source)
    check_network(config, source)
    check_drafter_layers(layer, source)
    vocab_size = number(layer, "vocab_size", (1, MOST_VOCABULARY), source)
    own_vocabulary = {"draft_vocab_size": vocab_size} | dict(config)
    return SpeculatorsConfig(
        layer={**LAYER_DEFAULTS[kind], **layer, "model_type": kind, "rope_parameters": rope(layer, source)},
        taps=_taps(config.get(taps_key), taps_key, target_layers, source),
        vocab_size=vocab_size,
        draft_vocab_size=number(own_vocabulary, "draft_vocab_size", (1, vocab_size), source),
    )


def speculative_tokens(config: Mapping[str, Any]) -> object:
    """How many tokens one draft has, unchecked; None if the config does not say."""
    nested = config.get("speculators_config")
    methods = nested.get("proposal_methods") if isinstance(nested, Mapping) else None
    method = methods[0] if isinstance(methods, list) and methods else None
    return method.get("speculative_tokens") if isinstance(method, Mapping) else None


def check_target(facts: SpeculatorsConfig, target: tuple[int, int, int], names: tuple[str, str]) -> None:
    """Raises PairMismatchError with both numbers.

    target: its layers, hidden size and vocabulary. names: the drafter's, the target's.
    """
    layers, hidden_size, vocab_size = target
    compare(
        [
            ("layers", facts.layer.get("num_target_layers") or layers, layers),
            ("tokens in its vocabulary", facts.vocab_size, vocab_size),
            ("numbers per hidden state", facts.layer.get("hidden_size"), hidden_size),
        ],
        names,
    )
    if max(facts.taps) >= layers:
        raise PairMismatchError(
            f"The drafter {names[0]} reads the state that enters layer {max(facts.taps) + 1}; {names[1]} has "
            f"{layers}. Use the drafter of the same variant, or --drafter none."
        )


def compare(numbers: Sequence[tuple[str, object, object]], names: tuple[str, str]) -> None:
    """Raises PairMismatchError with both numbers where what a drafter was made for is not what the target has."""
    for what, expected, actual in numbers:
        if expected != actual:
            raise PairMismatchError(
                f"The drafter {names[0]} was made for a target with {expected} {what}; {names[1]} has {actual}. "
                "Use the drafter of the same variant, or --drafter none."
            )


def _taps(ids: object, key: str, target_layers: int, source: Path) -> tuple[int, ...]:
    """From the layers that a state enters to those that it leaves."""
    if ids is None:
        ids = [2, target_layers // 2, target_layers - 3]
    if not isinstance(ids, list) or not ids or not all(type(layer) is int and layer >= 0 for layer in ids):
        raise ModelFolderError(f"{source}: {key} is {shown(ids)}; it must be a list of layers.")
    return tuple(layer - 1 for layer in ids)


def rope(layer: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """The rotation of Qwen3's or Llama's layers; raises ModelFolderError for one that cannot be run.

    Nested by layer type, that of sliding layers is for all of them.
    """
    stored = layer.get("rope_scaling") or layer.get("rope_parameters") or {}
    nested = stored.get("sliding_attention", stored) if isinstance(stored, Mapping) else None
    if not isinstance(nested, Mapping):
        raise ModelFolderError(f"{source}: rope_parameters is {shown(stored)}; it must map names to numbers.")
    check_network(nested, source)
    method = nested.get("rope_type", nested.get("type", "default"))
    share = nested.get("partial_rotary_factor", layer.get("partial_rotary_factor", 1.0))
    if method != "default" or share not in (None, 1, 1.0):
        raise ModelFolderError(
            f"{source}: the rotation is {str(method)[:40]!r} on {share} of each head; only the default one on all "
            "of it can be run. Use another drafter."
        )
    return {"rope_theta": layer.get("rope_theta", 10_000.0), **nested}
