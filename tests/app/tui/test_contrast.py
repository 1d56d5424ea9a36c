"""Coloured text has enough contrast in every theme on offer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from rich.color import Color as RichColor
from textual.color import Color
from textual.strip import Strip
from textual.theme import BUILTIN_THEMES

from app.core.chat_options import ChatOptions
from app.settings.table import THEMES, Settings
from app.tui.terminal.contrast import (
    BACKGROUNDS,
    MIN_CONTRAST,
    MIN_CONTRAST_256,
    TEXTS,
    contrast,
    of_256,
    readable,
)
from app.tui.terminal.safe_app import SafeApp
from tests.app.tui.pilot import Story, chat
from tests.cases import cases

OF_THE_TERMINAL = [name for name in THEMES if name.startswith("ansi-")]


@pytest.mark.parametrize("theme", [name for name in THEMES if name not in OF_THE_TERMINAL])
def test_every_coloured_text_can_be_read(theme: str) -> None:
    app = SafeApp(None)
    app.theme = theme
    for variables in (app.get_css_variables(), app.theme_variables):
        for ground in BACKGROUNDS:
            for text in TEXTS:
                ratio = contrast(Color.parse(variables[text]), Color.parse(variables[ground]))
                assert ratio >= MIN_CONTRAST, f"{text} on {ground}: {ratio:.2f}"


@pytest.mark.parametrize("theme", [name for name in THEMES if name not in OF_THE_TERMINAL])
def test_it_can_be_read_with_256_colours_too(theme: str) -> None:
    app = SafeApp(None)
    app.theme = theme
    variables = {name: of_256(Color.parse(app.get_css_variables()[name])) for name in (*BACKGROUNDS, *TEXTS)}
    for ground in BACKGROUNDS:
        for text in TEXTS:
            ratio = contrast(variables[text], variables[ground])
            assert ratio >= MIN_CONTRAST_256, f"{text} on {ground}: {ratio:.2f}"


@pytest.mark.parametrize("theme", OF_THE_TERMINAL)
def test_the_terminals_own_colours_are_left_alone(theme: str) -> None:
    variables = BUILTIN_THEMES[theme].to_color_system().generate()
    assert readable(variables, is_dark=True) == variables


def test_colours_with_enough_contrast_are_left_alone() -> None:
    variables = BUILTIN_THEMES["textual-dark"].to_color_system().generate()
    assert Color.parse(readable(variables, is_dark=True)["text-warning"]) == Color.parse(variables["text-warning"])


def test_contrast_is_as_defined() -> None:
    assert contrast(Color.parse("#fff"), Color.parse("#000")) == pytest.approx(21)
    assert contrast(Color.parse("#777"), Color.parse("#fff")) == pytest.approx(4.48, abs=0.01)
    assert contrast(Color.parse("#777"), Color.parse("#777")) == 1


def colours_on(story: Story) -> set[RichColor]:
    """All foreground and background colours on the screen."""
    strips = story.app.screen._compositor.render_strips()
    styles = [segment.style for strip in strips for segment in strip if segment.style]
    return {colour for style in styles for colour in (style.color, style.bgcolor) if colour}


@pytest.mark.parametrize(
    ("theme", "shown"), [(None, "ansi-dark"), ("nord", "ansi-dark"), ("textual-light", "ansi-light")]
)
async def test_where_there_are_16_colours_they_are_the_terminals_own(
    monkeypatch: pytest.MonkeyPatch, theme: str | None, shown: str
) -> None:
    monkeypatch.delenv("COLORTERM")
    monkeypatch.setenv("TERM", "xterm")
    async with chat(ChatOptions(Settings(draft=4, theme=theme)), size=(120, 36)) as story:
        assert story.app.theme == shown
        await story.exchange("q", "Some **bold** words, `code`, [a link](https://x.org):\n\n```sh\nmake it\n```")
        for keys in ((), ("f5",), ("f1",), ("f2",), ("f4",), ("f6",), ("shift+tab",)):
            await story.pilot.press(*keys)
            await story.pilot.pause()
            assert not [colour for colour in colours_on(story) if not colour.is_system_defined]
            if len(story.app.screen_stack) > 1:
                await story.pilot.press("escape")
        assert not story.app._options.state.values.theme, "what the terminal can show is no choice of the person"


def look_of(story: Story, text: str) -> tuple[object, ...]:
    """What sets this text apart on the screen."""
    [style] = [each.style for strip in story.strips() for each in strip if text in each.text][:1]
    assert style is not None
    return style.bgcolor, style.reverse, style.underline


@pytest.mark.parametrize("environment", [{"TERM": "xterm"}, {"NO_COLOR": "1"}, {"COLORTERM": "truecolor"}])
@pytest.mark.parametrize(
    ("keys", "selected", "other"),
    [
        (("f2", "down"), "e2b-8bit", "e2b-4bit"),
        (("f4",), "second question", "first question"),
        (("ctrl+p",), "Attach a file", "Copy the last answer"),
        (("slash", "t"), "/think", "/temp"),
    ],
)
@pytest.mark.sampled(2)
async def test_the_selected_row_is_seen_with_any_colours(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], keys: tuple[str, ...], selected: str, other: str
) -> None:
    monkeypatch.delenv("COLORTERM")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with chat(size=(120, 36)) as story:
        await story.exchange("first question", "Yes.")
        await story.pilot.press("ctrl+n")
        await story.exchange("second question", "Yes.")
        await story.pilot.press("ctrl+n", *keys)
        await story.until_seen(selected, other)
        await story.pilot.pause()
        assert look_of(story, selected) != look_of(story, other)


@pytest.mark.parametrize("term", ["xterm-256color", "tmux-256color"])
async def test_with_more_colours_a_theme_is_kept(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.delenv("COLORTERM")
    monkeypatch.setenv("TERM", term)
    async with chat(ChatOptions(Settings(theme="nord"))) as story:
        assert story.app.theme == "nord"


ORNAMENTS = " ▁▂▃▄▅▆▇█▌▐▏▎▔▕━─│┼╭╮╰╯╶╴"


def contrasts(strips: Iterable[Strip]) -> dict[str, float]:
    """Each text, with the contrast to its background."""
    found = {}
    for strip in strips:
        for segment in strip:
            text = segment.text.strip(ORNAMENTS)
            if text and segment.style and segment.style.color and segment.style.bgcolor:
                fore, back = (
                    Color(*colour.get_truecolor()) for colour in (segment.style.color, segment.style.bgcolor)
                )
                found[text] = contrast(fore, back)
    return found


def open_box(story: Story) -> Iterator[Strip]:
    """The list or dialog that is open, with its title, and the line of its keys at the bottom."""
    region = next(
        iter(story.app.screen.query("#models, #chats, #params, #help, CommandPalette > Vertical"))
    ).region
    rows = story.strips()
    yield from (strip.crop(region.x, region.right) for strip in rows[region.y : region.bottom])
    yield rows[-1]


def illegible(strips: Iterable[Strip]) -> dict[str, float]:
    return {text: round(ratio, 2) for text, ratio in contrasts(strips).items() if ratio < MIN_CONTRAST - 0.05}


SOME_THEMES = ["textual-dark", "textual-light", "nord", "solarized-light"]
THEMES_TRIED = cases(SOME_THEMES, [name for name in THEMES if name not in OF_THE_TERMINAL])


@pytest.mark.parametrize("key", ["f2", "f4", "f6", "f1", "ctrl+p"])
@pytest.mark.sampled(2)
async def test_lists_can_be_read_in_every_theme(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    async with chat(ChatOptions(Settings(draft=4, theme="nord")), size=(79, 24)) as story:
        await story.exchange("Hello", "Hi there.")
        await story.pilot.press(key)
        await story.until(lambda: len(story.app.screen_stack) == 2)
        await story.pilot.pause(0.2)
        for theme in THEMES_TRIED:
            story.app.theme = theme
            await story.pilot.pause()
            assert len(contrasts(open_box(story))) > 4
            assert not illegible(open_box(story)), theme


ALL_KINDS = """Some **bold**, `code` and [a link](https://example.org).

> A quotation

| name | value |
|---|---|
| one | 2 |

```python
def double(n: int = 1) -> str:
    \"\"\"The comment.\"\"\"
    return "two" * n  # never more
```
"""


@pytest.mark.parametrize("theme", THEMES_TRIED)
async def test_the_chat_can_be_read_in_every_theme(theme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORTERM", "truecolor")
    async with chat(ChatOptions(Settings(draft=4, theme=theme)), size=(110, 50)) as story:
        await story.exchange("Hello", ALL_KINDS)
        await story.until_seen("never more")
        for keys in ((), ("slash", "t"), ("escape", "ctrl+u", "shift+tab")):
            await story.pilot.press(*keys)
            await story.pilot.pause()
            assert len(contrasts(story.strips())) > 20
            assert not illegible(story.strips()), keys
