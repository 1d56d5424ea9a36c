"""A view of replies that tints the drafted text.

The tint is only a style of this view: copies, exports and stored replies do not contain it.
"""

from __future__ import annotations

from textual.app import App
from textual.color import Color
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from app.core.drafted_runs import DraftedRuns
from app.text.figures import MUTED
from app.tui.keys import key_in

TINT = "auto 90% on $success-muted"
"""With black or white text, whichever reads better: some themes' foreground is illegible on it."""
COLOURLESS_TINT = "underline"
GREEN_HUES = (60, 170)
"""In degrees. Some themes have another colour for success, a blue for example."""
LEGENDS = (
    ": drafted · rest: the main model's own · {key}: formatted view",
    ": drafted · {key}: formatted view",
    ": drafted",
)
"""What follows the name of the tint, longest first."""
SETTLED_CHARACTERS = 1500
"""A widget with this much text draws in a few milliseconds; after its line, the text continues in a new one."""


def tint_style(app: App[object]) -> str:
    """A background colour, or an underline in terminals where that colour is not available."""
    return COLOURLESS_TINT if app.no_color or app.native_ansi_color else TINT


def tint_name(app: App[object]) -> str:
    """The tint in a word: `green`, `tinted` in themes where it has another hue, or `underlined`."""
    if tint_style(app) == COLOURLESS_TINT:
        return "underlined"
    hue = Color.parse(app.theme_variables["success-muted"]).hsl.h * 360
    return "green" if GREEN_HUES[0] <= hue <= GREEN_HUES[1] else "tinted"


def tinted(runs: DraftedRuns, style: str, start: int = 0) -> Content:
    """The text from run `start` on, with the drafted runs in `style`."""
    shown = runs.runs[start:]
    return Content.assemble(*((run.text, style) if run.is_drafted else run.text for run in shown))


class TintedText(Vertical):
    """A reply as plain source, not formatted, with its drafted runs tinted. Grows at its end."""

    def __init__(self) -> None:
        super().__init__(classes="tinted")
        self._drawn_run_count = 0
        self._last_text = Content()
        """The text of the last widget. The widgets above it never change."""
        self._last: Static | None = None

    async def draw(self, runs: DraftedRuns) -> None:
        """Append the runs that are new since the last call. `runs` must be the same, grown object every time."""
        text = self._last_text + tinted(runs, tint_style(self.app), self._drawn_run_count)
        self._drawn_run_count = len(runs.runs)
        while (end := text.plain.find("\n", SETTLED_CHARACTERS)) >= 0:
            await self._draw_last(text[:end])
            self._last, text = None, text[end + 1 :]
        await self._draw_last(text)
        self._last_text = text

    async def _draw_last(self, text: Content) -> None:
        if self._last is None:
            self._last = Static(text, markup=False)
            await self.mount(self._last)
        else:
            self._last.update(text)


class TintLegend(Widget):
    """One line that explains the tint while it is on."""

    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__(id="tint-legend")
        self.display = False

    def render(self) -> Content:
        """The name of the tint in that tint, and the longest legend that fits beside it."""
        name = Content.styled(tint_name(self.app), tint_style(self.app))
        room = self.content_size.width - name.cell_length
        key = key_in(self.app, "tint")
        legends = (legend.format(key=key) for legend in LEGENDS)
        return name + Content.styled(next((each for each in legends if len(each) <= room), ""), MUTED)
