"""The transcript: streaming, following, staying cheap, and letting nothing command the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Event, current_thread, main_thread
from time import monotonic
from typing import Any

import pytest
from textual import events
from textual.content import Content
from textual.geometry import Offset
from textual.highlight import highlight
from textual.selection import SELECT_ALL, Selection

from app.core.chat_options import ChatOptions
from app.tui.transcript import markdown as markdown_text
from app.tui.transcript.code_block import REHIGHLIGHTED_LINES, CodeBlock
from app.tui.transcript.flow import FlowRow, wrap_rows
from app.tui.transcript.markdown import CodePiece, GrowingMarkdown, Piece, as_rows
from app.tui.transcript.reply_body import LONG_CHARACTERS, MarkdownBody
from app.tui.transcript.text_block import TextBlock
from app.tui.transcript.transcript import LIVE_TURNS, FrozenTurns, TurnList
from app.tui.transcript.turn import ReplyWidget, Turn, turn_rows
from tests.app.tui.corpus import EVERYTHING
from tests.app.tui.pilot import Story, chat, layouts_asked_for
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.slow

HOSTILE = (
    "\x1b]52;c;aGk=\x1b\\ \x1b[2J \x1b[?1049l \x9b2J \x1bP1$r\x1b\\ \x1b_Gx\x1b\\ \x07 \x08 \r \x00 \x0e \x7f "
    '\u202eevil\u2066 \U000e0041 \ud800 [/nope] [@click=app.quit]x[/] [a=b"c] \x1b]8;;http://h\x1b\\link'
)


def drawn(story: Story) -> str:
    """Every character the screen would send, styles left out."""
    return "".join(segment.text for strip in story.strips() for segment in strip)


def drawn_rows(rows: Sequence[FlowRow]) -> str:
    return "\n".join(line.content.plain for line in wrap_rows(rows, 80))


def has_widgets(reply: ReplyWidget, more_than: int) -> bool:
    return len(reply.query("*")) > more_than


def shown_reply(turn: Turn | None) -> ReplyWidget:
    assert turn
    assert turn.reply
    return turn.reply


def is_shown(reply: ReplyWidget) -> bool:
    return any(block.rows for block in reply.query(TextBlock))


async def test_streaming_appends_and_reads_the_whole_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wholes: list[str] = []
    appends: list[str] = []
    append, whole = MarkdownBody.append, MarkdownBody.finish

    async def counting_append(self: MarkdownBody, text: str) -> None:
        appends.append(text)
        await append(self, text)

    async def counting_whole(self: MarkdownBody, text: str) -> None:
        wholes.append(text)
        await whole(self, text)

    monkeypatch.setattr(MarkdownBody, "append", counting_append)
    monkeypatch.setattr(MarkdownBody, "finish", counting_whole)
    async with chat() as story:
        await story.send("hello")
        started_s = monotonic()
        for number in range(200):
            story.engine.say("word ")
            if number % 2:
                await story.pilot.pause(0.003)
        await story.until(lambda: "".join(appends).count("word") == 200)
        assert len(appends) <= 2 + (monotonic() - started_s) / 0.1, "appends follow a timer, not the rounds"
        assert not wholes
        story.engine.finish()
        await story.until(lambda: wholes)
        assert wholes == ["word " * 200]


async def test_what_grows_within_its_line_asks_for_no_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat() as story:
        await story.send("hello")
        story.engine.say("Some words\n\n1. and a list\n2. of *two")
        await story.until_seen("2. of *two")
        reply = story.app.query_one(ReplyWidget)
        await story.until(lambda: not reply._is_flush_due)
        await story.pilot.pause()
        layouts = layouts_asked_for(monkeypatch)
        story.engine.say(" things*")
        await story.until_seen("2. of two things")
        assert not layouts
        story.engine.say("\n3. more")
        await story.until_seen("3. more")
        assert layouts


async def test_code_in_a_list_can_be_reached_and_copied_by_itself() -> None:
    async with chat() as story:
        await story.exchange("q", "1. Do this:\n\n   ```sh\n   make it\n   ```\n\n2. Then that.")
        await story.until_seen("1. Do this:", "make it", "2. Then that.")
        await story.pilot.press("shift+tab")
        assert isinstance(story.app.focused, CodeBlock)
        assert story.app.focused.code == "make it"


async def test_a_long_code_block_is_coloured_at_its_end_and_drawn_where_it_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coloured: list[int] = []

    def counting(code: str, **options: Any) -> Content:
        coloured.append(code.count("\n") + 1)
        return highlight(code, **options)

    monkeypatch.setattr(markdown_text, "highlight", counting)
    async with chat() as story:
        await story.send("write")
        story.engine.say("```python\n")
        for number in range(2_000):
            story.engine.say(f"x_{number} = {number}\n")
            if number % 20 == 0:
                await story.pilot.pause()
        await story.until_seen("x_1999 = 1999")
        block = story.app.query_one(CodeBlock)
        assert len(block.rows) == 2_000
        assert sum(coloured) < 2_000 + len(coloured) * 2 * REHIGHLIGHTED_LINES
        assert len(block._strips) < len(coloured) * 40, "no line was drawn that was never in the window"
        story.engine.say("```\n\nDone.")
        story.engine.finish()
        await story.until_seen("Done.")
        assert block.code == "\n".join(f"x_{number} = {number}" for number in range(2_000))
        assert len(block.rows) == 2_000


async def test_code_is_coloured_again_only_for_other_means_of_colouring(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat() as story:
        await story.exchange("q", "```python\nreturn 1\n```")
        await story.until_seen("return 1")
        coloured: list[str] = []

        def counting(code: str, **options: Any) -> Content:
            coloured.append(code)
            return highlight(code, **options)

        monkeypatch.setattr(markdown_text, "highlight", counting)
        await story.pilot.press("shift+tab", "escape")
        story.app.theme = "nord"
        await story.pilot.pause()
        assert not coloured
        story.app.theme = "ansi-dark"
        await story.until(lambda: coloured == ["return 1"])


async def test_code_that_is_over_is_coloured_in_one_go() -> None:
    async with chat() as story:
        code = 'text = """\n' + "inside\n" * 150 + '"""\nend = 1\n'
        await story.send("write")
        story.engine.say("```python\n")
        for line in code.splitlines(keepends=True):
            story.engine.say(line)
            await asyncio.sleep(0)
        await story.until_seen("end = 1")
        story.engine.say("```\n")
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.pilot.pause()
        shown = [line.content.markup for line in wrap_rows(story.app.query_one(CodeBlock).rows, 60)]
        assert shown == [
            line.content.markup for line in wrap_rows(CodePiece(code.rstrip("\n"), "python").rows(), 60)
        ]


async def test_unfolded_thoughts_grow_and_keep_their_rows() -> None:
    async with chat() as story:
        await story.send("Hi")
        story.engine.say("", thinking="one *line*\nand a")
        await story.until_seen("▸ thinking")
        await story.pilot.press("ctrl+o")
        await story.until_seen("one *line*", "and a")
        body = story.app.query_one(".thoughts-body", TextBlock)
        first = body.rows[0]
        story.engine.say("", thinking="nother one\nlast")
        await story.until_seen("and another one", "last")
        assert body.rows[0] is first
        story.engine.say("Answer.")
        story.engine.finish()
        await story.until_seen("thought", "Answer.")


async def test_an_old_turn_still_says_that_there_were_thoughts(tmp_path: Path) -> None:
    database = tmp_path / "chats.db"
    async with chat(database=database, size=(80, 60)) as story:
        await story.send("Hi")
        story.engine.say("", thinking="one and another")
        story.engine.say("Answer.")
        story.engine.finish()
        await story.until_seen("▸ thought · 3 words · ctrl+o")
        for number in range(LIVE_TURNS):
            await story.exchange("q", f"answer {number}")
        await story.until_seen("▸ thought · 3 words Answer.")
    async with chat(ChatOptions(chat_id=1), database=database, size=(80, 60)) as story:
        await story.until_seen("▸ thought · 3 words Answer.")


async def test_a_selection_is_copied_without_the_line_ends_of_the_screen() -> None:
    words = " ".join(f"word{number}" for number in range(40))
    async with chat(size=(60, 24)) as story:
        await story.exchange("q", f"Before\n\n1. {words}\n2. last")
        block = story.app.query_one(".reply-text TextBlock", TextBlock)
        assert block.size.height > 6
        text, _ = block.get_selection(SELECT_ALL) or ("", "")
        assert text == f"Before\n\n1. {words}\n2. last"
        part, _ = block.get_selection(Selection(Offset(3, 2), Offset(8, 3))) or ("", "")
        assert part in f"{words} "
        assert part.startswith("word0")


async def test_tags_are_shown_as_text() -> None:
    async with chat() as story:
        await story.exchange("q", "Use <b> and\n\n<div>\nblock\n</div>")
        await story.until_seen("Use <b> and", "<div>", "</div>")


async def test_nothing_hostile_reaches_the_screen() -> None:
    async with chat(size=(100, 50)) as story:
        typed = HOSTILE.replace("\r", "").replace("\ud800", "")  # no terminal can send these
        await story.send(typed)
        for character in HOSTILE:
            story.engine.say(character)
        await story.until_seen("evil")
        story.engine.finish()
        await story.until_seen("tok/s")
        await story.type(typed)
        await story.pilot.pause()
        story.engine.die(HOSTILE)
        await story.until(lambda: story.state == "engine ended")
        story.app.notify(HOSTILE, title=HOSTILE)
        await story.pilot.pause(0.2)
        text = drawn(story)
        assert "[/nope]" in text
        assert "␛" in text
        for character in text:
            code = ord(character)
            assert code >= 0x20
            assert not 0x7F <= code < 0xA0
            assert code not in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xE0000, 0xE0080))
            assert not 0xD800 <= code < 0xE000


async def test_hostile_text_stays_harmless_when_it_is_old() -> None:
    async with chat() as story:
        turn = await story.transcript.add_turn(HOSTILE)
        reply = await turn.begin_reply()
        reply.write(HOSTILE)
        frozen = drawn_rows(turn.rows())
        assert "\x1b" not in frozen
        assert "\u202e" not in frozen
        assert "[/nope]" in frozen


async def test_a_hundred_and_fifty_turns_stay_cheap() -> None:
    async with chat() as story:
        with story.app.batch_update():  # one layout in the end, not hundreds
            for number in range(150):
                turn = await story.transcript.add_turn(f"question {number}")
                reply = await turn.begin_reply()
                reply.write(f"answer **{number}**\n")
                reply.finish("9 tok")
                await story.until(partial(is_shown, reply))
        assert len(story.app.screen.query("*")) <= 260
        assert len(story.app.query(Turn)) <= LIVE_TURNS
        texts = "\n".join(drawn_rows(frozen.rows) for frozen in story.app.query(FrozenTurns))
        texts += "\n".join(drawn_rows(turn.rows()) for turn in story.app.query(Turn))
        for number in range(150):
            assert f"question {number}\n" in texts
            assert f"answer {number}\n" in texts


async def test_replies_of_many_blocks_are_frozen_before_ten_turns() -> None:
    async with chat() as story:
        for _ in range(3):
            turn = await story.transcript.add_turn("list")
            reply = await turn.begin_reply()
            reply.write("text\n\n```\ncode\n```\n\n" * 30)
            reply.finish("9 tok")
            await story.until(partial(has_widgets, reply, 40))
        await story.transcript.add_turn("next")
        assert len(story.app.query(Turn)) == 2
        assert len(story.app.query(FrozenTurns)) == 1


async def test_a_very_long_reply_stays_cheap_and_whole() -> None:
    async with chat() as story:
        await story.send("list")
        for number in range(300):
            story.engine.say(f"- item {number}\n")
            if number % 50 == 0:
                await story.pilot.pause(0.1)
        story.engine.finish(text="- the end\n")
        await story.until_seen("• the end", "tok/s")
        assert len(story.app.query_one(ReplyWidget).query("*")) < 20
        shown = "\n".join(str(block.render()) for block in story.app.query(".reply-text TextBlock"))
        assert shown.splitlines() == [*(f"• item {number}" for number in range(300)), "• the end"]


async def test_the_end_is_followed_until_the_person_scrolls() -> None:
    async with chat() as story:
        await story.send("hello")
        story.engine.say("\n\n".join(f"line {number}" for number in range(60)))
        await story.until_seen("line 59")
        await story.pilot.press("pageup")
        await story.until(lambda: not story.transcript.is_following)
        await story.until(lambda: "line 59" not in story.screen())
        await story.until_seen("back to the newest")
        before = [line for line in story.screen().splitlines() if "line" in line]
        story.engine.say("\n\nnew words")
        await story.until_seen("4 new tokens")
        assert [line for line in story.screen().splitlines() if "line" in line][:-1] == before[:-1]
        await story.pilot.press("end")
        await story.until_seen("new words")
        assert story.transcript.is_following
        assert "new tokens" not in story.screen()
        story.engine.say("\n\nand newer")
        await story.until_seen("and newer")
        await story.pilot.press("pageup")
        await story.until_seen("end: back to the newest")


async def test_paging_down_to_the_end_follows_again() -> None:
    async with chat() as story:
        await story.exchange("hello", "\n\n".join(f"line {number}" for number in range(60)))
        await story.until_seen("line 59")
        await story.pilot.press("pagedown")
        await story.pilot.pause(0.05)
        assert story.transcript.is_following, "there was nothing below to scroll to"
        await story.pilot.press("pageup")
        await story.until(lambda: not story.transcript.is_following)
        await story.pilot.press("pagedown", "pagedown")
        await story.until(lambda: story.transcript.is_following)
        await story.send("more")
        story.engine.say("\n\nlast words")
        await story.until_seen("last words")


async def test_the_wheel_leaves_the_end_and_comes_back() -> None:
    async with chat() as story:
        await story.exchange("hello", "\n\n".join(f"line {number}" for number in range(60)))
        await story.until_seen("line 59")
        turns = story.app.query_one(TurnList)

        def turn_wheel(kind: type[events.MouseScrollDown | events.MouseScrollUp]) -> None:
            turns.post_message(kind(turns, 5, 5, 0, 0, 0, False, False, False, 5, 5))

        turn_wheel(events.MouseScrollUp)
        await story.until(lambda: not story.transcript.is_following)
        for _ in range(3):
            turn_wheel(events.MouseScrollDown)
        await story.until(lambda: story.transcript.is_following)


async def test_a_window_that_shows_everything_follows_again() -> None:
    async with chat() as story:
        await story.exchange("hello", "\n\n".join(f"line {number}" for number in range(20)))
        await story.until_seen("tok/s")
        await story.pilot.press("pageup", "pageup", "pageup")
        await story.until_seen("Type a message below")
        await story.until(lambda: not story.transcript.is_following)
        await story.pilot.resize_terminal(80, 80)
        await story.until(lambda: story.transcript.is_following)


async def test_sending_follows_again() -> None:
    async with chat() as story:
        await story.exchange("hello", "\n\n".join(f"line {number}" for number in range(60)))
        await story.pilot.press("pageup")
        await story.until(lambda: not story.transcript.is_following)
        await story.send("next question")
        await story.until_seen("next question")
        assert story.transcript.is_following


async def test_a_megabyte_is_pasted_without_a_stall() -> None:
    """Neither the prompt nor the transcript ever lays out more than a few thousand characters of it."""
    paste = "x" * 1_000_000 + "\n" + "word " * 10_000
    async with chat() as story:
        await story.pilot.press("a")
        await story.type(paste)
        await story.until_seen("[pasted text 1: 1,050,001 characters, 2 lines]")
        assert len(story.prompt.text) < 100
        await story.pilot.press("b", "enter")
        await story.until(lambda: story.engine.requests)
        await story.until_seen("characters in total")
        shown = [str(block.render()) for block in story.transcript.query(TextBlock)]
        assert 500 < max(map(len, shown)) < 5_000
        assert story.engine.requests[-1].messages[-1].text == f"a{paste}b"


async def test_resizing_to_almost_nothing_and_back() -> None:
    async with chat() as story:
        await story.exchange("hello", EVERYTHING)
        await story.send("more")
        for size in ((20, 5), (1, 1), (40, 10), (60, 15), (200, 50), (39, 9), (80, 24)):
            story.engine.say("word ")
            await story.pilot.resize_terminal(*size)
            await story.pilot.pause()
        await story.until_seen("word word", "draft ON 4", "Send")
        story.engine.finish()
        await story.until(lambda: story.state == "ready")


@pytest.mark.parametrize(
    ("size", "shown", "hidden"),
    [
        ((60, 15), ["gemma-4-e2b", "draft ON 4", "Message"], ["New line  "]),
        ((40, 10), ["gemma-4-e2b", "draft ON 4", "Message"], ["Drafting"]),
        ((20, 5), ["Message"], ["gemma-4-e2b", "draft ON"]),
    ],
)
async def test_small_windows(size: tuple[int, int], shown: list[str], hidden: list[str]) -> None:
    async with chat(size=size) as story:
        await story.until_seen(*shown)
        for words in hidden:
            assert words not in story.screen()


async def test_what_takes_long_to_read_is_read_beside_the_apps_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[bool] = []

    def watched(read: Callable[[GrowingMarkdown, str], list[Piece]]) -> Any:
        def reading(self: GrowingMarkdown, text: str) -> list[Piece]:
            readers.append(current_thread() is main_thread())
            return read(self, text)

        return reading

    monkeypatch.setattr(GrowingMarkdown, "append", watched(GrowingMarkdown.append))
    monkeypatch.setattr(GrowingMarkdown, "parse_whole", watched(GrowingMarkdown.parse_whole))
    async with chat() as story:
        await story.exchange("q", "Some words.")
        await story.until(lambda: story.shows("Some words."))
        assert readers
        assert all(readers), "a short text needs no other thread"
        await story.send("list")
        story.engine.begin()
        line = "- one more of them\n"
        for part in range(3):
            readers.clear()
            story.engine.say(line * (LONG_CHARACTERS // len(line) + 1))
            await story.until(lambda: readers)
            assert not any(readers), part
        story.engine.say("- the last one")
        story.engine.finish()
        await story.until_seen("• the last one")
        await story.until(lambda: shown_reply(story.transcript.last_turn)._text._finished_source)
        assert not any(readers)


async def test_a_chat_can_be_left_while_a_long_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_end = Event(), Event()
    whole = GrowingMarkdown.parse_whole

    def held_up(self: GrowingMarkdown, source: str) -> list[Piece]:
        begun.set()
        assert may_end.wait(PATIENCE_S)
        return whole(self, source)

    monkeypatch.setattr(GrowingMarkdown, "parse_whole", held_up)
    async with chat() as story:
        await story.send("list")
        story.engine.begin()
        story.engine.say("- item\n\n  ```\n  code\n  ```\n" * (LONG_CHARACTERS // 20))
        story.engine.finish()
        # The pilot waits for whatever is under way, which here ends only when it may.
        while not begun.is_set():
            await asyncio.sleep(0.01)
        leaving = asyncio.create_task(story.app.chat_screen._begin_chat())
        while story.transcript.last_turn is not None:
            await asyncio.sleep(0.01)
        may_end.set()
        await leaving
        await story.until(lambda: not story.app.screen.query(".turn"))


async def test_a_turn_is_not_read_again_when_it_gets_old(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat() as story:
        for number in range(LIVE_TURNS):
            await story.exchange("q", f"{EVERYTHING}\n\nanswer {number}")
            await story.until_seen(f"answer {number}")
        oldest = story.transcript._turns[0]
        await story.until(lambda: shown_reply(oldest)._text._finished_source)
        reply = shown_reply(oldest)
        expected = drawn_rows(turn_rows(oldest._message, "", as_rows(reply.source), reply.figures))
        monkeypatch.setattr(markdown_text, "blocks", lambda *_: pytest.fail("read again"))
        rows = oldest.rows()
        assert drawn_rows(rows) == expected


# The place in the text


def unique_text(paragraphs: int = 40) -> str:
    """Long paragraphs in which no two words are the same."""
    return "\n\n".join(" ".join(f"w{number}x{word}" for word in range(40)) for number in range(paragraphs))


def top_line(story: Story) -> str:
    return story.screen().splitlines()[1][:60].split("│")[0].strip()


async def scrolled_up(story: Story, *, lines: int) -> str:
    """Scroll up so many lines, on to a line with text. Returns its first word."""
    turns = story.app.query_one(TurnList)
    # The reply is drawn once more when it is complete, which may move what is above.
    await story.until(lambda: shown_reply(story.transcript.last_turn)._text._finished_source)
    await story.pilot.pause()
    turns.scroll_relative(y=-lines, animate=False)
    await story.until(lambda: not story.transcript.is_following)
    word = ""
    while not word or not top_line(story).startswith(word):
        turns.scroll_relative(y=-1, animate=False)
        await story.pilot.pause()
        text = top_line(story)
        word = text.split()[0] if text.startswith("w") else ""
        await story.pilot.pause()
    return word


@pytest.mark.parametrize("lines", [6, 40, 150])
@pytest.mark.sampled(2)
async def test_a_resize_and_the_gauge_panel_keep_the_line_at_the_top(lines: int) -> None:
    async with chat(size=(120, 36)) as story:
        await story.exchange("hello", unique_text())
        await story.until_seen("w39x39")
        word = await scrolled_up(story, lines=lines)
        first = top_line(story)
        for change in ("f3", "f3", (70, 30), (150, 40), (120, 36), (120, 20), (120, 36), (200, 60), (120, 36)):
            if isinstance(change, str):
                await story.pilot.press(change)
            else:
                await story.pilot.resize_terminal(*change)
            await story.pilot.pause(0.1)
            await story.until(lambda: story.transcript.is_following or word in story.screen().splitlines()[1])
        await story.until(lambda: top_line(story) == first and not story.transcript.is_following)


async def test_a_place_that_was_left_is_not_gone_back_to() -> None:
    async with chat(size=(120, 36)) as story:
        await story.exchange("hello", unique_text())
        await story.until_seen("w39x39")
        await scrolled_up(story, lines=5)
        await story.pilot.resize_terminal(200, 60)
        await story.until(lambda: story.transcript.is_following)
        await story.pilot.press("end")
        await story.pilot.resize_terminal(120, 36)
        await story.pilot.pause(0.1)
        assert story.transcript.is_following
        await story.until_seen("w39x39")


async def test_every_page_key_scrolls_a_page() -> None:
    async with chat() as story:
        await story.exchange("q", "\n\n".join(f"line {number}" for number in range(60)))
        turns = story.transcript._list
        await story.until(lambda: turns.max_scroll_y > 60)
        await story.pilot.pause(0.1)
        page, end = turns.size.height, turns.max_scroll_y
        for pages in (1, 2, 3):
            await story.pilot.press("pageup")
            await story.pilot.pause(0.1)
            assert turns.scroll_y == end - pages * page
        for direction, lines in ((1, end - page), (-1, end - 3 * page)):
            for _ in range(2):
                story.prompt.action_page(direction)
            await story.pilot.pause(0.1)
            assert turns.scroll_y == lines


async def test_a_key_that_is_held_scrolls_the_help_line_by_line() -> None:
    async with chat() as story:
        await story.pilot.press("f1")
        await story.until_seen("Keys")
        for _ in range(5):
            story.app.screen.action_scroll(1)  # type: ignore[attr-defined]
        await story.pilot.pause(0.1)
        assert story.app.screen.query_one("#help-scroll").scroll_y == 5
