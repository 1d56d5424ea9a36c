"""What the model thinks before it answers: one line that counts, and the text behind it."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from app.text.figures import MUTED
from app.text.sanitise import sanitise
from app.tui.keys import key_in
from app.tui.transcript.flow import Line, Row
from app.tui.transcript.text_block import TextBlock

DRAW_S = 0.25
"""Between two looks at a growing thought: nobody reads along in a folded one."""


def folded_rows(source: str) -> list[Row]:
    """What is left of the thoughts of an old turn: that there were some."""
    return [Line(Content.styled(_in_words("▸ thought", source), MUTED))] if source.strip() else []


def _in_words(state: str, source: str) -> str:
    return f"{state} · {len(source.split()):,} words"


class Thoughts(Vertical):
    """Folded unless the person unfolds it; not there while there is nothing to show."""

    is_folded = reactive(True)

    def __init__(self) -> None:
        super().__init__(classes="thoughts")
        self.source = ""
        """The text so far, sanitised."""
        self._is_over = False
        self._is_flush_due = False
        self._line = Static(classes="thoughts-line", markup=False)
        self._body = TextBlock(classes="thoughts-body")
        self._rows: list[Line] = []
        self.display = False

    def compose(self) -> ComposeResult:
        """The line, then the text."""
        yield self._line
        yield self._body

    def write(self, text: str) -> None:
        """Append text; it is shown at the next flush."""
        self.source += sanitise(text)
        if not self._is_flush_due:
            self._is_flush_due = True
            self.set_timer(DRAW_S, self._flush)

    def finish(self) -> None:
        """The answer begins, or the reply ends."""
        if not self._is_over:
            self._is_over = True
            self._flush()

    def watch_is_folded(self) -> None:
        """Show or hide the text."""
        self._flush()

    def on_click(self) -> None:
        """The line is what one would click on."""
        self.is_folded = not self.is_folded

    def _flush(self) -> None:
        self._is_flush_due = False
        self.display = bool(self.source.strip())
        state = "thought" if self._is_over else "thinking"
        sign = "▸" if self.is_folded else "▾"
        said = f"{_in_words(f'{sign} {state}', self.source)} · {key_in(self.app, 'thoughts')}"
        self._line.update(Content.styled(said, MUTED), layout=False)
        self._body.display = not self.is_folded
        if not self.is_folded:
            self._body.show(self._grown_rows())

    def _grown_rows(self) -> list[Line]:
        """A row for every line; those that have not changed are the same as before, and not wrapped again."""
        known = self._rows
        self._rows = [
            known[number]
            if number < len(known) and known[number].text.plain == line
            else Line(Content.styled(line, MUTED))
            for number, line in enumerate(self.source.strip().split("\n"))
        ]
        return self._rows
