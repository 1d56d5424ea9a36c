"""Links in replies: which ones may be opened, and the screen that shows a whole address before it is opened."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlsplit

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from app.tui.screens.overlay import Overlay

OPENERS = ("open", "xdg-open")
"""Commands of macOS and of Linux desktops. Python's webbrowser module may start a browser inside the terminal."""
KEYS = "enter opens it in your browser · c copies it · esc cancels"


@dataclass(frozen=True, slots=True)
class WebLink:
    """An http or https address in printable ASCII, which may be shown and opened."""

    address: str
    host: str
    """The server's name, without user name and port."""


def parse_web_link(address: str) -> WebLink | None:
    """None for an address that must not be opened. Only http and https neither run programs nor read files."""
    if not (address.isascii() and address.isprintable()) or " " in address:
        return None
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    return WebLink(address, host)


def open_in_browser(link: WebLink) -> bool:
    """False if this machine has no command that opens addresses."""
    command = next(filter(None, map(shutil.which, OPENERS)), None)
    if command is None:
        return False
    try:
        subprocess.Popen(
            [command, link.address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True


class LinkScreen(Overlay[str]):
    """Shows a whole address. Returns `open`, `copy` or an empty string."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "dismiss('open')", "Open", tooltip="opens the address in your browser"),
        Binding("c", "dismiss('copy')", "Copy", tooltip="copies the address"),
        Binding("escape", "dismiss('')", "Close", tooltip="closes this"),
    ]
    DEFAULT_CSS = """
    LinkScreen { align: center middle; }
    LinkScreen #link {
        width: 76; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; background: $panel;
    }
    LinkScreen #link-address { height: auto; max-height: 16; margin: 1 0; }
    """

    def __init__(self, link: WebLink) -> None:
        super().__init__()
        self._link = link

    def compose(self) -> ComposeResult:
        with Vertical(id="link"):
            yield Static(Content.assemble("This link leads to ", (self._link.host, "bold")), markup=False)
            with VerticalScroll(id="link-address"):
                yield Static(Content(self._link.address), markup=False)
            yield Static(Content.styled(KEYS, "$text-muted"), markup=False)
