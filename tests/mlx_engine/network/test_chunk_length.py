"""Chunks of a prompt: how long they are by layout and device, and how they follow the time that they take."""

from __future__ import annotations

import pytest

from mlx_engine.network.chunk_length import LONGEST_S, ChunkLength
from mlx_engine.protocol.prefill_chunk import ChunkRange, attention_row_bytes, chunk_range


def test_a_chunk_leaves_room_where_memory_is_short() -> None:
    def most(room_gb: float, *, is_moe: bool = False) -> int:
        row_bytes = attention_row_bytes(heads=16, item_bytes=2)
        room_bytes = int(room_gb * 1e9)
        chunks = chunk_range(None, is_moe=is_moe, has_gpu=True, row_bytes=row_bytes, room_bytes=room_bytes)
        assert chunks.least_tokens <= chunks.most_tokens
        return chunks.most_tokens

    assert [most(room_gb) for room_gb in (-3, 3.8, 5, 40)] == [256, 256, 512, 512]
    assert [most(room_gb, is_moe=True) for room_gb in (3.8, 5, 15)] == [256, 512, 1024]


def observe(chunk: ChunkLength, awaited_tokens: int, elapsed_s: float) -> None:
    chunk.awaited_tokens = awaited_tokens
    chunk.observe(elapsed_s)


def run(chunk: ChunkLength, tokens_per_s: float, count: int) -> list[int]:
    """The lengths of this many chunks on a device of this speed."""
    lengths = []
    for _ in range(count):
        lengths.append(chunk.tokens)
        observe(chunk, chunk.tokens, chunk.tokens / tokens_per_s)
    return lengths


@pytest.mark.parametrize(
    ("is_moe", "has_gpu", "expected"),
    [(False, False, 256), (True, False, 256), (False, True, 512), (True, True, 1024)],
)
def test_the_chunk_by_layout_and_device(is_moe: bool, has_gpu: bool, expected: int) -> None:
    most, least = chunk_range(None, is_moe=is_moe, has_gpu=has_gpu)
    assert (most, least < most) == (expected, True)
    assert chunk_range(700, is_moe=is_moe, has_gpu=has_gpu) == (700, 700), "a person's own is not changed"


def test_a_fast_device_reads_whole_chunks() -> None:
    assert run(ChunkLength(ChunkRange(1024, 128)), 5000, 4) == [1024] * 4


def test_chunks_shrink_to_half_a_second() -> None:
    lengths = run(ChunkLength(ChunkRange(1024, 128)), 700, 4)
    assert lengths == [1024, 320, 320, 320]
    assert lengths[-1] / 700 <= LONGEST_S


def test_chunks_shrink_no_further_than_the_least() -> None:
    assert run(ChunkLength(ChunkRange(512, 128)), 30, 3) == [512, 128, 128]


def test_one_slow_chunk_is_not_for_ever() -> None:
    chunk = ChunkLength(ChunkRange(512, 128))
    observe(chunk, 512, 4.0)
    assert run(chunk, 5000, 4) == [128, 256, 512, 512]


def test_the_rest_of_a_prompt_tells_little() -> None:
    chunk = ChunkLength(ChunkRange(512, 128))
    observe(chunk, 512, 4.0)
    observe(chunk, 20, 0.001)
    observe(chunk, 0, 9.0)
    assert chunk.tokens == 128


def test_the_last_wait_is_for_two_chunks() -> None:
    """Each took less than half a second, so neither was too long."""
    chunk = ChunkLength(ChunkRange(512, 128))
    observe(chunk, 512 + 300, 0.79)
    assert chunk.tokens == 512
    observe(chunk, 512 + 300, 2.0)
    assert chunk.tokens == 192


def test_nothing_is_learned_where_nothing_was_waited_for() -> None:
    chunk = ChunkLength(ChunkRange(512, 128))
    observe(chunk, 512, 4.0)
    chunk.observe(0.0)
    chunk.observe(9.0)
    assert chunk.tokens == 128
