"""A disk that is full for a while: a lasting mark, the return to the file, and what quitting asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.unsaved import last_words
from app.store import database as store_database
from app.store.chat_store import ChatStore
from app.store.transfer import read_file
from app.tui.bars.top_line import NOT_SAVED
from app.tui.screens.unsaved import UnsavedScreen
from tests.app.store.support import full_disk, last_chat
from tests.app.tui.pilot import Story, chat


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_database, "RETURN_INTERVAL_S", 0.0)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "chats.db"


def store_of(story: Story) -> ChatStore:
    return story.app.chat_screen.store


async def test_the_top_line_says_so_as_long_as_chats_are_not_saved(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("Hi", "Hello.")
        assert not story.shows(NOT_SAVED)
        with full_disk() as free:
            await story.exchange("Are you there?", "Yes.")
            await story.until_told("Chats are no longer saved")
            await story.until_seen(NOT_SAVED)
            story.app.chat_screen.chat.save()
            assert story.shows(NOT_SAVED)
            free()
            story.app.chat_screen.chat.save()
            await story.until(lambda: not story.shows(NOT_SAVED))
        await story.until_told("Chats are saved again")
        assert [text for _, text, _ in last_chat(database)] == ["Hi", "Hello.", "Are you there?", "Yes."]


async def test_quitting_offers_a_file_elsewhere(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chat(database=database) as story:
        await story.exchange("Hi", "Hello.")
        with full_disk() as free:
            await story.exchange("Are you there?", "Yes.")
            await story.pilot.press("ctrl+q")
            await story.until(lambda: isinstance(story.app.screen, UnsavedScreen))
            await story.until_seen("1 chat has unsaved messages: “Hi”")
            await story.pilot.press(*str(tmp_path / "no" / "kept.json"), "enter")
            await story.until_seen("cannot be written: No such file")
            assert last_words(store_of(story)).startswith("1 chat has unsaved messages")
            await story.pilot.press(*["backspace"] * len("no/kept.json"))
            free()  # there is room elsewhere
            with monkeypatch.context() as context:
                context.setattr(ChatStore, "save_again", lambda self, *, is_urgent=False: False)
                await story.pilot.press(*"kept.json", "enter")
                await story.until(lambda: story.app._exit)
                assert last_words(store_of(story)) == "", "it is kept"
    (kept,) = read_file(tmp_path / "kept.json")
    assert [message.text for message in kept.messages] == ["Hi", "Hello.", "Are you there?", "Yes."]


@pytest.mark.parametrize("keys", [["ctrl+q"], ["ctrl+c", "ctrl+c"]])
async def test_a_person_can_always_quit(database: Path, keys: list[str]) -> None:
    async with chat(database=database) as story:
        with full_disk():
            await story.exchange("Are you there?", "Yes.")
            await story.pilot.press(*keys)
            await story.until(lambda: isinstance(story.app.screen, UnsavedScreen))
            await story.pilot.press("escape")
            await story.until(lambda: not isinstance(story.app.screen, UnsavedScreen))
            await story.pilot.press("ctrl+q", "ctrl+q")
            await story.until(lambda: story.app._exit)


async def test_quitting_with_room_again_asks_nothing(database: Path) -> None:
    async with chat(database=database) as story:
        with full_disk():
            await story.exchange("Are you there?", "Yes.")
        await story.pilot.press("ctrl+q")
        await story.until(lambda: story.app._exit)
    assert [text for _, text, _ in last_chat(database)] == ["Are you there?", "Yes."]
