"""A block of code in a reply: takes the focus, can be copied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.highlight import ANSIDarkHighlightTheme, ANSILightHighlightTheme, HighlightTheme
from textual.message import Message

from app.settings.keys import CODE_KEYS, DEFAULT_KEYS, is_for_code
from app.tui.keys import bindings, keys_in
from app.tui.transcript.flow import Row
from app.tui.transcript.markdown import Code
from app.tui.transcript.text_block import TextBlock

SETTLING_LINES = 50
"""So many are coloured in some milliseconds, at every append."""
MOST_LINES_IN_ONE_GO = 500
"""So many take a tenth of a second."""


class CodeBlock(TextBlock, can_focus=True):
    """By tab, not by the mouse: a click leaves the prompt ready to type."""

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
        """The code is to be copied."""

        code: str

    @dataclass
    class LeaveRequested(Message):
        """Back to the prompt, with what was typed."""

        typed: str

    def __init__(self, shown: Code) -> None:
        super().__init__()
        self._shown = shown
        self._settled = ""
        """The beginning of the code that is not coloured again while more comes, and its rows."""
        self._settled_rows: list[Row] = []
        self._colours = HighlightTheme
        self._indent()

    @property
    def code(self) -> str:
        """As it is copied."""
        return self._shown.code

    def on_mount(self) -> None:
        """Colours are known from now on."""
        self.show(self._coloured())

    def show_code(self, shown: Code) -> None:
        """Show other code."""
        before, self._shown = self._shown, shown
        if shown.indent != before.indent:
            self._indent()
        self.show(self._coloured())

    def notify_style_update(self) -> None:
        """Another theme may have other means of colouring."""
        super().notify_style_update()
        if self.is_attached and self._colours is not self._means_of_colouring():
            self._colour_anew()

    def finish(self) -> None:
        """Nothing more comes: colour the whole in one go, if that takes no time that would be noticed."""
        # A text in quotes over many lines has its colour from its first one.
        if self._settled_rows and len(self._settled_rows) <= MOST_LINES_IN_ONE_GO:
            self._colour_anew()

    def _indent(self) -> None:
        self.styles.margin = (0, 0, 1, self._shown.indent)

    def _colour_anew(self) -> None:
        self._settled, self._settled_rows = "", []
        self.show(self._coloured())

    def _means_of_colouring(self) -> type[HighlightTheme]:
        if not self.app.native_ansi_color:
            return HighlightTheme
        return ANSIDarkHighlightTheme if self.app.current_theme.dark else ANSILightHighlightTheme

    def _coloured(self) -> list[Row]:
        self._colours = self._means_of_colouring()
        if not self._shown.code.startswith(self._settled):
            self._settled, self._settled_rows = "", []
        rest = self._shown.code.removeprefix(self._settled)
        rows = replace(self._shown, code=rest).rows(self._colours)
        coloured = [*self._settled_rows, *rows]
        lines = rest.split("\n")
        if len(lines) == len(rows) > 2 * SETTLING_LINES:
            self._settled += "".join(f"{line}\n" for line in lines[:-SETTLING_LINES])
            self._settled_rows = coloured[:-SETTLING_LINES]
        return coloured

    def action_copy_code(self) -> None:
        """Ask for the code to be copied."""
        self.post_message(self.CopyRequested(self.code))

    def action_leave(self) -> None:
        """Back to the prompt."""
        self.post_message(self.LeaveRequested(""))

    def on_key(self, event: events.Key) -> None:
        """What is typed belongs to the prompt."""
        own = {key for id in DEFAULT_KEYS if is_for_code(id) for key in keys_in(self.app, id)}
        if event.character and event.is_printable and event.character not in own:
            event.stop()
            self.post_message(self.LeaveRequested(event.character))
