"""From the name of a model and the settings to what the engine loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from app.remote.address import ServerAddress
from app.settings.table import Settings
from app.system import places
from app.text.figures import size
from mlx_engine.protocol.errors import ModelFolderError, SlipstreamError
from mlx_engine.protocol.events import LOOKUP, Load
from models.catalog import Catalog, load_catalog
from models.folders import PairFolders, called, find_pair
from models.machine import read_machine
from models.memory_fit import Fit, fit, size_of_folders
from models.paths import expanded, in_utf8

ASSISTANT = "assistant"
"""In --drafter, the assistant that was trained for the model."""


@dataclass(frozen=True, slots=True)
class PairOptions:
    """How a pair is loaded. The fields have the names of the engine's `Load`."""

    drafter: str = "auto"
    """NAME, FOLDER, HUB-ID, assistant or lookup, or several of them with commas; auto or none."""
    drafter_bits: int | None = None
    drafter_vocabulary: int | None = None
    start_length: int | None = None
    is_compiled: bool | None = None
    prefill_chunk: int | None = None
    conversation_bytes: int | None = None
    is_float32: bool | None = None
    is_wired: bool = False
    chat_cache_bytes: int | None = None
    is_oversized: bool = False
    """Load it even if it is too large for memory."""


def pair_options_of(settings: Settings) -> PairOptions:
    return PairOptions(
        drafter=settings.drafter,
        drafter_bits=settings.drafter_bits,
        drafter_vocabulary=settings.drafter_vocabulary,
        start_length=settings.draft_start,
        is_compiled=settings.compile,
        prefill_chunk=None if settings.prefill_chunk == "auto" else settings.prefill_chunk,
        conversation_bytes=None if settings.chat_memory == "auto" else int(settings.chat_memory * 1e9),
        is_float32=settings.float32,
        is_wired=settings.wire,
        chat_cache_bytes=None if settings.chat_cache == "auto" else int(settings.chat_cache * 1e9),
        is_oversized=settings.oversized,
    )


@dataclass(frozen=True, slots=True)
class PairChoice:
    """A pair on this machine, or what a server answers with."""

    load: Load
    title: str
    """Its name on the screen."""
    notice: str
    """What the person should know about it; may be empty."""
    is_pocket: bool
    server: ServerAddress | None = None
    """The server that has it, and `load` names it to that server alone; None: it is on this machine."""
    is_attached: bool = False
    """That server runs here and was found, not named. Models of this machine can be chosen beside it."""

    @property
    def is_served(self) -> bool:
        return self.server is not None


Choose = Callable[[str, bool], PairChoice]
"""Called with a name, a folder or a hub id, and whether the pair may be too large for memory. Raises
SlipstreamError."""


def choose_pair(model: str | None, options: PairOptions) -> PairChoice:
    """The pair that a name, a folder or a hub id refers to; None: the pocket pair. Raises SlipstreamError.

    A pair that is too large for this machine's memory is refused before any of it is loaded.
    """
    catalog = load_catalog(places.own_catalog())
    names = _drafter_names(options.drafter)
    with_folder = [name for name in names if name != LOOKUP]
    pairs = [find_pair(model, "auto" if name == ASSISTANT else name, catalog) for name in with_folder or ["none"]]
    pair = pairs[0]
    folders = [("--model", pair.target), *(("--drafter", each.drafter) for each in pairs)]
    for flag, folder in folders:
        if folder and not folder.is_dir():
            raise SlipstreamError(f"{flag} {folder}: no such folder. Use a folder with a config.json.")
    drafters = [each.drafter for each in pairs if each.drafter]
    refusals = [each.refusal for each in pairs if each.refusal]
    if not (pair.is_pocket or options.is_oversized):
        drafters, refusal = _fitting(pair, drafters, options)
        refusals += [refusal] if refusal else []
    pair = replace(pair, refusal=" ".join(refusals))
    load = _load(pair, drafters, LOOKUP in names, options)
    load = msgspec.structs.replace(load, smaller=_next_smaller(pair, catalog))
    notices = dict.fromkeys(each.notice for each in pairs if each.notice)
    return PairChoice(load, pair.name or called(pair.target), " ".join(notices), pair.is_pocket)


