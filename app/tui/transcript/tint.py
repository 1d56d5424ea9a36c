"""Which part of a reply was drafted: runs of text, and a view of them with the drafted ones tinted.

The tint is a style on top of the text: whatever copies, exports or keeps a reply never meets it.
"""

from __future__ import annotations

from textual.app import App
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from app.core.drafted_runs import DraftedRuns
from app.text.figures import MUTED
from app.tui.keys import key_in

TINT = "auto 90% on $success-muted"
"""Black or white on it, whichever reads better: not every theme's own foreground is legible there."""
COLOURLESS_TINT = "underline"
MEANINGS = (
    " by the drafter and accepted by the target; the rest is the target's own; {key}: Markdown again",
    " and accepted; the rest is the target's own; {key}: Markdown again",
    " and accepted; {key}: Markdown again",
    " and accepted; {key} ends it",
)
"""What follows the sample, the longest first."""
SETTLED_CHARACTERS = 1500
"""A text of this length is drawn in a few milliseconds; what comes after its line is drawn by itself."""


def tint_style(app: App[object]) -> str:
    """The tint where there are colours, and a line under the text where there are none."""
    return COLOURLESS_TINT if app.no_color or app.native_ansi_color else TINT


def tinted(runs: DraftedRuns, style: str, start: int = 0) -> Content:
    """The text from run `start` on, with the drafted runs in `style`."""
    parts = runs.runs[start:]
    return Content.assemble(*((part.text, style) if part.is_drafted else part.text for part in parts))


class TintedText(Vertical):
    """A reply as the model wrote it, not as Markdown, with its drafted runs tinted. Grows at its end."""

    def __init__(self) -> None:
        super().__init__(classes="tinted")
        self._drawn_runs = 0
        self._open = Content()
        """What the last widget shows; those above it are settled."""
        self._last: Static | None = None

    async def draw(self, runs: DraftedRuns) -> None:
        """Bring the view up to `runs`, which only grow from call to call."""
        text = self._open + tinted(runs, tint_style(self.app), self._drawn_runs)
        self._drawn_runs = len(runs.runs)
        while (end := text.plain.find("\n", SETTLED_CHARACTERS)) >= 0:
            await self._draw_last(text[:end])
            self._last, text = None, text[end + 1 :]
        await self._draw_last(text)
        self._open = text

    async def _draw_last(self, text: Content) -> None:
        if self._last is None:
            self._last = Static(text, markup=False)
            await self.mount(self._last)
        else:
            self._last.update(text)


class TintLegend(Widget):
    """Says what the tint means, on one line, while there is any."""

    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__(id="tint-legend")
        self.display = False

    def render(self) -> Content:
        """The sample and its meaning, as long as there is room for."""
        sample = Content.styled("drafted", tint_style(self.app))
        width = self.content_size.width
        key = key_in(self.app, "tint")
        meanings = (each.format(key=key) for each in MEANINGS)
        meaning = next((each for each in meanings if sample.cell_length + len(each) <= width), "")
        return sample + Content.styled(meaning, MUTED)
