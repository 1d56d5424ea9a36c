"""The server that runs on this machine as the engine, and an engine of our own once that has ended."""

from __future__ import annotations

from app.remote.address import ServerAddress
from app.remote.engine import RemoteEngine
from app.system import places
from app.system.running_server import RunningServer, find_server
from mlx_engine.client import EngineHandle
from mlx_engine.protocol import events
from mlx_engine.protocol.delivery import Delivery, OnEvent

OF_SERVER = events.Load(target="")
"""Whatever model the server has."""


class AttachedEngine:
    """An `EngineHandle` over two others. A load without a target means the server's model, any other one of our
    own engine."""

    def __init__(self, server: RunningServer, address: ServerAddress, own: EngineHandle, own_name: str) -> None:
        """own: not started yet. own_name: of the model that it then loads."""
        self._server, self._address = server, address
        self._own, self._own_name = own, own_name
        self._remote = RemoteEngine(address, OF_SERVER)
        self._engine: EngineHandle = self._remote
        """The one of the two that is in use."""
        self._has_told = False
        """Whether the person knows that the server has ended."""
        self._delivery = Delivery()

    @property
    def on_event(self) -> OnEvent | None:
        """See EngineHandle."""
        return self._delivery.listener

    @on_event.setter
    def on_event(self, listener: OnEvent | None) -> None:
        self._delivery.listener = listener
        self._remote.on_event = self._hear_server if listener else None
        self._own.on_event = self._hear_own if listener else None

    def start(self) -> None:
        """See EngineHandle."""
        self._engine.start()

    def generate(self, request: events.Generate) -> None:
        """See EngineHandle. Where the server has ended, the own engine is started."""
        if self._is_over:
            self._engine = self._own
            if not self._has_told:
                self._has_told = True
                self._delivery.deliver(
                    events.Notice(f"The server at {self._address.shown} has ended. Loading {self._own_name} here.")
                )
        self._engine.generate(request)

    def check(self, request: events.Generate) -> None:
        """See EngineHandle."""
        self._engine.check(request)

    def cancel(self) -> None:
        """See EngineHandle."""
        self._engine.cancel()

    def set_draft_length(self, draft_length: events.DraftSetting) -> None:
        """See EngineHandle."""
        self._engine.set_draft_length(draft_length)

    def count(self, id: int, text: str) -> None:
        """See EngineHandle."""
        self._engine.count(id, text)

    def measure(self, id: int) -> None:
        """See EngineHandle."""
        self._engine.measure(id)

    def switch(self, load: events.Load) -> None:
        """See EngineHandle."""
        if load.target:
            self._engine = self._own
        else:
            self._engine = self._remote
            self._own.close()
        self._engine.switch(load)

    def close(self) -> None:
        """See EngineHandle."""
        self._remote.close()
        self._own.close()

    @property
    def _is_over(self) -> bool:
        """Whether the server has ended, and none has begun in its place."""
        if self._engine is self._own or self._server.is_running:
            return False
        other = find_server(places.server_file())
        return other is None or other.url != self._server.url

    def _hear_server(self, event: events.Event) -> None:
        if self._engine is not self._remote:
            return
        if isinstance(event, events.Failed) and self._is_over:
            self._has_told = True
            event = events.Died(
                f"The server at {self._address.shown} has ended. Your next message loads {self._own_name} here."
            )
        self._delivery.deliver(event)

    def _hear_own(self, event: events.Event) -> None:
        if self._engine is self._own:
            self._delivery.deliver(event)
