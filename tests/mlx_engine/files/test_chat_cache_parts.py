"""A chat over several files: a reply adds to them; what ends a write leaves the old chat or the new one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_engine.files import chat_cache_file, chat_cache_parts
from mlx_engine.files.chat_cache_file import (
    CacheFacts,
    CacheFileError,
    NewTensor,
    WriteStoppedError,
    open_cache_file,
    read_head,
    read_tensors,
)
from mlx_engine.files.chat_cache_folder import ChatCacheFolder, part_file, part_files
from mlx_engine.files.chat_cache_parts import read_parts, write_chat
from tests.cases import cases
from tests.mlx_engine.files.full_disk import fill_after

pytestmark = pytest.mark.sampled(4)

HEADS, DIM, ROW_BYTES = 2, 3, 2 * 3
ONE = list(range(40))
MORE = [*ONE, *range(100, 130)]
OTHER = [*ONE[:30], *range(200, 225)]
CHATS = {"one": ONE, "more": MORE, "other": OTHER}


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part ends after 32 tokens."""
    monkeypatch.setattr(chat_cache_parts, "MOST_PART_TOKENS", 32)


@pytest.fixture
def head(tmp_path: Path) -> Path:
    folder = ChatCacheFolder(tmp_path)
    folder.make(3)
    return folder.file(3, "model")


def rows(name: str, tokens: list[int]) -> NewTensor:
    """Each row is its token's."""
    pieces = [b"".join(bytes([head, *[token % 251] * (DIM - 1)]) for token in tokens) for head in range(HEADS)]
    return NewTensor(name, "U8", (1, HEADS, len(tokens), DIM), [memoryview(piece) for piece in pieces])


def write(
    head: Path,
    tokens: list[int],
    is_stopped: Callable[[], bool] = lambda: False,
    limit_bytes: int | None = None,
    colour: int = 0,
) -> None:
    """colour: makes the rows of the same tokens other ones. A part that has the rows is known to have them."""
    full = [rows(name, [token + colour for token in tokens]) for name in ("0.keys", "0.values")]
    window = [rows("1.0.keys", tokens[-5:])]
    facts = CacheFacts("model", tokens, [(len(tokens) - 5, len(tokens))], [(len(tokens) - 5, len(tokens))])

    def has_rows(name: str, begin: int, end: int) -> bool:
        with open_cache_file(part_file(head, name)) as file:
            stored = dict(read_tensors(file, read_head(head, file)))
        return all(stored[each.name] == b"".join(each.rows(begin, end).pieces) for each in full)

    folder = ChatCacheFolder(head.parents[1])
    write_chat(folder, head, facts, window, full, limit_bytes, has_rows, is_stopped)


def read(head: Path, colour: int = 0) -> list[int]:
    """The tokens, once all rows were compared. Raises OSError, CacheFileError."""
    with open_cache_file(head) as file:
        top = read_head(head, file)
        window = dict(read_tensors(file, top))
    tokens = top.facts.tokens
    assert window == {"1.0.keys": b"".join(rows("", tokens[-5:]).pieces)}
    begin = 0
    for part, (_, stored) in zip(top.facts.parts, read_parts(head, top.facts), strict=True):
        expected = b"".join(rows("", [token + colour for token in tokens[begin : part.end]]).pieces)
        assert dict(stored) == {"0.keys": expected, "0.values": expected}
        begin = part.end
    assert begin == len(tokens)
    return tokens


@pytest.mark.usefixtures("short_parts")
def test_a_reply_writes_its_own_rows_alone(head: Path) -> None:
    write(head, ONE)
    before = {path: path.stat().st_ino for path in part_files(head)}
    write(head, MORE)
    after = {path: path.stat().st_ino for path in part_files(head)}
    assert read(head) == MORE
    assert len(before.items() & after.items()) == 1, "32 rows stay; 8 are written again with the 30 that follow"
    write(head, MORE)
    assert {path: path.stat().st_ino for path in part_files(head)} == after


def test_from_an_edit_on_rows_are_written_again(head: Path) -> None:
    write(head, MORE)
    write(head, OTHER)
    assert read(head) == OTHER
    write(head, OTHER, colour=1)  # the same tokens, read in other chunks
    assert read(head, colour=1) == OTHER


