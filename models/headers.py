"""The files of a model folder, read safely: JSON, and the headers of safetensors files.

Nothing here loads a tensor, follows a link out of the folder or the hub's cache, or takes longer or more
memory for a hostile file than for a good one. Knows nothing of MLX.
"""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ModelFilesError

MAX_JSON_BYTES = 64 << 20
MAX_HEADER_BYTES = 8 << 20
MAX_DIMENSIONS = 8
MAX_DIMENSION = 1 << 31
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One entry of a safetensors header."""

    dtype: str
    size_bytes: int


def open_regular(path: Path) -> int:
    """A file descriptor of a regular file whose true place is `path`'s folder or the blobs of its hub cache.

    Raises ModelFilesError for anything else: a FIFO would block, a device never end, a link lead elsewhere.
    """
    real = Path(os.path.realpath(path))
    folder = Path(os.path.realpath(path.parent))
    homes = [folder, *_blob_folders(folder)]
    if not any(real.parent == home or home in real.parents for home in homes):
        raise ModelFilesError(
            f"{path} leads out of its folder, to {real}. Copy the file itself into the folder, or fetch it again."
        )
    try:
        opened = os.open(real, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ModelFilesError(f"{path} is missing. Name a folder that holds a complete model.") from None
    except OSError as error:
        raise ModelFilesError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise ModelFilesError(f"{path} is not a regular file and was not read. Fetch the folder again.")
    return opened


def _blob_folders(folder: Path) -> list[Path]:
    """Where the hub's cache keeps the contents of the snapshot `folder`: the repository's, the shared store's."""
    if folder.parent.name != "snapshots":
        return []
    repo = folder.parent.parent
    return [repo / "blobs", repo.parent / "blobs"]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ModelFilesError if it is missing, huge, malformed or not an object."""
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ModelFilesError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MB and was not read.")
    return _parse(data, path, "it")


def _parse(data: bytes, path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        words = "nested too deep" if isinstance(error, RecursionError) else str(error)[:120]
        raise ModelFilesError(f"{path} is damaged: {what} is not valid JSON ({words}). Fetch it again.") from None
    if not isinstance(value, dict):
        raise ModelFilesError(f"{path} is damaged: {what} is not a JSON object. Fetch it again.")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key appears twice")
    return keys


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file by name, checked against its size. Raises ModelFilesError."""
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise _damaged(path, f"its header claims {length} bytes in a file of {size}")
        header = _parse(file.read(length), path, "its header")
    header.pop("__metadata__", None)
    tensors, extents = {}, []
    for name, entry in header.items():
        tensor, begin = _tensor(entry, path, name)
        tensors[name] = tensor
        extents.append((begin, begin + tensor.size_bytes))
    frontier = 0
    for begin, end in sorted(extents):
        if begin != frontier:
            raise _damaged(path, "its tensors leave a gap or overlap")
        frontier = end
    if frontier != size - 8 - length:
        raise _damaged(
            path, f"it holds {size - 8 - length} bytes of tensors where its header describes {frontier}"
        )
    return tensors


def _tensor(entry: Any, path: Path, name: str) -> tuple[Tensor, int]:
    if isinstance(entry, dict) and isinstance(entry.get("dtype"), str) and entry["dtype"] in ITEM_BYTES:
        shape, offsets = _sizes(entry.get("shape"), MAX_DIMENSION), _sizes(entry.get("data_offsets"), 1 << 48)
        if shape is not None and offsets is not None and len(shape) <= MAX_DIMENSIONS and len(offsets) == 2:
            size_bytes = math.prod(shape) * ITEM_BYTES[entry["dtype"]]
            if offsets[1] - offsets[0] == size_bytes:
                return Tensor(entry["dtype"], size_bytes), offsets[0]
    raise _damaged(path, f"tensor {name[:80]!r} has no consistent dtype, shape and extent")


def _sizes(numbers: Any, limit: int) -> list[int] | None:
    if not isinstance(numbers, list) or not all(type(number) is int and 0 <= number < limit for number in numbers):
        return None
    return numbers


def _damaged(path: Path, why: str) -> ModelFilesError:
    return ModelFilesError(f"{path} is damaged: {why}. Fetch it again.")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: `model.safetensors`, or exactly the shards its index names."""
    index = folder / "model.safetensors.index.json"
    if not os.path.lexists(index):
        return [folder / "model.safetensors"]
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelFilesError(f"{index} is damaged: it has no usable weight_map. Fetch it again.")
    shards = sorted(set(names.values()))
    for name in shards:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFilesError(f"{index} names {name[:80]!r}, which is not a shard of this folder.")
    return [folder / name for name in shards]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by name. Raises ModelFilesError, also if two shards hold the same one."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        own = read_header(path)
        repeated = own.keys() & tensors.keys()
        if repeated:
            raise _damaged(path, f"it repeats the tensor {min(repeated)!r} of another shard")
        tensors.update(own)
    return tensors
