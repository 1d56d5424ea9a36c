"""A/B: the last prompt without and with drafting, side by side as they run, the chat untouched."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from app.core.comparison import Comparison, Side
from app.text.figures import MUTED
from app.text.sanitise import sanitise
from app.tui.transcript.tint import tint_style, tinted
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Died, Event, Failed

DRAW_S = 0.2
DIFFERENCE = "reverse"
NARROW_COLUMNS = 70
"""Below, the two stand one above the other."""


class SideView(Vertical):
    """One of the two replies: its figures, and its text, which follows its end."""

    def __init__(self, side: Side) -> None:
        super().__init__(classes="ab-side")
        self._side = side
        self._title = Static(classes="ab-title", markup=False)
        self._text = Static(classes="ab-text", markup=False)
        self._scroll = VerticalScroll()

    def compose(self) -> ComposeResult:
        """The figures above the text."""
        yield self._title
        with self._scroll:
            yield self._text

    def on_mount(self) -> None:
        """Follow."""
        self._scroll.anchor()

    def draw(self, difference: int | None) -> None:
        """Show what has come, and where it differs."""
        self._title.update(self._side.title, layout=False)
        text = tinted(self._side.runs, tint_style(self.app))
        self._text.update(marked(text, self._side.text, difference))


class AbScreen(ModalScreen[None]):
    """Asks the engine twice and compares. Whoever hears the engine hands its events to `hear`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Close", tooltip="stops the comparison, or closes it"),
        Binding("c,ctrl+y", "copy", "Copy", tooltip="copies the line of figures", priority=True),
    ]

    def __init__(self, engine: EngineHandle, comparison: Comparison, pair: str) -> None:
        """pair: what is compared, for whoever reads the copied line."""
        super().__init__()
        self._engine = engine
        self.comparison = comparison
        self._pair = pair
        self._asked: int | None = None
        self._trouble = ""
        self._is_stopping = False
        self._has_news = True
        self._sides = (SideView(comparison.off), SideView(comparison.on))
        self._result = Static(id="ab-result", markup=False)

    def compose(self) -> ComposeResult:
        """The two, and the result below."""
        with Vertical(id="ab"):
            yield Container(*self._sides, id="ab-sides")
            yield self._result

    def on_mount(self) -> None:
        """Begin with the plain one."""
        self.set_interval(DRAW_S, self._draw)
        self._ask()

    def on_resize(self, event: Resize) -> None:
        """Side by side where there is room."""
        self.set_class(event.size.width < NARROW_COLUMNS, "-narrow")
        self._has_news = True

    def on_unmount(self) -> None:
        """Nobody waits for the rest."""
        if self._is_running:
            self._engine.cancel()

    def hear(self, event: Event) -> None:
        """Take what belongs to the comparison; go on when one of the two is complete."""
        self._has_news = True
        match event:
            case Failed(id=id, message=words) if id is None or id == self._asked:
                self._trouble = words
            case Died(message=words):
                self._trouble = words
            case _ if self.comparison.take(event):
                self._ask()

    def action_stop(self) -> None:
        """End what runs; once nothing runs, close."""
        if self._is_running and not self._is_stopping:
            self._is_stopping = True
            self._engine.cancel()
        else:
            self.dismiss(None)

    def action_copy(self) -> None:
        """Put the line of figures on the clipboard."""
        line = f"{self._pair}: {self.comparison.result}"
        self.app.copy_to_clipboard(line)
        self.app.notify(f"Copied: {line}", markup=False)

    @property
    def _is_running(self) -> bool:
        return not self._trouble and self.comparison.next_request is not None

    def _ask(self) -> None:
        request = self.comparison.next_request
        if request is None or request.id == self._asked or self._trouble or self._is_stopping:
            return
        self._asked = request.id
        try:
            self._engine.generate(request)
        except SlipstreamError as error:
            self._trouble = str(error)

    def _draw(self) -> None:
        if not self._has_news:
            return
        self._has_news = False
        for side in self._sides:
            side.draw(self.comparison.difference)
        if self._trouble:
            said = Content.styled(sanitise(self._trouble), "$text-error")
        else:
            said = Content.styled(self.comparison.result, "bold")
        keys = (
            "escape: stop" if self._is_running and not self._is_stopping else "c: copy this line · escape: close"
        )
        how = (
            ""
            if self.has_class("-narrow")
            else "One after the other on the same device; decoding only; one seed. "
        )
        self._result.update(Content("\n").join([said, Content.styled(how + keys, MUTED)]))


def marked(content: Content, text: str, difference: int | None) -> Content:
    """`content` with the word at the first difference marked."""
    if difference is None or difference >= len(text):
        return content
    word = text[difference:].split(maxsplit=1)
    end = text.index(word[0], difference) + len(word[0]) if word else difference + 1
    return content.stylize(DIFFERENCE, difference, end)
