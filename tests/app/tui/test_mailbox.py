"""Rounds are fetched several at a time, and nothing waits behind them or stays behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.tui import chat_screen
from app.tui.mailbox import Mailbox
from mlx_engine.protocol.events import Event, Notice, Round
from tests.app.store.support import last_chat
from tests.app.tui.pilot import Story, chat


def a_round(number: int) -> Round:
    return Round(
        id=1,
        text=str(number),
        thinking="",
        token_ids=(number,),
        drafted=0,
        accepted=0,
        round_s=0.01,
        is_pipelined=True,
        context_tokens=1,
        memory_bytes=1,
        elapsed_s=0.0,
    )


def test_only_rounds_wait_and_only_during_a_rest() -> None:
    rings: list[int] = []
    mail = Mailbox(lambda: rings.append(1))
    events: list[Event] = [a_round(1), a_round(2), Notice("x"), a_round(3)]
    mail.put(events[0])
    assert len(rings) == 1
    mail.is_collecting = True
    mail.put(events[1])
    assert len(rings) == 1
    mail.put(events[2])
    assert len(rings) == 2, "whatever it is, a person may be waiting for it"
    mail.put(events[3])
    assert list(mail.fetch()) == events
    assert not mail.has_events


@pytest.fixture
def _long_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that no rest ends within a test."""
    monkeypatch.setattr(chat_screen, "ROUNDS_S", 1e6)


async def test_a_round_in_a_rest_is_shown_when_that_is_over() -> None:
    async with chat() as story:
        await story.send("q")
        story.engine.begin()
        await story.pilot.pause()
        shown = ""
        for word in ("one", "two", "three", "four"):
            story.engine.say(f"{word} ")
            shown = f"{shown} {word}".strip()
            await story.until_seen(shown)


@asynccontextmanager
async def resting(database: Path) -> AsyncIterator[Story]:
    """A chat that has shown a round, and has another in its mailbox."""
    async with chat(database=database) as story:
        await story.send("q")
        story.engine.begin()
        await story.pilot.pause()
        story.engine.say("one ")
        await story.until_seen("one")
        story.engine.say("two")
        await story.pilot.pause()
        assert story.app.chat_screen._mail.has_events
        yield story


@pytest.mark.usefixtures("_long_rest")
async def test_the_first_round_does_not_wait_and_the_end_does_not(tmp_path: Path) -> None:
    async with resting(tmp_path / "chats.db") as story:
        story.engine.finish()
        await story.until_seen("one two")
        await story.until(lambda: story.state == "ready")


@pytest.mark.usefixtures("_long_rest")
async def test_a_round_that_nobody_fetched_is_kept_when_the_chat_is_left(tmp_path: Path) -> None:
    async with resting(tmp_path / "chats.db") as story:
        await story.pilot.press("ctrl+q")
    assert last_chat(tmp_path / "chats.db")[1] == ("assistant", "one two", "interrupted")
