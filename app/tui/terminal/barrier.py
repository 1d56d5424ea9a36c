"""The last filter before the terminal, for the text of every widget.

Widgets sanitise their text themselves and make unsafe characters visible. This filter catches what a widget
missed, text typed into Textual's own inputs, and characters that Markdown decodes from references.
"""

from __future__ import annotations

from rich.cells import get_character_cell_size
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from app.text.sanitise import UNSAFE_CODES

_UNSAFE = frozenset((*UNSAFE_CODES, ord("\n"), ord("\t")))


class _Replacements(dict[int, int | str | None]):
    """What becomes of a character, with the width that Textual has counted.

    Looked up when a character first comes: the widths of all unsafe ones would hold up the first frame.
    """

    def __missing__(self, code: int) -> int | str | None:
        if code not in _UNSAFE:
            return code
        self[code] = None if get_character_cell_size(chr(code)) == 0 else "\N{REPLACEMENT CHARACTER}"
        return self[code]


_REPLACEMENTS = _Replacements()


class Barrier(LineFilter):
    """Lets no control character and no hyperlink through to the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(_is_safe(segment) for segment in segments):
            return segments
        return [_made_safe(segment) for segment in segments]


def _is_safe(segment: Segment) -> bool:
    text, style, control = segment
    return text.isprintable() and not control and not (style and style.link)


def _made_safe(segment: Segment) -> Segment:
    text, style, _ = segment
    return Segment(text.translate(_REPLACEMENTS), style.update_link(None) if style and style.link else style)
