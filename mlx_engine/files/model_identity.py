"""Which model a folder contains, by its files: without reading its weights."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mlx_engine.files.folder_files import opened, read_bytes
from mlx_engine.files.safetensors_header import LENGTH_BYTES, header_length
from mlx_engine.files.weight_files import weight_files


def model_identity(folder: Path) -> str:
    """A hash of the config, and of each weights file's header, place, size and time of change.

    Raises ModelFolderError, OSError.
    """
    identity = hashlib.sha256(read_bytes(folder / "config.json"))
    for path in weight_files(folder):
        with opened(path) as file:
            facts = os.fstat(file.fileno())
            prefix = file.read(LENGTH_BYTES)
            header = file.read(header_length(path, prefix, facts.st_size))
        # The place of a pulled file contains its hash.
        place = os.path.realpath(path)
        identity.update(f"\0{place}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode(errors="surrogateescape"))
        identity.update(hashlib.sha256(prefix + header).digest())
    return identity.hexdigest()
