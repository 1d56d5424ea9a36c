"""Loads a target and its drafters from their folders, and checks that they fit each other.

Knows no kind of drafter: `speculation/drafters.py` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import mlx.core as mx

from mlx_engine.files.config_file import loaded_bytes, read_config
from mlx_engine.loading.drafter_bits import chosen_bits, is_large_assistant
from mlx_engine.loading.end_tokens import end_tokens
from mlx_engine.loading.generation_config import GenerationConfig
from mlx_engine.loading.overflow import widen_if_overflowing
from mlx_engine.network.cache_budget import CacheBudget
from mlx_engine.network.target import Gemma4Target, load_target
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import Load, Loading
from mlx_engine.protocol.out_of_memory import is_out_of_memory, memory_refusal
from mlx_engine.speculation import drafters
from mlx_engine.speculation.drafter import DraftedTarget, Drafter, DrafterSource
from mlx_engine.text.prompt import ChatFormat

COMPUTING_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError)
"""What MLX raises when shapes or numbers do not fit each other."""


@dataclass(slots=True)
class LoadedPair:
    """A target, and those of its drafters that could be loaded."""

    format: ChatFormat
    target: Gemma4Target
    budget: CacheBudget = field(default_factory=CacheBudget)
    """Of the conversations that all of them keep in memory."""
    drafters: dict[str, Drafter] = field(default_factory=dict)
    """By their folder, or the name of a kind without one."""
    taps: dict[str, range] = field(default_factory=dict)
    """Of each of them, the indices of its taps; see Gemma4Target.tap."""
    refusals: list[str] = field(default_factory=list)
    """Why requested drafters were not loaded."""
    drafter_bits: int | None = None
    """Bits to which the drafters were quantized while loading; None: they are as stored."""
    drafter_vocabulary: int | None = None
    """How many of the most frequent tokens an assistant drafts; None: any token."""
    notice: str | None = None
    """What was changed to make the target work."""


class LoadProgress:
    """Reports what is being read, and how many bytes of the pair's weights have been read so far."""

    def __init__(self, total_bytes: int, on_loading: Callable[[Loading], None]) -> None:
        self._on_loading = on_loading
        self._step = ""
        self._done_bytes = 0
        self._total_bytes = total_bytes

    def start(self, step: str) -> None:
        """Report the next step."""
        self._step = step
        self.add(0)

    def add(self, size_bytes: int) -> None:
        """Report that this many more bytes have been read."""
        self._done_bytes += size_bytes
        self._on_loading(Loading(self._step, self._done_bytes, self._total_bytes))


def load_pair(load: Load, on_loading: Callable[[Loading], None]) -> LoadedPair:
    """Load both. Raises ModelFolderError for the target; a drafter that cannot be used is left out."""
    folder = Path(load.target)
    bits = {name: chosen_bits(load.drafter_bits, name, _architecture()) for name in load.drafters}
    sources = [DrafterSource(name, bits[name]) for name in load.drafters]
    read_config(folder)  # before the tokenizer: a folder without a model should be refused as such
    format = ChatFormat(folder)
    progress = LoadProgress(_weights_bytes(folder, sources), on_loading)
    progress.start(f"reading {load.name}")
    is_compiled = mx.metal.is_available() if load.is_compiled is None else load.is_compiled
    is_float32 = not mx.metal.is_available() if load.is_float32 is None else load.is_float32
    target = load_target(folder, on_read=progress.add, is_compiled=is_compiled, is_float32=is_float32)
    format.check_fits(target.facts.vocab_size)
    pair = LoadedPair(format, target)
    with suppress(*COMPUTING_ERRORS):  # reported by the warm-up
        pair.notice = widen_if_overflowing(target, format, load.name)
    for source in sources:
        name, first_tap = load.drafter_name(source.name), target.tap_count
        source = replace(source, frequent=_frequent(load, source, pair))
        if drafters.has_folder(source):
            progress.start(f"reading {name}")
        try:
            loaded = drafters.load_drafter(
                source, DraftedTarget(folder, target, format, pair.budget), progress.add
            )
        except ModelFolderError as error:
            pair.refusals.append(str(error))
        except (*COMPUTING_ERRORS, MemoryError) as error:
            pair.refusals.append(computing_refusal(source.name, error))
        else:
            if loaded.name in {other.name for other in pair.drafters.values()}:
                pair.refusals.append(f"{name} is not used: only one drafter of the kind {loaded.name} can be.")
                untap(target, range(first_tap, target.tap_count))
                continue
            pair.drafters[source.name] = loaded
            pair.taps[source.name] = range(first_tap, target.tap_count)
            if source.bits:
                pair.drafter_bits = source.bits
            if source.frequent:
                pair.drafter_vocabulary = load.drafter_vocabulary
    return pair


def untap(target: Gemma4Target, taps: range) -> None:
    """The drafter of these taps is left out, so the target need not keep rows for it."""
    for index in taps:
        target.untap(index)


def _frequent(load: Load, source: DrafterSource, pair: LoadedPair) -> tuple[int, ...]:
    """The tokens that a drafter is to be reduced to; empty: it is left as it is."""
    count, vocab_size = load.drafter_vocabulary, pair.target.facts.vocab_size
    if not count or count >= vocab_size or not is_large_assistant(source):
        return ()
    folder = Path(load.target)
    ends = end_tokens(read_config(folder), GenerationConfig.read(folder), pair.format)
    return pair.format.frequent_tokens(count, {id for id in ends if id < vocab_size})


def _architecture() -> object:
    """MLX's name for the device."""
    return mx.device_info().get("architecture")


def computing_refusal(drafter: str, error: Exception) -> str:
    """Why a drafter whose network raises one of COMPUTING_ERRORS, or needs too much memory, is not used."""
    if is_out_of_memory(error):
        return memory_refusal(drafter, error)
    return (
        f"The drafter {drafter} cannot be run ({str(error)[:200] or type(error).__name__}). "
        "Pull it again, or use --drafter none."
    )


def _weights_bytes(folder: Path, sources: Sequence[DrafterSource]) -> int:
    total_bytes = loaded_bytes(read_config(folder), folder)
    for source in sources:
        with suppress(ModelFolderError):  # reported when the drafter is loaded
            total_bytes += drafters.weights_bytes(source)
    return total_bytes
