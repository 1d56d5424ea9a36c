"""The terminal disappears without a signal: its window was closed, or its connection lost."""

from __future__ import annotations

from threading import Thread
from typing import Any

from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread

from app.tui.terminal.driver import TerminalOutput
from tests.patience import PATIENCE_S


class GoneTerminal:
    """Fails at every write, like a terminal whose other end is closed."""

    def __init__(self) -> None:
        self.tries = 0

    def write(self, text: str) -> None:
        self.tries += 1
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")

    def fileno(self) -> int:
        return 2


def test_output_is_dropped_and_nothing_waits() -> None:
    terminal: Any = GoneTerminal()
    writer: Any = WriterThread(TerminalOutput(terminal))  # type: ignore[arg-type]
    writer.start()

    def draw() -> None:
        for _ in range(MAX_QUEUED_WRITES * 3):
            writer.write("a frame")
        writer.stop()

    drawing = Thread(target=draw, daemon=True)
    drawing.start()
    drawing.join(PATIENCE_S)
    assert not drawing.is_alive()
    assert terminal.tries == MAX_QUEUED_WRITES * 3
