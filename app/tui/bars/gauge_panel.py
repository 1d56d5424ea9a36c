"""The gauge panel: speedup in large digits, the other gauges, and acceptance by draft position."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Digits, Static

from app.core.gauges import GaugeReading
from app.text import figures
from app.tui.bars.gauge_strip import drafting_state
from app.tui.keys import key_in

PANEL_WIDTH = 38
_COLUMN = 34
"""Cells for text: the panel width without border and padding."""
_MOST_DRAFTERS = 2
"""A low window has no room for more."""
_MAX_SINGLE_COLUMN_ROWS = 4
"""Up to this many draft positions are listed one per line, more in two columns."""


def caption(reading: GaugeReading, key: str) -> Content:
    """The line that explains the speedup above it. key: turns drafting on and off."""
    if reading.is_refused:
        return Content.styled(f"drafter refused · {key}: why", "$text-warning")
    is_off = reading.has_drafter and not reading.draft_length
    if reading.is_served and reading.speedup is None and not is_off:
        has_replied = reading.ttft_s is not None
        return Content.styled(
            "this server does not report it" if has_replied else "not measured yet", figures.MUTED
        )
    if not reading.has_drafter:
        return Content.styled("this model has no drafter", figures.MUTED)
    if not reading.draft_length:
        return Content.styled(f"drafting is off · {key}: on", figures.MUTED)
    if reading.is_auto_off and figures.is_slower(reading.drafting_speedup):
        speedup = figures.times(reading.drafting_speedup).strip()
        return Content.styled(f"auto is off: {speedup} (slower)", "$text-warning")
    if reading.is_auto_off:
        return Content.styled("auto is off: no gain from drafting", figures.MUTED)
    if reading.speedup is None:
        return Content.styled("not measured yet", figures.MUTED)
    if figures.is_slower(reading.speedup):
        return Content.styled(f"slower · {key}: drafting off", "$text-warning")
    return Content.styled("the speed without drafting", figures.MUTED)


def panel_lines(reading: GaugeReading) -> Content:
    """All gauges below the large digits. In a low window the last rows are cut off."""
    context_share = figures.share_of(reading.context_tokens, reading.context_limit)
    context = (
        f"{figures.thousands(reading.context_tokens)} of {figures.thousands(reading.context_limit)}"
        f" {figures.percent(context_share)}"
    )
    ttft = figures.UNKNOWN if reading.ttft_s is None else f"{reading.ttft_s:.2f} s"
    seen_here = " seen here" if reading.is_served else ""
    sparkline = figures.sparkline(reading.pace_samples, _COLUMN, rows=2)
    lines = [
        _gauge_line(f"Speed{seen_here}", f"{figures.speed(reading.tokens_per_s)} tok/s"),
        *(Content.styled(line, "$text-primary") for line in sparkline),
        _gauge_line("Speed without drafting", f"{figures.speed(reading.plain_tokens_per_s)} tok/s"),
        _gauge_line("First token seen here" if reading.is_served else "Time to first token", ttft),
        _gauge_line("Prompt", _prompt_sources(reading)),
        _gauge_line("Context", context),
        _gauge_line("Memory", figures.size(reading.memory_bytes)),
        Content(),
        _gauge_line("Drafting", drafting_state(reading).removeprefix("draft ")),
        _gauge_line("Tokens per round", figures.per_round(reading.tokens_per_round)),
        _gauge_line("Acceptance", figures.percent(reading.acceptance)),
        *_drafter_lines(reading),
        *_position_rows(reading),
    ]
    return Content("\n").join(lines)


def _prompt_sources(reading: GaugeReading) -> str:
    """`4.0k disk + 22 read`. In practice no prompt comes from both memory and disk."""
    if reading.prompt is None:
        return figures.UNKNOWN
    prompt = reading.prompt
    parts = {"kept": prompt.memory_tokens, "disk": prompt.disk_tokens, "read": prompt.read_tokens}
    return " + ".join(f"{figures.thousands(count)} {source}" for source, count in parts.items() if count)


def _gauge_line(name: str, value: str) -> Content:
    return Content.assemble((name, figures.MUTED), value.rjust(_COLUMN - len(name)))


def _drafter_lines(reading: GaugeReading) -> list[Content]:
    """Which drafters the accepted tokens came from, if there is a choice."""
    return [
        _gauge_line(f"Accepted from {name}", figures.percent(share))
        for name, share in reading.accepted_share[:_MOST_DRAFTERS]
    ]


def _acceptance_by_position(reading: GaugeReading) -> list[float]:
    counts = zip(reading.accepted_by_position, reading.drafted_by_position, strict=True)
    return [accepted / drafted for accepted, drafted in counts if drafted]


def _changing_row_count(reading: GaugeReading | None) -> int:
    """The rows that are not always there."""
    return len(_drafter_lines(reading)) + len(_position_rows(reading)) if reading else 0


def _position_rows(reading: GaugeReading) -> list[Content]:
    shares = _acceptance_by_position(reading)
    if len(shares) <= _MAX_SINGLE_COLUMN_ROWS:
        return [_position_cell(position, share, _COLUMN) for position, share in enumerate(shares, 1)]
    row_count = (len(shares) + 1) // 2
    width = (_COLUMN - 2) // 2
    cells = [_position_cell(position, share, width) for position, share in enumerate(shares, 1)]
    return [Content("  ").join(cells[row::row_count]) for row in range(row_count)]


def _position_cell(position: int, share: float, width: int) -> Content:
    return Content.assemble(
        (f"{position:2d} ", figures.MUTED),
        (figures.bar(share, width - 8), "$text-primary"),
        f" {figures.percent(share)}",
    )


class PanelFigures(Widget):
    """The gauges below the large digits. A new reading needs a layout only when the number of its rows changes."""

    ALLOW_SELECT = False

    reading: reactive[GaugeReading | None] = reactive(None)

    def watch_reading(self, old: GaugeReading | None, new: GaugeReading | None) -> None:
        """Ask for a layout when the number of rows changes."""
        if _changing_row_count(old) != _changing_row_count(new):
            self.refresh(layout=True)

    def render(self) -> Content:
        return Content() if self.reading is None else panel_lines(self.reading)


class GaugePanel(VerticalScroll, can_focus=False):
    """All gauges, to the right of the chat."""

    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__(id="gauge-panel")
        self._digits = Digits(figures.times(None).replace(figures.UNKNOWN, "-"), id="panel-speedup")
        self._caption = Static(id="panel-caption", markup=False)
        self._figures = PanelFigures(id="panel-figures")

    def compose(self) -> ComposeResult:
        yield Static("Speedup", id="panel-title", markup=False)
        yield self._digits
        yield self._caption
        yield self._figures

    def show(self, reading: GaugeReading) -> None:
        self._digits.update(figures.times(reading.speedup).replace(figures.UNKNOWN, "-"))
        self._digits.set_class(figures.is_slower(reading.speedup), "-slower")
        self._caption.update(caption(reading, key_in(self.app, "draft")), layout=False)
        self._figures.reading = reading
