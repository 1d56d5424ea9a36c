"""`/ab`: one message without and with drafting, side by side, while the chat stays as it is."""

from __future__ import annotations

import pytest

from app.tui.screens.comparison import DIFFERENCE, ComparisonScreen, marked
from app.tui.transcript.tint import TintStyles, tinted
from mlx_engine.protocol.events import FinishReason
from tests.app.core.test_comparison import compared
from tests.app.tui.pilot import Story, chat


def test_the_word_at_the_difference_is_marked() -> None:
    comparison = compared("one two three", "one too three")
    assert comparison.difference == 5
    for side, word in ((comparison.off, "wo"), (comparison.on, "oo")):
        content = marked(tinted(side.runs, TintStyles("underline", "italic")), side.text, comparison.difference)
        assert [content.plain[span.start : span.end] for span in content.spans if span.style == DIFFERENCE] == [
            word
        ]
    assert "differs at character 6" in comparison.result


async def replay(story: Story, action: str = "ab") -> ComparisonScreen:
    """Ask for a comparison as the palette does; the screen that shows it."""
    before = len(story.engine.requests)
    await story.run(action)
    await story.until(lambda: len(story.engine.requests) > before)
    screen = story.app.screen
    assert isinstance(screen, ComparisonScreen)
    return screen


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (120, 36)])
async def test_a_person_compares(size: tuple[int, int]) -> None:
    async with chat(size=size) as story:
        await story.exchange("Why?", "Because.")
        kept = story.conversation.to_send()
        await replay(story)
        assert [message.text for message in story.engine.requests[-1].messages] == ["Why?"]
        assert story.engine.requests[-1].draft_length == 0
        story.engine.begin()
        story.engine.say("So it is. ", is_plain=True, round_s=0.1)
        await story.until_seen("drafting off · 10.0 tok/s", "So it is.")
        story.engine.finish()
        await story.until(lambda: story.engine.requests[-1].draft_length == 4)
        story.engine.begin()
        story.engine.say("So it is. ", drafted=4, accepted=3, round_s=0.2, drafted_characters=6)
        await story.until_seen("drafting 4 · 20.0 tok/s · 75%", "same so far")
        story.engine.finish()
        await story.until_seen("2.00×", "same text", "esc: close")
        await story.pilot.press("c")
        assert story.app.clipboard == (
            "gemma-4-e2b: off: 10.0 tok/s · draft 4: 20.0 tok/s · 2.00× · 75% acc · same text, 4 tok"
        )
        await story.pilot.press("escape")
        await story.until(lambda: not isinstance(story.app.screen, ComparisonScreen))
        assert story.conversation.to_send() == kept
        await story.exchange("And now?", "As before.")
        await story.until_seen("As before.")
        assert [message.text for message in story.engine.requests[-1].messages] == ["Why?", "Because.", "And now?"]


@pytest.mark.parametrize("reason", ["cancelled", "stop"])
async def test_a_comparison_is_stopped_and_the_chat_goes_on(reason: FinishReason) -> None:
    async with chat() as story:
        await story.exchange("Why?", "Because.")
        await replay(story)
        story.engine.begin()
        story.engine.say("So ")
        await story.pilot.press("escape")
        assert story.engine.cancels == 1
        story.engine.finish(reason)
        await story.until_seen("esc: close")
        assert len(story.engine.requests) == 2, "the other side is not asked any more"
        await story.pilot.press("escape")
        await story.until(lambda: not isinstance(story.app.screen, ComparisonScreen))
        await story.exchange("And now?", "As before.")
        await story.until_seen("As before.")


async def test_nothing_else_is_asked_under_a_comparison() -> None:
    async with chat() as story:
        await story.exchange("Why?", "Because.")
        await story.type("And how?")
        await replay(story)
        for action in ("regenerate", "go_on", "send", "ab", "switch_model('other')"):
            await story.run(action)
        await story.until_told("A comparison is running. Press esc to end it.")
        assert len(story.engine.requests) == 2
        assert story.prompt.text == "And how?"
        await story.pilot.press("escape", "escape")
        await story.until(lambda: not isinstance(story.app.screen, ComparisonScreen))
        await story.pilot.press("enter")
        await story.until(lambda: len(story.engine.requests) == 3)


async def test_a_person_says_what_to_compare() -> None:
    async with chat() as story:
        await story.exchange("Why?", "Because.")
        screen = await replay(story, "ab(2)")
        assert screen.comparison.on.request.draft_length == 2


async def test_an_engine_that_fails_says_so() -> None:
    async with chat() as story:
        await story.exchange("Why?", "Because.")
        await replay(story)
        story.engine.fail("It does not fit.")
        await story.until_seen("It does not fit.")
        await story.pilot.press("escape")
        await replay(story)
        story.engine.die()
        await story.until_seen("ended by signal")
        await story.pilot.press("escape")
        await story.until(lambda: not isinstance(story.app.screen, ComparisonScreen))
        await story.exchange("And now?", "As before.")


async def test_there_has_to_be_something_to_compare() -> None:
    async with chat() as story:
        await story.run("ab")
        await story.until_told("send a message first")
    async with chat(drafter=None) as story:
        await story.exchange("Why?", "Because.")
        await story.run("ab")
        await story.until_told("nothing to compare")
