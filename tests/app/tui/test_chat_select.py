"""Two clicks select a word, three a line: in the transcript and in the prompt."""

from __future__ import annotations

from pathlib import Path

from tests.app.tui import vt
from tests.app.tui.pilot import Story, chat
from tests.app.tui.terminal import Terminal, slipstream
from tests.fakes.scripted_engine import Script

ROW = 14
"""Of the reply in a new chat."""
LONG = "- A line with enough words that it is wrapped twice in a narrow window, isn't it?\n- Another one."


def position(story: Story, text: str) -> tuple[int, int]:
    """Column and row of a text on the screen."""
    rows = story.screen().split("\n")
    row = next(number for number, line in enumerate(rows) if text in line)
    return rows[row].index(text), row


async def test_words_and_lines_of_a_reply() -> None:
    async with chat(size=(50, 24)) as story:
        await story.exchange("hello", LONG)
        await story.until_seen("Another one.", "tok/s")
        x, y = position(story, "enough")
        await story.pilot.click(offset=(x + 2, y), times=2)
        await story.until(lambda: story.app.screen.get_selected_text() == "enough")
        x, y = position(story, "isn't")
        await story.pilot.click(offset=(x, y), times=2)
        await story.until(lambda: story.app.screen.get_selected_text() == "isn't")
        await story.pilot.click(offset=(x, y), times=3)
        await story.until(lambda: story.app.screen.get_selected_text() == LONG.split("\n")[0][2:])
        await story.pilot.press("ctrl+c")
        await story.until_told("Copied the selection")
        assert story.app.clipboard == LONG.split("\n")[0][2:]


async def test_words_and_lines_of_the_prompt() -> None:
    async with chat() as story:
        await story.type("first line\nsecond line here")
        await story.pilot.pause()
        x, y = position(story, "second")
        await story.pilot.click(offset=(x + 8, y), times=2)
        await story.until(lambda: story.prompt.selected_text == "line")
        await story.pilot.click(offset=(x + 8, y), times=3)
        await story.until(lambda: story.prompt.selected_text == "second line here")


def click(terminal: Terminal, column: int, row: int, times: int) -> None:
    """Column and row from 1, as terminals count."""
    for _ in range(times):
        terminal.type(f"\x1b[<0;{column};{row}M\x1b[<0;{column};{row}m")


def test_two_clicks_in_a_terminal_copy_a_word(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer."])) as terminal:
        terminal.until("ready")
        terminal.type("Hi\r")
        terminal.until("An answer.")
        terminal.settle(0.3)
        click(terminal, 6, ROW, 2)
        terminal.settle(0.3)
        terminal.type("\x03")
        terminal.until(lambda: "answer" in vt.read(bytes(terminal.written)).copied)
        terminal.type("\x11")
        assert terminal.wait() == 0
