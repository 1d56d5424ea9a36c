"""Stories of chats that are kept: found again, gone on with, edited by regenerating, renamed, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from textual import events
from textual.timer import Timer
from textual.widget import MountError
from textual.widgets import Input

from app.core.chat_options import ChatOptions
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat, NewChat
from app.tui.screens.chats import ChatsScreen
from app.tui.screens.overlay import Overlay
from app.tui.transcript.transcript import LIVE_TURNS, Transcript
from app.tui.transcript.turn import Turn
from mlx_engine.protocol.events import Message
from tests.app.store.support import last_chat, locked, rows
from tests.app.tui.pilot import Story, chat
from tests.patience import PATIENCE_S


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "chats.db"


def titles(database: Path) -> list[object]:
    """Of the chats in the list."""
    return [
        title for (title,) in rows(database, "SELECT title FROM chat WHERE deleted = 0 ORDER BY activity DESC")
    ]


async def open_list(story: Story) -> None:
    await story.pilot.press("f4")
    await story.until_seen("enter: open")


async def list_two(story: Story, older: tuple[str, str], newer: tuple[str, str]) -> None:
    """Two chats, each of a message and its reply, in the list."""
    await story.exchange(*older)
    await story.pilot.press("ctrl+n")
    await story.exchange(*newer)
    await open_list(story)


async def test_a_message_is_kept_before_the_engine_hears_of_it(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("What is drafting?")
        assert last_chat(database)[0] == ("user", "What is drafting?", "complete")


async def test_a_chat_is_all_there_after_a_restart(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("What is drafting?", "Guessing **ahead**.")
        await story.exchange("And acceptance?", "How often the guess is right.")
    async with chat(ChatOptions(chat_id=1), database=database) as story:
        await story.until_seen(
            "What is drafting?", "Guessing ahead.", "How often the guess is right.", "80.0 tok/s"
        )
        await story.until_seen("gemma-4-e2b · fake-assistant · What is drafting?")
        await story.send("Thank you")
        assert story.engine.requests[-1].messages[-2] == Message("assistant", "How often the guess is right.")
    assert len(titles(database)) == 1


async def test_a_chat_has_the_pair_that_answered_last(database: Path) -> None:
    async with chat(database=database, is_loaded=False) as story:
        await story.send("Early")
        story.engine.start()
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        assert rows(database, "SELECT model, drafter FROM chat") == [("fake", "fake-assistant")]


async def test_a_chat_is_opened_from_the_list(database: Path) -> None:
    async with chat(database=database) as story:
        await list_two(
            story, ("Tell me about Kyoto", "It has temples."), ("Tell me about regexes", "They match text.")
        )
        await story.until_seen("Tell me about Kyoto", "Tell me about regexes")
        await story.pilot.press("down", "enter")
        await story.until_seen("It has temples.")
        await story.until(lambda: "They match text." not in story.screen())
        await story.send("More")
        assert [m.text for m in story.engine.requests[-1].messages] == [
            "Tell me about Kyoto",
            "It has temples.",
            "More",
        ]


async def test_chats_are_searched_by_what_was_said(database: Path) -> None:
    async with chat(database=database) as story:
        await list_two(story, ("one", "apples and pears"), ("two", "bread and butter"))
        await story.pilot.press(*"pears")
        await story.until(lambda: "two" not in story.app.screen.query_one("#chats-list").render_line(0).text)
        await story.pilot.press("enter")
        await story.until_seen("apples and pears")


async def test_what_a_search_has_found_is_shown_whichever_version_it_is_in(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("Name a fruit", "An apple.")
        await again(story, "ctrl+r", "A pear.")
        for words, found in (("apple", "An apple."), ("fruit", "An apple."), ("pear", "A pear.")):
            await open_list(story)
            await story.pilot.press(*words)
            await story.until(lambda words=words: story.app.screen.query_one(Input).value == words)  # type: ignore[misc]
            await story.pilot.press("enter")
            await story.until(lambda: len(story.app.screen_stack) == 1)
            await story.until_seen(found)


async def test_a_search_that_finds_nothing_says_so(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("one", "1")
        await open_list(story)
        await story.pilot.press(*"xyzzy")
        await story.until_seen("No chat matches this search.")
        await story.pilot.press("enter")
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)


async def in_one_burst(story: Story, *keys: str) -> None:
    """Faster than anything can be searched for or drawn."""
    for key in keys:
        story.app.post_message(events.Key(key, key if len(key) == 1 else None))
    await story.pilot.pause()


async def test_what_is_typed_fast_is_searched_for_before_a_chat_is_opened(database: Path) -> None:
    async with chat(database=database) as story:
        await list_two(story, ("apples", "and pears"), ("bread", "and butter"))
        await in_one_burst(story, *"pears", "enter")
        await story.until_seen("and pears")


async def test_what_is_typed_fast_is_searched_for_before_a_chat_is_deleted_or_renamed(database: Path) -> None:
    async with chat(database=database) as story:
        await list_two(story, ("apples", "and pears"), ("bread", "and butter"))
        await in_one_burst(story, *"pears", "ctrl+r", *"!", "enter")
        await story.until(lambda: titles(database) == ["bread", "apples!"])
        await story.pilot.press("ctrl+u")
        await in_one_burst(story, *"pears", "ctrl+d")
        await story.until(lambda: titles(database) == ["bread"])
        await in_one_burst(story, "escape")


async def test_nothing_is_done_to_a_chat_that_cannot_be_looked_for(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(self: ChatStore, words: str = "", **limits: int) -> list[Chat]:
        raise StoreError("The chats are busy.")

    async with chat(database=database) as story:
        await story.exchange("apples", "and pears")
        await open_list(story)
        with monkeypatch.context() as patch:
            patch.setattr(ChatStore, "list_chats", busy)
            await in_one_burst(story, *"bread", "ctrl+d")
            await story.until_seen("The chats are busy.")
        assert titles(database) == ["apples"]


async def test_a_word_is_searched_for_once(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[Timer] = []
    stopped: list[Timer] = []
    set_timer, stop = ChatsScreen.set_timer, Timer.stop

    def setting(self: ChatsScreen, delay_s: float, then: Callable[[], None]) -> Timer:
        timers.append(set_timer(self, 1000 * delay_s, then))
        return timers[-1]

    monkeypatch.setattr(ChatsScreen, "set_timer", setting)

    def stopping(self: Timer) -> None:
        stopped.append(self)
        stop(self)

    monkeypatch.setattr(Timer, "stop", stopping)
    async with chat(database=database) as story:
        await story.exchange("apples", "and pears")
        await open_list(story)
        await story.pilot.press(*"pear")
        assert len(timers) == 4
        assert [each for each in timers if each not in stopped] == [timers[-1]]


async def test_while_a_title_is_typed_no_chat_is_brought_back(database: Path) -> None:
    async with chat(database=database) as story:
        await list_two(story, ("apples", "and pears"), ("bread", "and butter"))
        await story.pilot.press("ctrl+d")
        await story.until_seen("Press ctrl+z to undo.")
        await story.pilot.press("ctrl+r")
        await story.until_seen("enter saves the title")
        await story.pilot.press("ctrl+z", "!", "enter")
        await story.until(lambda: titles(database) == ["apples!"])


async def test_a_chat_without_a_date_is_listed_too(database: Path) -> None:
    store = ChatStore.open(database)
    for moment_s in (1e300, -1e300, 1_000_000_000.0):
        store.import_chats([NewChat(f"from {moment_s:g}", "", None, {}, moment_s, moment_s, ())])
    store.close()
    async with chat(database=database) as story:
        await open_list(story)
        await story.until_seen("— from 1e+300 0 messages", "— from -1e+300", "09 Sep 2001 from 1e+09")


async def test_a_chat_is_renamed(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("What is drafting?", "Guessing ahead.")
        await open_list(story)
        await story.pilot.press("ctrl+r")
        await story.until_seen("enter saves the title")
        await story.pilot.press("ctrl+u", *"About guesses", "enter")
        await story.until_seen("About guesses")
        await story.pilot.press("escape")
        await story.until_seen("fake-assistant · About guesses")
    assert titles(database) == ["About guesses"]


async def three_fruits(story: Story) -> None:
    """Three stored chats, newest first: fig, date, cherry; and the list, searched for `fruit`."""
    for name in ("cherry", "date", "fig"):
        await story.exchange(f"{name} fruit", "yes")
        if name != "fig":
            await story.pilot.press("ctrl+n")
    await open_list(story)
    await in_one_burst(story, *"fruit")
    await story.until(lambda: story.app.screen._listed_query == "fruit")  # type: ignore[attr-defined]


def highlighted(story: Story) -> str:
    """The title of the highlighted chat."""
    screen = story.app.screen
    assert isinstance(screen, ChatsScreen)
    chat = screen._highlighted_chat()
    return chat.title if chat else ""


async def test_after_a_deletion_the_selection_stays_in_its_row_and_the_search_too(database: Path) -> None:
    async with chat(database=database) as story:
        await three_fruits(story)
        await story.pilot.press("down", "ctrl+d")
        await story.until(lambda: titles(database) == ["fig fruit", "cherry fruit"])
        assert highlighted(story) == "cherry fruit", "not the open chat, which the next ctrl+d would delete"
        assert story.app.screen.query_one(Input).value == "fruit"
        await story.pilot.press("ctrl+d")
        await story.until(lambda: titles(database) == ["fig fruit"])
        await story.pilot.press("ctrl+z")
        await story.until(lambda: len(titles(database)) == 2)
        assert highlighted(story) == "cherry fruit", "the restored chat is selected"


async def test_after_a_renaming_the_selection_stays_on_the_chat_and_the_search_too(database: Path) -> None:
    async with chat(database=database) as story:
        await three_fruits(story)
        await story.pilot.press("down", "ctrl+r", "ctrl+u", *"sweet fruit", "enter")
        await story.until(lambda: "sweet fruit" in titles(database))
        assert highlighted(story) == "sweet fruit"
        assert story.app.screen.query_one(Input).value == "fruit"
        await story.pilot.press("down", "ctrl+r", "escape")
        assert highlighted(story) == "cherry fruit"
        assert story.app.screen.query_one(Input).value == "fruit"


async def test_the_list_marks_the_open_chat_and_names_days(database: Path) -> None:
    async with chat(database=database) as story:
        await list_two(story, ("apples", "and pears"), ("bread", "and butter"))
        lines = [line for line in story.screen().splitlines() if "2 messages" in line]
        assert ["●" in line for line in lines] == [True, False]
        assert all("Today" in line or "Yesterday" in line for line in lines)


async def test_a_deleted_chat_comes_back(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("What is drafting?", "Guessing ahead.")
        await open_list(story)
        await story.pilot.press("ctrl+d")
        await story.until_seen("Press ctrl+z to undo.")
        assert titles(database) == []
        await story.until(lambda: "Guessing ahead." not in story.screen(), "the open chat went with it")
        await story.pilot.press("ctrl+z")
        await story.until_seen("Restored “")
        assert titles(database) == ["What is drafting?"]
        await story.pilot.press("escape")
        await story.until_seen("Guessing ahead.")
        await story.send("And acceptance?")
        assert len(story.engine.requests[-1].messages) == 3
        story.engine.finish()


async def test_a_chat_that_comes_back_takes_the_place_of_none(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("What is drafting?", "Guessing ahead.")
        await story.pilot.press("ctrl+n")
        await open_list(story)
        await story.pilot.press("ctrl+d", "ctrl+z")
        await story.until_seen("Restored “")
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        assert "Guessing ahead." not in story.screen(), "it was not on the screen before"


async def test_nothing_is_brought_back_while_a_title_is_typed(database: Path) -> None:
    async with chat(database=database) as story:
        for words in ("one", "two"):
            await story.exchange(words, "answer")
            await story.pilot.press("ctrl+n")
        await open_list(story)
        await story.pilot.press("ctrl+d")
        await story.until_seen("Press ctrl+z to undo.")
        await story.pilot.press("ctrl+r")
        await story.until_seen("enter saves the title")
        await story.pilot.press("ctrl+z")
        await story.pilot.pause()
        assert story.shows("enter saves the title")
        assert titles(database) == ["one"]


async def test_why_a_reply_failed_is_there_after_a_restart(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("too long")
        story.engine.fail("The prompt does not fit: 99 tokens, 10 fit.")
        await story.until(lambda: story.state == "failed")
        await story.pilot.press("ctrl+c")
        await story.send("short")
        story.engine.say("Half an ans")
        story.engine.die()
        await story.until(lambda: story.state == "engine ended")
    async with chat(ChatOptions(chat_id=1), database=database) as story:
        await story.until_seen("99 tokens, 10 fit.", "Half an ans", "broke off", "signal SIGKILL")
        assert " 0 tok" not in story.screen(), "nothing was measured of the first one"
        await again(story, "ctrl+r", "A whole answer.")
        assert "SIGKILL" not in story.screen()
    store = ChatStore.open(database)
    for number in range(LIVE_TURNS):
        last = store.path(1)[-1].id
        _, _, reply = store.ask(1, last, f"question {number}")
        store.finish_reply(reply.id, "complete", text="answer")
    store.close()
    async with chat(ChatOptions(chat_id=1), database=database, size=(80, 60)) as story:
        await story.until_seen("99 tokens, 10 fit.", f"question {LIVE_TURNS - 1}")


async def test_replies_to_one_message_are_walked(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("Name a fruit", "An apple.")
        await story.pilot.press("ctrl+r")
        await story.until(lambda: len(story.engine.requests) == 2)
        story.engine.begin()
        story.engine.say("A pear.")
        story.engine.finish()
        await story.until_seen("A pear.", "‹ 2/2 ›")
        await story.app.chat_screen.action_walk(-1)
        await story.until_seen("An apple.", "‹ 1/2 ›")
        await story.app.chat_screen.action_walk(1)
        await story.until_seen("A pear.")


async def again(story: Story, key: str, reply: str) -> None:
    """Ask once more by a key, and get another reply."""
    before = len(story.engine.requests)
    await story.pilot.press(*key.split())
    await story.until(lambda: len(story.engine.requests) > before)
    story.engine.begin()
    story.engine.say(reply)
    story.engine.finish()
    await story.until_seen(reply)
    await story.until(lambda: story.state == "ready")


async def test_replies_to_a_message_and_what_it_was_before_are_all_walked(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("Name a fruit", "An apple.")
        await again(story, "ctrl+r", "A pear.")
        await again(story, "ctrl+up ! enter", "A plum.")
        await again(story, "ctrl+r", "A cherry.")
        await story.until_seen("‹ 4/4 ›")
        for number, (asked, reply) in enumerate(
            [("Name a fruit!", "A plum."), ("Name a fruit", "A pear."), ("Name a fruit", "An apple.")]
        ):
            await story.pilot.press("alt+left")
            await story.until_seen(f"❯ {asked}", reply, f"‹ {3 - number}/4 ›")
        await story.pilot.press("alt+left")
        await story.until_seen("An apple.", "‹ 1/4 ›")
        await story.pilot.press("alt+right", "alt+right", "alt+right")
        await story.until_seen("❯ Name a fruit!", "A cherry.", "‹ 4/4 ›")


async def test_another_reply_is_reached_from_further_down_too(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("Name a fruit", "An apple.")
        await again(story, "ctrl+r", "A pear.")
        await story.until_seen("‹ 2/2 ›")
        await story.send("Thanks")
        assert "‹" not in story.screen(), "what cannot be walked now is not marked"
        story.engine.say("Any time.")
        story.engine.finish()
        await story.until_seen("Any time.", "‹ 2/2 ›")
        assert story.screen().count("‹") == 1
        rows = story.screen().split("❯ ")
        assert "‹ 2/2 ›" in rows[1], "the mark is at the reply that has siblings"
        await story.pilot.press("alt+left")
        await story.until_seen("An apple.", "‹ 1/2 ›")
        assert "Thanks" not in story.screen()
        await story.pilot.press("alt+right")
        await story.until_seen("A pear.", "Any time.", "‹ 2/2 ›")


async def test_an_edited_message_is_marked_itself(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("Name a fruit", "An apple.")
        await again(story, "ctrl+l ! enter", "A plum.")
        await story.until_seen("❯ Name a fruit! ‹ 2/2 › A plum.")
        await story.send("Thanks")
        assert "‹" not in story.screen()
        story.engine.say("Any time.")
        story.engine.finish()
        await story.until_seen("❯ Name a fruit! ‹ 2/2 › A plum.")
        assert story.screen().count("‹") == 1


async def test_a_message_with_siblings_is_marked_among_old_turns_too(database: Path) -> None:
    async with chat(database=database, size=(80, 70)) as story:
        await story.exchange("Name a fruit", "An apple.")
        await again(story, "ctrl+l ! enter", "A plum.")
        for number in range(LIVE_TURNS + 1):
            await story.exchange(f"question {number}", "answer")
        await story.until_seen("❯ Name a fruit! ‹ 2/2 › A plum.")
        await story.pilot.press("alt+left")
        await story.until_seen("❯ Name a fruit ‹ 1/2 › An apple.")
        await story.pilot.press("alt+right")
        await story.until_seen("❯ Name a fruit! ‹ 2/2 › A plum.", f"question {LIVE_TURNS}")
        assert story.screen().count("‹") == 1
        await again(story, "ctrl+r", "Another.")
        await story.until_seen("‹ 3/3 ›")
        assert story.screen().count("‹") == 1


async def test_only_one_reply_cannot_be_walked(database: Path) -> None:
    async with chat(database=database) as story:
        await story.exchange("Name a fruit", "An apple.")
        await story.app.chat_screen.action_walk(1)
        await story.until_told("only one version")


async def test_a_stopped_reply_goes_on_where_it_was(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("Count")
        story.engine.begin()
        story.engine.say("one two")
        await story.until_seen("one two")
        story.engine.finish("cancelled")
        await story.until(lambda: story.state == "stopped")
        assert last_chat(database)[1] == ("assistant", "one two", "stopped")
        await story.app.chat_screen.action_go_on()
        assert story.engine.requests[-1].messages[-1] == Message("assistant", "one two")
        story.engine.begin()
        story.engine.say(" three")
        story.engine.finish()
        await story.until_seen("one two three")
        await story.until(lambda: story.state == "ready")
        assert last_chat(database)[1] == ("assistant", "one two three", "complete")
        await story.app.chat_screen.action_go_on()
        await story.until_told("Nothing to continue")


async def test_a_reply_that_was_stopped_before_its_first_word_goes_on_too(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("Count")
        story.engine.begin()
        await story.pilot.press("escape")
        story.engine.finish("cancelled")
        await story.until(lambda: story.state == "stopped")
        await story.app.chat_screen.action_go_on()
        await story.until(lambda: len(story.engine.requests) == 2)
        assert story.engine.requests[-1].messages == (Message("user", "Count"),)
        story.engine.say("one two")
        story.engine.finish()
        await story.until_seen("one two")
        await story.until(lambda: story.state == "ready")
    assert last_chat(database) == [("user", "Count", "complete"), ("assistant", "one two", "complete")]


async def test_a_reply_that_goes_on_keeps_its_thoughts(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("Count")
        story.engine.say("", thinking="From one, I think.")
        story.engine.say("one two")
        story.engine.finish("cancelled")
        await story.until(lambda: story.state == "stopped")
        await story.app.chat_screen.action_go_on()
        story.engine.say(" three")
        story.engine.finish()
        await story.until_seen("thought · 4 words", "one two three")
        await story.until(lambda: story.state == "ready")
        await story.pilot.press("ctrl+o")
        await story.until_seen("From one, I think.")
    assert rows(database, "SELECT text, thinking FROM message WHERE role = 'assistant'") == [
        ("one two three", "From one, I think.")
    ]


async def test_thoughts_that_begin_anew_stand_below_those_before(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("Count")
        story.engine.say("", thinking="From one, I")
        story.engine.finish("cancelled")
        await story.until(lambda: story.state == "stopped")
        await story.app.chat_screen.action_go_on()
        story.engine.say("", thinking="Let me count.")
        story.engine.say("one")
        story.engine.finish()
        await story.until_seen("thought · 6 words", "one")
        await story.until(lambda: story.state == "ready")
    assert rows(database, "SELECT thinking FROM message WHERE role = 'assistant'") == [
        ("From one, I\n\nLet me count.",)
    ]


async def test_quitting_in_the_middle_keeps_what_there_is(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("Count")
        story.engine.begin()
        story.engine.say("one two")
        await story.until_seen("one two")
        await story.pilot.press("ctrl+q")
    assert last_chat(database)[1] == ("assistant", "one two", "interrupted")


async def test_a_store_that_cannot_be_written_is_said_and_the_chat_goes_on(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    async with chat(database=in_the_way / "chats.db") as story:
        await story.until_told("Chats are not saved")
        await story.exchange("Hello", "Hi there.")
        await story.until_seen("Hi there.")


async def test_what_cannot_be_kept_comes_back_and_is_kept_once(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.database.BUSY_TIMEOUT_S", 0.0)
    async with chat(database=database) as story:
        await story.exchange("Name a fruit", "An apple.")
        with locked(database):
            await story.type("Name another")
            await story.pilot.press("enter")
            await story.until_told("locked by another program")
            await story.until(lambda: story.prompt.text == "Name another")
            await story.pilot.press("ctrl+r")
            await story.pilot.pause()
            assert len(story.engine.requests) == 1
        await story.until_seen("An apple.")
        await story.pilot.press("enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert [m.text for m in story.engine.requests[-1].messages] == [
            "Name a fruit",
            "An apple.",
            "Name another",
        ]
    assert [text for _, text, _ in last_chat(database)] == ["Name a fruit", "An apple.", "Name another", ""]


async def test_a_reply_that_cannot_be_kept_while_it_runs_is_said(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.database.BUSY_TIMEOUT_S", 0.0)
    async with chat(database=database) as story:
        await story.send("Count")
        story.engine.begin()
        with locked(database):
            story.engine.say("one two")
            await story.until_told("The running reply is not saved yet.")
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
    assert last_chat(database)[1] == ("assistant", "one two", "complete")


async def test_a_long_chat_is_opened_with_its_old_turns_cheap(database: Path) -> None:
    store = ChatStore.open(database)
    made = store.create_chat()
    parent = None
    for number in range(60):
        parent = store.ask(made.id, parent, f"question {number}")[-1].id
        store.finish_reply(parent, "complete", text=f"answer **{number}**")
    store.close()
    async with chat(ChatOptions(chat_id=made.id), database=database) as story:
        await story.until_seen("question 59", "answer 59")
        assert len(story.transcript.query("*")) < 160
        await story.send("And?")
        assert len(story.engine.requests[-1].messages) == 121


async def test_what_fails_because_the_window_is_gone_is_no_crash(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hang-up while the message is being shown: its widgets cannot be mounted any more."""
    async with chat(database=database) as story:

        async def hang_up(transcript: Transcript, *shown: object) -> Turn:
            transcript.app.exit(return_code=129)
            raise MountError("the screen has gone")

        monkeypatch.setattr(Transcript, "add_turn", hang_up)
        await story.type("A question")
        story.app.post_message(events.Key("enter", None))
        async with asyncio.timeout(PATIENCE_S):
            while story.app.is_running:
                await asyncio.sleep(0.01)
    assert story.app.return_code == 129
    assert last_chat(database) == [("user", "A question", "complete"), ("assistant", "", "interrupted")]


