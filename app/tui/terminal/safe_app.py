"""A Textual app that never lets text control the terminal, and always restores it. Knows nothing about chats."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text
from textual import on
from textual.app import App
from textual.driver import Driver
from textual.filter import LineFilter
from textual.notifications import SeverityLevel
from textual.worker import WorkerFailed

from app.settings.table import Notify
from app.system.clipboard import copy_with_pbcopy
from app.system.crash import write_crash
from app.text.sanitise import sanitise, sanitise_line
from app.tui.screens.link import LinkScreen, WebLink, open_in_browser, parse_web_link
from app.tui.terminal.barrier import Barrier
from app.tui.terminal.contrast import readable
from app.tui.terminal.driver import TerminalDriver
from app.tui.terminal.readable_text import ReadableText
from app.tui.transcript.text_block import TextBlock

MAX_SHOWN_CHARACTERS = 200
"""Of a refused address, in the notice about it."""


class SafeApp(App[None]):
    """Shows text as plain text everywhere, honours NO_COLOR, and restores the terminal however it ends.

    A crash prints one sentence and writes a traceback without variables to the log.
    """

    def __init__(self, log_path: Path | None) -> None:
        is_colourless = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if is_colourless else None)
        if is_colourless:
            self.theme = "ansi-dark"
        self._log_path = log_path
        self._last_filters = (ReadableText(), Barrier())
        self.own_keys: Mapping[str, str] = {}
        """The person's own keys by the id of their action, for sentences that name a key."""

    def get_css_variables(self) -> dict[str, str]:
        """Textual's variables, with readable text colours."""
        variables = super().get_css_variables()
        self.theme_variables = readable(variables, is_dark=self.current_theme.dark)
        return self.theme_variables

    def fitting_theme(self, name: str) -> str:
        """The theme `name`, or an ANSI theme, dark or light alike, where the terminal has only its own 16 colours.

        With other colours, text and background could become the same.
        """
        if self.console.color_system != "standard":
            return name
        return "ansi-dark" if self.available_themes[name].dark else "ansi-light"

    def get_driver_class(self) -> type[Driver]:
        return TerminalDriver

    def post_display_hook(self) -> None:
        """Take input from the first frame on; while widgets are being mounted, Textual draws nothing yet."""
        if isinstance(self._driver, TerminalDriver) and not self._batch_count:
            self._driver.release_input()

    def ask_background(self, tell: Callable[[bool], None]) -> None:
        """Ask the terminal whether its background is light. `tell` is called when it answers, if it does."""
        if isinstance(self._driver, TerminalDriver) and os.environ.get("TERM") != "linux":
            self._driver.ask_background(tell)

    def call_attention(self, kind: Notify, text: str) -> None:
        """Ring the bell or let the terminal show `text`, while another window has the focus."""
        if self.app_focus:
            return
        if kind == "bell":
            self.bell()
        elif kind == "notification" and self._driver is not None:
            # OSC 9: iTerm2, WezTerm, Ghostty, kitty and Windows Terminal show it, others ignore it.
            self._driver.write(f"\x1b]9;{sanitise_line(text)}\x07")

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's filters, and those after them that make texts readable and safe."""
        return (*super().get_line_filters(), *self._last_filters)

    def open_url(self, url: str, *, new_tab: bool = True) -> None:
        """Show the whole address and open it only after a confirmation; refuse all but http and https."""
        link = parse_web_link(url)
        if link is None:
            self.notify(f"Not opened, because it is not an http or https link: {url[:MAX_SHOWN_CHARACTERS]}")
        else:
            self.push_screen(LinkScreen(link), partial(self._link_confirmed, link))

    @on(TextBlock.LinkClicked)
    def _link_clicked(self, event: TextBlock.LinkClicked) -> None:
        self.open_url(event.address)

    def _link_confirmed(self, link: WebLink, choice: str | None) -> None:
        if choice == "copy":
            self.copy_to_clipboard(link.address)
            self.notify("Link copied.")
        elif choice == "open" and not open_in_browser(link):
            self.notify("No browser found. Click the link again and press c to copy it.", severity="warning")

    def copy_to_clipboard(self, text: str) -> None:
        """Copy through OSC 52, and through pbcopy for terminals that ignore OSC 52."""
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
        """Show a notice as plain text, whatever `markup` says. It replaces one that differs in numbers alone."""
        text = sanitise(message)
        for earlier in list(self._notifications):
            if _without_numbers(earlier.message) == _without_numbers(text):
                self._unnotify(earlier, refresh=False)
        super().notify(text, title=sanitise_line(title), severity=severity, timeout=timeout, markup=False)

    def _handle_exception(self, error: Exception) -> None:
        if self._exit:
            # The widgets disappear under what still runs: a consequence of ending, and no crash.
            self._close_messages_no_wait()
            return
        if not self._exit_renderables:
            if isinstance(error, WorkerFailed) and isinstance(error.error, Exception):
                error = error.error  # which has the traceback
            self._exit_renderables.append(Text(sanitise(write_crash(error, self._log_path))))
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """End without Textual's traceback, which would print typed text."""
        self._close_messages_no_wait()

    def panic(self, *renderables: RenderableType) -> None:
        """Print only one sentence: that of `_handle_exception`, or this one."""
        self._return_code = 1
        if not self._exit_renderables:
            self._exit_renderables.append(Text("Slipstream stopped because it could not read from the terminal."))
        self._close_messages_no_wait()


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+", "0", text)
