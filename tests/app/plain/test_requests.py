"""`/requests` in the chat line by line."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.core.requests import NO_REQUESTS, NO_SERVER_RUNS
from app.store.chat_store import ChatStore
from app.system import places
from app.system.running_server import RunningServer, announce
from tests.app.plain.test_chat import AnsweringEngine, store, talk
from tests.app.serve.serving import CHAT, HeldEngine, chat, serving

__all__ = ["store"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path))


def test_requests_are_said_and_one_is_stopped(store: ChatStore) -> None:
    engine = HeldEngine()
    with serving(engine) as served:
        announce(places.server_file(), RunningServer.this_process(served.url, "fake", 4096, None, "1"))
        assert NO_REQUESTS in " ".join(talk(store, AnsweringEngine(), "/requests"))

        def ask() -> None:
            with served.client(headers={"user-agent": "claude-cli/2.1"}) as client:
                client.post(CHAT, json=chat())

        asking = threading.Thread(target=ask)
        asking.start()
        engine.next_request()
        engine.begin()
        engine.say("Hello")
        said = " ".join(
            talk(store, AnsweringEngine(), "/requests", "/requests stop 2", "/requests halt 1", "/requests stop 1")
        )
        assert "1: claude-cli, writing, 80.0 tokens per second, 75% of the drafts accepted, 0 of " in said
        assert "There is no such request in the last list." in said
        assert "/requests: use stop and a number, not 'halt 1'." in said
        assert "Stopped the request of claude-cli." in said
        engine.wait_for_cancel()
        asking.join()
        said = " ".join(talk(store, AnsweringEngine(), "/requests", "/requests stop 1"))
        assert "1: claude-cli, done, " in said
        assert "That request of claude-cli has ended already." in said


def test_without_a_server_it_says_how_to_start_one(store: ChatStore) -> None:
    said = " ".join(talk(store, AnsweringEngine(), "/requests", "/requests stop 1"))
    assert said.count(NO_SERVER_RUNS) == 2