async def test_a_draft_is_kept_for_the_next_run(database: Path, tmp_path: Path) -> None:
    options = ChatOptions(history_path=tmp_path / "history.jsonl")
    async with chat(options, database=database) as story:
        await story.exchange("Sent", "Received.")
        await story.type("my draft")
        await story.pilot.press("ctrl+q")
    async with chat(options, database=database) as story:
        await story.pilot.press("up")
        assert story.prompt.text == "my draft"
        await story.pilot.press("up")
        assert story.prompt.text == "Sent"
        await story.pilot.press("ctrl+q")
    async with chat(options, database=database) as story:
        await story.pilot.press("up")
        assert story.prompt.text == "my draft", "what was only looked at is not kept again"


async def test_only_the_last_reply_offers_to_be_continued(database: Path) -> None:
    async with chat(database=database) as story:
        await story.send("Count")
        story.engine.begin()
        story.engine.say("one two")
        story.engine.finish("cancelled")
        await story.until_seen("stopped · /continue")
        await story.exchange("Never mind", "Fine.")
        assert "/continue" not in story.screen()
        assert story.shows("· stopped")


async def test_keys_of_a_list_count_in_the_order_of_typing() -> None:
    async with chat() as story:
        await list_two(story, ("first question", "An answer."), ("second question", "Another one."))
        for key in ("down", "enter"):  # at once: no widget has seen the first when the second comes
            story.app.post_message(events.Key(key, None))
        await story.until_seen("first question")
        await story.until(lambda: "second question" not in story.screen())


async def test_keys_behind_the_one_that_closes_a_list_go_to_the_chat() -> None:
    async with chat() as story:
        await story.exchange("question", "An answer.")
        await open_list(story)
        for key in ("escape", "escape", "escape"):
            story.app.post_message(events.Key(key, None))
        for character in "hel":
            story.app.post_message(events.Key(character, character))
        story.app.post_message(events.Paste("lo"))
        await story.until_seen("hello")


@pytest.mark.parametrize("key", ["f1", "f2", "f4"])
async def test_a_screen_that_is_closed_twice_leaves_the_one_beneath(key: str) -> None:
    async with chat() as story:
        await story.pilot.press(key)
        await story.until(lambda: isinstance(story.app.screen, Overlay))
        screen = story.app.screen
        screen.dismiss(None)
        screen.dismiss(None)
        await story.until(lambda: not isinstance(story.app.screen, Overlay))
        await story.send("hello")
