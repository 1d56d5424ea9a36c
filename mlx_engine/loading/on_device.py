"""What a loaded pair means on this device: the room that it leaves, first choices, and what people are told."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from mlx_engine.loading.pair import LoadedPair
from mlx_engine.network.target import SLIDING, Gemma4Target
from mlx_engine.protocol.events import Load
from mlx_engine.protocol.prefill_chunk import ChunkRange, attention_row_bytes, chunk_range
from mlx_engine.speculation.steering import estimates_file, start_length


def chunk_range_of(load: Load, target: Gemma4Target) -> ChunkRange:
    """By what the loaded weights leave of the device's memory."""
    device_bytes = working_set_bytes()
    return chunk_range(
        load.prefill_chunk,
        is_moe=target.facts.is_moe,
        has_gpu=mx.metal.is_available(),
        row_bytes=attention_row_bytes(target.facts.heads, target.item_bytes),
        room_bytes=None if device_bytes is None else room_bytes(),
    )


def room_bytes() -> int:
    """What the weights leave of the memory."""
    all_bytes = working_set_bytes() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return all_bytes - memory_bytes()


def start_length_of(target: Gemma4Target) -> int:
    """The first draft length of `auto`, by the GPU, MLX's version and the layout."""
    facts = target.facts
    kv_heads, _ = facts.kv_geometry.get(SLIDING, (facts.heads, 0))
    architecture = str(mx.device_info().get("architecture"))
    return start_length(architecture, version("mlx"), facts.heads // kv_heads, facts.is_moe)


def memory_bytes() -> int:
    """What MLX has allocated now."""
    return int(mx.get_active_memory())


def working_set_bytes() -> int | None:
    """The most memory that the device recommends to use; None: unknown."""
    size = mx.device_info().get("max_recommended_working_set_size")
    return int(size) if size else None


def float32_notice(load: Load, target: Gemma4Target) -> str | None:
    """What casting to float32 costs; None if nothing was cast."""
    if not target.added_bytes:
        return None
    more = f"{target.added_bytes / 1e9:.1f} GB" if target.added_bytes >= 50_000_000 else "a little"
    return (
        f"Parts of {load.name} are stored in half precision and were converted to float32, which takes {more} "
        "more memory: without a GPU they would be several times slower. --float32 off leaves them as stored."
    )


def bits_notice(load: Load, pair: LoadedPair) -> str | None:
    """That drafters were quantized, for people who did not choose; None if they were not."""
    if load.drafter_bits is not None or pair.drafter_bits is None:
        return None
    return (
        f"The drafter of {load.name} is loaded at {pair.drafter_bits} bits, since drafting would hold up this GPU "
        "otherwise. --drafter-bits stored leaves it as it is."
    )


def vocabulary_notice(load: Load, pair: LoadedPair) -> str | None:
    """That a reduced vocabulary was asked for in vain; None if it was not."""
    if not load.drafter_vocabulary or pair.drafter_vocabulary or not pair.drafters:
        return None
    return (
        f"--drafter-vocabulary does nothing for {load.name}: only the assistants of 12B, 26B-A4B and 31B choose "
        "each draft from so large a vocabulary."
    )


def estimates_path(load: Load, pair: LoadedPair) -> Path | None:
    """The file of what is learned of this pair; None: nothing is kept."""
    if load.estimates_folder is None or not load.drafters:
        return None
    marks = (" compiled" if pair.target.is_compiled else "") + (" float32" if pair.target.added_bytes else "")
    marks += f" vocabulary {pair.drafter_vocabulary}" if pair.drafter_vocabulary else ""
    device = f"{mx.device_info().get('device_name')} mlx {version('mlx')}{marks}"
    return estimates_file(Path(load.estimates_folder), Path(load.target), load.drafters, pair.drafter_bits, device)
