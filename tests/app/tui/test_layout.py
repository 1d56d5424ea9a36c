"""What `layout` shows in windows of every size, each boundary from both sides."""

from __future__ import annotations

import pytest

from app.tui.layout import Layout, layout

WIDE, TALL = 100, 40
"""Far from every boundary of the other dimension."""

AUTOMATIC, ON, OFF = None, True, False
"""What the person wants of the gauge panel."""


def shown(room: Layout) -> str:
    """The layout in words: the class of size, then what has room."""
    size = "tiny" if room.is_tiny else "small" if room.is_small else "full"
    narrow = " narrow" if room.is_narrow else ""
    gauges = " panel" if room.has_panel else " strip" if room.has_strip else ""
    return f"{size}{narrow}{gauges}"


@pytest.mark.parametrize(
    ("width", "height", "wants_panel", "expected"),
    [
        # By width, in a tall window, with the panel left to the width.
        (1, TALL, AUTOMATIC, "tiny narrow"),
        (39, TALL, AUTOMATIC, "tiny narrow"),
        (40, TALL, AUTOMATIC, "small narrow strip"),
        (60, TALL, AUTOMATIC, "small narrow strip"),
        (61, TALL, AUTOMATIC, "full narrow strip"),
        (79, TALL, AUTOMATIC, "full narrow strip"),
        (80, TALL, AUTOMATIC, "full strip"),
        (99, TALL, AUTOMATIC, "full strip"),
        (100, TALL, AUTOMATIC, "full panel"),
        (400, TALL, AUTOMATIC, "full panel"),
        # By width, with the panel asked for.
        (39, TALL, ON, "tiny narrow"),
        (60, TALL, ON, "small narrow strip"),
        (71, TALL, ON, "full narrow strip"),
        (72, TALL, ON, "full narrow panel"),
        (79, TALL, ON, "full narrow panel"),
        (80, TALL, ON, "full panel"),
        (400, TALL, ON, "full panel"),
        # By width, with the panel refused.
        (39, TALL, OFF, "tiny narrow"),
        (40, TALL, OFF, "small narrow strip"),
        (72, TALL, OFF, "full narrow strip"),
        (100, TALL, OFF, "full strip"),
        (400, TALL, OFF, "full strip"),
        # By height, in a wide window.
        (WIDE, 1, AUTOMATIC, "tiny"),
        (WIDE, 9, AUTOMATIC, "tiny"),
        (WIDE, 10, AUTOMATIC, "small strip"),
        (WIDE, 15, AUTOMATIC, "small strip"),
        (WIDE, 16, AUTOMATIC, "full panel"),
        (WIDE, 9, ON, "tiny"),
        (WIDE, 15, ON, "small strip"),
        (WIDE, 16, ON, "full panel"),
        (WIDE, 9, OFF, "tiny"),
        (WIDE, 15, OFF, "small strip"),
        (WIDE, 16, OFF, "full strip"),
        # The smaller dimension decides.
        (39, 9, AUTOMATIC, "tiny narrow"),
        (40, 10, AUTOMATIC, "small narrow strip"),
        (60, 16, AUTOMATIC, "small narrow strip"),
        (61, 15, AUTOMATIC, "small narrow strip"),
        (61, 16, AUTOMATIC, "full narrow strip"),
        (72, 15, ON, "small narrow strip"),
        (72, 16, ON, "full narrow panel"),
        (71, 16, ON, "full narrow strip"),
        # Usual windows.
        (80, 24, AUTOMATIC, "full strip"),
        (80, 24, ON, "full panel"),
        (120, 36, AUTOMATIC, "full panel"),
        (120, 36, OFF, "full strip"),
    ],
)
def test_what_is_shown(width: int, height: int, wants_panel: bool | None, expected: str) -> None:
    assert shown(layout(width, height, wants_panel)) == expected


@pytest.mark.parametrize("wants_panel", [AUTOMATIC, ON, OFF])
def test_the_gauges_are_shown_once_or_not_at_all(wants_panel: bool | None) -> None:
    for width in range(1, 130):
        for height in range(1, 40):
            room = layout(width, height, wants_panel)
            assert room.has_panel + room.has_strip == (0 if room.is_tiny else 1), (width, height)
            assert not (room.is_tiny and room.is_small), (width, height)
