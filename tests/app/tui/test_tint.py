"""The tint: drafted text is tinted as it streams in, and the tint never leaves the screen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.color import Color
from textual.content import Content
from textual.style import Style
from textual.theme import BUILTIN_THEMES
from textual.widgets import Static

from app.core.chat_options import ChatOptions
from app.core.drafted_runs import DraftedRuns
from app.settings.table import Settings
from app.text.sanitise import sanitise
from app.tui.terminal.contrast import contrast
from app.tui.transcript.tint import (
    COLOURLESS_COPIED_TINT,
    COLOURLESS_TINT,
    COPIED_TINT,
    LONGEST_CHARACTERS,
    SETTLED_CHARACTERS,
    TINT,
    TintedText,
    TintLegend,
    TintStyles,
    tinted,
)
from app.tui.transcript.turn import ReplyWidget
from tests.app.tui.pilot import Story, chat

pytestmark = pytest.mark.sampled(2)

PARTS = st.lists(st.tuples(st.text(max_size=12), st.integers(0, 14), st.booleans()))
STYLES = TintStyles("underline", "italic")


def in_style(content: Content, style: str) -> str:
    """The characters of `content` in `style`."""
    return "".join(content.plain[span.start : span.end] for span in content.spans if span.style == style)


@given(PARTS)
def test_the_runs_are_the_text(parts: list[tuple[str, int, bool]]) -> None:
    runs = DraftedRuns()
    for text, drafted, is_copied in parts:
        runs.add(text, drafted, is_copied=is_copied)
    content = tinted(runs, STYLES)
    assert content.plain == sanitise("".join(text for text, _, _ in parts))
    for style, copied in ((STYLES.drafted, False), (STYLES.copied, True)):
        expected = "".join(text[:drafted] for text, drafted, is_copied in parts if is_copied is copied)
        assert in_style(content, style) == sanitise(expected)


class Seen:
    """The tinted view of the reply on the screen: its text, and which part of it is tinted."""

    def __init__(self, story: Story) -> None:
        views = [view for view in story.app.query(TintedText) if view.display]
        parts = [child.render() for view in views for child in view.children]
        self.parts = [part for part in parts if isinstance(part, Content)]
        self.text = "\n".join(part.plain for part in self.parts)

    def tinted(self, style: str = TINT) -> str:
        return "".join(in_style(part, style) for part in self.parts)


async def test_copied_text_has_a_tint_of_its_own() -> None:
    async with chat() as story:
        await story.pilot.press("f5")
        await story.send("Hi")
        story.engine.begin()
        story.engine.say("Hello there", drafted_characters=5)
        story.engine.say(" Hello there", drafted_characters=6, drafter="lookup")
        await story.until(lambda: Seen(story).text == "Hello there Hello there")
        assert (Seen(story).tinted(), Seen(story).tinted(COPIED_TINT)) == ("Hello", " Hello")
        await story.until_seen("drafted · copied")


async def test_drafted_text_is_tinted_as_it_streams_in() -> None:
    async with chat() as story:
        await story.pilot.press("f5")
        await story.until_seen("f5: formatted view")
        await story.send("Hi")
        story.engine.begin()
        story.engine.say("**Hello** there", drafted_characters=9)
        await story.until(lambda: Seen(story).text == "**Hello** there")
        story.engine.say(", person", drafted_characters=0)
        story.engine.say(".", drafted_characters=1)
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.until(lambda: Seen(story).text == "**Hello** there, person.")
        assert Seen(story).tinted() == "**Hello**."
        await story.pilot.press("ctrl+y")
        assert story.app.clipboard == "**Hello** there, person."
        await story.pilot.press("f5")
        await story.until(lambda: not Seen(story).parts)
        await story.until_seen("Hello there, person.")
        assert not story.shows("**")
        assert not story.app.query_one(TintLegend).display
        await story.pilot.press("f5")
        await story.until(lambda: Seen(story).tinted() == "**Hello**.")


@pytest.mark.parametrize("text", ["word " * 6000, "x" * 30_000, "line\n" * 6000], ids=["words", "word", "lines"])
async def test_a_long_text_is_divided_and_none_of_it_is_lost(text: str) -> None:
    async with chat() as story:
        await story.pilot.press("f5")
        await story.send("Hi")
        story.engine.begin()
        for start in range(0, len(text), 700):
            story.engine.say(text[start : start + 700], drafted_characters=350)
        await story.until(lambda: "".join(Seen(story).text.split()) == "".join(text.split()))
        seen = Seen(story)
        assert max(len(part.plain) for part in seen.parts) <= LONGEST_CHARACTERS
        assert len(seen.text.replace("\n", " ")) in (len(text), len(text) + len(seen.parts) - 1)
        assert len(seen.tinted().split()) >= len(text[:350].split())
        story.engine.finish()


async def test_the_tint_is_switched_on_and_off_during_a_reply() -> None:
    async with chat() as story:
        await story.send("Hi")
        story.engine.begin()
        story.engine.say("One *two* ", drafted_characters=4)
        await story.until_seen("One two")
        await story.pilot.press("f5")
        await story.until(lambda: Seen(story).text == "One *two* ")
        story.engine.say("three ", drafted_characters=6)
        await story.until(lambda: Seen(story).tinted() == "One three ")
        await story.pilot.press("f5")
        await story.until_seen("One two three")
        story.engine.say("*four*", drafted_characters=0)
        await story.until_seen("One two three four")
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        assert story.app.query_one(ReplyWidget).source == "One *two* three *four*"


async def test_a_reply_without_known_drafts_stays_formatted() -> None:
    async with chat() as story:
        await story.exchange("Hi", "Some *words*.")
        await story.pilot.press("f5")
        await story.until_told("It is not known what was drafted in these replies.")
        await story.exchange("Again", "More *words*.")
        await story.until_seen("More words.")
        assert not Seen(story).parts


async def test_no_notice_appears_while_a_reply_can_be_tinted() -> None:
    async with chat() as story:
        await story.pilot.press("f5", "f5")
        await story.send("Hi")
        story.engine.begin()
        await story.pilot.press("f5")
        await story.until(lambda: story.app.query_one(TintLegend).display)
        assert not story.app._notifications


async def test_a_long_tinted_reply_is_drawn_in_parts() -> None:
    line = "So many words that they fill a line of this window, and one more.\n"
    async with chat() as story:
        await story.pilot.press("f5")
        await story.send("Hi")
        story.engine.begin()
        for _ in range(70):
            story.engine.say(line, drafted_characters=3)
        story.engine.finish()
        await story.until(lambda: Seen(story).text == line * 70)
        seen = Seen(story)
        assert len(seen.parts) >= 70 * len(line) // (SETTLED_CHARACTERS + len(line))
        assert all(len(part.plain) <= SETTLED_CHARACTERS + len(line) for part in seen.parts)
        assert seen.tinted() == "So " * 70


async def test_a_selection_of_tinted_text_is_the_text() -> None:
    async with chat() as story:
        await story.pilot.press("f5")
        await story.send("Hi")
        story.engine.begin()
        story.engine.say("drafted and not", drafted_characters=7)
        await story.until(lambda: Seen(story).text == "drafted and not")
        story.app.query(TintedText).last().query_one(Static).text_select_all()
        await story.pilot.press("ctrl+c")
        assert story.app.clipboard == "drafted and not"


def underlined(story: Story) -> list[str]:
    return [
        segment.text
        for strip in story.strips()
        for segment in strip
        if segment.style and segment.style.underline and segment.text.strip()
    ]


async def test_without_colours_the_tint_is_an_underline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with chat() as story:
        await story.pilot.press("f5")
        await story.send("Hi")
        story.engine.begin()
        story.engine.say("drafted and not", drafted_characters=7)
        story.engine.say(" copied", drafted_characters=7, drafter="lookup")
        await story.until(lambda: Seen(story).tinted(COLOURLESS_TINT) == "drafted")
        await story.until(lambda: Seen(story).tinted(COLOURLESS_COPIED_TINT) == " copied")
        await story.until(lambda: "drafted" in underlined(story))
        assert legend(story).startswith("underlined: drafted · copied · rest: the main model's own")


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (120, 36)])
async def test_the_legend_explains_the_tint_at_every_size(size: tuple[int, int]) -> None:
    async with chat(size=size) as story:
        await story.pilot.press("f5")
        await story.until_seen("green: drafted")
        assert story.app.query_one(TintLegend).content_size.width >= len(legend(story))


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (160, "green: drafted · copied from earlier text · rest: the main model's own · f5: formatted view"),
        (80, "green: drafted · copied · rest: the main model's own · f5: formatted view"),
        (64, "green: drafted · copied · f5: formatted view"),
        (36, "green: drafted · copied"),
    ],
)
async def test_the_legend_is_as_long_as_the_window_allows(width: int, words: str) -> None:
    async with chat(size=(width, 24)) as story:
        await story.pilot.press("f5")
        await story.until(lambda: story.app.query_one(TintLegend).display)
        await story.until(lambda: legend(story) == words, legend(story))


async def test_the_legend_names_no_colour_that_the_tint_does_not_have() -> None:
    async with chat(ChatOptions(Settings(theme="rose-pine"))) as story:
        await story.pilot.press("f5")
        await story.until_seen("tinted: drafted")


def legend(story: Story) -> str:
    return story.app.query_one(TintLegend).render().plain


@pytest.mark.parametrize("tint_style", [TINT, COPIED_TINT])
@pytest.mark.parametrize("name", [name for name in BUILTIN_THEMES if not name.startswith("ansi")])
def test_tinted_text_is_legible_in_every_theme(name: str, tint_style: str) -> None:
    colours = BUILTIN_THEMES[name].to_color_system().generate()
    names = ("success-muted", "accent-muted")
    style = Style.parse(tint_style, {key: value for key, value in colours.items() if key in names})
    assert style.background is not None
    assert style.foreground is not None
    paper = Color.parse(colours["background"])
    tint = paper.blend(style.background, style.background.a).with_alpha(1)
    ink = tint.get_contrast_text(style.foreground.a)
    assert contrast(tint.blend(ink, ink.a).with_alpha(1), tint) >= 4.5
    assert contrast(tint, paper) > 1.1 or abs(tint.hsl.s - paper.hsl.s) > 0.1
