"""The keys that move through a list while an input above it keeps the focus."""

from __future__ import annotations

from collections.abc import Callable

from textual.binding import Binding, BindingType
from textual.widgets import OptionList

MOVE_KEYS: tuple[BindingType, ...] = tuple(
    Binding(key, f"move('{direction}')", show=False)
    for key, direction in (("down", "down"), ("up", "up"), ("pagedown", "page_down"), ("pageup", "page_up"))
)


def move_highlight(options: OptionList, direction: str) -> None:
    """Move the highlight. direction: as in MOVE_KEYS."""
    moves: dict[str, Callable[[], None]] = {
        "down": options.action_cursor_down,
        "up": options.action_cursor_up,
        "page_down": options.action_page_down,
        "page_up": options.action_page_up,
    }
    moves[direction]()
