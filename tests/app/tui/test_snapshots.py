"""What the chat looks like, at five sizes and on its other screens. `pytest --snapshot-update` takes them anew.

Look at them before they are kept: a picture nobody looked at proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from app.core.chat_options import ChatOptions
from app.settings.table import Settings
from app.store.chat_store import ChatStore
from app.tui import chat_app, chat_view
from tests.app.tui.pilot import PAIR, Story, choose
from tests.fakes.engine import FakeEngine

SIZES = [(40, 10), (60, 15), (80, 24), (120, 36), (200, 50)]
NOON_S = 1_790_000_000.0
ANSWER = """\
Speculative decoding drafts a few tokens with a small model and verifies them in **one** pass of the target:

```python
def accept(draft, target):
    return draft if target >= draft else residual(target, draft)
```

1. what stands streams out at once
2. what falls is drawn anew, from the residual
"""

SnapCompare = Callable[..., bool]
Script = Callable[[Story], Awaitable[None]]


@pytest.fixture
def take(snap_compare: SnapCompare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a script on a chat whose time stands still, and compare the screen with its picture."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    # The gauges move only when the script says so.
    monkeypatch.setattr(chat_view, "GAUGES_S", 1e6)
    store = ChatStore.open(tmp_path / "chats.db", lambda: NOON_S)
    engine = FakeEngine()
    app = chat_app.ChatApp(engine, PAIR, choose, ChatOptions(Settings(draft=4)), store)
    engine.start()

    def compare(script: Script, size: tuple[int, int] = (80, 24)) -> bool:
        async def play(pilot: Pilot[None]) -> None:
            story = Story(app, engine, pilot, [])
            app.chat_screen.prompt.cursor_blink = False
            await story.until(lambda: story.state == "ready")
            await script(story)
            await pilot.pause()

        return snap_compare(app, terminal_size=size, run_before=play)

    yield compare
    store.close()
    monkeypatch.undo()
    time.tzset()


async def a_turn(story: Story) -> None:
    """A complete reply, drafted, with plain rounds to compare with."""
    await story.send("Explain speculative decoding")
    story.engine.begin()
    for _ in range(4):
        story.engine.say("", drafted=0, accepted=0, round_s=0.03, is_plain=True)
    for start in range(0, len(ANSWER), 20):
        story.engine.say(ANSWER[start : start + 20], round_s=0.06)
    story.engine.finish()
    await story.until(lambda: story.state == "ready")
    await settle(story)


async def settle(story: Story) -> None:
    """Gauges up to the facts, and everything drawn."""
    story.view.has_news = True
    story.view.show_gauges()
    await story.pilot.pause()
    await story.pilot.pause()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_first_screen(take: Any, size: tuple[int, int]) -> None:
    assert take(settle, size)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_reply(take: Any, size: tuple[int, int]) -> None:
    assert take(a_turn, size)


def test_the_help(take: Any) -> None:
    async def open_it(story: Story) -> None:
        await a_turn(story)
        await story.pilot.press("f1")
        await story.until(lambda: len(story.app.screen_stack) == 2)
        await settle(story)

    assert take(open_it)


def test_an_engine_that_ended(take: Any) -> None:
    async def die(story: Story) -> None:
        await story.send("Explain speculative decoding")
        story.engine.begin()
        story.engine.say("Speculative decoding dra")
        story.engine.die("The engine ended (signal 9). Send again to start a new one.")
        await story.until(lambda: story.state == "engine ended")
        await settle(story)

    assert take(die)
