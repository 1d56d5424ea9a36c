"""The requests that a server answers beside the chat: the list while they go on, and how one is stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import OptionList

from app.system import places
from app.system.running_server import RunningServer, announce
from app.tui.screens.requests import RequestsScreen
from tests.app.serve.serving import CHAT, HeldEngine, Served, serving
from tests.app.serve.serving import chat as body
from tests.app.tui.pilot import Story, chat

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
                    await waited(lambda: (engine.begin(), engine.finish()))
                    await waited(engine.next_request)
                    await story.until(lambda: rows(story)[0].startswith("second"))
                    highlighted = story.app.screen.query_one(OptionList).highlighted
                    assert highlighted == 0
                    await waited(lambda: (engine.begin(), engine.finish()))


async def test_a_server_that_ends_is_said() -> None:
    with ExitStack() as server:
        served = server.enter_context(serving(HeldEngine()))
        async with listing(served) as story:
            await story.until_seen("`slipstream launch")
            await waited(server.close)
            await story.until_seen(f"127.0.0.1:{served.address[1]}")
            assert not story.shows("`slipstream launch")
            assert not rows(story)


async def test_without_a_server_it_says_how_to_start_one() -> None:
    async with chat() as story:
        await story.run("requests")
        await story.until_told("`slipstream launch claude` starts one")
