"""Which tensors of a checkpoint can be computed with. Others are valid files, and are not called damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_engine.files.quantization import bare_path, foreign_method, refused_method
from mlx_engine.files.safetensors_header import Tensor
from mlx_engine.files.tensor_names import ORDERING, OTHER_PARTS
from mlx_engine.protocol.errors import ModelFolderError

NOT_IN_MLX = {"F64", "F4", "F6_E2M3", "F6_E3M2", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
"""`mx.load` refuses a whole file that contains one of these."""
ONLY_IN_SCALES = {"U8", "F8_E4M3", "F8_E8M0"}
"""MLX loads these as bytes, which only the scales of a quantized layer are."""
WHOLE_NUMBERS = {"I16": "int16", "I32": "int32", "I64": "int64", "U16": "uint16", "U64": "uint64"}
"""And what people call them. U32 is what MLX packs quantized weights into."""
NEVER_COMPUTED = {"BOOL", "I8", "C64", *WHOLE_NUMBERS}
TOKEN_IDS = ("d2t", "t2d", ORDERING)
"""Tensors of drafters that are no weights."""
FOREIGN_PARTS = {
    "weight_packed", "weight_scale", "weight_scale_2", "weight_scale_inv", "weight_shape", "weight_zero_point",
    "weight_global_scale", "input_global_scale", "input_scale", "qweight", "qzeros", "g_idx", "absmax",
    "quant_map", "SCB", "weight_format", "weight_scales", "_data", "_scale", "W_q",
}  # fmt: skip
"""Last parts of the tensor names of other tools' quantizations (llm-compressor, bitsandbytes, GPTQ, AWQ, ...)."""


def check_stored(tensors: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> None:
    """Raises ModelFolderError naming a tensor that MLX cannot load or a model cannot have.

    tensors: those of one file or of all files of a folder; `path` names it in errors. The method of another tool's
    quantization is named instead, if the config names one.
    """
    method = foreign_method(config)
    for name, tensor in sorted(tensors.items()):
        is_foreign = _is_text(name) and name.rpartition(".")[2] in FOREIGN_PARTS
        if is_foreign or (method and not _can_be(name, tensor.dtype)):
            raise refused_method(path, method, name)
        if not _can_be(name, tensor.dtype):
            raise _refused_dtype(path, name, tensor.dtype)
        if name.endswith(ORDERING) and tensor.dtype in ("F16", "BF16"):
            raise ModelFolderError(
                f"{path}: tensor {name[:80]!r} is stored as {tensor.dtype}, which cannot tell token ids apart. "
                "Pull the drafter again, or use another copy of it."
            )


def _is_text(name: str) -> bool:
    return not bare_path(name).startswith(OTHER_PARTS)


def _can_be(name: str, dtype: str) -> bool:
    if dtype in NOT_IN_MLX:
        return False
    is_refused = dtype in NEVER_COMPUTED or (dtype in ONLY_IN_SCALES and not name.endswith(".scales"))
    return not is_refused or name.endswith(TOKEN_IDS) or not _is_text(name)


def _refused_dtype(path: Path, name: str, dtype: str) -> ModelFolderError:
    why = "which MLX cannot load" if dtype in NOT_IN_MLX else "with which a model cannot be computed"
    advice = (
        "Save the model again in bfloat16."
        if dtype == "F64"
        else "Use the model's bfloat16 checkpoint, or an MLX conversion of it."
    )
    called = f"{dtype} ({WHOLE_NUMBERS[dtype]})" if dtype in WHOLE_NUMBERS else dtype
    return ModelFolderError(f"{path}: tensor {name[:80]!r} is stored as {called}, {why}. {advice}")
