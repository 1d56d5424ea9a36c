"""A code block in a reply, which takes the focus and can be copied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.highlight import ANSIDarkHighlightTheme, ANSILightHighlightTheme, HighlightTheme
from textual.message import Message

from app.settings.keys import CODE_KEYS, DEFAULT_KEYS, is_for_code
from app.tui.keys import bindings, keys_in
from app.tui.transcript.flow import FlowRow
from app.tui.transcript.markdown import CodePiece
from app.tui.transcript.text_block import TextBlock

REHIGHLIGHTED_LINES = 50
"""The last lines, highlighted again at every append, which takes a few milliseconds."""
MAX_LINES_AT_ONCE = 500
"""Highlighting this many lines takes a tenth of a second."""


class CodeBlock(TextBlock, can_focus=True):
    """Takes the focus by tab, not by a click, which leaves it in the prompt."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(CODE_KEYS)
    FOCUS_ON_CLICK = False
    DEFAULT_CSS = """
    CodeBlock { padding: 1 2; background: $foreground 6%; }
    CodeBlock:focus { background: $primary 20%; }
    CodeBlock:ansi { padding: 0 2; background: transparent; }
    CodeBlock:ansi:focus { text-style: reverse; }
    """

    @dataclass
    class CopyRequested(Message):
        """The person wants to copy the code."""

        code: str

    @dataclass
    class LeaveRequested(Message):
        """The focus returns to the prompt."""

        typed: str
        """A character to insert there; may be empty."""

    def __init__(self, piece: CodePiece) -> None:
        super().__init__()
        self._piece = piece
        self._settled_code = ""
        """The start of the code, which is not highlighted again while more arrives, and its rows."""
        self._settled_rows: list[FlowRow] = []
        self._used_theme = HighlightTheme
        self._indent()

    @property
    def code(self) -> str:
        """The source, as it is copied."""
        return self._piece.code

    def on_mount(self) -> None:
        """Highlight now that the theme is known."""
        self.show(self._highlighted_rows())

    def show_code(self, piece: CodePiece) -> None:
        """Replace the code."""
        old_piece, self._piece = self._piece, piece
        if piece.indent != old_piece.indent:
            self._indent()
        self.show(self._highlighted_rows())

    def notify_style_update(self) -> None:
        """Highlight again if the new theme needs another highlight theme."""
        super().notify_style_update()
        if self.is_attached and self._used_theme is not self._highlight_theme():
            self._highlight_whole()

    def finish(self) -> None:
        """Highlight finished code as a whole, unless that would take noticeable time."""
        # Only the first line of a string over many lines says how to highlight the others.
        if self._settled_rows and len(self._settled_rows) <= MAX_LINES_AT_ONCE:
            self._highlight_whole()

    def _indent(self) -> None:
        self.styles.margin = (0, 0, 1, self._piece.indent)

    def _highlight_whole(self) -> None:
        self._settled_code, self._settled_rows = "", []
        self.show(self._highlighted_rows())

    def _highlight_theme(self) -> type[HighlightTheme]:
        if not self.app.native_ansi_color:
            return HighlightTheme
        return ANSIDarkHighlightTheme if self.app.current_theme.dark else ANSILightHighlightTheme

    def _highlighted_rows(self) -> list[FlowRow]:
        self._used_theme = self._highlight_theme()
        if not self._piece.code.startswith(self._settled_code):
            self._settled_code, self._settled_rows = "", []
        rest = self._piece.code.removeprefix(self._settled_code)
        rows = replace(self._piece, code=rest).rows(self._used_theme)
        all_rows = [*self._settled_rows, *rows]
        lines = rest.split("\n")
        if len(lines) == len(rows) > 2 * REHIGHLIGHTED_LINES:
            self._settled_code += "".join(f"{line}\n" for line in lines[:-REHIGHLIGHTED_LINES])
            self._settled_rows = all_rows[:-REHIGHLIGHTED_LINES]
        return all_rows

    def action_copy_code(self) -> None:
        self.post_message(self.CopyRequested(self.code))

    def action_leave(self) -> None:
        """Return to the prompt."""
        self.post_message(self.LeaveRequested(""))

    def on_key(self, event: events.Key) -> None:
        """Pass typed characters on to the prompt, except for the keys of code blocks."""
        code_keys = {key for id in DEFAULT_KEYS if is_for_code(id) for key in keys_in(self.app, id)}
        if event.character and event.is_printable and event.character not in code_keys:
            event.stop()
            self.post_message(self.LeaveRequested(event.character))
