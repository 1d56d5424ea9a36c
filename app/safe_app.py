"""A Textual app that is safe with text and with the terminal. Knows nothing of chats."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text
from textual.app import App
from textual.notifications import SeverityLevel

from app.clipboard import copy_with_pbcopy
from app.crash import write_crash
from app.sanitise import sanitise, sanitise_line

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Textual leaves the terminal raw on these."""


class SafeApp(App[None]):
    """Text is plain text everywhere, NO_COLOR is honoured, and however the app ends, the terminal is restored.

    A crash prints one sentence and writes its traceback, without variables, to the log.
    """

    def __init__(self, log_path: Path | None) -> None:
        is_colourless = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if is_colourless else None)
        if is_colourless:
            self.theme = "ansi-dark"
        self._log_path = log_path

    def _on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _ENDING_SIGNALS:
            loop.add_signal_handler(number, partial(self.exit, return_code=128 + number))

    def _on_unmount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _ENDING_SIGNALS:
            loop.remove_signal_handler(number)

    def copy_to_clipboard(self, text: str) -> None:
        """By OSC 52, and by pbcopy for terminals that ignore that."""
        text = sanitise(text)
        super().copy_to_clipboard(text)
        copy_with_pbcopy(text)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """As Textual's, but always as plain text."""
        super().notify(
            sanitise(message), title=sanitise_line(title), severity=severity, timeout=timeout, markup=False
        )

    def _handle_exception(self, error: Exception) -> None:
        if not self._exit_renderables:
            self._exit_renderables.append(Text(sanitise(write_crash(error, self._log_path))))
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Without Textual's traceback, which would print what was typed."""
        self._close_messages_no_wait()

    def panic(self, *renderables: RenderableType) -> None:
        """The sentence of `_handle_exception` is all that is printed."""
        self._close_messages_no_wait()
