"""`slipstream chats cache`, `paths` and `doctor` on the chat cache; it is deleted with its chat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import main
from app.store.chat_store import ChatStore
from app.system import places
from mlx_engine.files.chat_cache_folder import ChatCacheFolder
from tests.app.store.support import Clock, say


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(folder))
    return folder


def opened() -> ChatStore:
    return ChatStore.open(places.chats_database(), cache=cache())


def cache() -> ChatCacheFolder:
    return ChatCacheFolder(places.chat_cache_folder())


def cached_ids() -> set[int]:
    return {chat.chat_id for chat in cache().chats()}


def fill(chat_id: int, size: int = 2_000_000) -> None:
    cache().make(chat_id)
    cache().file(chat_id, "model").write_bytes(bytes(size))


@pytest.fixture
def two_chats() -> None:
    store = ChatStore.open(places.chats_database(), Clock())
    for title in ("Trip to Kyoto", "Rust\x1b[2J"):
        say(store, store.create_chat(title).id, "Hello")
    store.close()
    fill(1)
    fill(2, 1_000_000)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("two_chats")
def test_it_is_listed_by_chat_and_cleared(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "chats", "cache")
    assert "Trip to Kyoto" in text
    assert "2 MB" in text
    assert "3 MB" in text
    assert "\x1b" not in text
    facts = json.loads(shown(capsys, "chats", "cache", "--json"))
    assert facts["size_bytes"] == 3_000_000
    assert {chat["chat_id"]: chat["size_bytes"] for chat in facts["chats"]} == {1: 2_000_000, 2: 1_000_000}
    assert json.loads(shown(capsys, "chats", "cache", "--clear", "--json")) == {"freed_bytes": 3_000_000}
    assert cached_ids() == set()
    assert json.loads(shown(capsys, "chats", "list", "--json"))["chats"], "the chats stay"


@pytest.mark.usefixtures("two_chats")
def test_paths_and_doctor_say_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{places.chat_cache_folder()}  (3 MB)" in shown(capsys, "paths")
    checks = json.loads(shown(capsys, "doctor", "--json"))["checks"]
    (check,) = [check for check in checks if check["what"] == "chat cache"]
    assert check["value"].startswith("2 chats, 3 MB")


@pytest.mark.usefixtures("two_chats")
def test_it_is_deleted_with_its_chat(capsys: pytest.CaptureFixture[str]) -> None:
    shown(capsys, "chats", "rm", "1")
    assert cached_ids() == {2}
    store = opened()
    store.delete(2)
    assert cached_ids() == set()
    store.close()


@pytest.mark.usefixtures("two_chats")
def test_what_belongs_to_no_chat_is_deleted_at_the_next_start() -> None:
    fill(99)
    opened().close()
    assert cached_ids() == {1, 2}


def test_chats_that_are_only_in_memory_delete_nothing() -> None:
    fill(1)
    store = ChatStore.in_memory()
    store.delete(store.create_chat("a").id)
    assert cached_ids() == {1}
