"""The weights of a model folder as its headers describe them. Reads no tensor."""

from __future__ import annotations

from pathlib import Path

from mlx_engine.files.folder_files import damaged, is_there, opened, read_json
from mlx_engine.files.safetensors_header import Tensor, read_header
from mlx_engine.protocol.errors import ModelFolderError


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: `model.safetensors`, or exactly the shards that its index names.

    Raises ModelFolderError for a malformed index. The files themselves need not exist.
    """
    index = folder / "model.safetensors.index.json"
    if not is_there(index):
        return [folder / "model.safetensors"]
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise damaged(index, "it has no usable weight_map")
    shards = sorted(set(names.values()))
    for name in shards:
        if "/" in name or "\0" in name or not name.endswith(".safetensors"):
            raise ModelFolderError(f"{index} names {name[:80]!r}, which is not a shard of this folder.")
    return [folder / name for name in shards]


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder by name. Raises ModelFolderError, also if two shards contain the same tensor."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with opened(path) as file:
            header = read_header(path, file)
        repeated = header.keys() & tensors.keys()
        if repeated:
            raise damaged(path, f"it repeats the tensor {min(repeated)!r} of another shard")
        tensors |= header
    return tensors
