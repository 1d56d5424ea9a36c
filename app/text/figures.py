"""Figures as text and bars of constant width, so that nothing on the screen moves. No arithmetic about speed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

UNKNOWN = "—"
MUTED = "dim"
"""The style for secondary text; `$text-muted` has no effect inside a text."""
DAYS_WITH_NAMES = 6
"""An older day has its date: a week ago has the same name as today."""
_BLOCKS = "▁▂▃▄▅▆▇█"


def speed(tokens_per_s: float | None) -> str:
    """Four characters: `58.3`, ` 142`, `   —`."""
    if tokens_per_s is None:
        return UNKNOWN.rjust(4)
    return f"{tokens_per_s:4.1f}" if tokens_per_s < 99.95 else f"{tokens_per_s:4.0f}"


def times(speedup: float | None) -> str:
    """Five characters: `1.82×`, `    —`."""
    if speedup is None:
        return UNKNOWN.rjust(5)
    return f"{speedup:4.2f}×" if speedup < 9.995 else f"{speedup:4.1f}×"


def is_slower(speedup: float | None) -> bool:
    """Whether drafting is slower than not drafting, at two decimals."""
    return speedup is not None and round(speedup, 2) < 1.0


def percent(share: float | None) -> str:
    """Four characters: ` 71%`, `100%`, `   —`."""
    return UNKNOWN.rjust(4) if share is None else f"{share:4.0%}"


def per_round(tokens: float | None) -> str:
    """Three characters (four from 10 on): `2.9`."""
    return UNKNOWN.rjust(3) if tokens is None else f"{tokens:3.1f}"


def size(count_bytes: int | None) -> str:
    """Seven characters: `17.2 GB`, ` 106 GB`, `  48 MB`."""
    if count_bytes is None:
        return f"{UNKNOWN} GB".rjust(7)
    if count_bytes < 1e9:
        return f"{count_bytes / 1e6:.0f} MB".rjust(7)
    digits = 1 if count_bytes < 99.95e9 else 0
    return f"{count_bytes / 1e9:.{digits}f} GB".rjust(7)


def local_time(moment_s: float) -> datetime | None:
    """Seconds since 1970 as local time; None if no calendar has that time, as after importing bad data."""
    try:
        return datetime.fromtimestamp(moment_s)
    except (ValueError, OverflowError, OSError):
        return None


def day(moment_s: float, now: datetime | None = None) -> str:
    """Fifteen characters: `Today     14:05`, `Wednesday 14:05`, `27 Nov    14:05`, `27 Nov     2025`."""
    when = local_time(moment_s)
    if when is None:
        return UNKNOWN.rjust(15)
    now = now or datetime.now()
    days_ago = (now.date() - when.date()).days
    if 0 <= days_ago < DAYS_WITH_NAMES:
        name = ("Today", "Yesterday")[days_ago] if days_ago < 2 else f"{when:%A}"
        return f"{name:<9} {when:%H:%M}"
    return f"{when:%d %b}    {when:%H:%M}" if when.year == now.year else f"{when:%d %b}     {when:%Y}"


def thousands(count: int | None) -> str:
    """`812`, `3.1k`, `128k`."""
    if count is None:
        return UNKNOWN
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < 100_000 else f"{count / 1000:.0f}k"


def share_of(part: int | None, whole: int | None) -> float | None:
    """part / whole; None if either is unknown or the whole is 0."""
    return part / whole if part is not None and whole else None


def sparkline(samples: Sequence[float], width: int, rows: int = 1) -> list[str]:
    """The last `width` samples as `rows` lines of bars, scaled to the highest sample, newest at the right."""
    shown = list(samples[-width:]) if width > 0 else []
    top = max(shown, default=0.0)
    lines = []
    for row in reversed(range(rows)):
        line = ""
        for sample in shown:
            eighths = round(sample / top * (rows * 8 - 1)) + 1 - row * 8 if top > 0 else 1 - row * 8
            line += " " if eighths <= 0 else _BLOCKS[min(eighths, 8) - 1]
        lines.append(line.rjust(width))
    return lines


def bar(share: float, width: int) -> str:
    """`width` cells: heavy up to `share`, then light."""
    full = max(0, min(round(share * width), width))
    return "━" * full + "─" * (width - full)
