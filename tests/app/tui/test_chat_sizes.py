"""Windows of any size at any moment: nothing breaks, and everything is back once there is room again."""

from __future__ import annotations

from functools import partial

import pytest
from textual.content import Content

from app.settings.table import per_chat
from app.tui.transcript.flow import TextRow
from app.tui.transcript.text_block import TextBlock
from tests.app.tui.pilot import Story, chat

SIZES = ((20, 5), (1, 1), (200, 1), (2, 30), (120, 36), (80, 24))
TEXT = "word\n\n```\nx = 1\n```\n\n"


def shows_all(story: Story, words: list[str]) -> bool:
    return all(word in story.screen() for word in words)


@pytest.mark.parametrize("key", ["f1", "f5"])
async def test_the_window_is_resized_during_a_reply(key: str) -> None:
    async with chat() as story:
        await story.send("A question\nof two lines")
        await story.pilot.press(key)
        story.engine.begin()
        for size in SIZES:
            await story.pilot.resize_terminal(*size)
            story.engine.say(TEXT)
            await story.pilot.pause()
            assert story.screen().count("\n") == size[1] - 1
        story.engine.finish()
        await story.pilot.press("f5" if key == "f5" else "escape")
        await story.until(lambda: story.state == "ready")
        await story.until_seen("word")


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (20, 5)])
async def test_a_tiny_window_from_the_start(size: tuple[int, int]) -> None:
    async with chat(size=size) as story:
        await story.exchange("Hi", "Some *words* that are longer than the window is wide.")
        await story.pilot.press("f5")
        await story.pilot.resize_terminal(80, 24)
        await story.until_seen("longer than the window")


@pytest.mark.parametrize(
    ("key", "seen"),
    [
        ("f1", "sends the"),
        ("f2", "e2b-4bit"),
        ("f4", "Today"),
        ("f6", "Draft"),
        ("ctrl+p", "Attach a file"),
    ],
)
async def test_lists_are_usable_in_the_smallest_window(key: str, seen: str) -> None:
    async with chat(size=(20, 5)) as story:
        await story.exchange("Hi", "Hello.")
        await story.pilot.press(key)
        await story.until_seen(seen)


@pytest.mark.parametrize("size", [(62, 15), (40, 10), (20, 8)])
async def test_a_notice_is_whole_at_any_width(size: tuple[int, int]) -> None:
    async with chat(size=size) as story:
        words = "The model could not be loaded; the one before it answers from now on."
        story.app.notify(words)
        await story.until(lambda: all(word in story.screen() for word in words.split()))


@pytest.mark.parametrize("size", [(80, 24), (61, 15), (44, 12)])
@pytest.mark.sampled(2)
async def test_the_meaning_of_a_setting_is_whole_at_any_width(size: tuple[int, int]) -> None:
    async with chat(size=size) as story:
        await story.pilot.press("f6")
        for setting in per_chat().values():
            assert setting.info.kind is not None
            words = f"{setting.info.help} {setting.info.kind.allowed}".split()
            await story.until(partial(shows_all, story, words))
            await story.pilot.press("tab" if setting.name == "system" else "down")


@pytest.mark.parametrize(
    ("width", "hint"),
    [
        (80, "Message · / commands · @ file · ctrl+j: new line"),
        (44, "Message · / commands · @ file"),
        (20, "Message"),
    ],
)
async def test_an_empty_prompt_says_whole_words(width: int, hint: str) -> None:
    async with chat(size=(80, 24)) as story:
        await story.pilot.resize_terminal(width, 24)
        await story.until(
            lambda: story.prompt.render_line(0).text.strip() == hint, story.prompt.render_line(0).text
        )


@pytest.mark.parametrize("width", [80, 44, 24])
async def test_each_completion_is_one_row(width: int) -> None:
    async with chat(size=(width, 24)) as story:
        await story.pilot.press("f3", "slash", "t", "h")
        await story.until_seen("/thoughts")
        await story.pilot.pause()
        rows = story.screen().split("\n")
        [first, second] = [
            next(y for y, row in enumerate(rows) if name in row) for name in ("/think", "/thoughts")
        ]
        assert second == first + 1
        assert rows[second + 1].split()[:1] == ["/theme"]


async def test_a_text_that_has_no_width_yet_draws_nothing() -> None:
    async with chat() as story:
        await story.exchange("hello", "An answer.")
        block = story.transcript.query(TextBlock).last()
        block.display = False
        await story.until(lambda: block.size.width == 0)
        block.show([TextRow(Content("words"))])
        assert block.render_line(0).cell_length == 0
