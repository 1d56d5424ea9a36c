"""What people have been told about a model is not told again at each start."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from mlx_engine.files.atomic import replace_file
from mlx_engine.files.folder_files import is_there, read_text
from mlx_engine.protocol.errors import ModelFolderError

TOLD_FILE = "told"
KEPT = 200


def is_news(folder: Path | None, sentence: str) -> bool:
    """Whether this sentence has not been told yet; from now on it has.

    folder: shared by all processes of this account; without one, everything is news. Never raises OSError.
    """
    if folder is None:
        return True
    path = folder / TOLD_FILE
    key = hashlib.sha256(sentence.encode("utf-8", "replace")).hexdigest()[:16]
    told: list[str] = []
    with suppress(ModelFolderError):
        told = read_text(path).split() if is_there(path) else []
    if key in told:
        return False
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, "\n".join([*told[-KEPT:], key]) + "\n", is_synced=False)
    return True
