"""A chart of speedup by draft length and kind of prompt, as hand-written SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil

from app.bench.report import pair_text
from app.bench.results import AUTO, EVERY_KIND, OFF, ResultRow, Results
from app.bench.rows import find_row
from app.bench.table import subjects

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 62, 150, 64, 64
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#555555")
"""Distinguishable with colour blindness (Okabe and Ito 2008); yellow is darkened for a white ground."""
LABEL_GAP = 17
"""Minimum distance between the names of two lines that end close together."""
JITTER = 5
"""Horizontal distance between the dots of neighbouring kinds, so that their intervals do not overlap."""
Point = tuple[float, float]


def as_svg(results: Results) -> str:
    """Speedups of the first main table: one line per kind of prompt, with auto apart at the right."""
    tables = subjects(results.rows)
    mode, context = tables[0] if tables else ("greedy", "short")
    rows = [row for row in results.rows if (row.mode, row.context) == (mode, context)]
    kinds = [kind for kind in dict.fromkeys(row.kind for row in rows) if kind != EVERY_KIND]
    lengths = sorted((name for name in results.method.settings if name not in (OFF, AUTO)), key=int)
    settings = [OFF, *lengths, *([AUTO] if AUTO in results.method.settings else [])]
    chart = _Chart(settings, _top([row for row in rows if row.kind in kinds]))
    parts = [chart.ground(), _title(results, mode, context)]
    ends: list[tuple[float, str, str]] = []
    for number, kind in enumerate(kinds):
        colour = COLOURS[number % len(COLOURS)]
        offset = (number - (len(kinds) - 1) / 2) * JITTER
        drawn = [find_row(rows, mode, context, kind, setting) for setting in settings]
        parts.append(chart.line(drawn, offset, colour))
        last = next((row for row in reversed(drawn) if row and row.speedup), None)
        if last and last.speedup:
            ends.append((chart.y(last.speedup.median), kind, colour))
    parts += chart.names(ends)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#222">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _top(rows: Sequence[ResultRow]) -> float:
    return max([1.5, *(row.speedup.high for row in rows if row.speedup)])


def _title(results: Results, mode: str, context: str) -> str:
    machine = results.machine
    preloaded = f", {machine.preloaded}" if machine.preloaded else ""
    subtitle = f"{pair_text(results.pair)} · {machine.chip}{preloaded} · {mode}, {context} context"
    return _text(
        LEFT - 40, 24, "Speedup by draft length and kind of prompt", 'font-size="17" font-weight="bold"'
    ) + _text(
        LEFT - 40, 44, subtitle if len(subtitle) <= 110 else subtitle[:109] + "…", 'font-size="12" fill="#555"'
    )


class _Chart:
    """Positions of settings and speedups on the picture."""

    def __init__(self, settings: Sequence[str], top: float) -> None:
        self._settings = settings
        self._step = 0.5 if top <= 3 else 1.0 if top <= 8 else ceil(top / 8)
        self._top = ceil(top / self._step) * self._step

    def x(self, setting: str) -> float:
        """Settings are spaced evenly."""
        width = WIDTH - LEFT - RIGHT
        index = self._settings.index(setting)
        return LEFT + 30 + (width - 60) * (index / max(1, len(self._settings) - 1))

    def y(self, speedup: float) -> float:
        """0 is at the bottom."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * speedup / self._top

    def ground(self) -> str:
        """Background, grid and axes."""
        parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
        for number in range(round(self._top / self._step) + 1):
            value = number * self._step
            parts.append(_rule(LEFT, WIDTH - RIGHT, self.y(value), "#e4e4e4"))
            parts.append(_text(LEFT - 8, self.y(value) + 4, f"{value:g}×", 'text-anchor="end" fill="#555"'))
        parts.append(_rule(LEFT, WIDTH - RIGHT, self.y(1), "#777", 'stroke-dasharray="5 4"'))
        for setting in self._settings:
            parts.append(_text(self.x(setting), HEIGHT - BOTTOM + 20, setting, 'text-anchor="middle"'))
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(_text(middle, HEIGHT - 18, "tokens drafted per round", 'text-anchor="middle" fill="#555"'))
        return "\n".join(parts)

    def line(self, rows: Sequence[ResultRow | None], offset: float, colour: str) -> str:
        """One kind: a line through its fixed lengths, and dots with intervals; auto is not connected."""
        parts: list[str] = []
        fixed: list[Point] = []
        for row in rows:
            if row is None or (row.speedup is None and row.setting != OFF):
                continue
            x, y = self.x(row.setting) + offset, self.y(row.speedup.median if row.speedup else 1.0)
            if row.setting != AUTO:
                fixed.append((x, y))
            if row.speedup and row.speedup.count > 1:
                parts.append(
                    f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self.y(row.speedup.low):.1f}" '
                    f'y2="{self.y(row.speedup.high):.1f}" stroke="{colour}" '
                    'stroke-opacity="0.45" stroke-width="2"/>'
                )
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in fixed)
        parts.insert(0, f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        return "\n".join(parts)

    def names(self, ends: Sequence[tuple[float, str, str]]) -> list[str]:
        """The names of the kinds, to the right of their lines and moved apart where they would overlap."""
        parts, lowest = [], float(TOP)
        for y, kind, colour in sorted(ends):
            lowest = max(y + 4, lowest)
            parts.append(_text(WIDTH - RIGHT + 12, lowest, kind, f'fill="{colour}" font-weight="bold"'))
            lowest += LABEL_GAP
        return parts


def _rule(left: float, right: float, y: float, colour: str, more: str = "") -> str:
    return f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" {more}/>'


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'
