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
        words = Content.styled(f" {self.display} ", "bold $footer-key-foreground")
        words += Content.styled(f"{self.description} ", "$footer-description-foreground")
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
        """The keys from the left, as far as there is room."""
        room = self.content_size.width
        keys = Content("").join(key.content for key in self._keys)
        edge = self._edge
        return keys.truncate(max(0, room - edge.cell_length), pad=True) + edge

    @property
    def _edge(self) -> Content:
        if not self.has_palette or self._palette is None:
            return Content("")
        return Content.styled("▏", "$foreground 20%") + self._palette.content

    def _key_at(self, x: int) -> ShownKey | None:
        if self._palette and x >= self.content_size.width - self._edge.cell_length:
            return self._palette
        for key in self._keys:
            x -= key.content.cell_length
            if x < 0:
                return key
        return None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Say what the key under the pointer does."""
        key = self._key_at(event.x)
        self.tooltip = key.tooltip if key else None

    def on_click(self, event: events.Click) -> None:
        """As if the key had been pressed."""
        if key := self._key_at(event.x):
            self.app.simulate_key(key.key)
