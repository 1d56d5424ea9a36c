"""How a checkpoint is quantized: MLX's block in config.json, the shapes of the tensors, and the methods of others.

The shapes decide, since they are what is computed with. Tools write the settings of single layers under different
prefixes or not at all, so that they can only confirm the shapes, or contradict them. What is said of all layers
together need not be true of any: tools that mix several write an average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_engine.files.tensor_names import PREFIX
from mlx_engine.files.written_values import whole_number
from mlx_engine.protocol.errors import ModelFolderError

AFFINE_BITS = (1, 2, 3, 4, 5, 6, 8)
AFFINE_GROUP_SIZES = (32, 64, 128)
MODES_WITH_BYTE_SCALES = {(4, 16): "nvfp4", (4, 32): "mxfp4", (8, 32): "mxfp8"}
"""By bits and group size: each mode has exactly one of both."""
BLOCKS = ("quantization", "quantization_config", "compression_config")
"""Keys of config.json that hold settings: MLX's, any tool's, and those of older compressed-tensors."""
WORD_BITS = 32
"""Quantized weights are packed into words of this size."""


@dataclass(frozen=True, slots=True)
class Packing:
    """The quantization of one layer."""

    bits: int
    group_size: int
    mode: str


def quantization_block(config: Mapping[str, Any]) -> Any:
    """MLX's settings; `quantization_config` may be another tool's. None if there are none."""
    text = config.get("text_config")
    levels = [config, *([text] if isinstance(text, Mapping) else [])]
    blocks = [level.get(key) for key in BLOCKS[:2] for level in levels]
    return next((block for block in blocks if block), None)


def foreign_method(config: Mapping[str, Any]) -> str | None:
    """The `quant_method` of a config without MLX's own settings."""
    block = quantization_block(config) or config.get(BLOCKS[2])
    method = block.get("quant_method") if isinstance(block, Mapping) else None
    return method[:40] if isinstance(method, str) and method else None


def without_quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a config without the settings of any tool: left over, they would be taken for those of a copy."""
    plain = {key: value for key, value in config.items() if key not in BLOCKS}
    if isinstance(plain.get("text_config"), Mapping):
        plain["text_config"] = {key: value for key, value in plain["text_config"].items() if key not in BLOCKS}
    return plain


def packing_of(width: int, packed_width: int, groups: int, has_byte_scales: bool) -> Packing | None:
    """The quantization of a layer with `width` inputs, from the columns of its packed weight and of its scales.

    None if MLX has no such quantization.
    """
    if not groups or width % groups or packed_width * WORD_BITS % width:
        return None
    bits, group_size = packed_width * WORD_BITS // width, width // groups
    if has_byte_scales:
        mode = MODES_WITH_BYTE_SCALES.get((bits, group_size))
        return Packing(bits, group_size, mode) if mode else None
    is_affine = bits in AFFINE_BITS and group_size in AFFINE_GROUP_SIZES
    return Packing(bits, group_size, "affine") if is_affine else None


def layer_settings(config: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The settings of single layers by `bare_path`; several where they were written under several prefixes."""
    block = quantization_block(config)
    settings: dict[str, list[Mapping[str, Any]]] = {}
    for name, own in block.items() if isinstance(block, Mapping) else ():
        if isinstance(own, Mapping):
            settings.setdefault(bare_path(str(name)), []).append(own)
    return settings


def bare_path(name: str) -> str:
    """The path of a layer, or the name of its weight, without the prefixes that differ from tool to tool."""
    return PREFIX.sub("", name, count=1).removesuffix(".weight")


def contradicts(settings: Mapping[str, Any], packing: Packing) -> bool:
    """Whether the settings of a layer name other numbers than its tensors have."""
    numbers = {"bits": packing.bits, "group_size": packing.group_size}
    said = {key: settings.get(key) for key in numbers}
    is_other_number = any(said[key] is not None and whole_number(said[key]) != numbers[key] for key in numbers)
    return is_other_number or settings.get("mode") not in (None, packing.mode)


def refused_method(folder: Path, method: str | None, tensor: str = "") -> ModelFolderError:
    """The error for a checkpoint that another tool quantized; `tensor` shows it where no method is named."""
    how = f"is quantized with {method}" if method else f"has a quantization that is not MLX's ({tensor[:80]!r})"
    return ModelFolderError(
        f"{folder} {how}, which Slipstream cannot read. Use an MLX conversion of the model, or its full-precision "
        "folder (`slipstream models convert` makes a quantized copy)."
    )
