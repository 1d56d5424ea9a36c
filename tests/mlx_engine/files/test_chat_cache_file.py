"""A file of the chat cache: whatever happens while it is written or lies there, it is whole or it is refused."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_engine.files import chat_cache_file
from mlx_engine.files.chat_cache_file import (
    PIECE_BYTES,
    CacheFacts,
    CacheFileError,
    NewTensor,
    WriteStoppedError,
    open_cache_file,
    read_head,
    read_tensors,
    write_cache_file,
)
from mlx_engine.files.chat_cache_folder import ChatCacheFolder
from tests.mlx_engine.files.full_disk import fill_after

pytestmark = pytest.mark.sampled(2)

POINTS = ["created", "header", "piece", "data", "hashed", "synced", "replaced"]
OLD, NEW = 1, 2


def facts(fill: int) -> CacheFacts:
    return CacheFacts("model", [fill, 7, 9], [(0, 3)], [(0, 3)], replies={"ab": [fill]})


def tensors(fill: int) -> list[NewTensor]:
    rows = memoryview(bytes([fill]) * 64)
    return [NewTensor("0.keys", "U8", (128,), [rows, rows]), NewTensor("0.values", "F32", (2, 8), [rows])]


def write(path: Path, fill: int, is_stopped: Callable[[], bool] = lambda: False) -> None:
    write_cache_file(path, facts(fill), tensors(fill), 5_000_000_000, is_stopped)


def read(path: Path) -> int:
    """What the file is filled with. Raises OSError, CacheFileError."""
    with open_cache_file(path) as file:
        head = read_head(path, file)
        content = dict(read_tensors(file, head))
    fill = head.facts.tokens[0]
    assert head.facts == facts(fill)
    assert content == {"0.keys": bytes([fill]) * 128, "0.values": bytes([fill]) * 64}
    return fill


def test_what_is_written_is_read_and_private(tmp_path: Path) -> None:
    write(tmp_path / "file", OLD)
    status = (tmp_path / "file").stat()
    assert read(tmp_path / "file") == OLD
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_mtime_ns == 5_000_000_000
    assert os.listdir(tmp_path) == ["file"]


def test_any_reader_of_safetensors_reads_it(tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    write(tmp_path / "file.safetensors", OLD)
    loaded = mx.load(str(tmp_path / "file.safetensors"))
    assert {name: array.shape for name, array in loaded.items()} == {"0.keys": (128,), "0.values": (2, 8)}


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, OLD)
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        with pytest.raises(CacheFileError):
            read(path)


def test_every_shorter_and_longer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, OLD)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(CacheFileError):
            read(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(CacheFileError):
        read(path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, OLD)
    with open_cache_file(path) as file:
        head = read_head(path, file)
        os.truncate(path, head.data_begin + 100)
        with pytest.raises(CacheFileError):
            dict(read_tensors(file, head))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": 4},
        {"tokens": "no"},
        {"tokens": [1.5]},
        {"parts": [{"name": "../../other", "end": 3, "data_hash": ""}]},
        {"more": 1},
    ],
)
def test_facts_of_another_kind_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    own = chat_cache_file._header

    def header(facts: CacheFacts, tensors: list[NewTensor], data_hash: str) -> bytes:
        entries = json.loads(own(facts, tensors, data_hash))
        metadata = entries["__metadata__"]
        metadata["facts"] = json.dumps(json.loads(metadata["facts"]) | change)
        metadata["head_sha256"] = chat_cache_file.NO_HASH
        return chat_cache_file.signed(json.dumps(entries, separators=(",", ":")).encode())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_cache_file, "_header", header)
        write(tmp_path / "file", OLD)
    with pytest.raises(CacheFileError, match=r"format|Expected|unknown"):
        read(tmp_path / "file")


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "file", OLD)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder", "nothing"):
        with pytest.raises(OSError, match=name):
            read(tmp_path / name)


KILLED = """
import os, signal, sys
from pathlib import Path
from mlx_engine.files import chat_cache_file
from tests.mlx_engine.files.test_chat_cache_file import NEW, write
def reached(point):
    if point == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
chat_cache_file.reached = reached
write(Path(sys.argv[1]), NEW)
"""


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("has_old", [True, False])
def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(
    point: str, has_old: bool, tmp_path: Path
) -> None:
    folder = ChatCacheFolder(tmp_path)
    folder.make(3)
    path = folder.file(3, "model")
    if has_old:
        write(path, OLD)
    command = [sys.executable, "-c", KILLED, str(path), point]
    done = subprocess.run(command, check=False, timeout=100, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL
    if point == "replaced" or has_old:
        assert read(path) == (NEW if point == "replaced" else OLD)
    else:
        assert not path.exists()
    assert len(os.listdir(path.parent)) == (0 if not has_old else 1) + (point != "replaced") + (
        point == "replaced" and not has_old
    )
    folder.sweep()
    assert [name for name in os.listdir(path.parent) if name != path.name] == []
    assert folder.size_bytes == (path.stat().st_size if path.exists() else 0)


def test_the_points_are_all_that_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []
    monkeypatch.setattr(chat_cache_file, "reached", seen.append)
    write(tmp_path / "file", OLD)
    assert list(dict.fromkeys(seen)) == POINTS


@pytest.mark.parametrize("writes", range(6))
def test_a_full_disk_leaves_the_old_file(writes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "file", OLD)
    fill_after(writes, monkeypatch)
    if writes < 5:  # header, three pieces, header
        with pytest.raises(OSError, match="No space"):
            write(tmp_path / "file", NEW)
    else:
        write(tmp_path / "file", NEW)
    assert read(tmp_path / "file") == (OLD if writes < 5 else NEW)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("pieces", range(3))
def test_a_writer_can_be_stopped_between_two_pieces(pieces: int, tmp_path: Path) -> None:
    write(tmp_path / "file", OLD)
    answers = iter([False] * pieces + [True])
    with pytest.raises(WriteStoppedError):
        write(tmp_path / "file", NEW, lambda: next(answers))
    assert read(tmp_path / "file") == OLD
    assert os.listdir(tmp_path) == ["file"]


def test_large_tensors_are_written_in_pieces(tmp_path: Path) -> None:
    asked = 0

    def is_stopped() -> bool:
        nonlocal asked
        asked += 1
        return False

    rows = memoryview(bytes(PIECE_BYTES * 2 + 1))
    write_cache_file(tmp_path / "file", facts(OLD), [NewTensor("a", "U8", (len(rows),), [rows])], 1, is_stopped)
    assert asked == 3


def test_a_folder_that_was_deleted_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "gone" / "file", NEW)
    assert os.listdir(tmp_path) == []
