"""`/ab`: two replies to the last message, without and with drafting, side by side."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.widgets import Static

from app.core.comparison import ComparedReply, Comparison
from app.text.figures import MUTED
from app.text.sanitise import sanitise
from app.tui.screens.overlay import Overlay
from app.tui.transcript.tint import tint_styles, tinted

DRAW_S = 0.2
DIFFERENCE = "reverse"
NARROW_COLUMNS = 70
"""In a narrower window the replies are shown one above the other."""


class ComparedReplyView(Vertical):
    """One of the two replies: its figures and its text, which follows its end."""

    def __init__(self, reply: ComparedReply) -> None:
        super().__init__(classes="ab-side")
        self._reply = reply
        self._title = Static(classes="ab-title", markup=False)
        self._text = Static(classes="ab-text", markup=False)
        self._scroll = VerticalScroll()

    def compose(self) -> ComposeResult:
        yield self._title
        with self._scroll:
            yield self._text

    def on_mount(self) -> None:
        self._scroll.anchor()

    def draw(self, difference: int | None) -> None:
        """difference: where the two texts differ first, in characters; None if they do not."""
        self._title.update(self._reply.title, layout=False)
        text = tinted(self._reply.runs, tint_styles(self.app))
        self._text.update(marked(text, self._reply.text, difference))


class ComparisonScreen(Overlay[None]):
    """Shows a comparison while it runs and afterwards."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Close", tooltip="stops the comparison, or closes it"),
        Binding("c,ctrl+y", "copy", "Copy", tooltip="copies the line of figures", priority=True),
    ]

    def __init__(self, comparison: Comparison, pair: str) -> None:
        """pair: its name, for the copied line."""
        super().__init__()
        self.comparison = comparison
        self._pair = pair
        self._drawn: tuple[object, ...] = ()
        """What was drawn last."""
        self._sides = (ComparedReplyView(comparison.off), ComparedReplyView(comparison.on))
        self._result = Static(id="ab-result", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="ab"):
            yield Container(*self._sides, id="ab-sides")
            yield self._result

    def on_mount(self) -> None:
        self.set_interval(DRAW_S, self._draw)

    def on_resize(self, event: Resize) -> None:
        """Side by side if there is room."""
        self.set_class(event.size.width < NARROW_COLUMNS, "-narrow")
        self._drawn = ()

    def action_stop(self) -> None:
        """Stop the comparison, or close the screen if it has ended or is stopping."""
        if self.comparison.is_running and not self.comparison.is_stopping:
            self.comparison.stop()
        else:
            self.dismiss(None)

    def action_copy(self) -> None:
        """Put the line of figures on the clipboard."""
        line = f"{self._pair}: {self.comparison.result}"
        self.app.copy_to_clipboard(line)
        self.app.notify(f"Copied: {line}", markup=False)

    def _draw(self) -> None:
        comparison = self.comparison
        is_running = comparison.is_running and not comparison.is_stopping
        shown = comparison.off.text, comparison.on.text, comparison.result, comparison.error, is_running
        if shown == self._drawn:
            return
        self._drawn = shown
        for side in self._sides:
            side.draw(comparison.difference)
        if comparison.error:
            result = Content.styled(sanitise(comparison.error), "$text-error")
        else:
            result = Content.styled(comparison.result, "bold")
        keys = "esc: stop" if is_running else "c: copy this line · esc: close"
        method = "" if self.has_class("-narrow") else "One after the other on the same device, with one seed. "
        self._result.update(Content("\n").join([result, Content.styled(method + keys, MUTED)]))


def marked(content: Content, text: str, difference: int | None) -> Content:
    """`content` with the word at the first difference marked."""
    if difference is None or difference >= len(text):
        return content
    word = text[difference:].split(maxsplit=1)
    end = text.index(word[0], difference) + len(word[0]) if word else difference + 1
    return content.stylize(DIFFERENCE, difference, end)
