"""What the engine reports, on its way from its thread to the app's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from mlx_engine.protocol.events import Event, Round


class Mailbox:
    """Rounds are fetched several at a time, since each trip costs more than the round's text; all else at once.

    Events come out in the order they went in.
    """

    def __init__(self, ring: Callable[[], object]) -> None:
        """ring: called on the engine's thread when there is something to fetch now."""
        self._ring = ring
        self._events: deque[Event] = deque()
        self.is_resting = False
        """Whether rounds can wait: they were fetched a moment ago, and will be when the rest is over."""

    def put(self, event: Event) -> None:
        """On the engine's thread."""
        # In this order: whoever ends the rest and looks in behind that misses nothing.
        self._events.append(event)
        if not (self.is_resting and isinstance(event, Round)):
            self._ring()

    @property
    def has_events(self) -> bool:
        """Whether there is anything."""
        return bool(self._events)

    def fetch(self) -> Iterator[Event]:
        """On the app's thread: whatever is there, and what comes in meanwhile."""
        while self._events:
            yield self._events.popleft()
