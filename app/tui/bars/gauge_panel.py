"""The gauge panel: the figures of the strip, larger, and acceptance by draft position."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Digits, Static

from app.core.gauges import GaugeReading
from app.text import figures
from app.tui.bars.gauge_strip import drafting_words
from app.tui.keys import key_in

PANEL_WIDTH = 38
_COLUMN = 34
"""Cells for text: the panel without its border and padding."""
_ROWS_WITHOUT_SECOND_COLUMN = 4
"""Draft positions shown one per line; more of them go into two columns."""


def caption(reading: GaugeReading, key: str) -> Content:
    """What the large number means, in words. key: turns drafting on and off."""
    if reading.is_refused:
        return Content.styled(f"drafter refused; {key}: why", "$text-warning")
    if not reading.has_drafter:
        return Content.styled("this model has no drafter", figures.MUTED)
    if not reading.draft_length:
        return Content.styled(f"off, as it was set; {key}: on", figures.MUTED)
    if reading.is_auto_off and figures.is_slower(reading.drafting_speedup):
        speedup = figures.times(reading.drafting_speedup).strip()
        return Content.styled(f"auto is off: {speedup}, slower", "$text-warning")
    if reading.is_auto_off:
        return Content.styled("auto is off: drafting does not pay", figures.MUTED)
    if reading.speedup is None:
        return Content.styled("not measured yet", figures.MUTED)
    if figures.is_slower(reading.speedup):
        return Content.styled(f"slower than plain; {key}: off", "$text-warning")
    return Content.styled("of plain speed", figures.MUTED)


def panel_lines(reading: GaugeReading) -> Content:
    """Everything below the large number."""
    context_share = figures.share_of(reading.context_tokens, reading.context_limit)
    context = (
        f"{figures.thousands(reading.context_tokens)} of {figures.thousands(reading.context_limit)}"
        f" {figures.percent(context_share)}"
    )
    ttft = figures.UNKNOWN if reading.ttft_s is None else f"{reading.ttft_s:.2f} s"
    pace = figures.sparkline(reading.pace_samples, _COLUMN, rows=2)
    lines = [
        _pair("Speed", f"{figures.speed(reading.tokens_per_s)} tok/s"),
        *(Content.styled(line, "$text-primary") for line in pace),
        _pair("Plain speed", f"{figures.speed(reading.plain_tokens_per_s)} tok/s"),
        _pair("Time to first token", ttft),
        Content(),
        _pair("Drafting", drafting_words(reading).removeprefix("draft ")),
        _pair("Tokens per round", figures.per_round(reading.tokens_per_round)),
        _pair("Acceptance", figures.percent(reading.acceptance)),
        *_positions(reading),
        Content(),
        _pair("Context", context),
        _pair("Memory", figures.size(reading.memory_bytes)),
    ]
    return Content("\n").join(lines)


def _pair(name: str, value: str) -> Content:
    return Content.assemble((name, figures.MUTED), value.rjust(_COLUMN - len(name)))


def _position_shares(reading: GaugeReading) -> list[float]:
    pairs = zip(reading.accepted_by_position, reading.drafted_by_position, strict=True)
    return [accepted / drafted for accepted, drafted in pairs if drafted]


def _position_rows(reading: GaugeReading | None) -> int:
    return len(_positions(reading)) if reading else 0


def _positions(reading: GaugeReading) -> list[Content]:
    shares = _position_shares(reading)
    if len(shares) <= _ROWS_WITHOUT_SECOND_COLUMN:
        return [_position(place, share, _COLUMN) for place, share in enumerate(shares, 1)]
    half = (len(shares) + 1) // 2
    width = (_COLUMN - 2) // 2
    cells = [_position(place, share, width) for place, share in enumerate(shares, 1)]
    return [Content("  ").join(cells[row::half]) for row in range(half)]


def _position(place: int, share: float, width: int) -> Content:
    return Content.assemble(
        (f"{place:2d} ", figures.MUTED),
        (figures.bar(share, width - 8), "$text-primary"),
        f" {figures.percent(share)}",
    )


class PanelFigures(Widget):
    """The lines of the panel. Only another number of draft positions asks for a layout."""

    ALLOW_SELECT = False

    reading: reactive[GaugeReading | None] = reactive(None)

    def watch_reading(self, old: GaugeReading | None, new: GaugeReading | None) -> None:
        """Make room for more positions, or give it back."""
        if _position_rows(old) != _position_rows(new):
            self.refresh(layout=True)

    def render(self) -> Content:
        """The last reading."""
        return Content() if self.reading is None else panel_lines(self.reading)


class GaugePanel(VerticalScroll, can_focus=False):
    """The panel at the right of the chat."""

    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__(id="gauge-panel")
        self._digits = Digits(figures.times(None).replace(figures.UNKNOWN, "-"), id="panel-speedup")
        self._caption = Static(id="panel-caption", markup=False)
        self._figures = PanelFigures(id="panel-figures")

    def compose(self) -> ComposeResult:
        """The speedup in large digits, the rest below."""
        yield Static("Speedup", id="panel-title", markup=False)
        yield self._digits
        yield self._caption
        yield self._figures

    def show(self, reading: GaugeReading) -> None:
        """Show a reading."""
        self._digits.update(figures.times(reading.speedup).replace(figures.UNKNOWN, "-"))
        self._digits.set_class(figures.is_slower(reading.speedup), "-slower")
        self._caption.update(caption(reading, key_in(self.app, "draft")), layout=False)
        self._figures.reading = reading
