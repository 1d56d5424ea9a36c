"""The help screen: every key, every gauge and every command."""

from __future__ import annotations

from app.core.commands import slash_table
from app.core.gauges import GAUGE_HELP
from app.settings.keys import Keymap, key_table
from app.tui.screens.table import TableScreen


def help_screen(keymap: Keymap) -> TableScreen:
    """The help, built from the same tables of keys, gauges and commands that the chat uses."""
    return TableScreen(
        [
            ("Keys", key_table(keymap)),
            ("Gauges (over the last 64 rounds)", GAUGE_HELP),
            ("Commands", slash_table(keymap)),
        ],
        is_searchable=True,
    )
