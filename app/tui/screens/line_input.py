"""A line to type into, in lists and dialogs."""

from __future__ import annotations

from textual import events
from textual.widgets import Input


class LineInput(Input):
    """Runs its keys in the order in which they were typed.

    Textual runs the action of a key only after the event has passed all widgets above, while letters that were
    typed behind it are inserted at once: ctrl+u would then delete them.
    """

    async def _on_key(self, event: events.Key) -> None:
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            if not event.is_printable and not binding.priority and await self.app.run_action(binding.action, self):
                event.stop()
                event.prevent_default()
                return
        await super()._on_key(event)
