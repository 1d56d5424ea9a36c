"""A Textual app that is safe with text and with the terminal. Knows nothing of chats."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text
from textual import on
from textual.app import App
from textual.driver import Driver
from textual.filter import LineFilter
from textual.notifications import SeverityLevel

from app.system.clipboard import copy_with_pbcopy
from app.system.crash import write_crash
from app.text.sanitise import sanitise, sanitise_line
from app.tui.screens.link import LinkScreen, WebLink, open_in_browser, parse_web_link
from app.tui.terminal.barrier import Barrier
from app.tui.terminal.contrast import readable
from app.tui.terminal.driver import TerminalDriver
from app.tui.transcript.text_block import TextBlock

LONGEST_SHOWN = 200
"""Characters of an address that is refused."""


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
        self._barrier = Barrier()
        self.own_keys: Mapping[str, str] = {}
        """The keys that are not the usual ones, by the id of what they do; sentences name them."""

    def get_css_variables(self) -> dict[str, str]:
        """Textual's own, with colours of texts that can be read."""
        variables = super().get_css_variables()
        self.theme_variables = readable(variables, is_dark=self.current_theme.dark)
        return self.theme_variables

    def fitting_theme(self, name: str) -> str:
        """A theme, or one of the terminal's own colours, as dark, where only those 16 can be shown.

        Of other colours, text and ground would come out alike.
        """
        if self.console.color_system != "standard":
            return name
        return "ansi-dark" if self.available_themes[name].dark else "ansi-light"

    def get_driver_class(self) -> type[Driver]:
        """The driver that gives the terminal back as it was."""
        return TerminalDriver

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's own, and after them the barrier."""
        return (*super().get_line_filters(), self._barrier)

    def open_url(self, url: str, *, new_tab: bool = True) -> None:
        """Nothing is opened before the person has seen the whole address; only http and https are offered."""
        link = parse_web_link(url)
        if link is None:
            self.notify(f"Not opened, because it is no http or https address: {url[:LONGEST_SHOWN]}")
        else:
            self.push_screen(LinkScreen(link), partial(self._link_seen, link))

    @on(TextBlock.LinkClicked)
    def _link_clicked(self, event: TextBlock.LinkClicked) -> None:
        self.open_url(event.address)

    def _link_seen(self, link: WebLink, choice: str | None) -> None:
        if choice == "copy":
            self.copy_to_clipboard(link.address)
            self.notify("Copied the address.")
        elif choice == "open" and not open_in_browser(link):
            self.notify("No browser was found here; c copies the address.", severity="warning")

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
        """One sentence is all that is printed: that of `_handle_exception`, or this one."""
        self._return_code = 1
        if not self._exit_renderables:
            self._exit_renderables.append(Text("Slipstream ended: the terminal could not be read."))
        self._close_messages_no_wait()
