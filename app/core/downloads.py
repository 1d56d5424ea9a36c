"""The progress of a pull as one line of text."""

from __future__ import annotations

from app.text import figures
from models.pull import PullProgress

BAR_CELLS = 20


def progress_line(event: PullProgress) -> str:
    """Share of all files, rate, time left and share of this file, in fewer than 80 cells for usual names."""
    share = event.done_bytes / event.total_bytes if event.total_bytes else 1.0
    filled = int(share * BAR_CELLS)
    bar = "█" * filled + "░" * (BAR_CELLS - filled)
    file_share = event.file_done_bytes / event.file_total_bytes if event.file_total_bytes else 1.0
    activity = "checking " if event.is_checking else ""
    rate = f" {figures.size(int(event.rate_bytes_per_s)).strip()}/s" if event.rate_bytes_per_s else ""
    left = f" {time_left(event.left_s)}" if event.left_s is not None else ""
    return f"{bar} {share:4.0%}{rate}{left}  {activity}{event.file[-30:]} {file_share:.0%}"


def time_left(seconds: float) -> str:
    """`42 s`, `3 min`, `1 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
