"""The kinds of drafters. A new kind is one new file beside this one, and one row in KINDS.

A file of a kind defines its `Drafter` (see drafter.py), how to load it, and how to recognise its folders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mlx_engine.files.config_file import loaded_bytes
from mlx_engine.network.checkpoint import OnRead
from mlx_engine.protocol.events import LOOKUP
from mlx_engine.speculation import (
    assistant_drafter,
    block_drafter,
    eagle_drafter,
    lookup,
    model_drafter,
    speculators_block,
)
from mlx_engine.speculation.drafter import DraftedTarget, Drafter, DrafterSource, LoadDrafter


@dataclass(frozen=True, slots=True)
class DrafterKind:
    """One row."""

    name: str
    load: LoadDrafter
    reads: Callable[[DrafterSource], bool] | None
    """Whether a folder is of this kind. None: the kind has no folder, and is requested by its name."""


KINDS = (
    DrafterKind(LOOKUP, lookup.load, reads=None),
    DrafterKind("block", block_drafter.load, reads=block_drafter.reads),
    DrafterKind("speculators block", speculators_block.load, reads=speculators_block.reads),
    DrafterKind("eagle3", eagle_drafter.load, reads=eagle_drafter.reads),
    DrafterKind("assistant", assistant_drafter.load, reads=assistant_drafter.reads),
    DrafterKind("model", model_drafter.load, reads=lambda source: True),
)
"""The first row that fits is used. The last one takes any folder, and its loader says what is wrong with it."""


def load_drafter(source: DrafterSource, target: DraftedTarget, on_read: OnRead) -> Drafter:
    """Load a drafter of whichever kind the source is. Raises ModelFolderError, PairMismatchError."""
    return _kind_of(source).load(source, target, on_read)


def has_folder(source: DrafterSource) -> bool:
    """False for the name of a kind that has no folder."""
    return source.name not in {kind.name for kind in KINDS if kind.reads is None}


def weights_bytes(source: DrafterSource) -> int:
    """Bytes of the weights to read. Raises ModelFolderError."""
    return loaded_bytes(source.config, source.folder) if has_folder(source) else 0


def _kind_of(source: DrafterSource) -> DrafterKind:
    if has_folder(source):
        return next(kind for kind in KINDS if kind.reads and kind.reads(source))
    return next(kind for kind in KINDS if kind.name == source.name)
