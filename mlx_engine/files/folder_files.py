"""The files of a model folder, read safely: regular files inside the folder, of a bounded size.

A folder may come from anybody. Opening a FIFO would block forever, a device never ends, and a link can lead to
any file on the machine. The engine and `models` both read model folders through this package, within one set of
limits.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mlx_engine.protocol.errors import ModelFolderError

MAX_FILE_BYTES = 64 << 20
"""For a file read in one piece. Gemma 4's tokenizer.json, the largest such file, has 32 MB."""
MAX_JSON_BYTES = 8 << 20
"""For JSON, whose Python objects take up to twenty times its size. Published files have 1 MB."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of a model folder, open for reading.

    Follows links within the folder and, from a snapshot in the hub's cache, to that cache's blobs.
    Raises ModelFolderError if the file is missing, outside the folder, or not a regular file.
    """
    true_path = Path(os.path.realpath(path))
    if not any(true_path.is_relative_to(root) for root in _allowed_roots(path.parent)):
        raise ModelFolderError(
            f"{path} links to {true_path}, outside its folder. Copy the file itself into the folder, "
            "or pull the model again."
        )
    try:
        # Non-blocking because of FIFOs; the type is checked on the open file, which can no longer change.
        descriptor = os.open(true_path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError:
        raise ModelFolderError(f"{path} is missing. Name a folder that contains a complete model.") from None
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror or error}.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ModelFolderError(f"{path} is not a regular file and was not read. Pull the model again.")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _allowed_roots(folder: Path) -> Iterator[Path]:
    """The folder itself and, for a snapshot, the blobs of its repository and of the cache's shared store."""
    true_folder = Path(os.path.realpath(folder))
    yield true_folder
    snapshot = snapshot_of(true_folder)
    if snapshot is not None:
        repo = snapshot.parents[1]
        yield from (repo / "blobs", repo.parent / "blobs")


def snapshot_of(folder: Path) -> Path | None:
    """The snapshot in a hub's cache that a folder is, or that it is a part of; None for other folders."""
    return next((path for path in (folder, folder.parent) if path.parent.name == "snapshots"), None)


def read_bytes(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The whole file. Raises ModelFolderError, also if it is larger than `max_bytes`."""
    with opened(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ModelFolderError(f"{path} is larger than {max_bytes >> 20} MiB and was not read.")
    return content


def read_text(path: Path) -> str:
    """The whole file, up to MAX_JSON_BYTES, as text. Raises ModelFolderError."""
    try:
        return read_bytes(path, MAX_JSON_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise ModelFolderError(f"{path} is not UTF-8 text. Pull the model again.") from None


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelFolderError, also if a key appears twice."""
    return parse_json(read_bytes(path, max_bytes), path)


def parse_json(data: bytes, path: Path, part: str = "it") -> dict[str, Any]:
    """A JSON object whose keys are unique. Errors call it `part` of `path`. Raises ModelFolderError."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise damaged(path, f"{part} is not valid JSON ({reason})") from None
    if not isinstance(value, dict):
        raise damaged(path, f"{part} is not a JSON object")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key appears twice")
    return keys


def damaged(path: Path, reason: str) -> ModelFolderError:
    """The error for content that cannot be right; `reason` is a clause."""
    return ModelFolderError(f"{path} is damaged: {reason}. Pull the model again.")


def is_there(path: Path) -> bool:
    """Whether the folder has an entry of this name, even a broken link."""
    return os.path.lexists(path)
