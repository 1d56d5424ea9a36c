"""Finds the drafter of a target among the folders beside it and in the hub's cache, by what their configs say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

from mlx_engine.files.weight_files import weight_files
from mlx_engine.protocol.errors import ModelFolderError
from models import hub_cache
from models.bundles import bundle_of, has_config
from models.config import Config, check_match, read_config

MOST_NEIGHBOURS = 500
"""A folder with more entries than this is no folder of models; only the first are looked at."""
PRIVATE_FOLDERS = frozenset({"Desktop", "Documents", "Downloads", "Library", "Movies", "Music", "Pictures"})
"""macOS asks the person before a program may look into these."""

Called = Callable[[Path], str]
"""The name of the model in a folder."""


def matching_drafter(target: Path, is_qat: bool, cache: Path, called: Called) -> Path | None:
    """A drafter that was made for such a target, and whose name tells the same branch.

    Assistants come before other kinds, folders beside the target before the cache; of several, the one whose
    name is most like the target's.
    """
    try:
        config = read_config(target)
    except ModelFolderError:
        return None  # the engine reports it
    name = called(target)

    def likeness(folder: Path) -> tuple[bool, int, str]:
        other, is_no_assistant = called(folder), read_config(folder).is_drafter_packaging
        return (
            is_no_assistant,
            -len(list(takewhile(lambda pair: pair[0] == pair[1], zip(name.lower(), other.lower())))),
            other,
        )

    for folders in (_neighbours(target), _cached(cache)):
        fitting = [folder for folder in folders if is_qat_name(called(folder)) == is_qat and _fits(folder, config)]
        if fitting:
            return min(fitting, key=likeness)
    return None


def is_qat_name(name: str) -> bool:
    """Whether a model was trained for quantization, as far as its name tells."""
    return "qat" in name.lower()


def _neighbours(target: Path) -> Iterator[Path]:
    """Complete model folders beside a target's folder, and beside its bundle."""
    bundle = bundle_of(target)
    for folder in (target, bundle) if bundle else (target,):
        if folder.parent.name == "snapshots":
            continue  # other versions of the same repository
        try:
            names = sorted(os.listdir(folder.parent))[:MOST_NEIGHBOURS]
        except OSError:
            continue
        own = [name for name in names if not name.startswith(".") and name not in PRIVATE_FOLDERS]
        yield from (path for name in own if (path := folder.parent / name) != folder and _is_complete(path))


def _cached(cache: Path) -> Iterator[Path]:
    return (snapshot.folder for snapshot in hub_cache.installed(cache) if snapshot.is_complete)


def _is_complete(folder: Path) -> bool:
    try:
        return has_config(folder) and all(path.is_file() for path in weight_files(folder))
    except (ModelFolderError, OSError):
        return False


def _fits(folder: Path, target: Config) -> bool:
    try:
        drafter = read_config(folder)
        if drafter.is_drafter and not target.is_drafter:
            check_match(target, drafter, ("", ""), "")
            return True
    except ModelFolderError:
        pass
    return False
