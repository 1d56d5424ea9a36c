"""A folder's tokenizer and the special tokens that it names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mlx_engine.files.folder_files import is_there, read_json
from mlx_engine.protocol.errors import ModelFolderError

GEMMA_TOKENS = {
    "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip
"""What transformers' Gemma tokenizer has where no file names another."""


def parse_tokenizer(content: bytes, path: Path) -> Tokenizer:
    """The content of a tokenizer.json as a tokenizer that reads texts whole. Raises ModelFolderError."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises Exception itself, and its panics are not even that
        raise ModelFolderError(f"{path} is not a usable tokenizer ({error}). Pull the model again.") from None
    # Training leaves these sections behind. They would cut a prompt, or fill it up.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """The highest token id plus one.

    Usually the ids have no gaps, which is quickly seen; only otherwise the whole dictionary is built.
    """
    tokens = tokenizer.get_vocab_size(with_added_tokens=False)
    if not all(map(tokenizer.model.id_to_token, range(tokens))):
        return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    return max(tokens, *(id + 1 for id in tokenizer.get_added_tokens_decoder()), 0)


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """A folder's tokenizer_config.json; empty without one. Raises ModelFolderError."""
    return _read_if_there(folder / "tokenizer_config.json")


def read_special_tokens_map(folder: Path) -> dict[str, Any]:
    """A folder's special_tokens_map.json, which older tools write; empty without one. Raises ModelFolderError."""
    return _read_if_there(folder / "special_tokens_map.json")


def special_tokens(config: Mapping[str, Any], tokens_map: Mapping[str, Any]) -> dict[str, str]:
    """Name -> text of the special tokens, as templates get them. tokens_map: of `read_special_tokens_map`.

    As in transformers, the map counts only beside a config without the tokens that were added.
    """
    files = (config,) if "added_tokens_decoder" in config else (config, tokens_map)
    found = dict(GEMMA_TOKENS)
    for file in files:
        for name, value in file.items():
            if name.endswith("_token") and (texts := _texts(value)):
                found[name] = texts[0]
    return found


def end_token_texts(*configs: Mapping[str, Any]) -> frozenset[str]:
    """The texts of all end tokens that are named by their text."""
    return frozenset(text for config in configs for text in _texts(config.get("eos_token")))


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if is_there(path) else {}


def _texts(value: Any) -> list[str]:
    """People write a token as a string, as an object with its content, or several as a list."""
    entries = value if isinstance(value, list) else [value]
    texts = [entry.get("content") if isinstance(entry, dict) else entry for entry in entries]
    return [text for text in texts if isinstance(text, str)]
