"""Widgets that grow without having the whole screen laid out twice."""

from __future__ import annotations

from textual.geometry import Size
from textual.reactive import Reactive
from textual.widget import Widget


class LaidOutOnce(Widget):
    """To be named before the widget that is meant.

    Textual lays everything out again whenever what a widget holds has changed its size: there might be scrollbars
    now, and less room beside them. Widgets that never have any lose nothing by one layout alone.
    """

    virtual_size = Reactive(Size(0, 0))
