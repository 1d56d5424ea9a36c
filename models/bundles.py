"""Folders that contain a pair: `target` and `assistant` in one folder, or a drafter inside the target's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

TARGET_NAME = "target"
DRAFTER_NAMES = ("drafter", "assistant", "mtp")
PART_NAMES = (TARGET_NAME, *DRAFTER_NAMES)


def has_config(folder: Path) -> bool:
    """Whether a folder looks like one of a model."""
    return (folder / "config.json").is_file()


def target_in(folder: Path) -> Path:
    """The target's own folder: `folder`, or `target` inside it if it is a bundle without a config of its own."""
    inside = folder / TARGET_NAME
    return inside if not has_config(folder) and has_config(inside) else folder


def bundle_of(target: Path) -> Path | None:
    """The bundle that a target's folder is the `target` of; None for other folders."""
    bundle = target.parent
    is_bundle = target.name == TARGET_NAME and target_in(bundle) == target
    return bundle if is_bundle and any(has_config(bundle / name) for name in DRAFTER_NAMES) else None


def parts_of(folder: Path) -> list[Path]:
    """The folders of the models in a folder: of the target first, then those of drafters in it."""
    target = target_in(folder)
    return [target, *drafters_of(target)]


def drafters_of(target: Path) -> Iterator[Path]:
    """Drafters that are packed with a target, by their names: inside its folder, or beside it in its bundle."""
    for folder in (target, bundle_of(target)):
        if folder is not None:
            yield from (folder / name for name in DRAFTER_NAMES if has_config(folder / name))
