"""A view of replies that tints the drafted text.

The tint is only a style of this view: copies, exports and stored replies do not contain it.
"""

from __future__ import annotations

from typing import NamedTuple

from textual.app import App
from textual.color import Color
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from app.core.drafted_runs import DraftedRun, DraftedRuns
from app.text.figures import MUTED
from app.tui.keys import key_in

TINT = "auto 90% on $success-muted"
"""With black or white text, whichever reads better: some themes' foreground is illegible on it."""
COPIED_TINT = "auto 90% on $accent-muted"
COLOURLESS_TINT, COLOURLESS_COPIED_TINT = "underline", "underline italic"
GREEN_HUES = (60, 170)
"""In degrees. Some themes have another colour for success, a blue for example."""
COPIED = "copied"
"""A word in the tint of copies."""
LEGENDS = (
    (": drafted · ", " from earlier text · rest: the main model's own · {key}: formatted view"),
    (": drafted · ", " · rest: the main model's own · {key}: formatted view"),
    (": drafted · ", " · {key}: formatted view"),
    (": drafted · ", ""),
)
"""What follows the name of the tint, before and behind COPIED, longest first."""
SETTLED_CHARACTERS = 1500
"""A widget with this much text draws in a few milliseconds; after its line, the text continues in a new one."""
LONGEST_CHARACTERS = 8000
"""With this much text without the end of a line, it continues after the last blank."""


class TintStyles(NamedTuple):
    """Styles for drafted and for copied text."""

    drafted: str
    copied: str

    def of(self, run: DraftedRun) -> str:
        """The style of a run; empty if it was not drafted."""
        if not run.is_drafted:
            return ""
        return self.copied if run.is_copied else self.drafted


def tint_styles(app: App[object]) -> TintStyles:
    """Background colours, or underlines in terminals where such colours are not available."""
    if app.no_color or app.native_ansi_color:
        return TintStyles(COLOURLESS_TINT, COLOURLESS_COPIED_TINT)
    return TintStyles(TINT, COPIED_TINT)


def tint_name(app: App[object]) -> str:
    """The tint in a word: `green`, `tinted` in themes where it has another hue, or `underlined`."""
    if tint_styles(app).drafted == COLOURLESS_TINT:
        return "underlined"
    hue = Color.parse(app.theme_variables["success-muted"]).hsl.h * 360
    return "green" if GREEN_HUES[0] <= hue <= GREEN_HUES[1] else "tinted"


def tinted(runs: DraftedRuns, styles: TintStyles, start: int = 0) -> Content:
    """The text from run `start` on, with the drafted runs in their styles."""
    return Content.assemble(*((run.text, styles.of(run)) for run in runs.runs[start:]))


def _end_of_widget(text: str, start: int, length_before: int) -> tuple[int, int] | None:
    """Where a widget ends that has `length_before` characters and goes on with the text from `start`.

    Also returns where the next one begins: behind the end of a line, or, if the line is too long, behind a blank
    or anywhere. None: the widget takes the rest of the text.
    """
    settled = start + max(0, SETTLED_CHARACTERS - length_before)
    longest = start + max(0, LONGEST_CHARACTERS - length_before)
    line_end = text.find("\n", settled, longest)
    if line_end >= 0:
        return line_end, line_end + 1
    if len(text) <= longest:
        return None
    blank = text.rfind(" ", settled, longest)
    return (blank, blank + 1) if blank >= 0 else (longest, longest)


class TintedText(Vertical):
    """A reply as plain source, not formatted, with its drafted runs tinted. Grows at its end."""

    def __init__(self) -> None:
        super().__init__(classes="tinted")
        self._drawn_run_count = 0
        self._last_parts: list[Content] = []
        """The text of the last widget. The widgets above it never change."""
        self._last_length = 0
        """Of this text."""
        self._last: Static | None = None

    async def draw(self, runs: DraftedRuns) -> None:
        """Append the runs that are new since the last call. `runs` must be the same, grown object every time."""
        styles = tint_styles(self.app)
        new_runs = runs.runs[self._drawn_run_count :]
        self._drawn_run_count = len(runs.runs)
        for run in new_runs:
            start = 0
            while (cut := _end_of_widget(run.text, start, self._last_length)) is not None:
                end, next_start = cut
                self._append(run.text[start:end], styles.of(run))
                await self._draw_last()
                self._last, self._last_parts, self._last_length = None, [], 0
                start = next_start
            self._append(run.text[start:], styles.of(run))
        await self._draw_last()

    def _append(self, text: str, style: str) -> None:
        self._last_parts.append(Content.styled(text, style) if style else Content(text))
        self._last_length += len(text)

    async def _draw_last(self) -> None:
        text = Content().join(self._last_parts)
        self._last_parts = [text]
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
        styles, key = tint_styles(self.app), key_in(self.app, "tint")
        name, copied = Content.styled(tint_name(self.app), styles.drafted), Content.styled(COPIED, styles.copied)
        for before, behind in LEGENDS:
            legend = name + Content.styled(before, MUTED) + copied + Content.styled(behind.format(key=key), MUTED)
            if legend.cell_length <= self.content_size.width:
                return legend
        return name
