"""The header of a safetensors file, checked against the file before MLX sees it: MLX itself would believe it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlx_engine.protocol.errors import ModelFolderError

MAX_HEADER_BYTES = 8 << 20
"""The largest published ones have a few hundred thousand bytes."""
MAX_DIMENSIONS = 8
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Bytes from the end of the header on."""
    end: int

    @property
    def size_bytes(self) -> int:
        """On the disk and in memory."""
        return self.end - self.begin


def read_header(path: Path, file: BinaryIO) -> dict[str, Tensor]:
    """The tensors of an open safetensors file, by name; `path` is what errors call it.

    Every tensor must have a known dtype and a shape whose size is exactly its extent, and the extents
    must tile the data without gap or overlap up to the end of the file. Bounded in time and memory.
    Raises ModelFolderError.
    """

    def refuse(why: str) -> ModelFolderError:
        return ModelFolderError(f"{path} is damaged: {why}. Download it again.")

    size = os.fstat(file.fileno()).st_size
    try:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise refuse(f"its header claims {length} bytes in a file of {size}")
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique_keys)
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise refuse("its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise refuse("its header is not an object")
    header.pop("__metadata__", None)
    tensors = {name: _tensor(entry) for name, entry in header.items()}
    unclear = next((name for name, tensor in tensors.items() if tensor is None), None)
    if unclear is not None:
        raise refuse(f"tensor {unclear[:80]!r} has no consistent dtype, shape and extent")
    sound = {name: tensor for name, tensor in tensors.items() if tensor}
    frontier = 0
    for begin, end in sorted((tensor.begin, tensor.end) for tensor in sound.values()):
        if begin != frontier:
            raise refuse("its tensors leave a gap or overlap")
        frontier = end
    if frontier != size - 8 - length:
        raise refuse(f"it holds {size - 8 - length} bytes of tensors where its header describes {frontier}")
    return sound


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("duplicate key")
    return keys


def _tensor(entry: Any) -> Tensor | None:
    """What one header entry describes, or None if it is not well formed."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in ITEM_BYTES:
        return None
    shape, extent = _sizes(entry.get("shape"), 2**31), _sizes(entry.get("data_offsets"), 2**48)
    if shape is None or extent is None or len(extent) != 2 or len(shape) > MAX_DIMENSIONS:
        return None
    begin, end = extent
    if end - begin != math.prod(shape) * ITEM_BYTES[entry["dtype"]]:
        return None
    return Tensor(entry["dtype"], shape, begin, end)


def _sizes(numbers: Any, limit: int) -> tuple[int, ...] | None:
    if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < limit for n in numbers):
        return None
    return tuple(numbers)
