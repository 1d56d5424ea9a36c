"""The gauge strip: the most important gauges on one line."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from app.core.gauges import PACE_SAMPLES_KEPT, GaugeReading
from app.text import figures

_GAP = 2
_MIN_SPARKLINE_CELLS = 4
_FIGURE_COUNT = 7
_SPEED_INDEX = 4
"""The sparkline follows the decode speed."""


@dataclass(frozen=True, slots=True)
class StripFigure:
    """One gauge on the strip, as it is drawn."""

    text: str
    rank: int
    """When the strip is too narrow, figures are left out by rank, highest first."""
    style: str = ""


def drafting_state(reading: GaugeReading) -> str:
    """`draft ON 4`, `draft AUTO 5`, `draft AUTO off`, `draft OFF`, `no drafter`."""
    if not reading.has_drafter:
        return "draft OFF" if reading.is_refused else "no drafter"
    if reading.draft_length != "auto":
        return f"draft ON {reading.draft_length}" if reading.draft_length else "draft OFF"
    if reading.typical_length is None:
        return "draft AUTO"
    return f"draft AUTO {reading.typical_length or 'off'}"


def strip_line(reading: GaugeReading, width: int) -> Content:
    """The strip, `width` cells wide. Figures keep their columns; the sparkline fills the remaining cells."""
    speedup = reading.drafting_speedup if reading.is_auto_off else reading.speedup
    is_slower = figures.is_slower(speedup)
    is_drafting = reading.has_drafter and reading.draft_length != 0
    context = figures.share_of(reading.context_tokens, reading.context_limit)
    strip_figures = [
        StripFigure(
            drafting_state(reading).ljust(14 if reading.draft_length == "auto" else 10),
            0,
            "bold" if is_drafting else figures.MUTED,
        ),
        StripFigure(
            figures.times(speedup) + (" (slower)" if is_slower else ""),
            1,
            "bold $text-warning" if is_slower else "bold",
        ),
        StripFigure(f"acc {figures.percent(reading.acceptance)}", 2),
        StripFigure(f"{figures.per_round(reading.tokens_per_round)} tok/rd", 4),
        StripFigure(f"{figures.speed(reading.tokens_per_s)} tok/s", 3),
        StripFigure(f"ctx {figures.percent(context).strip().rjust(3)}", 5),
        StripFigure(figures.size(reading.memory_bytes), 6),
    ]
    while len(strip_figures) > 1 and _width(strip_figures) > width:
        strip_figures.remove(max(strip_figures, key=lambda figure: figure.rank))
    shown = [Content.styled(figure.text, figure.style) for figure in strip_figures]
    free_cells = min(width - _width(strip_figures) - 1, PACE_SAMPLES_KEPT)
    if len(strip_figures) == _FIGURE_COUNT and free_cells >= _MIN_SPARKLINE_CELLS:
        sparkline = figures.sparkline(reading.pace_samples, free_cells)[0]
        shown[_SPEED_INDEX] += Content.styled(f" {sparkline}", "$text-primary")
    return Content(" " * _GAP).join(shown)


def _width(strip_figures: list[StripFigure]) -> int:
    return sum(len(figure.text) for figure in strip_figures) + _GAP * (len(strip_figures) - 1)


class GaugeStrip(Widget):
    """One line of gauges. A new reading redraws it without a new layout."""

    ALLOW_SELECT = False

    reading: reactive[GaugeReading | None] = reactive(None)

    def __init__(self) -> None:
        super().__init__(id="gauge-strip")

    def render(self) -> Content:
        return Content() if self.reading is None else strip_line(self.reading, self.content_size.width)
