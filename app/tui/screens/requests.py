"""The requests that a server answers beside the chat, as they go on; one can be stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import OptionList, Static

from app.core.requests import NO_REQUESTS, age, cached_of, ordered, program_of, state_of
from app.remote.address import ServerError
from app.remote.requests import ServedRequest, ServerRequests
from app.text import figures
from app.text.sanitise import sanitise
from app.tui.screens.columns import Column, cells, fitting, titles
from app.tui.screens.overlay import Overlay
from app.tui.screens.row_list import RowList

KEYS = "x: stop the request · esc: close"
STOP_KEYS = "x again: stop it · esc: leave it"
AGES_S = 1.0
"""Ages grow also while the server reports nothing new."""


@dataclass(frozen=True, slots=True)
class Row:
    """A request on the screen."""

    request: ServedRequest
    age_s: float


PROGRAM: Column[Row] = Column("Program", 14, lambda row: program_of(row.request))
STATE: Column[Row] = Column("State", 12, lambda row: state_of(row.request))
SPEED: Column[Row] = Column("tok/s", 5, lambda row: figures.speed(row.request.tokens_per_s), is_right=True)
ACCEPTED: Column[Row] = Column("Accepted", 8, lambda row: figures.percent(row.request.acceptance), is_right=True)
CACHED: Column[Row] = Column("Cached", 12, lambda row: cached_of(row.request), is_right=True)
AGE: Column[Row] = Column("Age", 6, lambda row: age(row.age_s), is_right=True)
COLUMN_CHOICES = (
    (PROGRAM, STATE, SPEED, ACCEPTED, CACHED, AGE),
    (PROGRAM, STATE, SPEED, ACCEPTED, AGE),
    (PROGRAM, STATE, SPEED),
    (PROGRAM, STATE),
    (PROGRAM,),
)
"""The first of these that fits is shown."""


class RequestsScreen(Overlay[None]):
    """Follows the server's own list for as long as it is open."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f7", "close", "Close", tooltip="closes the list; the requests go on"),
        Binding("x,delete", "stop", "Stop", tooltip="stops the request; its answer ends with what it has"),
    ]

    def __init__(self, requests: ServerRequests) -> None:
        super().__init__()
        self._requests = requests
        self._shown: list[ServedRequest] = []
        self._received_s = 0.0
        """When the list came."""
        self._confirmed_id = ""
        """The request that a second press stops."""
        self._message = f"Asking {requests.address.shown}"
        self._titles = Static(id="requests-titles", markup=False)
        self._list = RowList(id="requests-list", markup=False)
        self._hint = Static(id="requests-hint", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="requests"):
            yield self._titles
            yield self._list
            yield self._hint

    def on_mount(self) -> None:
        """Follow the server."""
        self._list.focus()
        self._show_hint()
        self._follow()
        self.set_interval(AGES_S, self._show_again)

    def on_resize(self) -> None:
        """Show the columns that the window has room for."""
        self.call_after_refresh(self._show_again)

    def action_close(self) -> None:
        """Leave a request alone that was to be stopped, or close the list."""
        if self._confirmed_id:
            self._ask_about("")
        else:
            self.dismiss(None)

    def action_stop(self) -> None:
        """Stop the highlighted request after a second press."""
        request = self._highlighted()
        if request is None:
            return
        if request.has_ended:
            self._tell(f"This request of {program_of(request)} has ended already.")
        elif self._confirmed_id != request.id:
            self._ask_about(request.id)
            self._tell(f"Stop this request of {program_of(request)}? Its answer then ends with what it has.")
        else:
            self._ask_about("")
            self._stop(request)

    @on(OptionList.OptionHighlighted)
    def _highlight_moved(self) -> None:
        """What was said and asked was about another request."""
        self._ask_about("")

    @work(exclusive=True, group="follow", exit_on_error=False)
    async def _follow(self) -> None:
        try:
            async with aclosing(self._requests.follow()) as lists:
                async for requests in lists:
                    self._take(requests)
            self._message = f"The server at {self._requests.address.shown} does not answer any more."
        except ServerError as error:
            self._message = str(error)
        self._show([])

    @work(group="stop", exit_on_error=False)
    async def _stop(self, request: ServedRequest) -> None:
        try:
            was_stopped = await self._requests.stop(request.id)
        except ServerError as error:
            self._tell(str(error))
        else:
            self._tell("Stopped." if was_stopped else "It had ended before.")

    def _take(self, requests: Sequence[ServedRequest]) -> None:
        if not self._received_s:
            self._message = ""
        self._received_s = time.monotonic()
        if self._confirmed_id and self._confirmed_id not in {each.id for each in requests if not each.has_ended}:
            self._ask_about("")
        self._show(ordered(requests))

    def _ask_about(self, id: str) -> None:
        self._confirmed_id = id
        self._tell("")

    def _tell(self, message: str) -> None:
        self._message = message
        self._show_hint()

    def _highlighted(self) -> ServedRequest | None:
        row = self._list.highlighted
        return self._shown[row] if row is not None and row < len(self._shown) else None

    def _show_again(self) -> None:
        self._show(self._shown)

    def _show(self, requests: list[ServedRequest]) -> None:
        """List these; the highlight stays on its request."""
        highlighted, self._shown = self._highlighted(), requests
        columns = fitting(COLUMN_CHOICES, max(1, self._list.content_region.width - 1))  # the scrollbar
        self._titles.update(titles(columns) if requests else "")
        since_s = time.monotonic() - self._received_s
        rows = [Row(each, each.age_s + (0.0 if each.has_ended else since_s)) for each in requests]
        ids = [each.id for each in requests]
        with self.prevent(OptionList.OptionHighlighted):
            self._list.set_options([" " + cells(columns, row) for row in rows])
            if ids:
                self._list.highlighted = ids.index(highlighted.id) if highlighted and highlighted.id in ids else 0
        self._show_hint()

    def _show_hint(self) -> None:
        empty = NO_REQUESTS if self._received_s and not self._shown else ""
        keys = STOP_KEYS if self._confirmed_id else KEYS
        self._hint.update(sanitise("\n".join(filter(None, (self._message or empty, keys)))))