@pytest.mark.usefixtures("short_parts")
@settings(max_examples=cases(20, 300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=25))
def test_any_turns_leave_few_files_and_the_rows_of_the_last(turns: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as place:
        head = ChatCacheFolder(Path(place)).make(3) / "model.safetensors"
        tokens, draw = list(range(5)), random.Random(len(turns))
        for back, count in turns:
            tokens = [*tokens[: max(5, len(tokens) - back)], *draw.choices(range(250), k=count)]
            write(head, tokens)
            assert read(head) == tokens
        assert len(part_files(head)) <= len(tokens) / 16 + 6


POINTS = [
    "created", "header", "piece", "data", "hashed", "synced", "replaced", "parts", "created", "header", "piece",
    "data", "hashed", "synced", "replaced", "head", "cleared",
]  # fmt: skip
"""In this order, for a write with one new part."""

KILLED = """
import os, signal, sys
from pathlib import Path
from mlx_engine.files import chat_cache_file, chat_cache_parts
from tests.mlx_engine.files.test_chat_cache_parts import CHATS, write
left, seen = int(sys.argv[3]), ""
def reached(point):
    global left, seen
    if point != seen:
        left, seen = left - 1, point
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
chat_cache_file.reached = chat_cache_parts.reached = reached
write(Path(sys.argv[1]), CHATS[sys.argv[2]])
"""


def test_the_points_are_all_that_there_are(head: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(head, ONE)
    seen: list[str] = []

    def reached(point: str) -> None:
        if seen[-1:] != [point]:
            seen.append(point)

    for module in (chat_cache_file, chat_cache_parts):
        monkeypatch.setattr(module, "reached", reached)
    write(head, MORE)
    assert seen == POINTS


@pytest.mark.parametrize("chat", ["more", "other"])
@pytest.mark.parametrize("at", range(len(POINTS)))
def test_a_writer_that_is_killed_leaves_the_old_chat_or_the_new_one(at: int, chat: str, head: Path) -> None:
    write(head, ONE)
    command = [sys.executable, "-c", KILLED, str(head), chat, str(at)]
    done = subprocess.run(command, check=False, timeout=100, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL
    assert read(head) == (ONE if at < len(POINTS) - 3 else CHATS[chat])
    folder = ChatCacheFolder(head.parents[1])
    folder.sweep()
    write(head, OTHER)
    assert read(head) == OTHER
    with open_cache_file(head) as file:
        parts = read_head(head, file).facts.parts
    assert len(os.listdir(head.parent)) == len(parts) + 1, "nothing else was left"


@pytest.mark.parametrize("writes", range(16))
def test_a_full_disk_leaves_the_old_chat(writes: int, head: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(head, ONE)
    before = sorted(os.listdir(head.parent))
    fill_after(writes, monkeypatch)
    with pytest.raises(OSError, match="No space") if writes < 10 else pytest.MonkeyPatch.context():
        write(head, MORE)
    assert read(head) == (ONE if writes < 10 else MORE)
    assert (sorted(os.listdir(head.parent)) == before) == (writes < 10)


@pytest.mark.parametrize("asked", range(6))
def test_a_writer_that_is_stopped_leaves_the_old_chat(asked: int, head: Path) -> None:
    write(head, ONE)
    before = sorted(os.listdir(head.parent))
    answers = iter([False] * asked + [True] * 99)
    with pytest.raises(WriteStoppedError):
        write(head, MORE, lambda: next(answers))
    assert read(head) == ONE
    assert sorted(os.listdir(head.parent)) == before


def test_a_part_of_another_write_is_refused(head: Path) -> None:
    write(head, ONE)
    (path, *_) = part_files(head)
    content = path.read_bytes()
    write(head, OTHER, colour=1)
    (path, *_) = part_files(head)
    path.write_bytes(content)
    with pytest.raises(CacheFileError):
        read(head, colour=1)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read(head, colour=1)
    write(head, OTHER, colour=1)
    assert read(head, colour=1) == OTHER


def test_two_writers_leave_one_chat_or_none(head: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins and ends between the first one's parts and its head."""
    is_nested = False

    def reached(point: str) -> None:
        nonlocal is_nested
        if point == "parts" and not is_nested:
            is_nested = True
            write(head, OTHER)

    write(head, ONE)
    monkeypatch.setattr(chat_cache_parts, "reached", reached)
    write(head, MORE)
    with pytest.raises(FileNotFoundError):
        read(head)
    write(head, MORE)
    assert read(head) == MORE


def test_a_chat_without_room_is_not_written(head: Path) -> None:
    write(head, ONE, limit_bytes=100)
    assert os.listdir(head.parent) == []
