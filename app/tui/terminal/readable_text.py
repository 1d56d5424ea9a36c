"""Makes every text readable: what themes, dimming or the colours of code have left with too little contrast."""

from __future__ import annotations

import re
from functools import lru_cache

from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.color import BLACK, WHITE, Color
from textual.filter import LineFilter

from app.tui.terminal.contrast import contrast, readable_on

_TEXT = re.compile(r"[^\s\u2500-\u259f]")
"""Anything but lines, bars and blocks, which are ornaments."""
CACHED_STYLES = 4096


class ReadableText(LineFilter):
    """Blends the colours of texts towards white or black. Leaves the terminal's own colours alone."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [_readable(segment) for segment in segments]


def _readable(segment: Segment) -> Segment:
    text, style, control = segment
    if style is None:
        return segment
    readable = _readable_style(style)
    if readable is None or not _TEXT.search(text):
        return segment
    return Segment(text, readable, control)


# By style and not by its two colours: a style keeps its hash, a colour computes it anew each time.
@lru_cache(CACHED_STYLES)
def _readable_style(style: Style) -> Style | None:
    """None if `style` itself can be read."""
    if style.color is None or style.bgcolor is None:
        return None
    colour = _readable_colour(style.color, style.bgcolor)
    return None if colour is style.color else style + Style.from_color(colour)


def _readable_colour(text: RichColor, background: RichColor) -> RichColor:
    """`text` itself if it can be read or is one of the terminal's own."""
    if text.triplet is None or background.triplet is None:
        return text
    ground = Color.from_rich_color(background)
    extreme = max(WHITE, BLACK, key=lambda colour: contrast(colour, ground))
    shown = Color.from_rich_color(text)
    readable = readable_on(shown, [ground], extreme)
    return text if readable == shown else readable.rich_color
