"""A target and its drafter, loaded from their folders and checked against each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlx_engine import assistant
from mlx_engine.assistant import load_assistant
from mlx_engine.checkpoint import read_config
from mlx_engine.drafters import AssistantDrafter, Drafter, LookupDrafter, ModelDrafter, check_pair
from mlx_engine.errors import ModelFolderError, PairMismatchError
from mlx_engine.events import LOOKUP, Load
from mlx_engine.prompt import ChatFormat
from mlx_engine.target import Gemma4Target, load_target


@dataclass(frozen=True, slots=True)
class Pair:
    """What is in memory."""

    format: ChatFormat
    target: Gemma4Target
    drafter: Drafter | None


def load_pair(load: Load, on_loading: Callable[[str], None]) -> Pair:
    """Load both. Raises ModelFolderError; PairMismatchError if they do not belong together."""
    folder = Path(load.target)
    on_loading(f"reading {folder.name}")
    read_config(folder)  # a folder that is no model is refused as that, not for want of a tokenizer
    format = ChatFormat(folder)
    target = load_target(folder)
    _check_vocabulary(format, target, folder)
    if load.drafter is None:
        return Pair(format, target, None)
    if load.drafter == LOOKUP:
        return Pair(format, target, LookupDrafter())
    on_loading(f"reading {Path(load.drafter).name}")
    return Pair(format, target, _load_drafter(load, Path(load.drafter), format, target))


def _load_drafter(load: Load, folder: Path, format: ChatFormat, target: Gemma4Target) -> Drafter:
    if read_config(folder).get("model_type") in assistant.MODEL_TYPES:
        network = load_assistant(folder, load.drafter_bits)
        check_pair(network, target.facts, (str(folder), load.target))
        return AssistantDrafter(network, target)
    own_format = ChatFormat(folder)
    model = load_target(folder, load.drafter_bits)
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
