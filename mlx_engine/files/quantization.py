"""How a checkpoint is quantized: MLX's block in config.json, the shapes of the tensors, and the methods of others.

The shapes decide, since they are what is computed with. Tools write the settings of single layers under different
prefixes or not at all, so that they can only confirm the shapes, or contradict them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_engine.files.config_bounds import out_of_range
from mlx_engine.files.tensor_names import PREFIX
from mlx_engine.protocol.errors import ModelFolderError

AFFINE_BITS = (1, 2, 3, 4, 5, 6, 8)
AFFINE_GROUP_SIZES = (32, 64, 128)
MODES_WITH_BYTE_SCALES = {(4, 16): "nvfp4", (4, 32): "mxfp4", (8, 32): "mxfp8"}
"""By bits and group size: each mode has exactly one of both."""
LIMITS: dict[str, tuple[Any, ...]] = {
    "bits": AFFINE_BITS,
    "group_size": (16, *AFFINE_GROUP_SIZES),
    "mode": ("affine", *MODES_WITH_BYTE_SCALES.values()),
}
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
    blocks = [level.get(key) for key in ("quantization", "quantization_config") for level in levels]
    return next((block for block in blocks if block), None)


def foreign_method(config: Mapping[str, Any]) -> str | None:
    """The `quant_method` of a config without MLX's own settings."""
    block = quantization_block(config) or config.get("compression_config")  # of older compressed-tensors
    method = block.get("quant_method") if isinstance(block, Mapping) else None
    return method[:40] if isinstance(method, str) and method else None


def check_quantization(config: Mapping[str, Any], source: Path) -> None:
    """Check MLX's settings, also those of single layers. Raises ModelFolderError naming the key.

    MLX divides by the group size without checking it: zero would end the process.
    """
    block = quantization_block(config)
    if block is None or foreign_method(config):
        return
    if not isinstance(block, Mapping):
        raise out_of_range(source, "quantization", block, "an object with bits and group_size")
    for settings in (block, *(own for own in block.values() if isinstance(own, Mapping))):
        for key, allowed in LIMITS.items():
            value = settings.get(key)
            if value is not None and (isinstance(value, bool | float) or value not in allowed):
                raise out_of_range(source, f"quantization {key}", value, f"one of {', '.join(map(str, allowed))}")


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
    actual = {"bits": packing.bits, "group_size": packing.group_size, "mode": packing.mode}
    return any(settings.get(key) not in (None, value) for key, value in actual.items())


def refused_method(folder: Path, method: str | None, tensor: str = "") -> ModelFolderError:
    """The error for a checkpoint that another tool quantized; `tensor` shows it where no method is named."""
    how = f"is quantized with {method}" if method else f"has a quantization that is not MLX's ({tensor[:80]!r})"
    return ModelFolderError(
        f"{folder} {how}, which Slipstream cannot read. Use an MLX conversion of the model, or its full-precision "
        "folder (`slipstream models convert` makes a quantized copy)."
    )
