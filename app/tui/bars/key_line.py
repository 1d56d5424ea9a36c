"""The key line at the bottom of a screen: what each key does there now. A click on a key presses it."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget


@dataclass(frozen=True, slots=True)
class ShownKey:
    """One key on the line."""

    key: str
    display: str
    description: str
    tooltip: str
    is_enabled: bool

    @property
    def content(self) -> Content:
        """Key and label, dimmed while the key does nothing."""
        text = Content.styled(f"{self.display} ", "bold $footer-key-foreground")
        text += Content.styled(self.description, "$footer-description-foreground")
        return text if self.is_enabled else text.stylize("dim")


class KeyLine(Widget):
    """Replaces Textual's footer with a single widget.

    The footer has one widget per key and rebuilds all of them whenever a binding may have changed. That happens
    several times per reply, costs as much as drawing a paragraph, and takes processor time from the engine.
    """

    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__(classes="key-line")
        self.has_palette = True
        """Whether the command palette's key is shown at the right edge."""
        self._keys: list[ShownKey] = []
        self._palette: ShownKey | None = None

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._bindings_changed)
        self.app.screen_change_signal.subscribe(self, self._bindings_changed)
        self._bindings_changed(self.app.screen)

    def _bindings_changed(self, screen: Screen[object]) -> None:
        """screen: the one in front. If it is another one, this line is behind it."""
        if screen is not self.screen or screen is not self.app.screen:
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
        """Keys from the left; the command palette's key at the right edge."""
        keys, gap = self._fitting_keys
        edge = self._palette_key
        line = Content(" ") + Content(" " * gap).join(key.content for key in keys)
        return line.truncate(max(0, self.content_size.width - edge.cell_length), pad=True) + edge

    @property
    def _fitting_keys(self) -> tuple[list[ShownKey], int]:
        """The keys that fit, and the cells between them. The last one, help, is dropped last."""
        room = self.content_size.width - self._palette_key.cell_length - 1
        keys = self._keys.copy()
        while True:
            for gap in (2, 1):
                if sum(key.content.cell_length + gap for key in keys) <= room or len(keys) < 2:
                    return keys, gap
            del keys[-2]

    @property
    def _palette_key(self) -> Content:
        if not self.has_palette or self._palette is None:
            return Content("")
        return Content.styled("▏", "$foreground 20%") + self._palette.content + Content(" ")

    def _key_at(self, x: int) -> ShownKey | None:
        if self._palette and x >= self.content_size.width - self._palette_key.cell_length:
            return self._palette
        keys, gap = self._fitting_keys
        for key in keys:
            x -= key.content.cell_length + gap
            if x < 0:
                return key
        return None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Explain the key under the pointer in a tooltip."""
        if key := self._key_at(event.x):
            self.tooltip = Content(key.tooltip)
        else:
            self.tooltip = None

    def on_click(self, event: events.Click) -> None:
        if key := self._key_at(event.x):
            self.app.simulate_key(key.key)
