"""How many tokens of a prompt a model reads in one pass, on which kind of device.

Long passes read the weights less often, most of all those of experts. Short ones need less memory, and a stop
takes effect sooner. No figure here was measured on a Mac by this project: public ones favour 512 to 2,048 for a
mixture of experts, and find 512 as fast as more for dense models (mlx-lm #1781), with less memory.
"""

from __future__ import annotations

from typing import NamedTuple

FEWEST_TOKENS, MOST_TOKENS = 16, 8192
"""What a person may set."""


class ChunkRange(NamedTuple):
    """The chunk to begin with, and the one that it may shrink to where chunks take long."""

    most_tokens: int
    least_tokens: int


ON_PROCESSOR = ChunkRange(256, 64)
ON_GPU = ChunkRange(512, 128)
EXPERTS_ON_GPU = ChunkRange(1024, 512)
"""Of 128 experts with 8 per token, each gets 64 rows of a chunk of 1,024; in 256, all of them are read for 16."""


SHORTEST_FOR_MEMORY = 256
"""Chunks that shrink for memory stay this long."""
USUAL_CONTEXT_TOKENS = 8192
ROOM_SHARE = 1 / 6
"""The most of the room beside the weights that the attention of a chunk may take, freed buffers included."""
FREED_BUFFERS = 3
"""Times the memory of one layer's attention: MLX keeps freed buffers for reuse."""


def chunk_range(
    setting: int | None, *, is_moe: bool, has_gpu: bool, row_bytes: int = 0, room_bytes: int | None = None
) -> ChunkRange:
    """setting: fixed by a person; None: by layout, device and memory.

    row_bytes: of one row of attention weights per token of context, all heads. room_bytes: what the weights leave
    of the device's memory; None: plenty.
    """
    if setting is not None:
        return ChunkRange(setting, setting)
    if not has_gpu:
        return ON_PROCESSOR
    most, least = EXPERTS_ON_GPU if is_moe else ON_GPU
    if room_bytes is not None:
        chunk_bytes = FREED_BUFFERS * row_bytes * USUAL_CONTEXT_TOKENS
        while most > SHORTEST_FOR_MEMORY and most * chunk_bytes > ROOM_SHARE * room_bytes:
            most //= 2
    return ChunkRange(most, min(most, least))


def attention_row_bytes(heads: int, item_bytes: int) -> int:
    """Scores and softmax of one row per token of context exist at the same time."""
    return 2 * heads * item_bytes
