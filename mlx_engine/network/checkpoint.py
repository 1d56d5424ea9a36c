"""The tensors and the quantization of a checkpoint in the published format.

The only place that calls `mx.load`, and only on a safetensors file whose header passed our own check.
Nothing from a folder is ever imported or executed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_engine.files.config_bounds import check_quantization
from mlx_engine.files.folder_files import opened
from mlx_engine.files.safetensors_header import read_header
from mlx_engine.files.weight_files import weight_files
from mlx_engine.protocol.errors import ModelFolderError

QUANTIZATION_GROUP = 64
"""What published MLX conversions use."""
READ_AT_ONCE_BYTES = 256 << 20
"""So often progress is told: every few tenths of a second from a fast disk."""
FLOATS = (mx.float32, mx.float16, mx.bfloat16)

OnRead = Callable[[int], None]
"""Called with the bytes of weights that have been read since it was called last."""


def load_weights(folder: Path) -> dict[str, mx.array]:
    """All tensors of a folder by name, not yet read from the disk. Raises ModelFolderError."""
    weights: dict[str, mx.array] = {}
    for path in weight_files(folder):
        # MLX gets the very file that was checked, whatever has its name by then.
        with opened(path) as file:
            repeated = read_header(path, file).keys() & weights.keys()
            if repeated:
                raise ModelFolderError(f"{path} repeats the tensor {min(repeated)!r} of another shard.")
            # On macOS such a path is a duplicate of the descriptor, with one offset for both.
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            try:
                tensors = mx.load(f"/dev/fd/{file.fileno()}", format="safetensors")
            except (RuntimeError, ValueError) as error:
                raise ModelFolderError(f"{path} cannot be loaded ({error}). Download it again.") from None
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
    """Give `module` the tensors of a checkpoint, quantizing first the layers that were stored quantized.

    Raises ModelFolderError naming the tensor that is missing, left over, or of another shape or kind.
    """
    _quantize_like(module, weights, config, folder)
    expected = dict(tree_flatten(module.parameters()))
    missing = sorted(expected.keys() - weights.keys())
    extra = sorted(weights.keys() - expected.keys())
    if missing or extra:
        name, what = (missing[0], "is missing") if missing else (extra[0], "does not belong to the model")
        raise ModelFolderError(
            f"{folder}: tensor {name!r} {what} ({len(missing)} missing, {len(extra)} left over). "
            "The weights do not fit config.json: fetch the folder again."
        )
    for name, array in expected.items():
        found = weights[name]
        if found.shape != array.shape:
            raise ModelFolderError(
                f"{folder}: tensor {name!r} has shape {found.shape} where config.json says {array.shape}. "
                "Fetch the folder again."
            )
        if found.dtype not in (FLOATS if array.dtype in FLOATS else (array.dtype,)):
            raise ModelFolderError(
                f"{folder}: tensor {name!r} holds {found.dtype} where {array.dtype} is expected. "
                "Fetch the folder again."
            )
    module.load_weights(list(weights.items()))
    module.eval()
    try:
        _read(list(weights.values()), on_read)
        mx.eval(module.parameters())
    except RuntimeError as error:
        raise ModelFolderError(
            f"{folder}: its weights could not be read into memory ({error}). "
            "Fetch the folder again if it has changed, or use a smaller variant."
        ) from None


def _read(arrays: list[mx.array], on_read: OnRead) -> None:
    """Read from the disk, a part at a time."""
    part: list[mx.array] = []
    for array in arrays:
        part.append(array)
        if (size_bytes := sum(each.nbytes for each in part)) >= READ_AT_ONCE_BYTES or array is arrays[-1]:
            mx.eval(part)
            on_read(size_bytes)
            part = []


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
    check_quantization(settings, folder / "config.json")
    assert isinstance(settings, dict)

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
