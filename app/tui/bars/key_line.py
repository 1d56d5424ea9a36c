"""The line of keys at the bottom: what each does now, and a place to click."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget


@dataclass(frozen=True, slots=True)
class ShownKey:
    """One key of the line."""

    key: str
    display: str
    description: str
    tooltip: str
    is_enabled: bool

    @property
    def content(self) -> Content:
        """As it is drawn."""
        words = Content.styled(f"{self.display} ", "bold $footer-key-foreground")
        words += Content.styled(self.description, "$footer-description-foreground")
        return words if self.is_enabled else words.stylize("dim")


class KeyLine(Widget):
    """What Textual's footer shows, in one widget.

    A footer has a widget for every key, and makes them anew whenever a binding may have changed: at every
    reply several times, each as dear as drawing a paragraph, while the engine wants the processor.
    """

    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__(id="key-line")
        self.has_palette = True
        """Whether the key of all commands is shown, at the right edge."""
        self._keys: list[ShownKey] = []
        self._palette: ShownKey | None = None

    def on_mount(self) -> None:
        """Follow the screen's bindings."""
        self.screen.bindings_updated_signal.subscribe(self, self._bindings_changed)

    def _bindings_changed(self, screen: Screen[object]) -> None:
        if screen is not self.screen:
            return
        keys: dict[str, ShownKey] = {}
        palette = None
        for _, binding, is_enabled, tooltip in screen.active_bindings.values():
            display = self.app.get_key_display(binding)
            shown = ShownKey(binding.key, display, binding.description, tooltip or binding.tooltip, is_enabled)
            if binding.action.endswith("command_palette"):
                palette = shown
            elif binding.show:
                keys.setdefault(binding.action, shown)
        if (list(keys.values()), palette) != (self._keys, self._palette):
            self._keys, self._palette = list(keys.values()), palette
            self.refresh()

    def render(self) -> Content:
        """Keys from the left, the key of all commands at the right edge."""
        keys, gap = self._fitting
        edge = self._edge
        line = Content(" ") + Content(" " * gap).join(key.content for key in keys)
        return line.truncate(max(0, self.content_size.width - edge.cell_length), pad=True) + edge

    @property
    def _fitting(self) -> tuple[list[ShownKey], int]:
        """The keys that there is room for, and the columns between them; help, the last, stays longest."""
        room = self.content_size.width - self._edge.cell_length - 1
        keys = self._keys.copy()
        while True:
            for gap in (2, 1):
                if sum(key.content.cell_length + gap for key in keys) <= room or len(keys) < 2:
                    return keys, gap
            del keys[-2]

    @property
    def _edge(self) -> Content:
        if not self.has_palette or self._palette is None:
            return Content("")
        return Content.styled("▏", "$foreground 20%") + self._palette.content + Content(" ")

    def _key_at(self, x: int) -> ShownKey | None:
        if self._palette and x >= self.content_size.width - self._edge.cell_length:
            return self._palette
        keys, gap = self._fitting
        for key in keys:
            x -= key.content.cell_length + gap
            if x < 0:
                return key
        return None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Say what the key under the pointer does."""
        if key := self._key_at(event.x):
            self.tooltip = Content(key.tooltip)
        else:
            self.tooltip = None

    def on_click(self, event: events.Click) -> None:
        """As if the key had been pressed."""
        if key := self._key_at(event.x):
            self.app.simulate_key(key.key)
