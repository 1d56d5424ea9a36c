"""What the stories of the chat have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import pytest
from textual import events
from textual.geometry import Region
from textual.pilot import Pilot
from textual.strip import Strip
from textual.widget import Widget

from app.core.chat_options import ChatOptions
from app.core.conversation import Conversation
from app.core.dialogue import Dialogue
from app.core.gauges import Gauges
from app.core.pair_choice import PairChoice
from app.settings.table import Settings
from app.store.chat_store import ChatStore
from app.tui.chat_app import ChatApp
from app.tui.chat_view import ChatView
from app.tui.prompt.prompt import Prompt
from app.tui.transcript.transcript import Transcript
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import LOOKUP, Load
from tests.fakes.engine import FakeEngine
from tests.patience import PATIENCE_S


async def wait_until(pilot: Pilot[None], is_true: Callable[[], object], what: str = "") -> None:
    """Let the app work until `is_true()`; fails after `PATIENCE_S`."""
    give_up_s = monotonic() + PATIENCE_S
    while not is_true():
        assert monotonic() < give_up_s, what or "it never became true"
        await pilot.pause(0.01)


@dataclass
class Story:
    """A running chat with its engine, and what a person sees of it."""

    app: ChatApp
    engine: FakeEngine
    pilot: Pilot[None]
    told: list[str]
    """All notifications so far, those included that are no longer on the screen."""

    @property
    def prompt(self) -> Prompt:
        return self.app.chat_screen.prompt

    @property
    def dialogue(self) -> Dialogue:
        return self.app.chat_screen.dialogue

    @property
    def gauges(self) -> Gauges:
        return self.dialogue.gauges

    @property
    def conversation(self) -> Conversation:
        return self.dialogue.conversation

    @property
    def view(self) -> ChatView:
        return self.app.chat_screen.view

    async def run(self, action: str) -> None:
        """Run a command's action as the palette does."""
        await self.app.chat_screen.run_command(action)

    @property
    def transcript(self) -> Transcript:
        return self.view.transcript

    @property
    def state(self) -> str:
        return self.view.top_line.state

    @property
    def strip(self) -> str:
        return self.view._strip.render().plain

    def screen(self) -> str:
        """What is drawn, row by row."""
        return "\n".join(strip.text for strip in self.strips())

    def strips(self) -> list[Strip]:
        return self.app.screen._compositor.render_strips()

    async def until(self, is_true: Callable[[], object], what: str = "") -> None:
        await wait_until(self.pilot, is_true, what)

    async def until_seen(self, *texts: str) -> None:
        """Wait until all of `texts` are on the screen."""
        for text in texts:
            await self.until(partial(self.shows, text), f"{text!r} is not on\n{self.screen()}")

    def shows(self, text: str) -> bool:
        """Whether `text` is on the screen, wherever its lines break."""
        return text in " ".join(self.screen().split())

    async def until_told(self, text: str) -> None:
        """Wait for a notification, which may be broken into lines on the screen, or over by now."""
        await self.until(lambda: any(text in each for each in self.told), f"not told: {text}")

    async def type(self, text: str) -> None:
        self.prompt.post_message(events.Paste(text))
        await self.until(lambda: text in self.prompt.whole_text)

    async def send(self, text: str) -> None:
        """Type, press enter, wait for the request."""
        await self.type(text)
        before = len(self.engine.requests)
        await self.pilot.press("enter")
        await self.until(lambda: len(self.engine.requests) > before, "no request came")

    async def exchange(self, text: str, reply: str) -> None:
        """A whole turn."""
        await self.send(text)
        self.engine.begin()
        self.engine.say(reply)
        self.engine.finish()
        await self.until(lambda: self.state == "ready")


PAIR = PairChoice(Load("/models/e2b", ("/models/e2b-assistant",)), "gemma-4-e2b", "", is_pocket=False)


def choose(model: str, is_oversized: bool = False) -> PairChoice:
    """Any name is a pair, but one."""
    if model == "broken":
        raise SlipstreamError("There is no model called broken.")
    return PairChoice(Load(f"/models/{model}", (LOOKUP,)), model, "", is_pocket=False)


@asynccontextmanager
async def chat(
    options: ChatOptions | None = None,
    *,
    size: tuple[int, int] = (80, 24),
    drafter: str | None = "fake-assistant",
    is_loaded: bool = True,
    database: Path | None = None,
) -> AsyncIterator[Story]:
    """A chat on a screen of `size`, its engine loaded."""
    engine = FakeEngine(drafter)
    with TemporaryDirectory() as folder:
        store = ChatStore.open(database or Path(folder) / "chats.db")
        app = ChatApp(engine, PAIR, choose, options or ChatOptions(Settings(draft=4)), store)
        if is_loaded:
            engine.start()
        told = _record_notifications(app)
        async with app.run_test(size=size, notifications=True) as pilot:
            story = Story(app, engine, pilot, told)
            if is_loaded:
                await story.until(lambda: story.state == "ready")
            yield story
        store.close()


def _record_notifications(app: ChatApp) -> list[str]:
    told: list[str] = []
    notify = app.notify

    def recording(message: str, **others: Any) -> None:
        told.append(message)
        notify(message, **others)

    app.notify = recording  # type: ignore[method-assign]
    return told


def layouts_asked_for(monkeypatch: pytest.MonkeyPatch) -> list[Widget]:
    """The widgets that ask for a layout from now on."""
    layouts: list[Widget] = []
    refresh = Widget.refresh

    def counting(self: Widget, *regions: Region, layout: bool = False, **others: bool) -> Widget:
        if layout:
            layouts.append(self)
        return refresh(self, *regions, layout=layout, **others)

    monkeypatch.setattr(Widget, "refresh", counting)
    return layouts
