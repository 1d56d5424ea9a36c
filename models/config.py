"""What a config.json tells about a model: its kind, what it can be paired with, and what its memory depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from mlx_engine.files import config_file
from mlx_engine.files.config_bounds import FULL, SLIDING, out_of_range
from mlx_engine.files.config_file import ASSISTANT_TYPES, TARGET_TYPES
from mlx_engine.files.quantization import quantization_block
from mlx_engine.files.tensor_names import LoadedParts
from mlx_engine.protocol.errors import ModelFolderError, PairMismatchError
from models.drafter_config import MAX_NUMBER, drafter_layers, tap_count

Count = Annotated[int, msgspec.Meta(ge=0, lt=MAX_NUMBER)]


class LayerFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the K/V cache and the working space of a target depend on: tokens, heads, numbers per head."""

    full_layers: Count
    """Full-attention layers that own a cache; layers that share another's K/V are not counted."""
    sliding_layers: Count
    """Sliding layers that own a cache."""
    full_kv_heads: Count
    sliding_kv_heads: Count
    full_head_dim: Count
    sliding_head_dim: Count
    window: Count
    heads: Count
    hidden_size: Count
    intermediate_size: Count
    vocab_size: Count
    max_context: Count
    is_moe: bool = False
    """Its layers have experts."""


@dataclass(frozen=True, slots=True)
class Config:
    """The parts of a config.json that decide a model's kind and its partners."""

    model_type: str
    hidden_size: int
    """The target's width; for a drafter, the width of the target it was made for."""
    kv_geometry: tuple[tuple[str, int, int], ...]
    """(layer type, K/V heads, head size) for each type of the layers whose K/V is shared, sorted."""
    layers: LayerFacts
    parts: LoadedParts
    """Which tensors of its checkpoint are loaded."""
    bits: int | None
    is_drafter_packaging: bool = False
    """A block drafter or EAGLE-3, with K/V of its own."""
    taps: int = 0
    """How many of the target's layers such a drafter reads."""

    @property
    def is_drafter(self) -> bool:
        """Whether this only drafts for a target, instead of being a model to chat with."""
        return self.is_drafter_packaging or self.model_type in ASSISTANT_TYPES


def read_config(folder: Path) -> Config:
    """The facts in a folder's config.json. Raises ModelFolderError naming the key that is wrong."""
    return parse_config(config_file.read_config(folder), folder / "config.json")


def parse_config(config: dict[str, Any], source: Path) -> Config:
    """The facts in a config that is already read; `source` names it in errors. Raises ModelFolderError."""
    if config_file.is_drafter_packaging(config):
        return _drafter_config(config, source)
    model_type = config.get("model_type")
    if model_type not in (*TARGET_TYPES, *ASSISTANT_TYPES):
        raise ModelFolderError(
            f"{source} describes a {str(model_type)[:40]!r} model. Slipstream runs Gemma 4: "
            f"{', '.join(TARGET_TYPES)}, and their assistants."
        )
    config_file.refuse_code_keys(config, source)
    is_drafter = model_type in ASSISTANT_TYPES
    read_text = config_file.assistant_text_config if is_drafter else config_file.target_text_config
    text, parts = read_text(config, source), config_file.loaded_parts(config, source)
    values, owning = _Values(text, source), text["num_hidden_layers"] if is_drafter else parts.first_shared_layer
    kinds = values.layer_types()[:owning]
    return Config(
        model_type=model_type,
        hidden_size=(
            _Values(config, source).number("backbone_hidden_size") if is_drafter else text["hidden_size"]
        ),
        kv_geometry=values.kv_geometry(kinds),
        layers=values.layers(kinds),
        parts=parts,
        bits=_bits(config),
    )


def _drafter_config(config: dict[str, Any], source: Path) -> Config:
    """Of a block drafter or EAGLE-3."""
    config_file.refuse_code_keys(config, source)
    layers = msgspec.convert(drafter_layers(config, source), LayerFacts)
    return Config(
        model_type=str(config.get("speculators_model_type") or config["architectures"][0]),
        hidden_size=layers.hidden_size,
        kv_geometry=(),
        layers=layers,
        parts=config_file.loaded_parts(config, source),
        bits=_bits(config),
        is_drafter_packaging=True,
        taps=tap_count(config),
    )


