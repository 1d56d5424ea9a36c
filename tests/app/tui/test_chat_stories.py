"""What a person does with the chat, and what they see."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from textual import events
from textual.selection import SELECT_ALL

from app import __version__
from app.core.chat_options import ChatOptions
from app.settings.table import Settings
from app.tui.bars.top_line import TopLine
from app.tui.chat_app import ChatApp
from app.tui.transcript.text_block import TextBlock
from mlx_engine.protocol.events import Failed, Message, Notice
from tests.app.store.support import last_chat
from tests.app.tui.pilot import chat


async def test_the_first_screen_lands_in_the_prompt_and_says_what_to_do() -> None:
    async with chat(ChatOptions(about_model="This is the pocket pair, not Gemma.")) as story:
        assert story.prompt.has_focus
        await story.until_seen(
            f"Slipstream {__version__}",
            "Type a message below",
            "f1 explains the rest",
            "not Gemma",
            "gemma-4-e2b",
            "fake-assistant",
            "ready",
        )
        assert "draft AUTO" in story.screen()
        assert "—" in story.strip


async def test_what_the_engine_reported_before_the_screen_was_there_is_not_lost() -> None:
    async with chat(is_loaded=True) as story:
        assert story.state == "ready"
        assert "fake-assistant" in story.screen()


async def test_loading_is_said() -> None:
    async with chat(is_loaded=False) as story:
        assert story.state == "loading"
        story.engine.start()
        await story.until(lambda: story.state == "ready")


async def test_a_message_is_sent_and_the_reply_streams() -> None:
    options = ChatOptions(Settings(temp=0.0, draft=6, max_tokens=99, system="Be brief."))
    async with chat(options) as story:
        await story.send("Hello there")
        request = story.engine.requests[-1]
        assert request.messages == (Message("system", "Be brief."), Message("user", "Hello there"))
        assert (request.draft_length, request.max_tokens, request.sampling.temperature) == (6, 99, 0.0)
        assert story.prompt.text == ""
        await story.until_seen("❯ Hello there")
        story.engine.begin(prompt_tokens=12)
        await story.until(lambda: story.state == "reading prompt 12 of 12")
        story.engine.say("Good ")
        await story.until_seen("Good")
        assert story.state == "generating"
        story.engine.say("day.")
        await story.until_seen("Good day.")
        story.engine.finish(text=" Bye.")
        await story.until_seen("Good day. Bye.", "8 tok · 80.0 tok/s")
        assert "TTFT" not in story.screen(), "all figures only on request"
        await story.run("toggle_figures")
        await story.until_seen("8 tok · ", "75% acc", "4.0 tok/rd", "TTFT")
        assert story.state == "ready"
        await story.send("And then?")
        assert [each.text for each in story.engine.requests[-1].messages] == [
            "Be brief.",
            "Hello there",
            "Good day. Bye.",
            "And then?",
        ]


async def test_an_empty_prompt_sends_nothing() -> None:
    async with chat() as story:
        await story.type("  \n ")
        await story.pilot.press("enter")
        await story.pilot.pause()
        assert not story.engine.requests
        assert story.transcript.last_turn is None


async def test_newlines_and_typing() -> None:
    async with chat() as story:
        await story.pilot.press("a", "ctrl+j", "b", "shift+enter", "c", "alt+enter", "d")
        assert story.prompt.text == "a\nb\nc\nd"
        assert story.prompt.size.height == 4
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == "a\nb\nc\nd"


async def test_a_burst_of_keys_keeps_its_order() -> None:
    async with chat() as story:
        for key in ("a", "ctrl+j", "b", "enter", "c"):
            story.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await story.until(lambda: story.engine.requests and story.prompt.text == "c")
        assert story.engine.requests[-1].messages[-1].text == "a\nb"


async def test_the_prompt_grows_to_ten_rows_and_no_further() -> None:
    async with chat(size=(80, 40)) as story:
        await story.type("\n".join("line" for _ in range(30)))
        await story.until(lambda: story.prompt.size.height == 10)


async def test_stop_keeps_the_text() -> None:
    async with chat() as story:
        await story.send("count")
        story.engine.begin()
        story.engine.say("one two")
        await story.until_seen("one two")
        await story.pilot.press("escape")
        assert story.engine.cancels == 1
        assert story.state == "stopping"
        await story.pilot.press("escape")
        assert story.engine.cancels == 1
        story.engine.say(" three")
        story.engine.finish("cancelled")
        await story.until_seen("one two three", "· stopped")
        assert story.state == "stopped"
        await story.send("go on")
        assert [each.text for each in story.engine.requests[-1].messages] == ["count", "one two three", "go on"]


async def test_escape_never_quits() -> None:
    async with chat() as story:
        await story.type("draft of mine")
        await story.pilot.press("escape", "escape", "escape")
        assert story.app.is_running
        assert story.prompt.text == "draft of mine"
        assert story.engine.cancels == 0


async def test_the_token_limit_is_said_in_words() -> None:
    async with chat() as story:
        await story.send("long")
        story.engine.say("text")
        story.engine.finish("length")
        await story.until_seen("reached the token limit")


async def test_drafting_is_toggled_in_the_middle_of_a_reply() -> None:
    async with chat(ChatOptions(Settings(draft=6))) as story:
        await story.send("hello")
        story.engine.say("some text")
        await story.pilot.press("ctrl+t")
        assert story.engine.draft_lengths == [0]
        assert "draft OFF" in story.strip
        await story.pilot.press("ctrl+t")
        assert story.engine.draft_lengths == [0, 6]
        assert "draft ON 6" in story.strip
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.pilot.press("ctrl+t")
        assert story.engine.draft_lengths == [0, 6], "nothing runs, so there is nothing to tell the engine"
        await story.send("again")
        assert story.engine.requests[-1].draft_length == 0


async def test_without_a_drafter_the_toggle_says_so() -> None:
    async with chat(drafter=None) as story:
        await story.until_seen("no drafter")
        await story.pilot.press("ctrl+t")
        await story.until_told("without a drafter")
        await story.until(lambda: "no drafter" in story.strip)


async def test_regenerate_asks_again_and_replaces_the_reply() -> None:
    async with chat() as story:
        await story.pilot.press("ctrl+r")
        await story.until_told("no reply to regenerate")
        await story.exchange("question", "poor answer")
        await story.until_seen("poor answer")
        await story.pilot.press("ctrl+r")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert story.engine.requests[1].messages == story.engine.requests[0].messages
        assert story.engine.requests[1].id != story.engine.requests[0].id
        story.engine.say("better answer")
        story.engine.finish()
        await story.until_seen("better answer")
        assert "poor answer" not in story.screen()


async def test_a_new_chat_forgets_and_ends_what_runs() -> None:
    async with chat() as story:
        await story.exchange("old question", "old answer")
        await story.send("running question")
        story.engine.say("late ")
        await story.until_seen("late")
        await story.type("kept")
        await story.pilot.press("ctrl+n")
        assert story.engine.cancels == 1
        story.engine.say("straggler")
        story.engine.finish("cancelled")
        await story.until_seen("Type a message below")
        assert "old" not in story.screen()
        assert story.prompt.text == "kept"
        await story.pilot.press("enter")
        await story.until(lambda: len(story.engine.requests) == 3)
        assert [each.text for each in story.engine.requests[-1].messages] == ["kept"]
        assert "straggler" not in story.screen()


async def test_how_the_last_reply_ended_is_no_news_in_another_chat() -> None:
    async with chat() as story:
        await story.send("count")
        story.engine.say("one two")
        story.engine.finish("cancelled")
        await story.until(lambda: story.state == "stopped")
        await story.pilot.press("ctrl+n")
        assert story.state == "ready"
        await story.send("much too long")
        story.engine.fail()
        await story.until(lambda: story.state == "failed")
        await story.run("chats")
        await story.until_seen("enter: open")
        await story.pilot.press("down", "enter")
        await story.until_seen("one two")
        assert story.state == "ready"
        assert not story.app.query_one(TopLine).is_error
        story.engine.die()
        await story.until(lambda: story.state == "engine ended")
        await story.pilot.press("ctrl+n")
        assert story.state == "engine ended", "nor is the engine there for another chat"


async def test_the_engine_dies_and_the_next_message_goes_to_it_again() -> None:
    async with chat() as story:
        await story.send("hello")
        story.engine.say("Half an ans")
        await story.until_seen("Half an ans")
        story.engine.die()
        await story.until_seen("Half an ans", "signal SIGKILL", "broke off")
        assert story.state == "engine ended"
        assert story.prompt.text == "", "something was generated: the text is not offered again"
        await story.send("once more")
        assert [each.text for each in story.engine.requests[-1].messages] == ["hello", "Half an ans", "once more"]
        story.engine.start()
        story.engine.say("Here I am.")
        story.engine.finish()
        await story.until_seen("Here I am.")
        assert story.state == "ready"


async def test_an_idle_engine_dies_without_harm() -> None:
    async with chat() as story:
        story.engine.die()
        await story.until_seen("signal SIGKILL")
        assert story.state == "engine ended"


async def test_a_failed_request_gives_the_text_back() -> None:
    async with chat() as story:
        await story.send("much too long")
        story.engine.fail("The prompt does not fit: 99 tokens, 10 fit.")
        await story.until_seen("does not fit", "❯ much too long")
        assert story.prompt.text == "much too long"
        assert story.state == "failed"
        await story.pilot.press("enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert [each.text for each in story.engine.requests[-1].messages] == ["much too long"]


async def test_what_is_being_typed_survives_a_failure() -> None:
    async with chat() as story:
        await story.send("first")
        await story.type("typed meanwhile")
        story.engine.fail()
        await story.until_seen("It does not fit.")
        assert story.prompt.text == "typed meanwhile"
        await story.pilot.press("home", "up")
        assert story.prompt.text == "first"
        await story.pilot.press("down")
        assert story.prompt.text == "typed meanwhile"


async def test_a_load_that_fails_is_said() -> None:
    async with chat(is_loaded=False) as story:
        await story.send("early")
        story.engine.emit(Failed(id=None, message="config.json is missing."))
        await story.until_seen("could not be loaded", "config.json is missing.")
        assert story.state == "not loaded"
        assert story.prompt.text == "early"


async def test_earlier_prompts_come_back() -> None:
    async with chat() as story:
        await story.exchange("one", "1")
        await story.exchange("two", "2")
        await story.type("unsent")
        await story.pilot.press("up")
        assert story.prompt.text == "two"
        await story.pilot.press("up", "up")
        assert story.prompt.text == "one"
        await story.pilot.press("down")
        assert story.prompt.text == "two"
        await story.pilot.press("down")
        assert story.prompt.text == "unsent"


async def test_ctrl_c_stops_then_quits() -> None:
    async with chat() as story:
        await story.send("hello")
        story.engine.say("text")
        await story.pilot.press("ctrl+c")
        await story.until_told("again to quit")
        assert story.engine.cancels == 1
        assert story.app.is_running
        await story.pilot.press("ctrl+c")
        await story.until(lambda: not story.app.is_running)
    assert story.app.return_code == 130


async def test_ctrl_c_twice_slowly_does_not_quit(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("app.tui.chat_app.monotonic", lambda: now_s)
    async with chat() as story:
        await story.type("text")
        await story.pilot.press("ctrl+c")
        assert story.prompt.text == ""
        now_s += 2.5
        await story.pilot.press("ctrl+c")
        assert story.app.is_running
        await story.pilot.press("up")
        assert story.prompt.text == "text", "nothing typed is lost"


async def test_ctrl_c_copies_a_selection() -> None:
    async with chat() as story:
        await story.type("copy me")
        story.prompt.select_all()
        await story.pilot.press("ctrl+c")
        await story.until(lambda: story.app.clipboard == "copy me")
        assert story.prompt.text == "copy me"
        await story.pilot.press("ctrl+c")
        await story.until_told("again to quit")
        assert story.app.is_running
        assert story.prompt.text == "", "nothing is selected any more"


async def test_ctrl_c_stops_and_quits_after_a_selection_was_copied() -> None:
    async with chat() as story:
        await story.send("hello")
        story.engine.say("a")
        await story.until_seen("❯ hello", "a")
        story.app.screen.selections = {story.app.query(".prompt").last(TextBlock): SELECT_ALL}
        await story.pilot.press("ctrl+c")
        await story.until(lambda: story.app.clipboard == "❯ hello")
        assert story.engine.cancels == 0
        await story.pilot.press("ctrl+c")
        await story.until(lambda: story.engine.cancels == 1)
        await story.pilot.press("ctrl+c")
        await story.until(lambda: not story.app.is_running)


async def test_a_reply_stopped_before_its_first_word_is_empty() -> None:
    async with chat() as story:
        await story.send("hello")
        story.engine.begin()
        await story.pilot.press("escape")
        story.engine.finish("cancelled")
        await story.until_seen("0 tok · stopped")
        assert "reply-text" not in story.screen()


async def test_what_is_typed_behind_a_new_chat_is_for_that() -> None:
    async with chat() as story:
        await story.exchange("Hi", "Hello.")
        for key in ("ctrl+n", *"two", "enter"):
            story.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await story.until(lambda: len(story.engine.requests) == 2)
        assert [each.text for each in story.engine.requests[-1].messages] == ["two"]
        assert story.prompt.text == ""


async def test_ctrl_q_quits() -> None:
    async with chat() as story:
        await story.pilot.press("ctrl+q")
        await story.until(lambda: not story.app.is_running)
    assert story.app.return_code == 0


async def test_the_last_answer_is_copied() -> None:
    async with chat() as story:
        await story.pilot.press("ctrl+y")
        await story.until_told("no answer to copy")
        await story.exchange("q", "the **answer**\x1b[31m")
        await story.pilot.press("ctrl+y")
        await story.until_told("Copied the last answer")
        assert story.app.clipboard == "the **answer**␛[31m"


async def test_help_opens_and_closes() -> None:
    async with chat(size=(100, 90)) as story:
        await story.pilot.press("f1")
        await story.until_seen(
            "ctrl+t", "ctrl+q", "accepted drafts / drafted tokens", "tokens written", "/rename TITLE"
        )
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        assert story.prompt.has_focus


@pytest.mark.parametrize(("size", "is_beside"), [((120, 36), True), ((80, 24), False), ((44, 12), False)])
async def test_the_help_uses_the_room_is_searched_and_says_how_to_close_it(
    size: tuple[int, int], *, is_beside: bool
) -> None:
    async with chat(size=size) as story:
        await story.pilot.press("f1")
        await story.until_seen("Keys", "esc closes this")
        lines = story.screen().splitlines()
        assert any("Keys" in line and "Gauges" in line for line in lines) == is_beside
        await story.pilot.press(*"/temp")
        await story.until_seen("/temp T|default")
        assert "/rename" not in story.screen()
        await story.until_seen("esc closes this")
        await story.pilot.press(*"xyz")
        await story.until_seen("Nothing matches.")
        await story.pilot.press("f1")
        await story.until(lambda: len(story.app.screen_stack) == 1)


async def test_the_help_is_scrolled_while_it_is_searched() -> None:
    async with chat(size=(80, 24)) as story:
        await story.pilot.press("f1")
        await story.until_seen("sends the message")
        await story.pilot.press("pagedown")
        await story.until(lambda: not story.shows("sends the message"))
        await story.pilot.press("pageup", "down", "down", "down", "down")
        await story.until(lambda: not story.shows("sends the message"))
        await story.pilot.press("up", "up", "up", "up")
        await story.until_seen("sends the message", "esc closes this")


async def test_escape_closes_the_help_before_it_stops() -> None:
    async with chat() as story:
        await story.send("hello")
        await story.pilot.press("f1", "escape")
        assert story.engine.cancels == 0
        await story.pilot.press("escape")
        assert story.engine.cancels == 1


async def test_what_opens_is_not_covered_by_what_was_told_before() -> None:
    async with chat(size=(44, 12)) as story:
        for key in ("f4", "f2", "f6", "f1", "ctrl+p"):
            story.app.notify("Something was told.", timeout=60)
            await story.until_seen("Something was told.")
            await story.pilot.press(key)
            await story.until(lambda: len(story.app.screen_stack) == 2)
            await story.until(lambda: not story.shows("Something was told."))
            await story.pilot.press("escape")
            await story.until(lambda: len(story.app.screen_stack) == 1)
        await story.pilot.press("f4")
        await story.until(lambda: len(story.app.screen_stack) == 2)
        story.app.notify("Told while it is open.", timeout=60)
        await story.pilot.press("escape")
        await story.until_seen("Told while it is open.")


async def test_every_action_is_in_the_palette() -> None:
    async with chat() as story:
        names = {command.title for command in story.app.get_system_commands(story.app.screen)}
        assert names >= {
            "Turn drafting on or off",
            "Stop the reply",
            "Regenerate the last reply",
            "New chat",
            "Copy the last answer",
            "Show or hide the gauge panel",
            "Help",
            "Screenshot",
            "Quit",
        }
        await story.pilot.press("ctrl+p")
        await story.until_seen("Search for commands")
        await story.pilot.press(*"turn drafting")
        await story.until_seen("Turn drafting on or off")
        await story.pilot.press("enter")
        await story.until(lambda: "draft OFF" in story.strip)


async def test_the_screenshot_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with chat() as story:
        story.app.action_screenshot_soon()
        await story.until_told("Saved")
        (saved,) = tmp_path.glob("*.svg")
        assert "gemma-4-e2b" in saved.read_text()
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600, "a screen can show anything"


async def test_a_long_paste_comes_back_from_the_history_in_full() -> None:
    paste = "line of code\n" * 2000
    async with chat() as story:
        await story.type(paste)
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        story.engine.fail()
        await story.until(lambda: story.prompt.whole_text.rstrip() == paste.rstrip())
        await story.until_seen("[pasted text 1: ")
        await story.pilot.press("ctrl+c", "up")
        assert story.prompt.whole_text.rstrip() == paste.rstrip()


async def test_a_click_leaves_the_prompt_ready_to_type() -> None:
    async with chat() as story:
        await story.exchange("hello", "words to click on")
        await story.until_seen("words to click on")
        await story.pilot.click("#turns", offset=(5, 5))
        await story.pilot.press("x")
        assert story.prompt.text == "x"


async def test_the_palette_and_the_help_never_send_keys_to_the_prompt() -> None:
    async with chat() as story:
        await story.pilot.press("f1", "a", "enter")
        assert story.prompt.text == ""
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        assert not story.engine.requests


async def test_ctrl_c_quits_from_the_help_as_well() -> None:
    async with chat() as story:
        await story.pilot.press("f1", "ctrl+c", "ctrl+c")
        await story.until(lambda: not story.app.is_running)


async def test_thoughts_are_counted_folded_and_never_sent_again() -> None:
    async with chat(ChatOptions(Settings(think=True))) as story:
        await story.send("What is seven times six?")
        assert story.engine.requests[-1].is_thinking
        story.engine.begin()
        story.engine.say("", thinking="Seven times six, let me see.\x1b[2J ")
        await story.until_seen("thinking · 6 words")
        assert story.state == "thinking"
        assert "let me see" not in story.screen()
        await story.pilot.press("ctrl+o")
        await story.until_seen("let me see.␛[2J")
        story.engine.say("It is 42.")
        await story.until_seen("▾ thought · 6 words", "It is 42.")
        await story.pilot.press("ctrl+o")
        await story.until(lambda: "let me see" not in story.screen())
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.send("Thanks")
        assert [m.text for m in story.engine.requests[-1].messages][1] == "It is 42."


async def test_no_thoughts_to_unfold() -> None:
    async with chat() as story:
        await story.exchange("Hi", "Hello.")
        await story.pilot.press("ctrl+o")
        await story.until_told("no thoughts to show. /think on lets the model think first")
        await story.run("set_thinking(True)")
        await story.pilot.press("ctrl+o")
        await story.until_told("The latest replies have no thoughts to show.")


async def test_a_notice_of_the_engine_is_told() -> None:
    async with chat() as story:
        story.engine.emit(Notice("The estimates of this pair were damaged and are made anew."))
        await story.until_told("made anew")


async def test_a_reply_may_end_while_the_chat_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "chats.db"
    async with chat(database=database) as story:
        await story.send("Hi")
        story.engine.say("Hello ")
        await story.until_seen("Hello")
        close = ChatApp._close_messages

        async def report_first(app: ChatApp) -> None:
            assert not app.screen_stack, "the screens go first"
            story.engine.say("there.")
            story.engine.finish()
            await close(app)

        monkeypatch.setattr(ChatApp, "_close_messages", report_first)
    assert last_chat(database)[1] == ("assistant", "Hello there.", "interrupted")
