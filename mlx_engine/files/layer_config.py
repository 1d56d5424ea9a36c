"""Brings the two published forms of a text config into one.

Published checkpoints say with `global_head_dim` and `num_global_key_value_heads` how full-attention layers differ
from sliding ones. transformers 5.24 saves `per_layer_config` instead: an entry for each layer that differs from
the config's own `head_dim` and `num_key_value_heads`, under the layer's number as text, padded with zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_engine.files.config_bounds import FULL, WHOLE, out_of_range
from mlx_engine.protocol.errors import ModelFolderError

PER_LAYER = "per_layer_config"
GLOBAL_KEYS = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
"""What an entry may say, and the key of the published form that says it for all full-attention layers."""
DEFAULTS = {"head_dim": 256, "num_key_value_heads": 1}
"""Of the published model code, for a config without these keys."""


def in_published_form(text: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """A copy of a text config without `per_layer_config`.

    Raises ModelFolderError if the layers of one kind differ, or contradict the other keys.
    """
    published = dict(text)
    entries = published.pop(PER_LAYER, None)
    if entries is None:
        return published
    kinds = text.get("layer_types")
    if not isinstance(entries, Mapping):
        raise out_of_range(source, PER_LAYER, entries, "one object for each layer that differs")
    if not isinstance(kinds, list):
        raise out_of_range(source, "layer_types", kinds, f"a list, which {PER_LAYER} needs")
    by_layer = _by_layer(entries, text, len(kinds), source)
    for key, global_key in GLOBAL_KEYS.items():
        default = text.get(key)
        default = DEFAULTS[key] if default is None else default
        _check(default, key, key, source)
        values = [by_layer.get(layer, {}).get(key, default) for layer in range(len(kinds))]
        other = next((value for value, kind in zip(values, kinds) if kind != FULL and value != default), default)
        if other != default:
            raise _contradiction(source, key, f"a sliding layer has {other}, the others {default}")
        full = {value for value, kind in zip(values, kinds) if kind == FULL} or {default}
        if len(full) > 1:
            raise _contradiction(source, key, f"full-attention layers have {min(full)} and {max(full)}")
        value = full.pop()
        if text.get(global_key) not in (None, value):
            raise _contradiction(source, key, f"it says {value}, and {global_key} says {text[global_key]}")
        if key == "num_key_value_heads" and value != default and not text.get("attention_k_eq_v"):
            raise _contradiction(source, key, f"it says {value}, but attention_k_eq_v is not true")
        is_said = key == "head_dim" or value != default or text.get(global_key) is not None
        published[global_key] = value if is_said else None
    return published


def _by_layer(
    entries: Mapping[str, Any], text: Mapping[str, Any], count: int, source: Path
) -> dict[int, dict[str, int]]:
    """The entries by layer number, with nothing in them but numbers within the limits.

    null is as good as nothing, and so is a key that repeats the config's own.
    """
    by_layer: dict[int, dict[str, int]] = {}
    for name, entry in entries.items():
        is_layer = name.isascii() and name.isdecimal() and len(name) <= 4 and int(name) < count
        if not is_layer or int(name) in by_layer:
            raise out_of_range(source, f"a key of {PER_LAYER}", name, f"a layer from 0 to {count - 1}, each once,")
        if not isinstance(entry, Mapping | None):
            raise out_of_range(source, f"{PER_LAYER} {name}", entry, "an object")
        said = {key: value for key, value in (entry or {}).items() if value is not None}
        for key, value in said.items():
            if key in GLOBAL_KEYS:
                _check(value, key, f"{PER_LAYER} {name} {key}", source)
            elif value != text.get(key):
                raise ModelFolderError(
                    f"{source}: layer {int(name)} has {str(key)[:40]} of its own in {PER_LAYER}. Slipstream runs "
                    f"Gemma 4 networks, whose layers differ only in {' and '.join(GLOBAL_KEYS)}. Use a checkpoint "
                    "of Gemma 4."
                )
        by_layer[int(name)] = {key: value for key, value in said.items() if key in GLOBAL_KEYS}
    return by_layer


def _check(value: Any, key: str, place: str, source: Path) -> None:
    least, most = WHOLE[key]
    if type(value) is not int or not least <= value <= most:
        raise out_of_range(source, place, value, f"a whole number from {least} to {most}")


def _contradiction(source: Path, key: str, what: str) -> ModelFolderError:
    return ModelFolderError(
        f"{source}: {PER_LAYER} contradicts itself or another key about {key}: {what}. Pull the model again."
    )
