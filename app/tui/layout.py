"""Which parts of the chat a window of a given size has room for. Plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from app.tui.bars.gauge_panel import PANEL_WIDTH

WIDE_COLUMNS = 100
"""From here on the panel replaces the strip, unless the person has chosen."""
MIN_CHAT_COLUMNS = 34
"""Beside the panel."""
PANEL_NEEDS_COLUMNS = PANEL_WIDTH + MIN_CHAT_COLUMNS
NARROW_COLUMNS = 80
"""In a narrower window the key line has no room for the palette."""
SMALL = (60, 15)
"""Columns or rows up to which there is no key line, and no frame around the prompt."""
PANEL_NEEDS_ROWS = SMALL[1] + 1
TINY = (39, 9)
"""Columns or rows up to which there is only transcript and prompt."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts that are shown."""

    is_tiny: bool
    is_small: bool
    is_narrow: bool
    has_panel: bool
    has_strip: bool


def layout(width: int, height: int, wants_panel: bool | None) -> Layout:
    """The parts that fit `width` columns and `height` rows.

    wants_panel: whether the person wants the gauge panel; None: by the width.
    """
    is_tiny = width <= TINY[0] or height <= TINY[1]
    is_panel_wanted = width >= WIDE_COLUMNS if wants_panel is None else wants_panel
    has_panel = is_panel_wanted and width >= PANEL_NEEDS_COLUMNS and height >= PANEL_NEEDS_ROWS
    return Layout(
        is_tiny=is_tiny,
        is_small=not is_tiny and (width <= SMALL[0] or height <= SMALL[1]),
        is_narrow=width < NARROW_COLUMNS,
        has_panel=has_panel,
        has_strip=not has_panel and not is_tiny,
    )
