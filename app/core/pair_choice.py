"""From the name of a model and the settings to what the engine loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from app.settings.table import Settings
from app.system import places
from app.text.figures import size
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import LOOKUP, Load
from models.catalog import load_catalog
from models.folders import PairFolders, called, find_pair
from models.machine import read_machine
from models.memory_fit import fit, size_of_folders
from models.paths import expanded, in_utf8


@dataclass(frozen=True, slots=True)
class PairOptions:
    """How a pair is loaded. The fields have the names of the engine's `Load`."""

    drafter: str = "auto"
    """FOLDER, HUB-ID, auto, lookup or none."""
    drafter_bits: int | None = None
    start_length: int | None = None
    is_compiled: bool | None = None
    is_wired: bool = False
    is_oversized: bool = False
    """Load it even if it is too large for memory."""


def pair_options_of(settings: Settings) -> PairOptions:
    return PairOptions(
        drafter=settings.drafter,
        drafter_bits=settings.drafter_bits,
        start_length=settings.draft_start,
        is_compiled=settings.compile,
        is_wired=settings.wire,
        is_oversized=settings.oversized,
    )


@dataclass(frozen=True, slots=True)
class PairChoice:
    """A pair on this machine."""

    load: Load
    title: str
    """Its name on the screen."""
    notice: str
    """What the person should know about it; may be empty."""
    is_pocket: bool


Choose = Callable[[str, bool], PairChoice]
"""Called with a name, a folder or a hub id, and whether the pair may be too large for memory. Raises
SlipstreamError."""


def choose_pair(model: str | None, options: PairOptions) -> PairChoice:
    """The pair that a name, a folder or a hub id refers to; None: the pocket pair. Raises SlipstreamError.

    A pair that is too large for this machine's memory is refused before any of it is loaded.
    """
    drafter_folder = "none" if options.drafter == LOOKUP else options.drafter
    pair = find_pair(model, drafter_folder, load_catalog(places.own_catalog()))
    for flag, folder in (("--model", pair.target), ("--drafter", pair.drafter)):
        if folder and not folder.is_dir():
            raise SlipstreamError(f"{flag} {folder}: no such folder. Use a folder with a config.json.")
    if not (pair.is_pocket or options.is_oversized):
        _refuse_too_large(pair)
    return PairChoice(_load(pair, options), pair.name or called(pair.target), pair.notice, pair.is_pocket)


def _refuse_too_large(pair: PairFolders) -> None:
    """Raises SlipstreamError if not even a short conversation fits: loading the pair could crash the machine."""
    machine = read_machine()
    # Until the engine reports what the GPU may use, assume the largest share that macOS gives to any GPU.
    room = max(machine.working_set_bytes, machine.memory_bytes * 3 // 4)
    try:
        memory_fit = fit(size_of_folders(pair.target, pair.drafter), replace(machine, working_set_bytes=room))
    except SlipstreamError:
        return  # the engine reports what is wrong with the folder
    if memory_fit.needed_bytes is not None and memory_fit.largest_context_tokens == 0:
        name, needed = pair.name or called(pair.target), size(memory_fit.needed_bytes).strip()
        raise SlipstreamError(
            f"{name} needs {needed} of memory, but this machine has room for {size(room).strip()}. Choose a "
            "smaller model (`slipstream models list` shows what fits), or pass --oversized to load it anyway."
        )


def _load(pair: PairFolders, options: PairOptions) -> Load:
    # Without a drafter model, the text itself can still suggest drafts.
    without_model = None if options.drafter == "none" or pair.refusal else LOOKUP
    return Load(
        target=_resolved(pair.target),
        drafter=_resolved(pair.drafter) if pair.drafter else without_model,
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
    """Raises PathError."""
    return str(in_utf8(folder.resolve()))
