"""The key line at the bottom: the keys that work now, and clicks on them."""

from __future__ import annotations

from typing import Any

import pytest
from textual.strip import Strip

from app.tui.bars.key_line import KeyLine
from tests.app.tui.pilot import Story, chat


def line_of(story: Story) -> KeyLine:
    return story.app.screen_stack[0].query_one(KeyLine)


def drawn(story: Story) -> Strip:
    return story.strips()[-1]


def is_dim(story: Story, word: str) -> bool:
    """Whether a label has another colour than the one of a key that always works."""
    colours = {segment.text.strip(): segment.style and segment.style.color for segment in drawn(story)}
    return colours[word] != colours["Send"]


async def test_it_shows_which_keys_work_now() -> None:
    async with chat() as story:
        await story.until_seen("⏎ Send", "esc Stop", "^t Drafting", "f1 Help", "▏^p palette")
        await story.until(lambda: is_dim(story, "Stop"), "stop can be pressed")
        assert not is_dim(story, "Help")
        await story.send("Hi")
        await story.until(lambda: not is_dim(story, "Stop"), "stop cannot be pressed")
        assert drawn(story).text.count("New line") == 1


async def test_its_keys_can_be_clicked() -> None:
    async with chat() as story:
        await story.send("Hi")
        await story.until_seen("esc Stop")
        await story.pilot.click(KeyLine, offset=(drawn(story).text.index("Stop"), 0))
        await story.until(lambda: story.engine.cancels, "the reply goes on")
        await story.pilot.click(KeyLine, offset=(79, 0))
        await story.until(lambda: len(story.app.screen_stack) == 2, "no list of commands")


async def test_a_tooltip_explains_the_key_under_the_pointer() -> None:
    async with chat() as story:
        await story.until_seen("f4 Chats")
        await story.pilot.hover(KeyLine, offset=(drawn(story).text.index("Chats"), 0))
        await story.until(lambda: "chats" in str(line_of(story).tooltip), "nothing is said")


@pytest.mark.parametrize("width", [70, 80, 120])
async def test_keys_without_room_are_left_out_as_a_whole_and_help_stays(width: int) -> None:
    async with chat(size=(width, 24)) as story:
        await story.until_seen("⏎ Send", "f1 Help")
        assert drawn(story).cell_length == width
        assert ("f3" in drawn(story).text) == ("f3 Gauges" in drawn(story).text) == (width == 120)
        assert line_of(story).has_palette == ("palette" in drawn(story).text)


async def test_it_is_redrawn_only_when_its_keys_change(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat() as story:
        await story.until_seen("esc Stop")
        line = line_of(story)
        refreshes: list[dict[str, Any]] = []

        def record(*regions: Any, **options: Any) -> KeyLine:
            refreshes.append(options)
            return line

        monkeypatch.setattr(line, "refresh", record)
        for _ in range(3):
            story.app.refresh_bindings()
            await story.pilot.pause()
        assert not refreshes
        await story.send("Hi")
        await story.until(lambda: refreshes, "nothing was drawn")
        assert not any(options.get("layout") for options in refreshes)