def _drafter_names(option: str) -> list[str]:
    """The single names in the option; a folder may have a comma in its own."""
    if option == "auto":
        return [ASSISTANT, LOOKUP]
    if Path(option).exists():
        return [option]
    return list(dict.fromkeys(name.strip() for name in option.split(",") if name.strip() not in ("", "none")))


def _next_smaller(pair: PairFolders, catalog: Catalog) -> str | None:
    """What to suggest where memory runs out."""
    try:
        return catalog.next_smaller(size_of_folders(pair.target).target_bytes or 0)
    except SlipstreamError:
        return None  # the engine reports what is wrong with the folder


def _fitting(pair: PairFolders, drafters: list[Path], options: PairOptions) -> tuple[list[Path], str]:
    """The drafters that fit into memory beside the model, the first ones first, and why the others are left out.

    Raises SlipstreamError if not even a short conversation fits: loading the model could crash the machine.
    """
    machine = read_machine()
    # Until the engine reports what the GPU may use, assume the largest share that macOS gives to any GPU.
    room = max(machine.working_set_bytes, machine.memory_bytes * 3 // 4)
    machine = replace(machine, working_set_bytes=room)

    def fit_of(kept: list[Path], is_float32: bool | None) -> Fit:
        sizes = size_of_folders(pair.target, *kept, drafter_vocabulary=options.drafter_vocabulary)
        sizes = replace(sizes, prefill_chunk=options.prefill_chunk)
        return fit(sizes, machine, is_float32=is_float32)

    try:
        memory_fit = fit_of(drafters, options.is_float32)
        if memory_fit.needed_bytes is None or memory_fit.largest_context_tokens != 0:
            return drafters, ""
        needed = size(memory_fit.needed_bytes).strip()
        has_room = f"this machine has room for {size(room).strip()}"
        for count in reversed(range(len(drafters))):
            if fit_of(drafters[:count], options.is_float32).largest_context_tokens:
                left_out = " and ".join(map(called, drafters[count:]))
                together = "both" if len(drafters) == 1 else "all"
                return drafters[:count], (
                    f"The drafter {left_out} is left out: {together} together need {needed} of memory, and "
                    f"{has_room}. Pass --oversized to load it anyway."
                )
        as_stored = fit_of(drafters, False)
    except ModelFolderError:
        return drafters, ""  # the engine reports what is wrong with the folder
    keep = "pass --float32 off to leave it in half precision, slower but smaller, "
    raise SlipstreamError(
        f"{pair.name or called(pair.target)} needs {needed} of memory, but {has_room}. Choose a "
        f"smaller model (`slipstream models list` shows what fits), "
        f"{keep if as_stored.largest_context_tokens else ''}or pass --oversized to load it anyway."
    )


def _load(pair: PairFolders, drafters: Sequence[Path], has_lookup: bool, options: PairOptions) -> Load:
    folders = [_resolved(folder) for folder in drafters]
    return Load(
        target=_resolved(pair.target),
        drafters=(*folders, *([LOOKUP] if has_lookup else [])),
        drafter_bits=options.drafter_bits,
        drafter_vocabulary=options.drafter_vocabulary,
        is_compiled=options.is_compiled,
        prefill_chunk=options.prefill_chunk,
        conversation_bytes=options.conversation_bytes,
        is_float32=options.is_float32,
        is_wired=options.is_wired,
        estimates_folder=str(places.estimates_folder()),
        chat_cache_folder=str(places.chat_cache_folder()),
        chat_cache_bytes=options.chat_cache_bytes,
        start_length=options.start_length,
        refusal=pair.refusal or None,
        target_name=called(pair.target),
        drafter_names={folder: called(path) for folder, path in zip(folders, drafters)},
    )


def absolute(folder: str) -> str:
    """The absolute path of a folder, so that it can be remembered for the next run. Raises PathError."""
    return _resolved(expanded(folder))


def _resolved(folder: Path) -> str:
    """Raises PathError."""
    return str(in_utf8(folder.resolve()))
