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
    words = len(source.split())
    return [TextRow(Content.styled(_summary("▸ thought", words), MUTED))] if words else []


def _summary(state: str, words: int) -> str:
    return f"{state} · {words:,} words"


class GrowingText:
    """A text that grows at its end, as lines and as a number of words. Looks at every character once."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self.lines: list[str] = [""]
        """Without blanks at the beginning of the text."""
        self.words = 0
        self._is_in_word = False

    @property
    def text(self) -> str:
        """All of it."""
        self._parts = ["".join(self._parts)]
        return self._parts[0]

    def add(self, text: str) -> None:
        if not text:
            return
        self._parts.append(text)
        self.words += len(text.split()) - (self._is_in_word and not text[0].isspace())
        self._is_in_word = not text[-1].isspace()
        if self.words == 0:
            return
        first, *rest = (text if self.lines != [""] else text.lstrip()).split("\n")
        self.lines[-1] += first
        self.lines += rest


class Thoughts(Vertical):
    """Folded until the person unfolds them; hidden while there are none."""

    is_folded = reactive(True)

    def __init__(self) -> None:
        super().__init__(classes="thoughts")
        self._text = GrowingText()
        self._is_over = False
        self._is_flush_due = False
        self._line = Static(classes="thoughts-line", markup=False)
        self._body = TextBlock(classes="thoughts-body")
        self._rows: list[TextRow] = []
        self.display = False

    def compose(self) -> ComposeResult:
        yield self._line
        yield self._body

    @property
    def source(self) -> str:
        """The text so far, sanitised."""
        return self._text.text

    def write(self, text: str) -> None:
        """Append text; it is shown at the next flush."""
        self._text.add(sanitise(text))
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
        self.display = self._text.words > 0
        state = "thought" if self._is_over else "thinking"
        arrow = "▸" if self.is_folded else "▾"
        summary = f"{_summary(f'{arrow} {state}', self._text.words)} · {key_in(self.app, 'thoughts')}"
        self._line.update(Content.styled(summary, MUTED), layout=False)
        self._body.display = not self.is_folded
        if not self.is_folded:
            self._body.show(self._updated_rows())

    def _updated_rows(self) -> list[TextRow]:
        """A row for every line. Only the last one may have grown; the others are not wrapped again."""
        lines = self._text.lines
        kept = self._rows[: max(0, len(self._rows) - 1)]
        self._rows = [*kept, *(TextRow(Content.styled(line, MUTED)) for line in lines[len(kept) :])]
        end = len(lines)
        while end > 1 and not lines[end - 1].strip():
            end -= 1
        return self._rows[:end]
