"""Calls a person back to the window, if they have asked for it and look at another one."""

from __future__ import annotations

from typing import Any

from textual.app import App

from app.settings.table import Notify
from app.text.sanitise import sanitise_line


def call_attention(app: App[Any], kind: Notify, text: str) -> None:
    """Ring the terminal's bell, or show `text` in a notification, while another window has the focus."""
    if app.app_focus:
        return
    if kind == "bell":
        app.bell()
    elif kind == "notification" and app._driver is not None:
        # OSC 9: iTerm2, WezTerm, Ghostty, kitty and Windows Terminal show it, others ignore it.
        app._driver.write(f"\x1b]9;{sanitise_line(text)}\x07")
