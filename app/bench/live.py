"""The growing table, redrawn in place on a terminal. Draws nothing elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import IO

from app.bench import table
from app.bench.rows import make_rows
from app.bench.runner import BenchProgress, Measured
from app.text.sanitise import sanitise_line

BAR_WIDTH = 24
CLEAR_BELOW = "\x1b[J"


class LiveTable:
    """A table that overwrites its previous state."""

    def __init__(self, screen: IO[str] | None, settings: Sequence[str]) -> None:
        """screen: a terminal, or None to draw nothing."""
        self._screen = screen
        self._settings = settings
        self._drawn_lines = 0
        self._rows_of = -1
        self._table: list[str] = []

    def draw(self, progress: BenchProgress, measured: Measured) -> None:
        """Draw the progress and the latest figures."""
        if self._screen is None:
            return
        if self._rows_of != len(measured.replies):
            self._rows_of = len(measured.replies)
            self._table = self._newest_table(measured)
        self._put([progress_line(progress), sanitise_line(progress.doing), "", *self._table, "", HOW_TO_STOP])

    def clear(self) -> None:
        """Erase the table from the screen."""
        self._put([])

    def _newest_table(self, measured: Measured) -> list[str]:
        if not measured.replies:
            return [table.HEAD]
        newest = measured.replies[-1]
        rows = make_rows(measured.replies, self._settings)
        head = f"{newest.mode.capitalize()}, {newest.context} context, all kinds of prompts so far"
        return [head, "", *table.main_table(rows, newest.mode, newest.context)]

    def _put(self, lines: Sequence[str]) -> None:
        if self._screen is None:
            return
        # Lines that wrap, or more lines than the screen has, could not be overwritten.
        size = shutil.get_terminal_size()
        shown = [line[: size.columns - 1] for line in lines[: size.lines - 1]]
        up = f"\x1b[{self._drawn_lines}A" if self._drawn_lines else ""
        self._screen.write(f"{up}\r{CLEAR_BELOW}" + "".join(f"{line}\n" for line in shown))
        self._screen.flush()
        self._drawn_lines = len(shown)


HOW_TO_STOP = "ctrl+c stops; the measurements so far are kept."


def progress_line(progress: BenchProgress) -> str:
    """A bar, the position in the pass, and the time left."""
    share = progress.elapsed_s / max(progress.elapsed_s + progress.left_s, 1e-9)
    return (
        f"{table.bar(share, BAR_WIDTH)} pass {progress.passes_done + 1}, "
        f"block {min(progress.blocks_done + 1, progress.blocks)} of {progress.blocks}, "
        f"at most {duration(progress.left_s)} left"
    )


def duration(seconds: float) -> str:
    """`45 s`, `3:05 min`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60}:{whole % 60:02} min"
