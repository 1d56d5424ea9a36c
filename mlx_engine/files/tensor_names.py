"""What the tensors of a Gemma 4 checkpoint belong to, whatever tool has written it.

The same tensor is called `model.language_model.layers.0...` by transformers, `language_model.model.layers.0...` by
mlx-lm, and `model.layers.0...` or `layers.0...` in exports of the text model alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from mlx_engine.files.safetensors_header import Tensor
from mlx_engine.protocol.errors import ModelFolderError

PREFIX = re.compile(r"(?:model\.|language_model\.)*")
LM_HEAD = "lm_head."
OTHER_PARTS = (
    "vision_tower", "multi_modal_projector", "audio_tower", "embed_audio", "embed_vision", "vision_embedder",
)  # fmt: skip
"""Parts of a checkpoint that a text chat does not load."""
NOT_WEIGHTS = ("rotary_emb.", "input_max", "input_min", "output_max", "output_min")
OWN_KV = (".self_attn.k_proj", ".self_attn.v_proj", ".self_attn.k_norm")
NOT_DRAFTING = ("verifier_", "confidence_head.", "t2d", "d2t")
"""Of block drafters and EAGLE-3: copies of the target's tensors, and what is no part of the network."""
ORDERING = "masked_embedding.token_ordering"
TABLE = "embed_tokens."
BODY = (TABLE, "layers.", "norm.")
"""Of an assistant, without its prefix."""


@dataclass(frozen=True, slots=True)
class LoadedParts:
    """The facts of a config that decide which tensors are loaded."""

    is_tied: bool
    first_shared_layer: int = 0
    """For a target: layers from this one on use the K/V of earlier layers."""
    is_assistant: bool = False
    is_ordered: bool = False
    """An assistant with a centroid head."""
    is_packaged: bool = False
    """A block drafter or EAGLE-3."""

    def __contains__(self, name: object) -> bool:
        """Whether a tensor of this name is loaded."""
        if self.is_packaged:
            return not str(name).startswith(NOT_DRAFTING)
        own = _without_prefix(str(name))
        if own.startswith(LM_HEAD):
            return not self.is_tied
        if self.is_assistant:
            is_left_out = any(part in own for part in NOT_WEIGHTS)
            return not is_left_out and (self.is_ordered or not own.startswith("masked_embedding."))
        if own.startswith(OTHER_PARTS) or any(part in own for part in NOT_WEIGHTS):
            return False
        layer = _layer_index(own)
        return layer is None or layer < self.first_shared_layer or not any(part in own for part in OWN_KV)

    def loaded_bytes(self, tensors: Mapping[str, Tensor]) -> int:
        """Bytes of the tensors that are loaded. An untied assistant's own table is not: its head replaces it."""
        loaded = {name: tensor for name, tensor in tensors.items() if name in self}
        if self.is_assistant and not self.is_tied:
            loaded = {name: tensor for name, tensor in loaded.items() if "embed_tokens." not in name}
        size_bytes = sum(tensor.size_bytes for tensor in loaded.values())
        ordering = loaded.get(ORDERING)
        if ordering is not None and ordering.dtype == "I64":
            size_bytes -= ordering.size_bytes // 2  # kept as int32
        return size_bytes


def target_names(names: Collection[str], parts: LoadedParts, source: object) -> dict[str, str]:
    """From the names that a target's checkpoint has to mlx-lm's, for all tensors that are loaded.

    Raises ModelFolderError if two tensors would have the same name, or if an untied head is missing.
    """
    check_head(names, parts, source)

    def renamed(name: str) -> str:
        own = _without_prefix(name)
        return f"language_model.{own}" if own.startswith(LM_HEAD) else f"language_model.model.{own}"

    return _renamed(names, parts, renamed, source)


def assistant_names(names: Collection[str], parts: LoadedParts, source: object) -> dict[str, str]:
    """The same for an assistant and our own network, in which its layers and their table are `model`."""
    check_head(names, parts, source)

    def renamed(name: str) -> str:
        own = _without_prefix(name)
        return f"model.{own}" if own.startswith(BODY) else own

    return _renamed(names, parts, renamed, source)


def _renamed(
    names: Collection[str], parts: LoadedParts, renamed: Callable[[str], str], source: object
) -> dict[str, str]:
    stored: dict[str, str] = {}
    for name in sorted(names):
        if name not in parts:
            continue
        if (new := renamed(name)) in stored:
            raise ModelFolderError(
                f"{source} contains the tensor {_without_prefix(name)[:80]!r} twice, as {stored[new][:80]!r} and "
                f"{name[:80]!r}. Pull the model again."
            )
        stored[new] = name
    return {name: new for new, name in stored.items()}


def check_head(names: Collection[str], parts: LoadedParts, source: object) -> None:
    """Raises ModelFolderError if an untied head is missing."""
    if not parts.is_tied and not any(map(is_head, names)):
        raise ModelFolderError(
            f"{source}: config.json says that the LM head is not the embedding table (tie_word_embeddings), but "
            "lm_head.weight is missing. Pull the model again."
        )


def is_final_norm(name: str) -> bool:
    """Whether a tensor is the norm after the last layer, under any prefix."""
    return _without_prefix(name) == "norm.weight"


def is_table(name: str) -> bool:
    """Whether a tensor belongs to the table of embeddings, under any prefix."""
    return _without_prefix(name).startswith(TABLE)


def is_head(name: str) -> bool:
    """Whether a tensor belongs to an LM head, under any prefix."""
    return _without_prefix(name).startswith(LM_HEAD)


def _without_prefix(name: str) -> str:
    return PREFIX.sub("", name, count=1)


def _layer_index(name: str) -> int | None:
    index = name.partition("layers.")[2].partition(".")[0]
    return int(index) if index.isdecimal() else None
