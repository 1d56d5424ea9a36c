"""Passes the engine's events from its thread to the app's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from mlx_engine.protocol.events import Event, Part, Round


class Mailbox:
    """Events come out in the order they went in.

    Rounds are fetched several at a time, since waking the app's thread costs more than drawing a round's text.
    Every other event is fetched at once.
    """

    def __init__(self, ring: Callable[[], object]) -> None:
        """ring: called on the engine's thread when there is something to fetch now."""
        self._ring = ring
        self._events: deque[Event] = deque()
        self.is_collecting = False
        """Whether rounds can wait: some were fetched a moment ago, and the next ones will be soon."""

    def put(self, event: Event) -> None:
        """Called on the engine's thread."""
        # The event goes in first: whoever ends the collecting and then fetches does not miss it.
        self._events.append(event)
        if not (self.is_collecting and isinstance(event, Round | Part)):
            self._ring()

    @property
    def has_events(self) -> bool:
        return bool(self._events)

    def fetch(self) -> Iterator[Event]:
        """Called on the app's thread. Includes events that arrive meanwhile."""
        while self._events:
            yield self._events.popleft()
