"""A chat uses the server that runs on this machine, goes on when that ends, and says which of the two it does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.core import attaching
from app.core.attached_engine import OF_SERVER, AttachedEngine
from app.core.attaching import find_attachment
from app.core.engines import choose_attached, chooser
from app.core.pair_choice import PairChoice, PairOptions
from app.core.requests import age, requests_beside, requests_of_pair
from app.remote.address import ServerError, parse_address
from app.settings.effective import read_settings
from app.system import places
from app.system.running_server import RunningServer, announce
from mlx_engine.protocol.events import Failed, Load, Loading
from tests.app.core.front import Front
from tests.app.serve.serving import HeldEngine, QuickEngine, serving
from tests.fakes.engine import FakeEngine

OWN = PairChoice(Load("/models/own"), "own", "", is_pocket=False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path))


def announced(url: str, model: str = "fake", key: str | None = None) -> RunningServer:
    """A server of this process is in the state file."""
    server = RunningServer.this_process(url, model, 32_768, key, "1.0")
    announce(places.server_file(), server)
    return server


def found(
    typed: dict[str, Any], file: str = "", remembered: dict[str, Any] | None = None
) -> attaching.ServerToUse:
    """What a chat with these settings does."""
    path = places.config_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file)
    return find_attachment(read_settings(typed, remembered, {}, path), PairOptions())


def test_a_server_that_runs_is_used_unless_something_else_was_named() -> None:
    assert found({}) == attaching.ServerToUse()
    with serving(QuickEngine(), key="secret") as served:
        server = announced(served.url, "pocket", key="secret")
        assert found({}).server == server
        assert found({}, remembered={"model": "e4b"}).server == server, "it was chosen another time"
        assert found({"model": "pocket"}).server == server
        assert found({}, file="drafter: lookup\n").server == server, "the server reads the same file"
        assert found({"server": "none"}) == attaching.ServerToUse()
        assert found({"server": "studio.local:1"}) == attaching.ServerToUse()
        for typed, source in (({"model": "e4b"}, "--model"), ({"drafter": "none"}, "--drafter")):
            attachment = found(typed)
            assert attachment.server is None
            assert f"A server with pocket runs at {parse_address(served.url).shown}" in attachment.notice
            assert attachment.notice.endswith(f"because of {source}.")


def test_a_server_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(QuickEngine()) as served:
        announced(served.url)
    attachment = found({})
    assert attachment.server is None
    assert "It cannot be used" in attachment.notice

    def missing() -> None:
        raise ServerError("Install it.")

    monkeypatch.setattr(attaching, "check_installed", missing)
    assert found({}).notice.endswith("This loads the model once more. Install it.")


class AttachedFront(Front):
    """Attached to a server; its own engine is a fake."""

    def __init__(self, server: RunningServer) -> None:
        self.own = FakeEngine()
        self.own.is_dead = True  # not started
        engine = AttachedEngine(server, parse_address(server.url), self.own, OWN.title)
        super().__init__(engine, choose_attached(server), fallback=OWN)

    async def answer_here(self, text: str) -> None:
        """The own engine makes the running reply."""
        self.own.begin()
        self.own.say(text)
        self.own.finish()
        await self.rest()


@contextmanager
def attached(server: RunningServer) -> Iterator[AttachedFront]:
    front = AttachedFront(server)
    front.engine.start()
    try:
        yield front
    finally:
        front.close()


def ended(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's process is gone."""
    monkeypatch.setattr(RunningServer, "is_running", False)


@asynccontextmanager
async def without_its_server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AttachedFront]:
    """Attached to a server that has ended since."""
    with serving(QuickEngine()) as served:
        server = announced(served.url)
        with attached(server) as front:
            await front.rest()
            ended(server, monkeypatch)
            yield front


async def test_replies_are_the_servers_with_its_figures() -> None:
    with serving(QuickEngine()) as served, attached(announced(served.url)) as front:
        await front.rest()
        await front.dialogue.ask("Hi")
        await front.rest()
        assert front.last.text == "Hello there."
        assert front.last.reply.stats.reported.source == "Slipstream"
        assert front.pair.title == f"fake at {parse_address(served.url).shown}"
        assert front.pair.model == "fake"
        prompt = front.dialogue.gauges.reading().prompt
        assert prompt is not None
        assert (prompt.memory_tokens, prompt.disk_tokens, prompt.read_tokens) == (0, 0, prompt.prompt_tokens)
        requests = requests_of_pair(front.pair)
        assert requests is not None
        assert [(each.program, each.state) for each in await requests.now()] == [("slipstream", "done")]
        assert not front.own.requests


async def test_when_the_server_ends_in_mid_reply_the_text_is_kept_and_the_own_engine_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = HeldEngine()
    with serving(engine) as served:
        server = announced(served.url)
        with attached(server) as front:
            await front.rest()
            await front.dialogue.ask("Count")
            engine.next_request()
            engine.begin()
            engine.say("One")
            while not front.last.text:
                await front.hear()
            ended(server, monkeypatch)
            engine.die()
            await front.rest()
            assert (front.last.text, front.last.reply.state) == ("One", "failed")
            where = parse_address(served.url).shown
            assert front.errors == [f"The server at {where} has ended. Your next message loads own here."]
            await front.dialogue.go_on()
            assert [message.text for message in front.own.requests[-1].messages] == ["Count", "One"]
            await front.answer_here(" two")
            assert (front.last.text, front.last.reply.state) == ("One two", "complete")
            assert (front.pair.title, front.pair.choice) == ("own", OWN)
            assert requests_beside(front.pair) is None
            assert front.last.reply.stats.reported is None


async def test_when_the_server_has_ended_in_between_the_message_is_answered_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with without_its_server(monkeypatch) as front:
        await front.dialogue.ask("Hi")
        while front.pair.title != "own":
            await front.hear()
        assert (front.pair.title, front.pair.status) == ("own", "loading: fake")
        await front.answer_here("Hello.")
        assert front.last.text == "Hello."
        assert any("has ended. Loading own here." in each for each in front.told)
        assert not front.errors


async def test_when_the_server_has_ended_and_nothing_can_be_loaded_here_it_is_not_gone_back_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with without_its_server(monkeypatch) as front:
        failure = Failed(None, "There are no weights.")
        monkeypatch.setattr(front.own, "start", lambda: front.own.emit(Loading("reading own"), failure))
        await front.dialogue.ask("Hi")
        await front.rest()
        assert front.errors == ["The model could not be loaded. There are no weights."]
        assert (front.pair.title, front.pair.status) == ("own", "not loaded")
        assert not any("Going back" in each for each in front.told)


async def test_another_model_is_loaded_here_and_the_way_back_is_the_servers_model() -> None:
    with serving(QuickEngine()) as served:
        server = announced(served.url)
        with attached(server) as front:
            await front.rest()
            front.dialogue.switch_pair(OWN, "own")
            assert front.own.loads == [OWN.load]
            front.own.start()
            await front.rest()
            assert front.pair.title == "own"
            back = chooser(front.pair.choice, PairOptions(), server)("fake", False)
            assert back.load == OF_SERVER
            front.dialogue.switch_pair(back, "fake")
            assert front.own.is_closed
            await front.rest()
            await front.dialogue.ask("Hi")
            await front.rest()
            assert front.last.text == "Hello there."


def test_ages_are_short() -> None:
    assert [age(seconds) for seconds in (0.4, 99.4, 100, 5969, 6000)] == ["0 s", "99 s", "2 min", "99 min", "2 h"]
