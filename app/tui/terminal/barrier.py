"""The last thing that text passes on its way to the terminal, whichever widget drew it.

Widgets sanitise what they show, so that people see what was there. This catches what one has forgotten, what is
typed into Textual's own inputs, and what Markdown makes of character references.
"""

from __future__ import annotations

from rich.cells import get_character_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from app.text.sanitise import UNSAFE_CODES

_DROPPED = {
    code: None if get_character_cell_size(chr(code)) == 0 else "\N{REPLACEMENT CHARACTER}"
    for code in (*UNSAFE_CODES, ord("\n"), ord("\t"))
}
"""Widths stay as Textual has counted them."""


class Barrier(LineFilter):
    """Lets no control character and no hyperlink through to the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments of one line, as they are if there is nothing to stop."""
        if all(_is_safe(segment) for segment in segments):
            return segments
        return [_made_safe(segment) for segment in segments]


def _is_safe(segment: Segment) -> bool:
    text, style, control = segment
    return text.isprintable() and not control and not (style and style.link)


def _made_safe(segment: Segment) -> Segment:
    text, style, _ = segment
    return Segment(text.translate(_DROPPED), style.update_link(None) if style and style.link else style)
