"""A model folder's config.json: read as data, and checked before anything is built from it or planned with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_engine.files.config_bounds import check_layers, check_network, out_of_range
from mlx_engine.files.folder_files import is_there, read_json
from mlx_engine.files.layer_config import in_published_form
from mlx_engine.files.tensor_names import LoadedParts
from mlx_engine.files.weight_files import read_tensors, refuse_other_formats
from mlx_engine.protocol.errors import ModelFolderError

TEXT_ONLY_TYPES = ("gemma4_text", "gemma4_unified_text")
"""Of exports without the other parts: the whole config is what others have as text_config."""
TARGET_TYPES = ("gemma4", "gemma4_unified", *TEXT_ONLY_TYPES)
ASSISTANT_TYPES = ("gemma4_assistant", "gemma4_unified_assistant")
SPECULATORS_KINDS = ("dspark", "dflash", "eagle3")
DRAFTER_ARCHITECTURES = ("Gemma4DSparkModel", "Gemma4Eagle3Model", "DFlashDraftModel")
CODE_KEYS = ("model_file", "auto_map")
DEFAULT_VOCAB_SIZE = 262144
DEFAULT_SHARED_LAYERS = 20
DEFAULT_PER_LAYER_SIZE = 256
"""Defaults of the published model code."""
UNIFIED_DEFAULTS = {
    "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0, "use_double_wide_mlp": False,
    "sliding_window": 1024, "max_position_embeddings": 262144,
}  # fmt: skip
"""Of the unified model, whose config class knows no per-layer embeddings."""


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, its text part in the published form. Raises ModelFolderError, also if it asks for
    code to be run."""
    if not folder.is_dir():
        raise ModelFolderError(f"{folder} is not a folder. Name the folder that contains config.json.")
    source = folder / "config.json"
    if not is_there(source):
        refuse_other_formats(folder)
    config = read_json(source)
    refuse_code_keys(config, folder)
    if config.get("model_type") in TEXT_ONLY_TYPES:
        return in_published_form(config, source)
    if isinstance(config.get("text_config"), Mapping):
        config["text_config"] = in_published_form(config["text_config"], source)
    return config


def refuse_code_keys(config: Mapping[str, Any], source: Path) -> None:
    """Raises ModelFolderError if the config names code to be run. Code that nothing names is not looked at.

    Drafters of known packagings are saved with the name of their training code, and need none.
    """
    named = [key for key in CODE_KEYS if config.get(key) is not None]
    code = [key for key in named if not (key == "auto_map" and is_drafter_packaging(config))]
    if code:
        raise ModelFolderError(
            f"{source} asks for code of its own to be run ({code[0]}). Slipstream never runs code from a model "
            "folder. Use a checkpoint that contains only data."
        )


def is_drafter_packaging(config: Mapping[str, Any]) -> bool:
    """A block drafter or EAGLE-3, of speculators, DeepSpec or z-lab."""
    architectures = config.get("architectures")
    return config.get("speculators_model_type") in SPECULATORS_KINDS or (
        isinstance(architectures, list) and len(architectures) == 1 and architectures[0] in DRAFTER_ARCHITECTURES
    )


def target_text_config(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """A copy of the checked text part of a target's config, with what it leaves open filled in.

    Raises ModelFolderError naming the key that is wrong.
    """
    text = _text_part(config, source)
    # The wrapper's own vocab_size would overwrite the text model's with the default.
    vocab_size = text.get("vocab_size", config.get("vocab_size", DEFAULT_VOCAB_SIZE))
    rows = text.get("vocab_size_per_layer_input")
    rows = vocab_size if rows is None else rows
    text = {**text, "vocab_size_per_layer_input": rows, "vocab_size": vocab_size}
    if "unified" in f"{config.get('model_type')} {text.get('model_type')}":
        text |= {key: value for key, value in UNIFIED_DEFAULTS.items() if text.get(key) is None}
    check_layers(text, source)
    if text.get("hidden_size_per_layer_input", DEFAULT_PER_LAYER_SIZE) and rows < vocab_size:
        raise ModelFolderError(
            f"{source}: vocab_size_per_layer_input is {rows}, but the vocabulary has {vocab_size} tokens, and "
            "each needs a row in both tables. Use a checkpoint whose tables were resized together."
        )
    text["tie_word_embeddings"] = is_tied(config, source)
    shared, count = text.get("num_kv_shared_layers"), text["num_hidden_layers"]
    shared = DEFAULT_SHARED_LAYERS if shared is None else shared
    if shared >= count:
        raise out_of_range(source, "num_kv_shared_layers", shared, f"less than num_hidden_layers, {count},")
    return text


def assistant_text_config(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """The text part of an assistant's config, after both parts are checked. Raises ModelFolderError as above."""
    text = _text_part(config, source)
    check_layers(text, source)
    check_network(config, source)
    return text


def is_tied(config: Mapping[str, Any], source: Path) -> bool:
    """Whether the LM head is the embedding table: unless one of the config's two levels says that it is not.

    transformers obeys the top level, mlx-lm the text part. Raises ModelFolderError.
    """
    levels = [level for level in (config, config.get("text_config")) if isinstance(level, Mapping)]
    said = [level.get("tie_word_embeddings") for level in levels]
    for value in said:
        if value is not None and not isinstance(value, bool):
            raise out_of_range(source, "tie_word_embeddings", value, "true or false")
    return False not in said


def loaded_parts(config: Mapping[str, Any], source: Path) -> LoadedParts:
    """Which tensors of a checkpoint are loaded. Raises ModelFolderError naming a key that is wrong."""
    if is_drafter_packaging(config):
        return LoadedParts(is_tied=True, is_packaged=True)
    if config.get("model_type") in ASSISTANT_TYPES:
        is_ordered = bool(config.get("use_ordered_embeddings", False))
        return LoadedParts(is_tied(config, source), is_assistant=True, is_ordered=is_ordered)
    text = target_text_config(config, source)
    shared = text.get("num_kv_shared_layers")
    shared = DEFAULT_SHARED_LAYERS if shared is None else shared
    return LoadedParts(text["tie_word_embeddings"], first_shared_layer=text["num_hidden_layers"] - shared)


def loaded_bytes(config: Mapping[str, Any], folder: Path) -> int:
    """Bytes of the tensors that are loaded from a folder. Raises ModelFolderError."""
    return loaded_parts(config, folder / "config.json").loaded_bytes(read_tensors(folder))


def _text_part(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    text = config if config.get("model_type") in TEXT_ONLY_TYPES else config.get("text_config")
    if not isinstance(text, Mapping):
        raise ModelFolderError(f"{source} has no text_config. Pull the model again.")
    return in_published_form(text, source)
