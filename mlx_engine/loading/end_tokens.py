"""The tokens that end a reply: a fine-tune may name its own in any of a folder's files, so all of them count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_engine.files.written_values import token_ids
from mlx_engine.loading.generation_config import GenerationConfig
from mlx_engine.text.prompt import ChatFormat


def end_tokens(config: Mapping[str, Any], generation: GenerationConfig, format: ChatFormat) -> frozenset[int]:
    """The union of config.json, at the top and in text_config, generation_config.json, the tokenizer's files,
    and the ids that end every Gemma 4 reply."""
    text = config.get("text_config")
    parts = [config, text] if isinstance(text, Mapping) else [config]
    named = (token_ids(part.get("eos_token_id"))[0] for part in parts)
    return format.stop_tokens | generation.eos_tokens | frozenset[int]().union(*named)
