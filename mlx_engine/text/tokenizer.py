"""A folder's tokenizer and the special tokens that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mlx_engine.files.folder_files import is_there, read_json
from mlx_engine.protocol.errors import ModelFolderError

GEMMA_TOKENS = {
    "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip
"""What transformers' Gemma tokenizer has where tokenizer_config.json names no other."""


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
    path = folder / "tokenizer_config.json"
    return read_json(path) if is_there(path) else {}


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Name -> text of the special tokens in a tokenizer_config.json, as templates get them."""
    own = {name: _text(value) for name, value in config.items() if name.endswith("_token")}
    return GEMMA_TOKENS | {name: text for name, text in own.items() if text is not None}


def _text(value: Any) -> str | None:
    """People write a token as a string, or as an object with its content."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
