"""The chat on the screen while another process uses the same chats."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.chat_options import ChatOptions
from app.core.conversation import DELETED, REPLACED
from app.settings.table import Settings
from app.store.chat_store import RUNNING_ELSEWHERE
from tests.app.core.window import window
from tests.app.store.support import last_chat, rows
from tests.app.tui.pilot import chat


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "chats.db"


async def test_a_reply_of_another_window_is_shown_as_running_there(database: Path) -> None:
    with window(database) as first:
        first.run("conversation.ask('Count')")
        first.run("conversation.append('one two')")
        first.run("conversation.flush()")
        async with chat(ChatOptions(chat_id=1), database=database) as story:
            await story.until_seen("one two", "running in another window")
            await story.run("go_on")
            await story.until_told(RUNNING_ELSEWHERE)
            await story.type("And then?")
            await story.pilot.press("enter")
            await story.until(lambda: story.prompt.text == "And then?", "the message comes back")
            assert not story.engine.requests
        first.run("conversation.append(' three')")
        first.run("conversation.end('complete')")
    assert last_chat(database)[1:] == [("assistant", "one two three", "complete")]


async def test_a_chat_deleted_elsewhere_during_its_reply_is_told(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("Hi")
        story.engine.begin()
        story.engine.say("Hel")
        await story.until_seen("Hel")
        with window(database) as other:
            other.run("store.delete(1)")
        story.engine.say("lo.")
        story.engine.finish()
        await story.until_told(DELETED)
    assert rows(database, "SELECT deleted > 0, text, state FROM chat JOIN message ON chat.id = chat_id") == [
        (1, "Hi", "complete"), (1, "Hello.", "complete")]  # fmt: skip


async def test_a_chat_deleted_here_during_its_reply_is_no_news(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("Hi")
        story.engine.begin()
        story.engine.say("Hel")
        await story.until_seen("Hel")
        await story.pilot.press("f4")
        await story.until_seen("enter: open")
        await story.pilot.press("ctrl+d")
        await story.until(lambda: story.conversation.chat is None)
        assert not any(DELETED in each.message for each in story.app._notifications)
    assert rows(database, "SELECT deleted > 0, text FROM chat JOIN message ON chat.id = chat_id") == [
        (1, "Hi"), (1, "Hel")]  # fmt: skip


async def test_a_file_replaced_underneath_gets_the_chat_and_the_person_is_told(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("Hi", "Hello.")
        other = database.with_name("other.db")
        with window(other) as somebody:
            somebody.run("conversation.ask('Theirs')")
            somebody.run("conversation.end('complete')")
            somebody.run("store.close()")
        other.replace(database)
        for journal in ("chats.db-wal", "chats.db-shm"):
            database.with_name(journal).unlink(missing_ok=True)
        await story.exchange("Still there?", "Yes.")
        await story.until_told(REPLACED)
        assert [text for _, text, _ in last_chat(database)] == ["Hi", "Hello.", "Still there?", "Yes."]
    assert rows(database, "SELECT count(*) FROM message WHERE chat_id = 1") == [(2,)]


async def test_the_first_of_two_windows_is_told_of_the_second(database: Path, tmp_path: Path) -> None:
    marks = tmp_path / "open"
    options = ChatOptions(Settings(draft=4), open_chats_path=marks)
    async with chat(options, database=database) as story:
        await story.exchange("Hi", "Hello.")
        with window(database) as second:
            second.run(f"globals().update(mark=OpenChatMark(Path({str(marks)!r})))")
            assert second.run("mark.move(1)") == "False"
            story.app.chat_screen.chat.save()
            await story.until_told("This chat is also open in another window.")
