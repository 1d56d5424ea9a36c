"""A chat without a screen, over any engine: what it told, showed and gave back is kept."""

from __future__ import annotations

import queue
from typing import Any

from app.core.conversation import Conversation
from app.core.current_pair import CurrentPair
from app.core.dialogue import Dialogue
from app.core.pair_choice import PairChoice
from app.core.reply_settings import ReplySettings
from app.core.reply_view import ReplyView, Severity
from app.core.store_notices import StoreNotices
from app.settings.table import Settings
from app.store.chat_store import ChatStore
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.events import Event
from tests.patience import PATIENCE_S


class Front(ReplyView):
    """Handles events when a test asks for it."""

    def __init__(self, engine: EngineHandle, choice: PairChoice, fallback: PairChoice | None = None) -> None:
        self.told: list[str] = []
        self.errors: list[str] = []
        self.back: list[str] = []
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.engine = engine
        self.engine.on_event = self._inbox.put
        self.store = ChatStore.in_memory()
        conversation = Conversation(self.store)
        self.pair = CurrentPair(self.engine, choice, self._tell, fallback=fallback)
        settings = ReplySettings(Settings(), conversation)
        self.dialogue = Dialogue(
            self.engine, conversation, self.pair, settings, self, self._tell, StoreNotices(self.store, self._tell)
        )

    def _tell(self, message: str, *, severity: Severity = "information", timeout: float | None = None) -> None:
        self.told.append(message)

    async def show_error(self, message: str) -> None:
        self.errors.append(message)

    def give_back(self, text: str, mentions: Any) -> None:
        self.back.append(text)

    async def hear(self) -> Event:
        """Handle the next event."""
        event = self._inbox.get(timeout=PATIENCE_S)
        await self.dialogue.hear(event)
        return event

    async def hear_until(self, kind: type[Event]) -> None:
        """Handle events up to one of this kind."""
        while not isinstance(await self.hear(), kind):
            pass

    async def rest(self) -> None:
        """Handle events until the reply has ended."""
        while self.dialogue.phase.is_busy:
            await self.hear()

    async def ask(self, text: str) -> None:
        await self.dialogue.ask(text)
        await self.rest()

    @property
    def last(self) -> Any:
        return self.dialogue.conversation.last

    def close(self) -> None:
        """End the engine and the store."""
        self.engine.close()
        self.store.close()
