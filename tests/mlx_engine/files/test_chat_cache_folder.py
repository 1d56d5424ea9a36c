"""The folder of the chat cache: bounded, oldest out first, deleted with the chat."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlx_engine.files.chat_cache_file import TEMPORARY
from mlx_engine.files.chat_cache_folder import ChatCacheFolder


@pytest.fixture
def folder(tmp_path: Path) -> ChatCacheFolder:
    return ChatCacheFolder(tmp_path / "state" / "chats")


def write(folder: ChatCacheFolder, chat_id: int, size: int = 100, model: str = "m") -> Path:
    """A file of this size, as the engine writes it."""
    folder.make(chat_id)
    path, stamp_ns = folder.file(chat_id, model), folder.next_stamp_ns()
    path.write_bytes(bytes(size))
    os.utime(path, ns=(stamp_ns, stamp_ns))
    return path


def ids(folder: ChatCacheFolder) -> list[int]:
    return [chat.chat_id for chat in folder.chats()]


def test_a_folder_that_does_not_exist_is_empty(folder: ChatCacheFolder) -> None:
    assert folder.chats() == []
    assert folder.size_bytes == folder.clear() == 0
    folder.delete(3)
    folder.sweep()
    folder.touch(folder.file(3, "m"))
    assert not folder.folder.exists()


def test_only_its_owner_sees_it(folder: ChatCacheFolder) -> None:
    assert folder.make(3).stat().st_mode & 0o777 == 0o700


def test_chats_are_listed_latest_first_with_what_they_take(folder: ChatCacheFolder) -> None:
    write(folder, 3, 100, "a")
    write(folder, 8, 30)
    write(folder, 3, 50, "b")
    assert [(chat.chat_id, chat.size_bytes) for chat in folder.chats()] == [(3, 150), (8, 30)]
    assert folder.size_bytes == 180


def test_the_oldest_are_deleted_first(folder: ChatCacheFolder) -> None:
    for chat_id in (5, 1, 4, 2):
        write(folder, chat_id)
    folder.touch(folder.file(5, "m"))
    assert folder.make_room(150, 400, folder.file(9, "m"))
    assert ids(folder) == [5, 2]


def test_what_is_replaced_makes_room_and_is_not_deleted(folder: ChatCacheFolder) -> None:
    write(folder, 1)
    write(folder, 2)
    assert folder.make_room(150, 250, folder.file(1, "m"))
    assert ids(folder) == [2, 1]


def test_what_can_never_fit_deletes_nothing(folder: ChatCacheFolder) -> None:
    write(folder, 1)
    assert not folder.make_room(500, 400, folder.file(9, "m"))
    assert ids(folder) == [1]


def test_the_bound_is_a_tenth_of_what_is_free_without_the_cache(
    folder: ChatCacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=900))
    assert folder.bound_bytes(None) == 90
    write(folder, 1, 100)
    assert folder.bound_bytes(None) == 100
    assert folder.bound_bytes(7) == 7


@pytest.mark.parametrize("jumps", [(10**18, 10**9, 10**18 + 5), (10**9, 10**9, 10**9), (5, 4, 3), (10**18, 0, 1)])
def test_a_clock_that_jumps_changes_no_order(
    jumps: tuple[int, ...], folder: ChatCacheFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for chat_id, now_ns in enumerate(jumps):
        monkeypatch.setattr(time, "time_ns", lambda now_ns=now_ns: now_ns)
        write(folder, chat_id)
    assert ids(folder) == [2, 1, 0]
    folder.touch(folder.file(0, "m"))
    assert folder.make_room(100, 200, folder.file(9, "m"))
    assert ids(folder) == [0]


def test_a_file_from_the_end_of_time_stops_nothing(folder: ChatCacheFolder) -> None:
    path = write(folder, 1)
    os.utime(path, ns=(2**63 - 1, 2**63 - 1))
    write(folder, 2)
    folder.touch(path)
    assert set(ids(folder)) == {1, 2}


def test_deleting_a_chat_deletes_what_every_model_has_of_it(folder: ChatCacheFolder) -> None:
    write(folder, 1, model="a")
    write(folder, 1, model="b")
    write(folder, 11)
    folder.delete(1)
    assert ids(folder) == [11]
    assert os.listdir(folder.folder) == ["11"]


def test_clearing_tells_what_was_in_use_and_leaves_what_is_not_its_own(folder: ChatCacheFolder) -> None:
    write(folder, 1, 70)
    write(folder, 2, 30)
    (folder.folder / "notes").mkdir()
    assert folder.clear() == 100
    assert os.listdir(folder.folder) == ["notes"]


def test_a_link_is_not_followed(folder: ChatCacheFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "m.safetensors").write_bytes(b"mine")
    folder.folder.mkdir(parents=True)
    (folder.folder / "7").symlink_to(mine)
    write(folder, 1)
    (folder.make(1) / "x.safetensors").symlink_to(mine / "m.safetensors")
    assert [(chat.chat_id, chat.size_bytes) for chat in folder.chats()] == [(1, 100)]
    folder.clear()
    folder.delete(7)
    assert (mine / "m.safetensors").read_bytes() == b"mine"


def test_what_a_killed_writer_left_is_deleted_and_what_a_living_one_writes_is_not(folder: ChatCacheFolder) -> None:
    living, dead = (folder.make(1) / f".m.{name}{TEMPORARY}" for name in ("living", "dead"))
    dead.touch()
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        folder.sweep()
        assert os.listdir(folder.make(1)) == [living.name]
    folder.sweep()
    assert os.listdir(folder.make(1)) == []


def test_two_processes_may_delete_the_same_file(folder: ChatCacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for chat_id in range(3):
        write(folder, chat_id)
    own = Path.unlink

    def by_both(path: Path) -> None:
        own(path)
        own(path)

    monkeypatch.setattr(Path, "unlink", by_both)
    assert folder.make_room(100, 100, folder.file(9, "m"))
    assert ids(folder) == []
