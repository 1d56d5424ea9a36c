"""Drafters whose head knows only the most frequent tokens: their draft ids, in the target's vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import mlx.core as mx

from mlx_engine.protocol.errors import ModelFolderError

TENSORS = ("d2t", "t2d")
"""d2t: what to add to a draft id for the target's id. t2d, which target ids have a draft id, adds nothing."""


class DraftVocabulary:
    """Translates draft ids. Without a map both vocabularies are the same."""

    def __init__(self, ids: mx.array | None, vocab_size: int) -> None:
        """ids: (draft vocab,) int32, the target's id of each draft id."""
        self._ids = ids
        self._vocab_size = vocab_size

    def spread(self, logits: mx.array) -> mx.array:
        """Logits (rows, vocab) for logits (rows, draft vocab); -inf for tokens that are never drafted."""
        if self._ids is None:
            return logits
        spread = mx.full((len(logits), self._vocab_size), -mx.inf, logits.dtype)
        return mx.put_along_axis(spread, mx.broadcast_to(self._ids[None], logits.shape), logits, axis=-1)

    def tokens(self, draft_ids: mx.array) -> mx.array:
        """The target's ids, int32."""
        return (draft_ids if self._ids is None else self._ids[draft_ids]).astype(mx.int32)


def take_vocabulary(weights: dict[str, mx.array], sizes: tuple[int, int], folder: Path) -> DraftVocabulary:
    """The vocabulary that a checkpoint describes; removes its tensors from `weights`.

    sizes: of the drafter's and of the target's vocabulary. Raises ModelFolderError.
    """
    draft_size, vocab_size = sizes
    stored, _ = (weights.pop(name, None) for name in TENSORS)
    if draft_size == vocab_size:
        return DraftVocabulary(None, vocab_size)
    if stored is None:
        raise ModelFolderError(
            f"{folder}: tensor 'd2t' is missing, but the drafter's vocabulary has {draft_size} tokens and the "
            f"model's {vocab_size}. Pull the drafter again."
        )
    if stored.shape != (draft_size,) or not mx.issubdtype(stored.dtype, mx.integer):
        raise ModelFolderError(
            f"{folder}: tensor 'd2t' is {stored.dtype} {stored.shape}; {draft_size} whole numbers are expected. "
            "Pull the drafter again."
        )
    ids = stored.astype(mx.int64) + mx.arange(draft_size, dtype=mx.int64)
    least, most = cast(int, mx.min(ids).item()), cast(int, mx.max(ids).item())
    if least < 0 or most >= vocab_size:
        raise ModelFolderError(
            f"{folder}: tensor 'd2t' names the token {least if least < 0 else most}, but the model's vocabulary "
            f"has {vocab_size}. Pull the drafter again."
        )
    return DraftVocabulary(ids.astype(mx.int32), vocab_size)
