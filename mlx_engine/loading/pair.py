"""A target and its drafter, loaded from their folders and checked against each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_engine.files.config_file import read_config
from mlx_engine.files.weight_files import read_tensors
from mlx_engine.network import assistant
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.target import Gemma4Target, load_target
from mlx_engine.protocol.errors import ModelFolderError, PairMismatchError
from mlx_engine.protocol.events import LOOKUP, Load, Loading
from mlx_engine.speculation.drafters import AssistantDrafter, Drafter, LookupDrafter, ModelDrafter, check_pair
from mlx_engine.text.prompt import ChatFormat

COMPUTING_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError)
"""What MLX raises for numbers that do not go together."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What is in memory."""

    format: ChatFormat
    target: Gemma4Target
    drafter: Drafter | None
    refusal: str | None = None
    """Why the drafter that was asked for is not there."""


class Progress:
    """Tells what is being read, and how much of the weights of both has been."""

    def __init__(self, load: Load, on_loading: Callable[[Loading], None]) -> None:
        """Raises ModelFolderError."""
        self._on_loading = on_loading
        self._what = ""
        self._done_bytes = 0
        self._total_bytes = _weights_bytes(load.target)
        if load.drafter not in (None, LOOKUP):
            with suppress(ModelFolderError):  # refused, and said, when its turn comes
                self._total_bytes += _weights_bytes(str(load.drafter))

    def say(self, what: str) -> None:
        """Something else begins."""
        self._what = what
        self.add(0)

    def add(self, size_bytes: int) -> None:
        """So much more has been read."""
        self._done_bytes += size_bytes
        self._on_loading(Loading(self._what, self._done_bytes, self._total_bytes))


def load_pair(load: Load, on_loading: Callable[[Loading], None]) -> Pair:
    """Load both; a drafter that is of no use is left out. Raises ModelFolderError for the target."""
    folder = Path(load.target)
    read_config(folder)  # a folder that is no model is refused as that, not for want of a tokenizer
    format = ChatFormat(folder)
    progress = Progress(load, on_loading)
    target_name, drafter_name = load.names
    progress.say(f"reading {target_name}")
    is_compiled = mx.metal.is_available() if load.is_compiled is None else load.is_compiled
    target = load_target(folder, on_read=progress.add, is_compiled=is_compiled)
    _check_vocabulary(format, target, folder)
    if load.drafter is None:
        return Pair(format, target, None)
    if load.drafter == LOOKUP:
        return Pair(format, target, LookupDrafter())
    progress.say(f"reading {drafter_name}")
    try:
        return Pair(format, target, _load_drafter(load, format, target, progress))
    except ModelFolderError as error:
        return Pair(format, target, None, str(error))
    except COMPUTING_ERRORS as error:
        return Pair(format, target, None, does_not_compute(load.drafter, error))


def does_not_compute(drafter: str | None, error: Exception) -> str:
    """What is said of a drafter whose network raises MLX's own errors."""
    return (
        f"The drafter {drafter} does not compute ({str(error)[:200] or type(error).__name__}). "
        "Fetch the folder again, or use --drafter none."
    )


def _weights_bytes(folder: str) -> int:
    return sum(tensor.size_bytes for tensor in read_tensors(Path(folder)).values())


def _load_drafter(load: Load, format: ChatFormat, target: Gemma4Target, progress: Progress) -> Drafter:
    folder = Path(str(load.drafter))
    if read_config(folder).get("model_type") in assistant.MODEL_TYPES:
        network = load_assistant(folder, load.drafter_bits, progress.add, target.is_compiled)
        check_pair(network, target.facts, (str(folder), load.target))
        return AssistantDrafter(network, target)
    own_format = ChatFormat(folder)
    model = load_target(folder, load.drafter_bits, progress.add, target.is_compiled)
    _check_vocabulary(own_format, model, folder)
    if model.facts.vocab_size != target.facts.vocab_size or not own_format.has_same_tokens(format):
        raise PairMismatchError(
            f"The draft model {folder} has another tokenizer than {load.target}: "
            f"{own_format.vocab_size} tokens against {format.vocab_size}, or other ones. "
            "Use a smaller model of the same family, or --drafter lookup."
        )
    return ModelDrafter(model)


def _check_vocabulary(format: ChatFormat, target: Gemma4Target, folder: Path) -> None:
    # An id beyond the embedding table would be read from memory that is not its own.
    known = target.facts.vocab_size
    if format.vocab_size > known:
        raise ModelFolderError(
            f"{folder}: its tokenizer has {format.vocab_size} tokens, its weights {known}. "
            "The folder mixes two models: fetch it again."
        )
