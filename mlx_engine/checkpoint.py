"""Model folders as data: config, tensors and quantization of a checkpoint in the published format.

The only place that calls `mx.load`, and only on a safetensors file whose header passed `check_header`.
Nothing from a folder is ever imported or executed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_engine.errors import ModelFolderError

MAX_JSON_BYTES = 64 << 20
MAX_HEADER_BYTES = 64 << 20
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
MAX_DIMENSIONS = 8
CODE_KEYS = ("model_file", "auto_map")
QUANTIZATION_GROUP = 64
"""What published MLX conversions use."""


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; ModelFolderError if it is missing, huge, malformed or not an object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelFolderError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MB and was not read.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError(f"{path} is missing. Name a folder that holds a complete model download.") from None
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not valid JSON ({error}). Download it again.") from None
    if not isinstance(value, dict):
        raise ModelFolderError(f"{path} does not hold a JSON object. Download it again.")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises ModelFolderError if there is none, or if the folder wants code of its own to be run.
    """
    if not folder.is_dir():
        raise ModelFolderError(f"{folder} is not a folder. Name the folder that holds config.json.")
    config = read_json(folder / "config.json")
    wanted = [key for key in CODE_KEYS if key in config] + sorted(path.name for path in folder.glob("*.py"))
    if wanted:
        raise ModelFolderError(
            f"{folder} asks for code of its own to be run ({wanted[0]}); Slipstream never runs code "
            "from a model folder. Use a checkpoint that holds only data."
        )
    return config


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: `model.safetensors`, or exactly the shards its index names."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        single = folder / "model.safetensors"
        if not single.is_file():
            raise ModelFolderError(f"{single} is missing. The download is incomplete: fetch the folder again.")
        return [single]
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise ModelFolderError(f"{index} has no usable weight_map. Download it again.")
    shards = [folder / name for name in sorted(set(names.values()))]
    for shard in shards:
        if shard.parent != folder or shard.suffix != ".safetensors":
            raise ModelFolderError(f"{index} names {shard.name!r}, which is not a shard of this folder.")
        if not shard.is_file():
            raise ModelFolderError(f"{shard} is missing. The download is incomplete: fetch the folder again.")
    return shards


def check_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Check a safetensors header against its file; return {tensor: (dtype, shape)}.

    Every tensor must have a known dtype and a shape whose size is exactly its extent, and the extents
    must tile the data without gap or overlap up to the end of the file. Bounded in time and memory.
    Raises ModelFolderError.
    """

    def refuse(why: str) -> ModelFolderError:
        return ModelFolderError(f"{path} is damaged: {why}. Download it again.")

    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise refuse(f"its header claims {length} bytes in a file of {size}")
            header = json.loads(file.read(length), object_pairs_hook=_unique_keys)
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise refuse("its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise refuse("its header is not an object")
    header.pop("__metadata__", None)
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    extents: list[tuple[int, int]] = []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(entry) or (None, (), 0, 0)
        if dtype is None or end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
            raise refuse(f"tensor {name[:80]!r} has no consistent dtype, shape and extent")
        tensors[name] = (dtype, shape)
        extents.append((begin, end))
    frontier = 0
    for begin, end in sorted(extents):
        if begin != frontier:
            raise refuse("its tensors leave a gap or overlap")
        frontier = end
    if frontier != size - 8 - length:
        raise refuse(f"it holds {size - 8 - length} bytes of tensors where its header describes {frontier}")
    return tensors


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("duplicate key")
    return keys


def _entry(entry: Any) -> tuple[str, tuple[int, ...], int, int] | None:
    """(dtype, shape, begin, end) of one header entry, or None if it is not well formed."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in ITEM_BYTES:
        return None
    shape, offsets = _sizes(entry.get("shape"), 2**31), _sizes(entry.get("data_offsets"), 2**48)
    if shape is None or offsets is None or len(offsets) != 2 or len(shape) > MAX_DIMENSIONS:
        return None
    return entry["dtype"], shape, offsets[0], offsets[1]


def _sizes(numbers: Any, limit: int) -> tuple[int, ...] | None:
    if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < limit for n in numbers):
        return None
    return tuple(numbers)


def load_weights(folder: Path) -> dict[str, mx.array]:
    """All tensors of a folder by name, not yet evaluated. Raises ModelFolderError."""
    files = weight_files(folder)
    weights: dict[str, mx.array] = {}
    for path in files:
        names = check_header(path)
        repeated = names.keys() & weights.keys()
        if repeated:
            raise ModelFolderError(f"{path} repeats the tensor {min(repeated)!r} of another shard.")
        tensors = mx.load(str(path))
        assert isinstance(tensors, dict)
        weights.update(tensors)
    return weights


def fill_module(
    module: nn.Module, weights: Mapping[str, mx.array], config: Mapping[str, Any], folder: Path
) -> None:
    """Give `module` the tensors of a checkpoint, quantizing first the layers that were stored quantized.

    Raises ModelFolderError naming the tensor that is missing, left over or of another shape.
    """
    _quantize_like(module, weights, config, folder)
    expected = {name: array.shape for name, array in tree_flatten(module.parameters())}
    missing = sorted(expected.keys() - weights.keys())
    extra = sorted(weights.keys() - expected.keys())
    if missing or extra:
        name, what = (missing[0], "is missing") if missing else (extra[0], "does not belong to the model")
        raise ModelFolderError(
            f"{folder}: tensor {name!r} {what} ({len(missing)} missing, {len(extra)} left over). "
            "The weights do not fit config.json: fetch the folder again."
        )
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ModelFolderError(
                f"{folder}: tensor {name!r} has shape {weights[name].shape} where config.json says {shape}. "
                "Fetch the folder again."
            )
    module.load_weights(list(weights.items()))
    module.eval()
    mx.eval(module.parameters())


def quantize(module: nn.Module, bits: int, kept: Collection[str] = ()) -> None:
    """Quantize a loaded module in groups of 64, apart from the submodules whose paths begin with one of `kept`."""

    def predicate(path: str, layer: nn.Module) -> bool:
        if not hasattr(layer, "to_quantized") or path.startswith(tuple(kept)):
            return False
        return layer.weight.shape[-1] % QUANTIZATION_GROUP == 0

    nn.quantize(module, group_size=QUANTIZATION_GROUP, bits=bits, class_predicate=predicate)
    mx.eval(module.parameters())


def _quantize_like(
    module: nn.Module, weights: Mapping[str, mx.array], config: Mapping[str, Any], folder: Path
) -> None:
    settings = config.get("quantization") or config.get("quantization_config")
    if not any(name.endswith(".scales") for name in weights):
        return
    if not isinstance(settings, dict) or not {"group_size", "bits"} <= settings.keys():
        raise ModelFolderError(
            f"{folder} holds quantized tensors in a form that is not MLX's (config.json has no "
            "quantization with group_size and bits). Use an MLX conversion of the model."
        )

    def predicate(path: str, layer: nn.Module) -> bool | dict[str, Any]:
        if f"{path}.scales" not in weights or not hasattr(layer, "to_quantized"):
            return False
        own = settings.get(path)
        return own if isinstance(own, dict) else True

    try:
        nn.quantize(
            module,
            group_size=settings["group_size"],
            bits=settings["bits"],
            mode=settings.get("mode", "affine"),
            class_predicate=predicate,
        )
    except (ValueError, TypeError) as error:
        raise ModelFolderError(f"{folder}: its quantization cannot be read ({error}).") from None
