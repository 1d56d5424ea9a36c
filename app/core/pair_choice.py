"""From the name of a model to what the engine loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from app.system import places
from app.text.figures import size
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import LOOKUP, Load
from models.catalog import load_catalog
from models.folders import PairFolders, called, find_pair
from models.machine import read_machine
from models.memory_fit import fit, size_of_folders
from models.paths import expanded


@dataclass(frozen=True, slots=True)
class PairOptions:
    """How a pair is loaded, under the names that the engine's `Load` has."""

    drafter: str = "auto"
    """FOLDER, HUB-ID, auto, lookup or none."""
    drafter_bits: int | None = None
    start_length: int | None = None
    is_compiled: bool | None = None
    is_wired: bool = False
    is_oversized: bool = False
    """Load it even if the memory has no room for it."""


@dataclass(frozen=True, slots=True)
class PairChoice:
    """A pair on this machine."""

    load: Load
    title: str
    """Its name on the screen."""
    notice: str
    """What the person should know about this choice; may be empty."""
    is_pocket: bool


Choose = Callable[[str, bool], PairChoice]
"""The pair that a name, a folder or a hub id refers to, and whether it may be too large for memory; raises
SlipstreamError."""


def choose_pair(model: str | None, options: PairOptions) -> PairChoice:
    """The pair that a name, a folder or a hub id refers to. Raises SlipstreamError.

    A pair too large for this machine's memory is refused before any of it is loaded.
    """
    wanted = "none" if options.drafter == LOOKUP else options.drafter
    pair = find_pair(model, wanted, load_catalog(places.own_catalog()))
    for what, folder in (("--model", pair.target), ("--drafter", pair.drafter)):
        if folder and not folder.is_dir():
            raise SlipstreamError(f"{what} {folder}: no such folder. Name a folder with a config.json.")
    if not (pair.is_pocket or options.is_oversized):
        _refuse_what_is_too_large(pair)
    return PairChoice(_load(pair, options), pair.name or called(pair.target), pair.notice, pair.is_pocket)


def _refuse_what_is_too_large(pair: PairFolders) -> None:
    """Raises SlipstreamError if not even a short conversation fits: loading it could bring the machine down."""
    machine = read_machine()
    # The device has not been asked yet, so this is the most that any of them allows.
    room = max(machine.working_set_bytes, machine.memory_bytes * 3 // 4)
    try:
        found = fit(size_of_folders(pair.target, pair.drafter), replace(machine, working_set_bytes=room))
    except SlipstreamError:
        return  # the engine will say what is wrong with the folder
    if found.needed_bytes is not None and found.largest_context_tokens == 0:
        name, needed = pair.name or called(pair.target), size(found.needed_bytes).strip()
        raise SlipstreamError(
            f"{name} needs {needed} of memory, but this machine has room for {size(room).strip()}. Choose a "
            "smaller model (`slipstream models list` shows what fits), or pass --oversized to load it anyway."
        )


def _load(pair: PairFolders, options: PairOptions) -> Load:
    # Without an assistant, drafts can still be looked up in the text.
    without = None if options.drafter == "none" or pair.refusal else LOOKUP
    return Load(
        target=_resolved(pair.target),
        drafter=_resolved(pair.drafter) if pair.drafter else without,
        drafter_bits=options.drafter_bits,
        is_compiled=options.is_compiled,
        is_wired=options.is_wired,
        estimates_folder=str(places.estimates_folder()),
        start_length=options.start_length,
        refusal=pair.refusal or None,
        target_name=called(pair.target),
        drafter_name=called(pair.drafter) if pair.drafter else None,
    )


def absolute(folder: str) -> str:
    """The absolute path of a folder, so that it can be remembered for the next run. Raises PathError."""
    return _resolved(expanded(folder))


def _resolved(folder: Path) -> str:
    return str(folder.resolve())
