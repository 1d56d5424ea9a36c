"""The gauge strip: the figures that matter on one line."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from app.core.gauges import PACE_SAMPLES_KEPT, GaugeReading
from app.text import figures

_GAP = 2
_SHORTEST_SPARKLINE = 4
_ALL_FIELDS = 7
_PACE_PLACE = 4
"""The field the sparkline follows."""


@dataclass(frozen=True, slots=True)
class Field:
    """One figure of the strip."""

    text: str
    rank: int
    """The higher, the earlier it gives way on a narrow screen."""
    style: str = ""


def drafting_words(reading: GaugeReading) -> str:
    """`draft ON 4`, `draft AUTO 5`, `draft AUTO off`, `draft OFF`, `no drafter`."""
    if not reading.has_drafter:
        return "draft OFF" if reading.is_refused else "no drafter"
    if reading.draft_length != "auto":
        return f"draft ON {reading.draft_length}" if reading.draft_length else "draft OFF"
    if reading.usual_length is None:
        return "draft AUTO"
    return f"draft AUTO {reading.usual_length or 'off'}"


def strip_line(reading: GaugeReading, width: int) -> Content:
    """The strip at `width` cells: constant columns, the sparkline takes what is left."""
    speedup = reading.drafting_speedup if reading.is_auto_off else reading.speedup
    is_slower = figures.is_slower(speedup)
    is_drafting = reading.has_drafter and reading.draft_length != 0
    context = figures.share_of(reading.context_tokens, reading.context_limit)
    fields = [
        Field(
            drafting_words(reading).ljust(14 if reading.draft_length == "auto" else 10),
            0,
            "bold" if is_drafting else figures.MUTED,
        ),
        Field(
            figures.times(speedup) + (" slower" if is_slower else ""),
            1,
            "bold $text-warning" if is_slower else "bold",
        ),
        Field(f"acc {figures.percent(reading.acceptance)}", 2),
        Field(f"{figures.per_round(reading.tokens_per_round)} tok/rd", 4),
        Field(f"{figures.speed(reading.tokens_per_s)} tok/s", 3),
        Field(f"ctx {figures.percent(context).strip().rjust(3)}", 5),
        Field(figures.size(reading.memory_bytes), 6),
    ]
    while len(fields) > 1 and _width(fields) > width:
        fields.remove(max(fields, key=lambda field: field.rank))
    shown = [Content.styled(field.text, field.style) for field in fields]
    left = min(width - _width(fields) - 1, PACE_SAMPLES_KEPT)
    if len(fields) == _ALL_FIELDS and left >= _SHORTEST_SPARKLINE:
        pace = figures.sparkline(reading.pace_samples, left)[0]
        shown[_PACE_PLACE] += Content.styled(f" {pace}", "$text-primary")
    return Content("  ").join(shown)


def _width(fields: list[Field]) -> int:
    return sum(len(field.text) for field in fields) + _GAP * (len(fields) - 1)


class GaugeStrip(Widget):
    """One line of figures. A new reading redraws it and never asks for a layout."""

    ALLOW_SELECT = False

    reading: reactive[GaugeReading | None] = reactive(None)

    def __init__(self) -> None:
        super().__init__(id="gauge-strip")

    def render(self) -> Content:
        """The last reading, at the width there is."""
        return Content() if self.reading is None else strip_line(self.reading, self.content_size.width)
