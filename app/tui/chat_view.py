"""The widgets of the chat, and how they share a window of any size."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from app.core.dialogue import Dialogue
from app.tui.bars.gauge_panel import GaugePanel
from app.tui.bars.gauge_strip import GaugeStrip
from app.tui.bars.key_line import KeyLine
from app.tui.bars.queue_line import QueueLine
from app.tui.bars.top_line import TopLine
from app.tui.layout import layout
from app.tui.pauses import GAUGES_S
from app.tui.prompt.composer import Composer
from app.tui.prompt.prompt import Prompt
from app.tui.transcript.tint import TintLegend
from app.tui.transcript.transcript import Transcript


class ChatView(Vertical):
    """Top line; transcript, strip and prompt beside the gauge panel; keys."""

    _dialogue: Dialogue

    def __init__(self, top_line: TopLine, transcript: Transcript, composer: Composer) -> None:
        super().__init__()
        self.top_line = top_line
        self.transcript = transcript
        self.composer = composer
        self.has_news = True
        """Whether something has happened that the gauges do not show yet."""
        self.queue_line = QueueLine()
        self._legend = TintLegend()
        self._strip = GaugeStrip()
        self._panel = GaugePanel()
        self._key_line = KeyLine()

    def follow(self, dialogue: Dialogue) -> None:
        """Show this dialogue. Called once, before mounting."""
        self._dialogue = dialogue
        self.composer.follow(dialogue)

    def compose(self) -> ComposeResult:
        yield self.top_line
        with Horizontal(id="body"):
            with Vertical(id="chat"):
                yield self.transcript
                yield self._legend
                yield self._strip
                yield self.queue_line
                yield self.composer
            yield self._panel
        yield self._key_line

    def on_mount(self) -> None:
        self.set_interval(GAUGES_S, self.show_gauges)

    @property
    def has_panel(self) -> bool:
        return self._panel.display

    def fit(self, width: int, height: int, wants_panel: bool | None) -> None:
        """Show the parts that a window of this size has room for. See `layout`."""
        room = layout(width, height, wants_panel)
        self.set_class(room.is_tiny, "-tiny")
        self.set_class(room.is_small, "-small")
        self.set_class(room.is_narrow, "-narrow")
        self._key_line.has_palette = not room.is_narrow
        self._panel.display = room.has_panel
        self._strip.display = room.has_strip
        self.show_gauges_now()

    def show_gauges_now(self) -> None:
        """Update the gauges after a change that no event reported."""
        self.has_news = True
        self.show_gauges()

    def show_gauges(self) -> None:
        """Update the gauges, if there is news."""
        if not self.has_news:
            return
        self.has_news = False
        self.top_line.settings = self._dialogue.settings.in_short
        if self._dialogue.phase.is_replying:
            self._dialogue.gauges.sample_pace()
        reading = self._dialogue.gauges.reading()
        self._strip.reading = reading
        if self._panel.display:
            self._panel.show(reading)

    def toggle_tint(self) -> bool:
        """See Transcript."""
        is_known = self.transcript.toggle_tint()
        self._legend.display = self.transcript.is_tinted
        return is_known

    @on(Prompt.FollowRequested)
    def _follow(self) -> None:
        self.transcript.follow()

    @on(Prompt.PageRequested)
    def _page(self, event: Prompt.PageRequested) -> None:
        self.transcript.page(event.pages)
