"""The thoughts of a model before its answer: a line with their word count, and the text when unfolded."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from app.text.figures import MUTED
from app.text.sanitise import sanitise
from app.tui.keys import key_in
from app.tui.transcript.flow import FlowRow, TextRow
from app.tui.transcript.text_block import TextBlock

DRAW_S = 0.25
"""Between two updates of growing thoughts, which are usually folded."""


def folded_rows(source: str) -> list[FlowRow]:
    """The folded line of an old turn's thoughts, which cannot be unfolded; no row without thoughts."""
    return [TextRow(Content.styled(_summary("▸ thought", source), MUTED))] if source.strip() else []


def _summary(state: str, source: str) -> str:
    return f"{state} · {len(source.split()):,} words"


class Thoughts(Vertical):
    """Folded until the person unfolds them; hidden while there are none."""

    is_folded = reactive(True)

    def __init__(self) -> None:
        super().__init__(classes="thoughts")
        self.source = ""
        """The text so far, sanitised."""
        self._is_over = False
        self._is_flush_due = False
        self._line = Static(classes="thoughts-line", markup=False)
        self._body = TextBlock(classes="thoughts-body")
        self._rows: list[TextRow] = []
        self.display = False

    def compose(self) -> ComposeResult:
        yield self._line
        yield self._body

    def write(self, text: str) -> None:
        """Append text; it is shown at the next flush."""
        self.source += sanitise(text)
        if not self._is_flush_due:
            self._is_flush_due = True
            self.set_timer(DRAW_S, self._flush)

    def finish(self) -> None:
        """Mark the thoughts as complete: the answer starts, or the reply ends."""
        if not self._is_over:
            self._is_over = True
            self._flush()

    def watch_is_folded(self) -> None:
        self._flush()

    def on_click(self) -> None:
        """Fold or unfold."""
        self.is_folded = not self.is_folded

    def _flush(self) -> None:
        self._is_flush_due = False
        self.display = bool(self.source.strip())
        state = "thought" if self._is_over else "thinking"
        arrow = "▸" if self.is_folded else "▾"
        summary = f"{_summary(f'{arrow} {state}', self.source)} · {key_in(self.app, 'thoughts')}"
        self._line.update(Content.styled(summary, MUTED), layout=False)
        self._body.display = not self.is_folded
        if not self.is_folded:
            self._body.show(self._updated_rows())

    def _updated_rows(self) -> list[TextRow]:
        """A row for every line. Unchanged rows are reused, so that they are not wrapped again."""
        old_rows = self._rows
        self._rows = [
            old_rows[number]
            if number < len(old_rows) and old_rows[number].text.plain == line
            else TextRow(Content.styled(line, MUTED))
            for number, line in enumerate(self.source.strip().split("\n"))
        ]
        return self._rows
