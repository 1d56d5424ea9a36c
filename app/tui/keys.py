"""Bindings made of the table of keys, and the keys as sentences on the screen name them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual.app import App
from textual.binding import Binding, BindingType

from app.settings.keys import Key, keys_of
from app.tui.terminal.safe_app import SafeApp


def bindings(table: Iterable[Key]) -> list[BindingType]:
    """Textual's bindings for a table of keys."""
    return [
        Binding(
            key.keys, key.action, key.label, id=key.id, tooltip=key.help, show=bool(key.label),
            priority=key.has_priority,
        )
        for key in table
    ]  # fmt: skip


def key_in(app: App[Any], id: str) -> str:
    """The key with this id as a sentence names it: the person's own, if there is one."""
    return keys_in(app, id)[0]


def keys_in(app: App[Any], id: str) -> tuple[str, ...]:
    """All keys with this id in a running app."""
    return keys_of(id, app.own_keys if isinstance(app, SafeApp) else {})
