"""A server that does what a test says, and an engine that talks to it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.remote import keys
from app.remote.address import parse_address
from app.remote.engine import RemoteEngine
from mlx_engine.protocol import events
from tests.fakes.chat_server import ChatServer
from tests.patience import PATIENCE_S

VARIABLES = ("SLIPSTREAM_SERVER_KEY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of the machine that runs the tests, and none of its keychain."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(keys, "_keyring", lambda: None)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


class Talk:
    """An engine over a server, whose events are collected."""

    def __init__(self, url: str, model: str = "") -> None:
        self.engine = RemoteEngine(parse_address(url), events.Load(model))
        self.heard: list[events.Event] = []
        self._inbox: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
        self.engine.on_event = self._inbox.put
        self._last_id = 0

    def until(self, *kinds: type) -> Any:
        """Wait for the next event of these kinds."""
        while True:
            event = self._inbox.get(timeout=PATIENCE_S)
            self.heard.append(event)
            if isinstance(event, kinds):
                return event

    def begin(self, *messages: events.Message, **options: Any) -> None:
        """Ask for a reply."""
        self._last_id += 1
        asked = messages or (events.Message("user", "Hi"),)
        self.engine.generate(events.Generate(self._last_id, asked, **options))

    def ask(self, *messages: events.Message, **options: Any) -> Any:
        """Ask for a reply, and wait for its end."""
        self.heard.clear()
        self.begin(*messages, **options)
        return self.until(events.Finished, events.Failed)

    @property
    def text(self) -> str:
        """Of the replies so far."""
        return "".join(event.text for event in self.heard if isinstance(event, events.Part | events.Finished))

    @property
    def thinking(self) -> str:
        return "".join(event.thinking for event in self.heard if isinstance(event, events.Part))

    @property
    def notices(self) -> list[str]:
        return [event.message for event in self.heard if isinstance(event, events.Notice)]


TalkTo = Callable[..., Talk]


@pytest.fixture
def talk_to() -> Iterator[TalkTo]:
    talks: list[Talk] = []

    def start(server: ChatServer | str, model: str = "") -> Talk:
        talks.append(Talk(server if isinstance(server, str) else server.url, model))
        return talks[-1]

    yield start
    for talk in talks:
        talk.engine.close()
