"""Addresses in texts: which may be opened at all, and only after a look at the whole."""

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
from textual.screen import ModalScreen
from textual.widgets import Static

OPENERS = ("open", "xdg-open")
"""Of macOS and of Linux desktops. Python's own module may start a browser inside the terminal."""
KEYS = "enter: open in the browser · c: copy · escape: neither"


@dataclass(frozen=True, slots=True)
class Link:
    """An address that may be shown and opened: http or https, in printable ASCII."""

    address: str
    host: str
    """Whom one would talk to, without user name and port."""


def read_link(address: str) -> Link | None:
    """None: not to be opened. Everything but http and https starts programs or reads files."""
    if not (address.isascii() and address.isprintable()) or " " in address:
        return None
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host:
        return None
    return Link(address, host)


def open_in_browser(link: Link) -> bool:
    """Whether something on this machine took the address."""
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


class LinkScreen(ModalScreen[str]):
    """Shows a whole address; returns `open`, `copy` or nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "dismiss('open')", "Open", tooltip="opens the address in the browser"),
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

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def compose(self) -> ComposeResult:
        """Whom it leads to, the address in full, and the keys."""
        with Vertical(id="link"):
            yield Static(Content.assemble("This leads to ", (self._link.host, "bold")), markup=False)
            with VerticalScroll(id="link-address"):
                yield Static(Content(self._link.address), markup=False)
            yield Static(Content.styled(KEYS, "$text-muted"), markup=False)
