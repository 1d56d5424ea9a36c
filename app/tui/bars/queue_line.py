"""The messages that wait for the running reply to end, above the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from app.core.queued_messages import QueuedMessage
from app.text.sanitise import sanitise_line
from app.tui.keys import key_in

MAX_ROWS = 3
MAX_SHOWN_CHARACTERS = 200


class QueueLine(Static):
    """One row per message; hidden while none waits."""

    ALLOW_SELECT = False

    def __init__(self) -> None:
        super().__init__(id="queue-line", markup=False)

    def show(self, queued: Sequence[QueuedMessage]) -> None:
        rows = [f"queued: {sanitise_line(message.text[:MAX_SHOWN_CHARACTERS])}" for message in queued]
        if len(rows) > MAX_ROWS:
            rows[MAX_ROWS - 1 :] = [f"queued: {len(rows) - MAX_ROWS + 1} more"]
        if rows:
            rows[0] = f"{key_in(self.app, 'earlier')}: take back · {rows[0]}"
        self.update(Content("\n".join(rows)))
        self.display = bool(rows)
