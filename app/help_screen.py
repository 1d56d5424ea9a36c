"""The help: every key, and what each gauge means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from app.keys import key_table

GAUGES = (
    ("draft ON 4", "drafting is on; up to 4 tokens are drafted per round (at most 16)"),
    ("draft AUTO 4", "as many tokens are drafted as pay, by what the rounds cost and bring; off where none do"),
    (
        "1.82×",
        "speedup: tokens/s now / plain tokens/s measured on this machine with drafting off, by a few plain "
        "rounds that the engine makes now and then; — until there are enough of them; below 1.00 it says slower",
    ),
    ("acc", "acceptance: accepted drafts / drafted tokens"),
    ("tok/rd", "tokens per round: tokens committed / target passes; 1.0 without drafting"),
    ("tok/s", "decode speed, the prompt not counted; the bars show how it went"),
    ("TTFT", "time to first token: from submit to the first committed token, prefill included"),
    ("ctx", "context: tokens used of the model's context"),
    ("GB", "memory: what the engine holds"),
)


class HelpScreen(ModalScreen[None]):
    """Keys and gauges in words, over the chat."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,q", "dismiss", "Close", tooltip="closes the help")]

    def compose(self) -> ComposeResult:
        """Two tables, scrollable where the window is small."""
        with VerticalScroll(id="help"):
            yield Static("Keys", classes="help-title", markup=False)
            yield from _table(key_table())
            yield Static("Gauges, over the last 64 rounds", classes="help-title", markup=False)
            yield from _table(GAUGES)
            yield Static("escape closes this", classes="help-close", markup=False)


def _table(rows: Iterable[tuple[str, str]]) -> ComposeResult:
    with Grid(classes="help-table"):
        for name, meaning in rows:
            yield Static(name, classes="help-name", markup=False)
            yield Static(meaning, markup=False)
