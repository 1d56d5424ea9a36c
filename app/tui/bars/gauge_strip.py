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
_USUAL_SPARKLINE_CELLS = 12
"""The figures of a wide strip leave this much to the sparkline."""
_SPEED_RANK, _MEMORY_RANK = 3, 6
"""The sparkline follows the decode speed, if all figures up to the memory fit."""
_SLOWER, _SLOWER_SHORT = " (slower)", "▼"


@dataclass(frozen=True, slots=True)
class StripFigure:
    """One gauge on the strip, as it is drawn."""

    text: str
    rank: int
    """When the strip is too narrow, figures are left out by rank, highest first."""
    style: str = ""


def drafting_state(reading: GaugeReading) -> str:
    """`draft ON 4`, `draft AUTO 5`, `draft AUTO off`, `draft OFF`, `no drafter`; `draft —`: a server decides."""
    if not reading.has_drafter and reading.is_served:
        return f"draft {figures.UNKNOWN}"
    if not reading.has_drafter:
        return "draft OFF" if reading.is_refused else "no drafter"
    if reading.draft_length != "auto":
        return f"draft ON {reading.draft_length}" if reading.draft_length else "draft OFF"
    if reading.typical_length is None:
        return "draft AUTO"
    return f"draft AUTO {reading.typical_length or 'off'}"


def strip_line(reading: GaugeReading, width: int) -> Content:
    """The strip, `width` cells wide. Figures keep their columns; the sparkline fills the remaining cells.

    The word for a speedup below 1 never pushes a figure out: the gaps shrink for it, or a mark replaces it.
    """
    is_slower = figures.is_slower(_speedup(reading))
    shown = _fitting(_strip_figures(reading, ""), width, _GAP)
    gap = _GAP
    if is_slower:
        kept = {figure.rank for figure in shown}
        for word, gap in ((_SLOWER, _GAP), (_SLOWER, 1), (_SLOWER_SHORT, 1)):
            shown = [figure for figure in _strip_figures(reading, word) if figure.rank in kept]
            if _width(shown, gap) <= width:
                break
        else:
            shown = _fitting(shown, width, gap)
    parts = [Content.styled(figure.text, figure.style) for figure in shown]
    free_cells = min(width - _width(shown, gap) - 1, PACE_SAMPLES_KEPT)
    if free_cells >= _MIN_SPARKLINE_CELLS and any(figure.rank == _MEMORY_RANK for figure in shown):
        sparkline = figures.sparkline(reading.pace_samples, free_cells)[0]
        speed_index = [figure.rank for figure in shown].index(_SPEED_RANK)
        parts[speed_index] += Content.styled(f" {sparkline}", "$text-primary")
    line = parts[0]
    for number, part in enumerate(parts[1:]):
        line += Content(" " * (_GAP if number == 0 else gap)) + part
    return line


def _speedup(reading: GaugeReading) -> float | None:
    return reading.drafting_speedup if reading.is_auto_off else reading.speedup


def _strip_figures(reading: GaugeReading, slower: str) -> list[StripFigure]:
    """All figures in the order of the strip. slower: follows a speedup below 1."""
    speedup = _speedup(reading)
    is_slower = figures.is_slower(speedup)
    is_drafting = reading.has_drafter and reading.draft_length != 0
    context = figures.percent(figures.share_of(reading.context_tokens, reading.context_limit)).strip().rjust(3)
    ttft = figures.UNKNOWN.rjust(4) if reading.ttft_s is None else f"{reading.ttft_s:4.2f}"
    tokens = f"{figures.thousands(reading.context_tokens)} of {figures.thousands(reading.context_limit)} tokens"
    return [
        StripFigure(
            drafting_state(reading).ljust(14 if reading.draft_length == "auto" else 10),
            0,
            "bold" if is_drafting else figures.MUTED,
        ),
        StripFigure(
            figures.times(speedup) + (slower if is_slower else ""),
            1,
            "bold $text-warning" if is_slower else "bold",
        ),
        StripFigure(f"acc {figures.percent(reading.acceptance)}", 2),
        StripFigure(f"{figures.per_round(reading.tokens_per_round)} tok/rd", 4),
        StripFigure(f"{figures.speed(reading.tokens_per_s)} tok/s", _SPEED_RANK),
        StripFigure(f"without {figures.speed(reading.plain_tokens_per_s)} tok/s", 9),
        StripFigure(f"TTFT {ttft} s", 7),
        StripFigure(f"ctx {context}", 5),
        StripFigure(tokens.ljust(19), 8),
        StripFigure(figures.size(reading.memory_bytes), _MEMORY_RANK),
    ]


def _fitting(strip_figures: list[StripFigure], width: int, gap: int) -> list[StripFigure]:
    """The figures that fit; the others are left out by rank."""
    fitting = sorted(strip_figures, key=lambda figure: figure.rank)
    while len(fitting) > 1:
        sparkline_cells = _USUAL_SPARKLINE_CELLS if fitting[-1].rank > _MEMORY_RANK else 0
        if _width(fitting, gap) + sparkline_cells <= width:
            break
        fitting.pop()
    return [figure for figure in strip_figures if figure in fitting]


def _width(strip_figures: list[StripFigure], gap: int) -> int:
    """The first gap is never smaller than usual: the drafting state stays apart from the speedup."""
    cells = sum(len(figure.text) for figure in strip_figures)
    return cells + sum(_GAP if number == 0 else gap for number in range(len(strip_figures) - 1))


class GaugeStrip(Widget):
    """One line of gauges. A new reading redraws it without a new layout."""

    ALLOW_SELECT = False

    reading: reactive[GaugeReading | None] = reactive(None)

    def __init__(self) -> None:
        super().__init__(id="gauge-strip")

    def render(self) -> Content:
        return Content() if self.reading is None else strip_line(self.reading, self.content_size.width)
