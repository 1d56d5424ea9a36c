"""A line to type into, in lists and dialogs."""

from __future__ import annotations

from textual import events
from textual.widgets import Input


class LineInput(Input):
    """Runs keys in the order in which they were typed: its own, and those of the screen around it.

    Textual runs the action of a key only after the event has passed all widgets above, while letters that were
    typed behind it are inserted at once: ctrl+u would then delete them, and enter overtake an arrow before it.
    What is typed behind the key that closes the screen goes to the screen beneath.
    """

    async def _on_key(self, event: events.Key) -> None:
        if self._is_behind(events.Key(event.key, event.character)):
            event.stop()
            event.prevent_default()
            return
        for node, bindings in () if event.is_printable else self.screen._modal_binding_chain:
            for binding in bindings.key_to_bindings.get(event.key, ()):
                if not binding.priority and await self.app.run_action(binding.action, node):
                    event.stop()
                    event.prevent_default()
                    return
        await super()._on_key(event)

    async def action_submit(self) -> None:
        """Run the screen's action `enter` at once: Textual's message would come behind what was typed after it."""
        await self.app.run_action("enter", self.screen)

    def _on_paste(self, event: events.Paste) -> None:
        # Textual calls Input's own handler after this one.
        if self._is_behind(events.Paste(event.text)):
            event.stop()
            event.prevent_default()

    def _is_behind(self, typed: events.Key | events.Paste) -> bool:
        """Whether a key before this one closed the screen. What was typed is passed on then."""
        if self.screen.is_active:
            return False
        self.app.post_message(typed)
        return True
