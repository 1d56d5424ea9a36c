"""From what a person names to what the engine is to load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app import places
from mlx_engine.errors import SlipstreamError
from mlx_engine.events import LOOKUP, Load
from models.catalog import load_catalog
from models.folders import PairFolders, find_pair


@dataclass(frozen=True, slots=True)
class Drafting:
    """How drafters are chosen, for whatever target."""

    drafter: str = "auto"
    """FOLDER, HUB-ID, auto, lookup or none."""
    bits: int | None = None
    start_length: int | None = None
    is_compiled: bool | None = None


@dataclass(frozen=True, slots=True)
class PairChoice:
    """A pair that is on this machine."""

    load: Load
    title: str
    """What the pair is called on the screen."""
    notice: str
    """What a person should know of the choice; may be empty."""
    is_pocket: bool


def choose_pair(model: str | None, drafting: Drafting) -> PairChoice:
    """The pair that a name, a folder or a hub id means. Raises SlipstreamError, ModelsError."""
    wanted = "none" if drafting.drafter == LOOKUP else drafting.drafter
    pair = find_pair(model, wanted, load_catalog(places.own_catalog()))
    for what, folder in (("--model", pair.target), ("--drafter", pair.drafter)):
        if folder and not folder.is_dir():
            raise SlipstreamError(f"{what} {folder}: there is no such folder. Name one that holds a config.json.")
    return PairChoice(_load(pair, drafting), pair.name or pair.target.name, pair.notice, pair.is_pocket)


def _load(pair: PairFolders, drafting: Drafting) -> Load:
    # Whoever has no assistant has at least the text to look things up in.
    without = None if drafting.drafter == "none" or pair.refusal else LOOKUP
    return Load(
        target=_resolved(pair.target),
        drafter=_resolved(pair.drafter) if pair.drafter else without,
        drafter_bits=drafting.bits,
        is_compiled=drafting.is_compiled,
        estimates_folder=str(places.estimates_folder()),
        start_length=drafting.start_length,
        refusal=pair.refusal or None,
    )


def absolute(folder: str) -> str:
    """The folder that a name means, if it is one, wherever the program is started the next time."""
    return _resolved(Path(folder).expanduser())


def _resolved(folder: Path) -> str:
    return str(folder.resolve())
