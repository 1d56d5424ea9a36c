"""The requests that a server answers beside the chat: the list while they go on, and how one is stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.widgets import OptionList

from app.core.chat_options import ChatOptions
from app.remote.address import parse_address
from app.settings.table import Settings
from app.system import places
from app.system.running_server import RunningServer, announce
from app.tui.screens.models import ModelsScreen
from app.tui.screens.requests import RequestsScreen
from mlx_engine.protocol.events import ServerFacts
from tests.app.serve.serving import CHAT, HeldEngine, Served, serving
from tests.app.serve.serving import chat as body
from tests.app.tui import pilot
from tests.app.tui.pilot import Story, chat
from tests.fakes.engine import FakeEngine

SIZES = [(80, 24), (44, 12)]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path))


@contextmanager
def asking(served: Served, agent: str) -> Iterator[None]:
    """A program whose request runs meanwhile."""

    def ask() -> None:
        with served.client(headers={"user-agent": agent}) as client:
            client.post(CHAT, json=body())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def answer(engine: HeldEngine) -> None:
    """The running request, without a word."""
    engine.begin()
    engine.finish()


def rows(story: Story) -> list[str]:
    """The list as it is."""
    return [str(option.prompt).strip() for option in story.app.screen.query_one(OptionList).options]


async def waited(work: Callable[[], Any]) -> Any:
    """What blocks is for another thread."""
    return await asyncio.to_thread(work)


@asynccontextmanager
async def listing(served: Served, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Story]:
    """A chat with the list of a server that runs on this machine."""
    announce(places.server_file(), RunningServer.this_process(served.url, "fake", 4096, None, "1"))
    async with chat(size=size) as story:
        await story.pilot.press("f7")
        await story.until(lambda: isinstance(story.app.screen, RequestsScreen))
        yield story


async def test_a_chat_with_the_server_counts_what_others_ask_until_it_has_an_engine_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, own_ready = HeldEngine(), FakeEngine().ready()
    ready = msgspec.structs.replace(own_ready, drafters={}, server=ServerFacts("Slipstream", ("fake",)))
    with serving(engine) as served:
        address = parse_address(served.url)
        own = pilot.PAIR
        attached = replace(own, title=address.shown, server=address, is_attached=True)
        monkeypatch.setattr(pilot, "PAIR", attached)
        async with chat(ChatOptions(Settings(), fallback=own), is_loaded=False) as story:
            story.engine.emit(ready)
            await story.until(lambda: story.view.top_line.model == f"fake at {address.shown}")
            with asking(served, "slipstream/1"), asking(served, "codex/1"):
                await story.until(lambda: story.view.top_line.requests == "1 request")
                for _ in range(2):
                    await waited(engine.next_request)
                    await waited(partial(answer, engine))
            await story.until(lambda: not story.view.top_line.requests)
            await story.pilot.press("f2")
            await story.until(lambda: isinstance(story.app.screen, ModelsScreen))
            await story.pilot.press("escape")
            story.engine.emit(own_ready)
            await story.until(lambda: story.view.top_line.model == own.title)


@pytest.mark.parametrize("size", SIZES)
async def test_requests_are_followed_and_one_is_stopped_after_a_question(size: tuple[int, int]) -> None:
    engine = HeldEngine()
    with serving(engine) as served:
        async with listing(served, size) as story:
            await story.until_seen("`slipstream launch")
            with asking(served, "claude-cli/2.1 (x)"):
                await waited(engine.next_request)
                await story.until(lambda: rows(story) and "reading" in rows(story)[0])
                await waited(engine.begin)
                await waited(lambda: engine.say("Hello"))
                await story.until(lambda: "writing" in rows(story)[0])
                assert rows(story)[0].startswith("claude-cli")
                assert "80.0" in rows(story)[0]
                assert ("75%" in rows(story)[0]) == (size[0] == 80)
                await story.pilot.press("x")
                await story.until_seen("Stop this request")
                await story.pilot.press("escape")
                assert isinstance(story.app.screen, RequestsScreen), "only the question is closed"
                await story.pilot.press("delete", "x")
                await waited(engine.wait_for_cancel)
                await story.until(lambda: "done" in rows(story)[0])
                await story.pilot.press("x")
                await story.until_seen("has ended")
            await story.pilot.press("escape")
            await story.until(lambda: not isinstance(story.app.screen, RequestsScreen))


async def test_the_highlight_stays_on_its_request() -> None:
    engine = HeldEngine()
    with serving(engine) as served:
        async with listing(served) as story:
            with asking(served, "first/1"):
                await waited(engine.next_request)
                with asking(served, "second/1"):
                    await story.until(lambda: len(rows(story)) == 2)
                    await story.pilot.press("down")
                    await waited(partial(answer, engine))
                    await waited(engine.next_request)
                    await story.until(lambda: rows(story)[0].startswith("second"))
                    highlighted = story.app.screen.query_one(OptionList).highlighted
                    assert highlighted == 0
                    await waited(partial(answer, engine))


async def test_a_server_that_ends_is_said() -> None:
    with ExitStack() as server:
        served = server.enter_context(serving(HeldEngine()))
        async with listing(served) as story:
            await story.until_seen("`slipstream launch")
            await waited(server.close)
            await story.until_seen("does not answer any more.")
            assert not story.shows("`slipstream launch")
            assert not rows(story)


async def test_without_a_server_it_says_how_to_start_one() -> None:
    async with chat() as story:
        await story.run("requests")
        await story.until_told("`slipstream launch claude` starts one")
