"""The files of a model folder as bytes: regular files that are really there, of a bounded size.

A folder may come from anybody. A FIFO in it would block for ever, a device never end, and a link could lead to
any file of the person's: none of them is opened.
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
"""Of whatever is read as a whole. Gemma 4's tokenizer.json, the largest such file, has 32 MB."""
MAX_JSON_BYTES = 8 << 20
"""Of what becomes Python objects, which take up to twenty times the room. Published files have 1 MB."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file of a model folder, open for reading.

    Links are followed within the folder and, from a snapshot of the hub's cache, to that cache's blobs.
    Raises ModelFolderError if the file is missing, elsewhere, or not a regular one.
    """
    true_path = Path(os.path.realpath(path))
    if not any(true_path.is_relative_to(place) for place in _places(path.parent)):
        raise ModelFolderError(f"{path} is a link out of its folder, to {true_path}. Put the file itself there.")
    try:
        # Not blocking, for a FIFO that nobody writes to; which it was is looked at on the open file.
        file = os.fdopen(os.open(true_path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb")
    except FileNotFoundError:
        raise ModelFolderError(f"{path} is missing. Name a folder that holds a complete model download.") from None
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror or error}.") from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ModelFolderError(f"{path} is not a regular file and was not read. Fetch the folder again.")
        yield file


def _places(folder: Path) -> Iterator[Path]:
    """Where the contents of a folder's files may be."""
    true_folder = Path(os.path.realpath(folder))
    yield true_folder
    if true_folder.parent.name == "snapshots":
        model = true_folder.parents[1]
        yield from (model / "blobs", model.parent / "blobs")


def read_bytes(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """All of a file of up to so many bytes. Raises ModelFolderError."""
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ModelFolderError(f"{path} is larger than {most >> 20} MB and was not read.")
    return content


def read_text(path: Path) -> str:
    """The same of up to MAX_JSON_BYTES, as text. Raises ModelFolderError."""
    try:
        return read_bytes(path, MAX_JSON_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise ModelFolderError(f"{path} is not UTF-8 text. Download it again.") from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ModelFolderError if it is missing, huge, malformed or not an object."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not valid JSON ({error}). Download it again.") from None
    if not isinstance(value, dict):
        raise ModelFolderError(f"{path} does not hold a JSON object. Download it again.")
    return value


def is_there(path: Path) -> bool:
    """Something has this name in the folder, be it a link to nowhere."""
    return os.path.lexists(path)
