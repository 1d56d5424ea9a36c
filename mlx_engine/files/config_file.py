"""A model folder's config.json: read as data, and checked before anything is built from it or planned with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_engine.files.config_bounds import check_layers, check_network, out_of_range
from mlx_engine.files.folder_files import read_json
from mlx_engine.protocol.errors import ModelFolderError

CODE_KEYS = ("model_file", "auto_map")
DEFAULT_VOCAB_SIZE = 262144
DEFAULT_SHARED_LAYERS = 20
DEFAULT_PER_LAYER_SIZE = 256
"""Defaults of the published model code."""


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises ModelFolderError, also if the folder contains code or asks for some."""
    if not folder.is_dir():
        raise ModelFolderError(f"{folder} is not a folder. Name the folder that contains config.json.")
    config = read_json(folder / "config.json")
    refuse_code_keys(config, folder)
    _refuse_code(folder, sorted(path.name for path in folder.glob("*.py")))
    return config


def refuse_code_keys(config: Mapping[str, Any], source: Path) -> None:
    """Raises ModelFolderError if the config asks for code to be run."""
    _refuse_code(source, [key for key in CODE_KEYS if key in config])


def _refuse_code(source: Path, code: list[str]) -> None:
    if code:
        raise ModelFolderError(
            f"{source} asks for code of its own to be run ({code[0]}). Slipstream never runs code from a model "
            "folder. Use a checkpoint that contains only data."
        )


def target_text_config(config: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """A copy of the checked text part of a target's config, with its vocabulary size filled in.

    Raises ModelFolderError naming the key that is wrong.
    """
    text = config if config.get("model_type") == "gemma4_text" else config.get("text_config")
    if not isinstance(text, Mapping):
        raise ModelFolderError(f"{source} has no text_config. Pull the model again.")
    # The wrapper's own vocab_size would overwrite the text model's with the default.
    vocab_size = text.get("vocab_size", config.get("vocab_size", DEFAULT_VOCAB_SIZE))
    rows = text.get("vocab_size_per_layer_input")
    rows = vocab_size if rows is None else rows
    text = {**text, "vocab_size_per_layer_input": rows, "vocab_size": vocab_size}
    check_layers(text, source)
    if text.get("hidden_size_per_layer_input", DEFAULT_PER_LAYER_SIZE) and rows < vocab_size:
        raise ModelFolderError(
            f"{source}: vocab_size_per_layer_input is {rows}, but the vocabulary has {vocab_size} tokens, and "
            "each needs a row in both tables. Use a checkpoint whose tables were resized together."
        )
    shared, count = text.get("num_kv_shared_layers"), text["num_hidden_layers"]
    shared = DEFAULT_SHARED_LAYERS if shared is None else shared
    if shared >= count:
        raise out_of_range(source, "num_kv_shared_layers", shared, f"less than num_hidden_layers, {count},")
    return text


def assistant_text_config(config: Mapping[str, Any], source: Path) -> Mapping[str, Any]:
    """The text part of an assistant's config, after both parts are checked. Raises ModelFolderError as above."""
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        raise ModelFolderError(f"{source} has no text_config. Pull the model again.")
    check_layers(text, source)
    check_network(config, source)
    return text
