"""A mixin for growing widgets without scrollbars, which need only one layout where Textual does two."""

from __future__ import annotations

from textual.geometry import Size
from textual.reactive import Reactive
from textual.widget import Widget


class Scrollbarless(Widget):
    """Must come before the actual widget class in the list of bases.

    Textual repeats the layout of the screen whenever the size of a widget's content changes, because scrollbars
    might now appear and leave less room. A widget that never has scrollbars does not need the second layout.
    """

    virtual_size = Reactive(Size(0, 0))
