"""`/requests` in the chat line by line: what the server answers beside it, as sentences."""

from __future__ import annotations

from collections.abc import Callable

from app.core.current_pair import CurrentPair
from app.core.requests import NO_REQUESTS, NO_SERVER_RUNS, ordered, program_of, requests_beside, spoken
from app.remote.requests import ServedRequest, ServerRequests


def number_to_stop(text: str) -> int:
    """From `stop 2`. Raises ValueError."""
    word, number = text.split()
    if word.lower() != "stop":
        raise ValueError
    return int(number)


class SpokenRequests:
    """The requests that were listed last have numbers."""

    def __init__(self, pair: CurrentPair, say: Callable[[str], None]) -> None:
        self._pair, self._say = pair, say
        self._listed: list[ServedRequest] = []

    async def show(self) -> None:
        """List what the server answers. Raises ServerError."""
        if (server := self._server()) is None:
            return
        self._listed = ordered(await server.now())
        for number, request in enumerate(self._listed, 1):
            self._say(f"{number}: {spoken(request)}")
        if not self._listed:
            self._say(NO_REQUESTS)
        elif not self._listed[0].has_ended:
            self._say("To stop one, type /requests stop and its number.")

    async def stop(self, number: int) -> None:
        """Stop a request of the last list; its answer ends with what it has. Raises ServerError."""
        if (server := self._server()) is None:
            return
        request = dict(enumerate(self._listed, 1)).get(number)
        if request is None:
            self._say("There is no such request in the last list. /requests lists them.")
        elif request.has_ended or not await server.stop(request.id):
            self._say(f"That request of {program_of(request)} has ended already.")
        else:
            self._say(f"Stopped the request of {program_of(request)}.")

    def _server(self) -> ServerRequests | None:
        server = requests_beside(self._pair)
        if server is None:
            self._say(NO_SERVER_RUNS)
        return server
