"""The help screen: every key, every gauge and every command."""

from __future__ import annotations

from app.core.commands import slash_table
from app.settings.keys import Keymap, key_table
from app.tui.screens.table import TableScreen

GAUGES = (
    ("draft ON 4", "drafting is on: the drafter proposes up to 4 tokens per round (at most 16)"),
    (
        "draft AUTO 4",
        "picks the draft length that is fastest right now, and stops drafting when it does not help",
    ),
    (
        "1.82×",
        "speedup: tokens/s now / tokens/s without drafting, measured on this machine in occasional rounds without "
        "drafting; — until measured, (slower) below 1.00",
    ),
    ("acc", "acceptance: accepted drafts / drafted tokens"),
    ("tok/rd", "tokens per round: tokens written / passes of the main model; 1.0 without drafting"),
    ("tok/s", "decode speed: tokens per second once the prompt has been read; the bars show its recent values"),
    ("TTFT", "time to first token: from sending the message to the first token, reading the prompt included"),
    ("ctx", "context: the share of the model's context that this chat uses"),
    ("GB", "memory that the engine uses"),
)


def help_screen(keymap: Keymap) -> TableScreen:
    """The help, built from the same tables of keys and commands that the chat uses."""
    return TableScreen(
        [
            ("Keys", key_table(keymap)),
            ("Gauges (over the last 64 rounds)", GAUGES),
            ("Commands", slash_table(keymap)),
        ]
    )
