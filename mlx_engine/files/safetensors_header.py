"""The header of a safetensors file, checked against the size of the file. MLX itself would trust it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlx_engine.files.folder_files import damaged, parse_json
from mlx_engine.protocol.errors import ModelFolderError

LENGTH_BYTES = 8
"""A file begins with the length of its header."""
MAX_HEADER_BYTES = 8 << 20
"""The largest published headers have a few hundred kB."""
MAX_DIMENSIONS = 8
MAX_DIMENSION = 1 << 31
MAX_OFFSET = 1 << 48
ITEM_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32,
    "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Every dtype of the format. `stored_dtypes.py` knows which of them a model can have."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Offsets in bytes, counted from the end of the header."""
    end: int

    @property
    def size_bytes(self) -> int:
        """On disk and in memory."""
        return self.end - self.begin


def read_header(path: Path, file: BinaryIO) -> dict[str, Tensor]:
    """The tensors of an open safetensors file, by name; `path` names it in errors.

    Bounded in time and memory, whatever the file claims. Raises ModelFolderError.
    """
    try:
        size = os.fstat(file.fileno()).st_size
        length = header_length(path, file.read(LENGTH_BYTES), size)
        return parse_header(path, file.read(length), size - LENGTH_BYTES - length)
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror or error}.") from None


def header_length(path: Path, prefix: bytes, file_bytes: int) -> int:
    """The length of the header, from the first LENGTH_BYTES of a file of `file_bytes`. Raises ModelFolderError."""
    length = int.from_bytes(prefix, "little")
    if file_bytes < LENGTH_BYTES or length > min(file_bytes - LENGTH_BYTES, MAX_HEADER_BYTES):
        raise damaged(path, f"its header claims {length} bytes in a file of {file_bytes}")
    return length


def parse_header(path: Path, header: bytes, data_bytes: int) -> dict[str, Tensor]:
    """The tensors that a header describes, by name. `data_bytes` is the size of the file after its header.

    Every tensor must have a known dtype and a shape whose size is exactly its extent, and the extents must tile
    the data without gap or overlap. Raises ModelFolderError.
    """
    entries = parse_json(header, path, "its header")
    entries.pop("__metadata__", None)
    tensors = {}
    for name, entry in entries.items():
        tensor = _tensor(entry)
        if tensor is None:
            raise damaged(path, f"tensor {name[:80]!r} has no consistent dtype, shape and extent")
        tensors[name] = tensor
    frontier = 0
    for begin, end in sorted((tensor.begin, tensor.end) for tensor in tensors.values()):
        if begin != frontier:
            raise damaged(path, "its tensors leave a gap or overlap")
        frontier = end
    if frontier != data_bytes:
        raise damaged(path, f"it has {data_bytes} bytes of tensors where its header describes {frontier}")
    return tensors


def _tensor(entry: Any) -> Tensor | None:
    """The tensor that one entry describes, or None if the entry is malformed."""
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str) or entry["dtype"] not in ITEM_BITS:
        return None
    shape, extent = _sizes(entry.get("shape"), MAX_DIMENSION), _sizes(entry.get("data_offsets"), MAX_OFFSET)
    if shape is None or extent is None or len(extent) != 2 or len(shape) > MAX_DIMENSIONS:
        return None
    begin, end = extent
    if (end - begin) * 8 != math.prod(shape) * ITEM_BITS[entry["dtype"]]:
        return None
    return Tensor(entry["dtype"], shape, begin, end)


def _sizes(numbers: Any, limit: int) -> tuple[int, ...] | None:
    if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < limit for n in numbers):
        return None
    return tuple(numbers)
