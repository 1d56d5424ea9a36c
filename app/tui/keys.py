"""Textual bindings made from the tables of keys, and the keys that work in a running app."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from textual.app import App
from textual.binding import Binding, BindingsMap, BindingType

from app.settings.keys import Key, Keymap, key_names, keys_of
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


def prefer(bound: BindingsMap, keymap: Keymap) -> None:
    """Give the keys that a person has chosen priority over what a text area does with them."""
    for key, bindings_of_key in bound.key_to_bindings.items():
        bound.key_to_bindings[key] = [
            replace(binding, priority=True) if binding.id in keymap else binding for binding in bindings_of_key
        ]


def own_keys(app: App[Any]) -> Keymap:
    """The person's own keys in a running app."""
    return app.own_keys if isinstance(app, SafeApp) else {}


def key_in(app: App[Any], id: str) -> str:
    """The first key with this id in a running app, as sentences name it."""
    return key_names(id, own_keys(app))[0]


def keys_in(app: App[Any], id: str) -> tuple[str, ...]:
    """All keys with this id in a running app, as Textual names them."""
    return keys_of(id, own_keys(app))
