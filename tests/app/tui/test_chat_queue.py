"""What a person can do while a reply runs: queue messages, take them back, stop, and leave the chat."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.chat_options import ChatOptions
from app.settings.table import Settings
from app.tui import reply_on_screen
from app.tui.chat_app import ChatApp
from tests.app.tui.pilot import Story, chat
from tests.app.tui.terminal import slipstream
from tests.app.tui.test_terminal_signals import kept
from tests.fakes.scripted_engine import Script

UP, ESCAPE, F4 = "\x1b[A", "\x1b", "\x1bOS"


def sent(story: Story) -> list[str]:
    """The messages that were sent, in order."""
    return [request.messages[-1].text for request in story.engine.requests]


async def queue(story: Story, text: str) -> None:
    await story.type(text)
    await story.pilot.press("enter")
    await story.until(lambda: story.prompt.text == "")


async def test_a_message_typed_during_a_reply_is_sent_after_it() -> None:
    async with chat() as story:
        await story.send("first")
        await queue(story, "second")
        await queue(story, "third")
        await story.until_seen("up: take back · queued: second", "queued: third")
        assert sent(story) == ["first"]
        for number, text in enumerate(("second", "third"), 2):
            story.engine.say(f"Answer {number}.")
            story.engine.finish()
            await story.until(lambda: len(story.engine.requests) == number)  # noqa: B023
            assert sent(story)[-1] == text
        assert "queued" not in story.screen()
        await story.until_seen("❯ third")


async def test_only_some_rows_show_what_waits_and_the_last_counts_the_others() -> None:
    async with chat() as story:
        await story.send("first")
        for number in range(2, 7):
            await queue(story, f"message {number}")
        await story.until_seen("queued: message 2", "queued: message 3", "queued: 3 more")
        assert "message 4" not in story.screen()


async def test_up_takes_queued_messages_back() -> None:
    async with chat() as story:
        await story.send("first")
        await queue(story, "second")
        await queue(story, "/nothing"[1:])
        await story.type("draft")
        await story.pilot.press("up")
        assert story.prompt.whole_text == "second\n\nnothing\n\ndraft"
        assert "queued" not in story.screen()
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        assert sent(story) == ["first"]


async def test_files_of_a_queued_message_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.md").write_text("# Notes\n")
    monkeypatch.chdir(tmp_path)
    async with chat() as story:
        await story.send("first")
        await queue(story, "See @notes.md ")
        story.engine.finish()
        await story.until(lambda: len(story.engine.requests) == 2)
        assert "# Notes" in sent(story)[-1]


async def test_stopping_gives_queued_messages_back() -> None:
    async with chat() as story:
        await story.send("first")
        story.engine.say("One")
        await queue(story, "second")
        await story.until_seen("One")
        await story.pilot.press("escape")
        await story.until(lambda: story.prompt.text == "second")
        story.engine.finish("cancelled")
        await story.until(lambda: story.state == "stopped")
        assert sent(story) == ["first"]


async def test_a_message_sent_while_the_reply_is_stopping_is_sent_when_it_has_stopped() -> None:
    async with chat() as story:
        await story.send("first")
        story.engine.say("One")
        await story.until_seen("One")
        await story.pilot.press("escape")
        await queue(story, "second")
        await story.until_seen("queued: second")
        assert sent(story) == ["first"]
        story.engine.finish("cancelled")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert sent(story)[-1] == "second"
        assert story.prompt.text == ""


async def test_an_edited_message_sent_while_the_reply_is_stopping_stays_and_says_why() -> None:
    async with chat() as story:
        await story.send("helo")
        await story.pilot.press("escape")
        await story.until(lambda: story.prompt.text == "helo")
        await story.pilot.press("enter")
        await story.until_told(
            "The reply is still stopping. Try again in a moment. Your text stays in the prompt."
        )
        assert story.prompt.text == "helo"


async def test_what_is_being_typed_stays_when_queued_messages_come_back() -> None:
    async with chat() as story:
        await story.send("first")
        story.engine.say("One")
        await queue(story, "second")
        await story.type("draft")
        story.engine.fail()
        await story.until_told("1 queued message was not sent. Press up to get the text back.")
        assert story.prompt.text == "draft"
        await story.pilot.press("home", "up")
        assert story.prompt.text == "second"


async def test_escape_before_the_first_word_gives_the_message_back() -> None:
    async with chat() as story:
        await story.send("helo")
        await story.pilot.press("escape")
        await story.until(lambda: story.prompt.text == "helo")
        assert story.prompt.is_editing
        await story.pilot.press("escape")
        assert story.prompt.text == "helo", "a second escape in a hurry takes nothing away"
        story.engine.finish("cancelled")
        await story.until(lambda: story.state == "stopped")
        await story.pilot.press("left", "l", "enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert [message.text for message in story.engine.requests[-1].messages] == ["hello"]
        await story.until_seen("❯ hello")
        assert "❯ helo\n" not in story.screen()


async def test_escape_before_the_first_word_leaves_a_draft_alone() -> None:
    async with chat() as story:
        await story.send("hello")
        await story.type("draft")
        await story.pilot.press("escape")
        story.engine.finish("cancelled")
        await story.until(lambda: story.state == "stopped")
        assert story.prompt.text == "draft"


async def test_the_list_of_chats_opens_during_a_reply_and_another_chat_stops_it() -> None:
    async with chat() as story:
        await story.exchange("old question", "old answer")
        await story.pilot.press("ctrl+n")
        await story.send("running question")
        story.engine.say("late ")
        await story.until_seen("late")
        await story.pilot.press("f4")
        await story.until_seen("enter: open")
        story.engine.say("words")
        await story.pilot.press("enter")
        await story.until_seen("late words")
        assert story.engine.cancels == 0, "the chat that is open already goes on"
        await story.pilot.press("f4")
        await story.until_seen("enter: open")
        await story.pilot.press("down", "enter")
        await story.until_told("The reply was stopped.")
        await story.until_seen("old answer")
        assert story.engine.cancels == 1


async def test_an_unknown_model_points_to_the_list() -> None:
    async with chat() as story:
        await story.type("/model broken")
        await story.pilot.press("escape", "enter")
        await story.until_told("There is no model called broken. Press f2 for the list of models.")


@pytest.mark.parametrize("notify", ["bell", "notification", "off"])
@pytest.mark.parametrize("is_focused", [True, False])
@pytest.mark.parametrize("long_reply_s", [0.0, 60.0])
@pytest.mark.sampled(3)
async def test_the_end_of_a_long_reply_rings_in_another_window_on_request(
    monkeypatch: pytest.MonkeyPatch, notify: str, long_reply_s: float, *, is_focused: bool
) -> None:
    rings: list[str] = []
    monkeypatch.setattr(ChatApp, "bell", lambda self: rings.append("bell"))
    monkeypatch.setattr(reply_on_screen, "LONG_REPLY_S", long_reply_s)
    async with chat(ChatOptions(Settings(notify=notify))) as story:  # type: ignore[arg-type]
        driver = story.app._driver
        assert driver is not None
        monkeypatch.setattr(
            driver, "write", lambda text: rings.append("notification") if text.startswith("\x1b]9;") else None
        )
        await story.send("hello")
        story.app.app_focus = is_focused  # a key focuses it
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.pilot.pause()
        is_expected = notify != "off" and long_reply_s == 0.0 and not is_focused
        assert rings == [notify] * is_expected


def test_queued_taken_back_and_stopped_through_a_terminal(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(stalls_at="prefill")) as terminal:
        terminal.until("ready")
        terminal.type("helo\r")
        terminal.until("reading prompt")
        terminal.type("second\r")
        terminal.until("queued: second")
        terminal.type(UP)
        terminal.settle(0.3)
        terminal.type("\x15" * 3)  # empties the prompt
        terminal.settle(0.3)
        terminal.type(ESCAPE)
        terminal.until("Editing your last message")
        terminal.until("stopped")
        terminal.type("\x1b[D")
        terminal.settle(0.3)
        terminal.type("l\r")
        terminal.until("hello")
        terminal.settle(0.3)
        terminal.type(F4)
        terminal.until("enter: open")
        terminal.type(ESCAPE)
        terminal.settle(0.3)
        terminal.type("\x11")
        assert terminal.wait() == 0
    texts = [text for _, text, _ in kept(tmp_path) if text]
    assert texts == ["helo", "hello"], "the first one is another version"


def test_a_chat_that_another_window_has_open_says_so(tmp_path: Path) -> None:
    script = Script(pieces=["An answer."])
    with slipstream(tmp_path, script) as one:
        one.until("ready")
        one.type("Hi\r")
        one.until("An answer.")
        one.settle(0.3)
        with slipstream(tmp_path, script, "--continue") as two:
            two.until("also open in another window")
            one.until("also open in another window")
            two.type("\x11")
            assert two.wait() == 0
        one.type("\x11")
        assert one.wait() == 0
    with slipstream(tmp_path, script, "--continue") as three:
        three.until("An answer.")
        three.settle(0.5)
        assert b"another window" not in three.written
        three.type("\x11")
        assert three.wait() == 0