def _bits(config: dict[str, Any]) -> int | None:
    settings = quantization_block(config)
    bits = settings.get("bits") if isinstance(settings, dict) else None
    return bits if type(bits) is int else None


class _Values:
    """Numbers of a config whose limits are checked, with the engine's defaults for those that are absent."""

    def __init__(self, values: Mapping[str, Any], source: Path) -> None:
        self._values = values
        self._source = source

    def number(self, key: str, default: int | None = None) -> int:
        value = self._values.get(key)
        value = default if value is None else value
        if value is None:
            raise out_of_range(self._source, key, None, "a whole number")
        return int(value)

    def layer_types(self) -> list[str]:
        kinds: list[str] | None = self._values.get("layer_types")
        if kinds is None:
            raise out_of_range(self._source, "layer_types", None, f"a list of {SLIDING} and {FULL}")
        return kinds

    def kv_heads(self, kind: str) -> int:
        heads = self.number("num_key_value_heads", 1)
        if kind == FULL and self._values.get("attention_k_eq_v"):
            return self.number("num_global_key_value_heads", heads)
        return heads

    def head_dim(self, kind: str) -> int:
        return self.number("global_head_dim", 512) if kind == FULL else self.number("head_dim", 256)

    def kv_geometry(self, kinds: list[str]) -> tuple[tuple[str, int, int], ...]:
        return tuple((kind, self.kv_heads(kind), self.head_dim(kind)) for kind in sorted(set(kinds)))

    def widest_mlp(self, owning_layers: int) -> int:
        """Layers without K/V of their own may be twice as wide; experts come on top."""
        width = self.number("intermediate_size")
        if self._values.get("use_double_wide_mlp", True) and owning_layers < self.number("num_hidden_layers"):
            width *= 2
        if self._values.get("enable_moe_block"):
            width += self.number("top_k_experts") * self.number("moe_intermediate_size")
        return width

    def layers(self, kinds: list[str]) -> LayerFacts:
        return LayerFacts(
            full_layers=kinds.count(FULL),
            sliding_layers=kinds.count(SLIDING),
            full_kv_heads=self.kv_heads(FULL),
            sliding_kv_heads=self.kv_heads(SLIDING),
            full_head_dim=self.head_dim(FULL),
            sliding_head_dim=self.head_dim(SLIDING),
            window=self.number("sliding_window", 512),
            heads=self.number("num_attention_heads", 8),
            hidden_size=self.number("hidden_size"),
            intermediate_size=self.widest_mlp(len(kinds)),
            vocab_size=self.number("vocab_size"),
            max_context=self.number("max_position_embeddings", 131072),
            is_moe=bool(self._values.get("enable_moe_block")),
        )


def check_match(target: Config, drafter: Config, names: tuple[str, str], advice: str) -> None:
    """Raises PairMismatchError, with both numbers, if the drafter was made for another target.

    `names`: the drafter's, the target's.
    """
    check_hidden_size(drafter.hidden_size, target, names, advice)
    numbers: list[tuple[str, object, object]] = []
    if drafter.layers.vocab_size < target.layers.vocab_size:  # more rows are padding
        numbers.append(("a vocabulary of", drafter.layers.vocab_size, target.layers.vocab_size))
    own = {kind: (heads, dim) for kind, heads, dim in target.kv_geometry}
    for kind, heads, dim in drafter.kv_geometry:
        geometry = f"{kind.replace('_', ' ')} K/V (heads, head size) of"
        numbers.append((geometry, (heads, dim), own.get(kind, "no such layers")))
    for what, expected, actual in numbers:
        if expected != actual:
            raise _mismatch(what, expected, actual, names, advice)


def check_hidden_size(expected: int, target: Config, names: tuple[str, str], advice: str) -> None:
    """The same for the one number that a catalog tells without the drafter's files."""
    if expected != target.hidden_size:
        raise _mismatch("a hidden size of", expected, target.hidden_size, names, advice)


def _mismatch(
    what: str, expected: object, actual: object, names: tuple[str, str], advice: str
) -> PairMismatchError:
    drafter_name, target_name = names
    return PairMismatchError(
        f"The drafter {drafter_name} was made for a target with {what} {expected}; "
        f"{target_name} has {actual}. {advice}"
    )
