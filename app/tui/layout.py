"""What has room on a window of some size. Plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

from app.tui.bars.gauge_panel import PANEL_WIDTH

WIDE_COLUMNS = 100
"""From here on the panel takes the place of the strip by itself."""
NARROWEST_BESIDE_PANEL = 34
PANEL_NEEDS_COLUMNS = PANEL_WIDTH + NARROWEST_BESIDE_PANEL
NARROW_COLUMNS = 80
"""Below, the footer closes up and leaves the palette out."""
SMALL = (60, 15)
"""Up to here no footer and no frame around the prompt."""
PANEL_NEEDS_ROWS = SMALL[1] + 1
TINY = (39, 9)
"""Up to here nothing but transcript and prompt."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is shown, and how closely."""

    is_tiny: bool
    is_small: bool
    is_narrow: bool
    has_panel: bool
    has_strip: bool


def layout(width: int, height: int, wants_panel: bool | None) -> Layout:
    """What fits `width` columns and `height` rows. wants_panel: None: where there is room enough."""
    is_tiny = width <= TINY[0] or height <= TINY[1]
    is_wanted = width >= WIDE_COLUMNS if wants_panel is None else wants_panel
    has_panel = is_wanted and width >= PANEL_NEEDS_COLUMNS and height >= PANEL_NEEDS_ROWS
    return Layout(
        is_tiny=is_tiny,
        is_small=not is_tiny and (width <= SMALL[0] or height <= SMALL[1]),
        is_narrow=width < NARROW_COLUMNS,
        has_panel=has_panel,
        has_strip=not has_panel and not is_tiny,
    )
