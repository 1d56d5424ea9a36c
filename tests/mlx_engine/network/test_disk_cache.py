"""Chats on disk beside the conversations in memory: what is written is what is in memory, and written once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.files import chat_cache_parts
from mlx_engine.files.chat_cache_folder import part_files
from mlx_engine.network import disk_cache, kv_cache
from mlx_engine.network.cache_budget import CacheBudget
from mlx_engine.network.chunk_length import ChunkLength
from mlx_engine.network.disk_cache import DiskCache
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import Gemma4Target, load_target
from mlx_engine.protocol.prefill_chunk import ChunkRange
from tests.cases import cases
from tests.fakes.folders import write_pair
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, tokens
from tests.mlx_engine.network.test_stored_rows import recalled
from tests.patience import PATIENCE_S

Pair = tuple[Gemma4Target, Path]
WORDS = range(110, 140)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder, _ = write_pair(tmp_path_factory.mktemp("pair"), 2048)
    return load_target(folder), folder


@pytest.fixture(autouse=True)
def short_chats_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "FEWEST_TOKENS", 1)
    monkeypatch.setattr(chat_cache_parts, "MOST_PART_TOKENS", 32)
    monkeypatch.setattr(kv_cache, "SLIDING_GROWTH_ROWS", 8)


class Process:
    """One start of an engine: what it has in memory, and the chats on disk."""

    def __init__(self, pair: Pair, folder: Path, most_bytes: int = 1 << 30, chunk: int = 64) -> None:
        self.target = pair[0]
        self.chunk = ChunkLength(ChunkRange(chunk, chunk))
        self.prefix = PrefixCache(self.target, self.chunk, CacheBudget(most_bytes))
        self.disk = DiskCache(folder, None, self.target, pair[1])
        self.folder = folder

    def turn(self, chat_id: int, conversation: Sequence[int], message: Sequence[int]) -> list[int]:
        """The conversation after a message and its reply, which are then on disk."""
        self.disk.begin(chat_id)
        prompt = [*conversation, *message]
        self.disk.recall(self.disk.find(chat_id), self.prefix, prompt)
        self.prefix.resume(prompt)
        options = DecodeOptions(GREEDY, frozenset(), 6, ScriptedControl([0]), (len(conversation), len(prompt)))
        tokens(list(generate(Session(self.target, [], self.prefix), options)))
        self.disk.keep(chat_id, self.prefix, {})
        self.disk.finish(PATIENCE_S)
        self.check(chat_id)
        return list(self.prefix.tokens)

    def check(self, chat_id: int) -> None:
        """The rows on disk are those in memory, to the last bit."""
        stored = recalled(self.head(chat_id), self.target)
        assert stored.tokens == self.prefix.tokens[: self.prefix.cache.frontier]
        for here, there in zip(self.prefix.cache.layers, stored.cache.layers, strict=True):
            for one, other in zip(here.view(), there.view(), strict=True):
                assert mx.array_equal(one, other)

    def head(self, chat_id: int) -> Path:
        (path,) = self.folder.glob(f"{chat_id}/{self.disk._key}.safetensors")
        return path

    def parts(self, chat_id: int) -> set[tuple[str, int]]:
        """Names and inodes."""
        return {(path.name, path.stat().st_ino) for path in part_files(self.head(chat_id))}


def text(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(WORDS, k=count)


def test_earlier_rows_are_written_once(pair: Pair, tmp_path: Path) -> None:
    process = Process(pair, tmp_path)
    chat = process.turn(1, [], text(1, 100))
    before = process.parts(1)
    other = process.turn(2, [], text(2, 80))
    chat = process.turn(1, chat, text(3, 60))
    assert len(before & process.parts(1)) >= 3, "also after another chat"
    before = process.parts(1)
    restarted = Process(pair, tmp_path)
    chat = restarted.turn(1, chat, text(4, 60))
    assert len(before & restarted.parts(1)) >= 4, "also after a restart"
    process.turn(2, other, text(5, 20))


@pytest.mark.parametrize("is_restarted", [False, True])
def test_rows_that_were_read_again_are_written_again(is_restarted: bool, pair: Pair, tmp_path: Path) -> None:
    """In other chunks, their last bits may be others."""
    process = Process(pair, tmp_path, most_bytes=1)
    chat = process.turn(1, [], text(1, 100))
    process.turn(2, [], text(2, 40))
    before = process.parts(1)
    if is_restarted:
        process = Process(pair, tmp_path)
    process.disk.recall = lambda *arguments: 0  # type: ignore[method-assign]
    process.turn(1, chat, text(3, 40))
    assert not before & process.parts(1)


STEP = st.tuples(
    st.sampled_from(["go on", "edit", "begin", "again", "restart", "other numbers"]),
    st.integers(1, 3),
    st.integers(1, 50),
)


@settings(max_examples=cases(12, 150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([1, 1 << 20, 1 << 30]), st.lists(STEP, min_size=2, max_size=9))
@example(1 << 30, [("go on", 1, 50), ("other numbers", 2, 1), ("begin", 2, 30), ("go on", 1, 9)])
def test_any_course_of_chats(pair: Pair, most_bytes: int, steps: list[tuple[str, int, int]]) -> None:
    """What is read again has other numbers."""
    with TemporaryDirectory() as place:
        process = Process(pair, Path(place), most_bytes)
        chats: dict[int, list[int]] = {}
        for seed, (step, chat_id, count) in enumerate(steps):
            before = chats.get(chat_id, text(0, 40))
            if step == "restart":
                process = Process(pair, Path(place), most_bytes)
            elif step == "other numbers":
                table = process.target._model.model.embed_tokens
                table.weight = table.weight * (1.01 if seed % 2 else 0.99)
            begin = {"edit": before[: len(before) // 2], "begin": before[:20], "again": before[:-6]}
            chats[chat_id] = process.turn(chat_id, begin.get(step, before), text(seed, count))
