"""A line to type into, in lists and dialogs."""

from __future__ import annotations

from textual import events
from textual.widgets import Input


class LineInput(Input):
    """Runs keys in the order in which they were typed: its own, and those of the screen around it.

    Textual runs the action of a key only after the event has passed all widgets above, while letters that were
    typed behind it are inserted at once: ctrl+u would then delete them, and enter overtake an arrow before it.
    """

    async def _on_key(self, event: events.Key) -> None:
        for node, bindings in () if event.is_printable else self.screen._modal_binding_chain:
            for binding in bindings.key_to_bindings.get(event.key, ()):
                if not binding.priority and await self.app.run_action(binding.action, node):
                    event.stop()
                    event.prevent_default()
                    return
        await super()._on_key(event)
