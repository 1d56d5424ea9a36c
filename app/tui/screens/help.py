"""The help: every key, every command, and what each gauge means."""

from __future__ import annotations

from app.core.commands import slash_table
from app.settings.keys import Keymap, changed_keys, key_table
from app.tui.screens.table import TableScreen

GAUGES = (
    ("draft ON 4", "drafting is on; up to 4 tokens are drafted per round (at most 16)"),
    ("draft AUTO 4", "as many tokens are drafted as pay, by what the rounds cost and bring; off where none do"),
    (
        "1.82×",
        "speedup: tokens/s now / plain tokens/s measured on this machine with drafting off, by a few plain "
        "rounds that the engine makes now and then and whose time counts too; — until there are enough of them; "
        "below 1.00 it says slower",
    ),
    ("acc", "acceptance: accepted drafts / drafted tokens"),
    ("tok/rd", "tokens per round: tokens committed / target passes; 1.0 without drafting"),
    ("tok/s", "decode speed, the prompt not counted; the bars show how it went"),
    ("TTFT", "time to first token: from submit to the first committed token, prefill included"),
    ("ctx", "context: tokens used of the model's context"),
    ("GB", "memory: what the engine holds"),
)


def help_screen(keymap: Keymap) -> TableScreen:
    """All of it, from the tables that the chat itself works by."""
    return TableScreen(
        [
            ("Keys", key_table(keymap)),
            ("Gauges, over the last 64 rounds", GAUGES),
            ("Commands", slash_table(changed_keys(keymap))),
        ]
    )
