"""How the replies of the open chat are made: changed for the next one, the draft length at once, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from app.core.chat_options import ChatOptions
from app.core.chat_params import ChatParams, changes_in_words, with_values
from app.core.conversation import Conversation
from app.core.dialogue import Dialogue
from app.core.gauges import Gauges
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.events import DraftSetting


class ReplySettings:
    """Brings the next request, the gauges and the store to what holds. Changes may raise StoreError: they then
    hold as long as the program runs."""

    def __init__(
        self,
        options: ChatOptions,
        engine: EngineHandle,
        gauges: Gauges,
        conversation: Conversation,
        dialogue: Dialogue,
    ) -> None:
        self.params = ChatParams(options)
        self._engine = engine
        self._gauges = gauges
        self._conversation = conversation
        self._dialogue = dialogue
        self.draft_length_when_on: DraftSetting = options.draft_length or "auto"
        """What drafting is on with, or was before it was turned off."""

    def follow_chat(self) -> str:
        """Another chat is open, or a new one; what to say about it, empty if all is well."""
        refused = self.params.open(self._conversation.params)
        self._apply()
        self._gauges.forget_context()
        return f"This chat's {', '.join(refused)} cannot be used: the default holds." if refused else ""

    def change(self, values: Mapping[str, Any]) -> str:
        """Have these values in this chat; what has changed, in words."""
        before = self.params.values
        self.params.change(values)
        self._apply()
        self._conversation.keep_params(self.params.stored)
        return changes_in_words(before, self.params.values)

    def set_drafting(self, setting: DraftSetting | Literal["on"]) -> None:
        """Draft so many tokens per round, also in the running reply; on: as many as before it was off."""
        draft = self.draft_length_when_on if setting == "on" else setting
        self.params.switch_drafting(draft)
        self._apply()
        self._conversation.keep_params(self.params.stored)

    def _apply(self) -> None:
        values = self.params.values
        self._dialogue.options = with_values(self._dialogue.options, values)
        self._conversation.system = self._dialogue.options.system
        draft = self._dialogue.options.draft_length
        if self._dialogue.is_running and draft != self._gauges.draft_length:
            self._engine.set_draft_length(draft)
        self._gauges.draft_length = draft
        self.draft_length_when_on = draft or self.draft_length_when_on
