"""Which folders a person means by `--model` and `--drafter`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models import pocket

DRAFTER_NAMES = ("drafter", "assistant")


@dataclass(frozen=True, slots=True)
class PairFolders:
    """A target's folder and its drafter's."""

    target: Path
    drafter: Path | None

    @property
    def is_pocket(self) -> bool:
        """The pair in the box."""
        return self.target == pocket.TARGET_FOLDER


def find_pair(model: str | None, drafter: str) -> PairFolders:
    """The pair that `--model` and `--drafter FOLDER|auto|none` name; the engine checks that it exists and fits."""
    target = Path(model).expanduser() if model else pocket.TARGET_FOLDER
    if drafter == "none":
        return PairFolders(target, None)
    if drafter == "auto":
        return PairFolders(target, _nearby_drafter(target))
    return PairFolders(target, Path(drafter).expanduser())


def _nearby_drafter(target: Path) -> Path | None:
    """A drafter inside the target's folder or beside it: `drafter`, `assistant`, or `NAME-assistant`."""
    inside = [target / name for name in DRAFTER_NAMES]
    beside = [target.with_name(f"{target.name}-assistant")] if target.name else []
    if target == pocket.TARGET_FOLDER:
        beside.append(pocket.DRAFTER_FOLDER)
    return next((folder for folder in (*inside, *beside) if (folder / "config.json").is_file()), None)
