"""Reads the tensors and the quantization of a checkpoint in the published format.

The only place that calls `mx.load`, and only on a safetensors file whose header passed our own check. Nothing from
a folder is ever imported or executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_engine.files.folder_files import opened
from mlx_engine.files.quantization import (
    Packing,
    bare_path,
    contradicts,
    foreign_method,
    layer_settings,
    packing_of,
    refused_method,
)
from mlx_engine.files.safetensors_header import read_header
from mlx_engine.files.stored_dtypes import check_stored
from mlx_engine.files.weight_files import weight_files
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.out_of_memory import is_from_device

QUANTIZATION_GROUP = 64
"""The group size of published MLX conversions."""
READ_AT_ONCE_BYTES = 256 << 20
"""Progress is reported after this much: every few tenths of a second from a fast disk."""
FLOATS = (mx.float32, mx.float16, mx.bfloat16)

NO_CONFIG: Mapping[str, Any] = MappingProxyType({})

OnRead = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


def load_weights(folder: Path, config: Mapping[str, Any] = NO_CONFIG) -> dict[str, mx.array]:
    """All tensors of a folder by name, not yet read from the disk. Raises ModelFolderError.

    config: names the method where another tool has quantized them.
    """
    weights: dict[str, mx.array] = {}
    for path in weight_files(folder):
        # MLX gets the very file that was checked, even if the name belongs to another file by then.
        with opened(path) as file:
            header = read_header(path, file)
            check_stored(header, config, path)
            repeated = header.keys() & weights.keys()
            if repeated:
                raise ModelFolderError(f"{path} repeats the tensor {min(repeated)!r} of another shard.")
            # On macOS this path is a duplicate of the descriptor, and shares its offset.
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            try:
                tensors = mx.load(f"/dev/fd/{file.fileno()}", format="safetensors")
            except (RuntimeError, ValueError) as error:
                if is_from_device(error):
                    raise
                raise ModelFolderError(f"{path} cannot be loaded ({error}). Pull the model again.") from None
        assert isinstance(tensors, dict)
        weights.update(tensors)
    return weights


def fill_module(
    module: nn.Module,
    weights: Mapping[str, mx.array],
    config: Mapping[str, Any],
    folder: Path,
    on_read: OnRead = lambda size_bytes: None,
) -> None:
    """Fill `module` with the tensors of a checkpoint, after quantizing the layers that were stored quantized.

    Raises ModelFolderError naming a tensor that is missing, left over, or of the wrong shape or dtype.
    """
    _quantize_like(module, weights, config, folder)
    expected = dict(tree_flatten(module.parameters()))
    missing = sorted(expected.keys() - weights.keys())
    extra = sorted(weights.keys() - expected.keys())
    if missing or extra:
        if method := foreign_method(config):
            raise refused_method(folder, method, (missing or extra)[0])
        name, what = (missing[0], "is missing") if missing else (extra[0], "does not belong to the model")
        raise ModelFolderError(
            f"{folder}: tensor {name!r} {what} ({len(missing)} missing, {len(extra)} left over). "
            "The weights do not fit config.json: pull the model again."
        )
    for name, array in expected.items():
        stored = weights[name]
        if stored.shape != array.shape:
            raise ModelFolderError(
                f"{folder}: tensor {name!r} has shape {stored.shape}, but config.json says {array.shape}. "
                "Pull the model again."
            )
        if stored.dtype not in (FLOATS if array.dtype in FLOATS else (array.dtype,)):
            raise ModelFolderError(
                f"{folder}: tensor {name!r} is {stored.dtype}, but {array.dtype} is expected. "
                "Pull the model again."
            )
    module.load_weights(list(weights.items()))
    module.eval()
    try:
        _read(list(weights.values()), on_read)
        mx.eval(module.parameters())
    except RuntimeError as error:
        if is_from_device(error):
            raise
        raise ModelFolderError(
            f"{folder}: its weights could not be read into memory ({error}). "
            "Pull the model again if its files have changed, or use a smaller variant."
        ) from None


def _read(arrays: list[mx.array], on_read: OnRead) -> None:
    """Read from the disk, part by part."""
    part: list[mx.array] = []
    for array in arrays:
        part.append(array)
        if (size_bytes := sum(read.nbytes for read in part)) >= READ_AT_ONCE_BYTES or array is arrays[-1]:
            mx.eval(part)
            on_read(size_bytes)
            part = []


def quantize(module: nn.Module, bits: int, kept: Collection[str] = ()) -> None:
    """Quantize a loaded module in groups of 64, except submodules whose paths start with one of `kept`."""

    def predicate(path: str, layer: nn.Module) -> bool:
        if not hasattr(layer, "to_quantized") or path.startswith(tuple(kept)):
            return False
        return layer.weight.shape[-1] % QUANTIZATION_GROUP == 0

    nn.quantize(module, group_size=QUANTIZATION_GROUP, bits=bits, class_predicate=predicate)
    mx.eval(module.parameters())


def _quantize_like(
    module: nn.Module, weights: Mapping[str, mx.array], config: Mapping[str, Any], folder: Path
) -> None:
    """Make each layer that has scales a quantized layer of the same bits, group size and mode."""
    if not any(name.endswith(".scales") for name in weights):
        return
    stated = layer_settings(config)

    def predicate(path: str, layer: nn.Module) -> bool | dict[str, Any]:
        if not {f"{path}.scales", f"{path}.weight"} <= weights.keys() or not hasattr(layer, "to_quantized"):
            return False
        packing = _packing(layer.weight.shape[-1], weights[f"{path}.weight"], weights[f"{path}.scales"])
        if packing is None:
            raise refused_method(folder, foreign_method(config), f"{path}.scales")
        settings = stated.get(bare_path(path))
        if settings and all(contradicts(own, packing) for own in settings):
            raise ModelFolderError(
                f"{folder}: {path} has {packing.bits} bits in groups of {packing.group_size} ({packing.mode}), "
                "but config.json says otherwise. The folder mixes two models: pull the model again."
            )
        has_tensor_scales = f"{path}.global_scale" in weights
        return asdict(packing) | ({"global_scale": True} if has_tensor_scales else {})

    try:
        nn.quantize(module, class_predicate=predicate)
    except (ValueError, TypeError) as error:
        raise ModelFolderError(f"{folder}: its quantization cannot be read ({error}).") from None


def _packing(width: int, weight: mx.array, scales: mx.array) -> Packing | None:
    """The quantization of a layer with `width` inputs; None if its tensors are not MLX's."""
    if weight.dtype != mx.uint32 or not weight.ndim or not scales.ndim:
        return None
    return packing_of(width, weight.shape[-1], scales.shape[-1], scales.dtype == mx.uint8)
