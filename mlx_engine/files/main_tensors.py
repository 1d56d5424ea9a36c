"""Whether the main tensors of a checkpoint have the shapes that its config.json describes, by its headers alone.

These are the tables, which every token id must have a row in, and each layer's queries, whose size tells the head
sizes. The engine checks every tensor when it loads a model; this is for readers that load none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlx_engine.files.config_bounds import FULL
from mlx_engine.files.config_file import (
    ASSISTANT_TYPES,
    DEFAULT_PER_LAYER_SIZE,
    assistant_text_config,
    is_tied,
    target_text_config,
)
from mlx_engine.files.layer_config import DEFAULTS
from mlx_engine.files.quantization import bare_path, foreign_method, packing_of, refused_method
from mlx_engine.files.safetensors_header import Tensor
from mlx_engine.files.stored_dtypes import ONLY_IN_SCALES
from mlx_engine.protocol.errors import ModelFolderError

DEFAULT_HEADS = 8
DEFAULT_GLOBAL_HEAD_DIM = 512
"""Of the published model code."""


def check_main_tensors(tensors: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Raises ModelFolderError naming a tensor that is missing or of another shape, stored quantized or not.

    config: of a target or an assistant.
    """
    stored = {bare_path(name): tensor for name, tensor in tensors.items()}
    method = foreign_method(config)
    for name, rows, width in _shapes(config, folder / "config.json"):
        tensor, scales = stored.get(name), stored.get(f"{name}.scales")
        if tensor is None:
            if method:
                raise refused_method(folder, method)
            raise ModelFolderError(
                f"{folder}: tensor '{name}.weight' is missing. The weights do not fit config.json: pull the model "
                "again."
            )
        shape, expected = tensor.shape, (rows, width)
        if scales is not None and len(shape) == len(scales.shape) == 2 and shape[0] == scales.shape[0] == rows:
            if not packing_of(width, shape[1], scales.shape[1], scales.dtype in ONLY_IN_SCALES):
                raise refused_method(folder, method, f"{name}.scales")
        elif shape != expected:
            raise ModelFolderError(
                f"{folder}: tensor '{name}.weight' has shape {shape}, but config.json says {expected}. "
                "Pull the model again."
            )


def _shapes(config: Mapping[str, Any], source: Path) -> Iterator[tuple[str, int, int]]:
    """Name, rows and width of each main tensor."""
    is_assistant = config.get("model_type") in ASSISTANT_TYPES
    text = (assistant_text_config if is_assistant else target_text_config)(config, source)
    hidden, vocabulary, kinds = text["hidden_size"], text["vocab_size"], text["layer_types"]
    if is_assistant:
        backbone = config.get("backbone_hidden_size") or hidden
        yield "pre_projection", hidden, 2 * backbone
        yield "post_projection", backbone, hidden
    if not is_assistant or is_tied(config, source):
        yield "embed_tokens", vocabulary, hidden
    if not is_tied(config, source):
        yield "lm_head", vocabulary, hidden
    per_layer = _number(text, "hidden_size_per_layer_input", DEFAULT_PER_LAYER_SIZE)
    if per_layer and not is_assistant:
        yield "embed_tokens_per_layer", text["vocab_size_per_layer_input"], len(kinds) * per_layer
    head_dim = _number(text, "head_dim", DEFAULTS["head_dim"])
    full_head_dim = _number(text, "global_head_dim", DEFAULT_GLOBAL_HEAD_DIM)
    for layer, kind in enumerate(kinds):
        size = (full_head_dim or head_dim) if kind == FULL else head_dim
        yield (
            f"layers.{layer}.self_attn.q_proj",
            _number(text, "num_attention_heads", DEFAULT_HEADS) * size,
            hidden,
        )


def _number(text: Mapping[str, Any], key: str, default: int) -> int:
    value = text.get(key)
    return default if value is None else int(value)
