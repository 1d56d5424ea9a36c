"""The same checkpoint as different tools leave it: other config keys, other files, other names of tensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx

from tests.mlx_engine.helpers import load_tensors

Tensors = dict[str, mx.array]


def copied(source: Path, folder: Path, dirs_exist_ok: bool = False) -> Path:
    """A copy of a model folder that can be changed."""
    return Path(shutil.copytree(source, folder, dirs_exist_ok=dirs_exist_ok))


@contextmanager
def edited_config(folder: Path) -> Iterator[dict[str, Any]]:
    """The folder's config.json, to be changed in place."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    yield config
    path.write_text(json.dumps(config))


def reweighted(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """The folder, after its tensors were changed."""
    weights = change(load_tensors(folder / "model.safetensors"))
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


def resaved(text: dict[str, Any]) -> None:
    """Change a text config to the form in which transformers 5.24 saves it."""
    head_dim, heads = text.pop("global_head_dim"), text.pop("num_global_key_value_heads", None)
    entry = {"head_dim": head_dim} | ({"num_key_value_heads": heads} if heads and text["attention_k_eq_v"] else {})
    entry = {key: value for key, value in entry.items() if value != text[key]}
    layers = [layer for layer, kind in enumerate(text["layer_types"]) if kind == "full_attention"]
    digits = len(str(max(layers)))
    text["per_layer_config"] = {str(layer).zfill(digits): dict(entry) for layer in layers} if entry else {}


def sharded(folder: Path, count: int) -> dict[str, str]:
    """Split the folder's file into numbered shards without an index; the index that it would have."""
    weights = load_tensors(folder / "model.safetensors")
    mx.eval(weights)
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    index: dict[str, str] = {}
    for part in range(count):
        shard = f"model-{part + 1:05d}-of-{count:05d}.safetensors"
        own = names[part::count]
        mx.save_safetensors(str(folder / shard), {name: weights[name] for name in own})
        index |= dict.fromkeys(own, shard)
    return index


def write_index(folder: Path, index: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def text_only(folder: Path, model_type: str = "gemma4_text", prefix: str = "model.") -> None:
    """Make a target an export of its text model alone."""
    path = folder / "config.json"
    text = json.loads(path.read_text())["text_config"]
    path.write_text(json.dumps(text | {"model_type": model_type}))
    reweighted(folder, lambda weights: {
        name.replace("model.language_model.", prefix): array for name, array in weights.items()
    })  # fmt: skip
