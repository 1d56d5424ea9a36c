"""The weights of a model folder as its headers describe them. Reads no tensor.

A folder may have its weights in one file, in the shards that an index names, or in numbered shards without an
index. Exactly one of these must be complete. Weights in the formats of other programs are named, not read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from mlx_engine.files.folder_files import damaged, is_there, opened, read_json
from mlx_engine.files.safetensors_header import Tensor, read_header
from mlx_engine.protocol.errors import ModelFolderError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
NUMBERED = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
ANOTHER_FOLDER = "Use the model's safetensors, or an MLX conversion of it."
OTHER_FORMATS = (
    (
        r"adapter(s|_model)\.(safetensors|bin)",
        "an adapter, which is no model of its own. Merge it into its model.",
    ),
    (r".*\.gguf", f"in the format of llama.cpp. {ANOTHER_FOLDER}"),
    (
        r".*\.safetensors",
        f"which is not the name of a model's weights. Rename it to {WHOLE} if it is the whole model, "
        "or pull the model again.",
    ),
    (
        r"(pytorch_model|consolidated|model).*\.(bin|pth?)",
        f"a file of PyTorch, which can contain code and is never read. {ANOTHER_FOLDER}",
    ),
    (r".*\.npz", f"in a format of NumPy. {ANOTHER_FOLDER}"),
)
"""Names of files, and what to say of them where nothing else can be the model."""


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model. If they are not complete, a file in the list is missing.

    Raises ModelFolderError for a malformed index, where two sets of files could be the model, and where there are
    weights in other formats only.
    """
    names = _names_in(folder)
    chosen = choose_weight_files(names, _indexed(folder / INDEX, names), folder)
    if chosen == [WHOLE] and WHOLE not in names:
        refuse_other_formats(folder)
    return [folder / name for name in chosen]


def refuse_other_formats(folder: Path) -> None:
    """Raises ModelFolderError if a folder that has no weights as described above has some in another format."""
    names = sorted(_names_in(folder))
    if WHOLE in names or any(map(NUMBERED.fullmatch, names)):
        return
    for pattern, what in OTHER_FORMATS:
        found = next((name for name in names if re.fullmatch(pattern, name)), None)
        if found:
            raise ModelFolderError(f"{folder} has no {WHOLE}, but {found[:80]}, {what}")


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def choose_weight_files(names: Collection[str], indexed: Collection[str] | None, source: object) -> list[str]:
    """Which of a folder's files are its weights; `source` names the folder in errors.

    indexed: the shards that its index names, or None without an index. An index is out of date where it names
    missing files while another set is complete, and where it names only a part of a complete set. Raises
    ModelFolderError where two sets could be the model.
    """
    numbered = _numbered_sets(names)
    if indexed and any(set(indexed) < set(own) <= set(names) for own in numbered):
        indexed = None
    sets = [tuple(sorted(indexed))] if indexed else []
    sets += [(WHOLE,)] if WHOLE in names else []
    sets += numbered
    complete = list(dict.fromkeys(own for own in sets if set(names).issuperset(own)))
    if indexed and complete and complete[0] == sets[0]:
        # Other shards are left over from earlier. A whole file is not: some tools prefer it to the index.
        complete = [own for own in complete if own == sets[0] or own == (WHOLE,)]
    candidates = complete or list(dict.fromkeys(sets[:1] if indexed else sets))
    if len(candidates) > 1:
        one, other = (own[0] for own in candidates[:2])
        raise ModelFolderError(
            f"{source} contains two sets of weights: one begins with {one}, another with {other}. "
            "Keep the files of one of them, or pull the model again."
        )
    return list(candidates[0]) if candidates else [WHOLE]


def _numbered_sets(names: Collection[str]) -> list[tuple[str, ...]]:
    """For each number of shards that occurs, the names of all of them."""
    matches = [match for name in names if (match := NUMBERED.fullmatch(name))]
    counts = sorted({match[2] for match in matches if 1 <= int(match[1]) <= int(match[2])})
    return [
        tuple(f"model-{number:05d}-of-{count}.safetensors" for number in range(1, int(count) + 1))
        for count in counts
    ]


def _indexed(index: Path, names: Collection[str]) -> list[str] | None:
    """The shards that an index names; None without one, and for one of other files beside a whole file."""
    if not is_there(index):
        return None
    named = read_json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise damaged(index, "it has no usable weight_map")
    shards = sorted(set(named.values()))
    if WHOLE in names and not any(name.endswith(".safetensors") for name in shards):
        return None
    if not shards:
        raise damaged(index, "its weight_map is empty")
    for name in shards:
        if "/" in name or "\0" in name or not name.endswith(".safetensors"):
            raise ModelFolderError(
                f"{index} names {name[:80]!r}, which is not a shard of this folder. Pull the model again."
            )
    return shards


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
