"""How the replies of the open chat are made: the options of the next request, changed and stored with the chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from app.core.chat_settings import ChatSettings, describe_changes, describe_own
from app.core.conversation import Conversation
from app.core.reply_options import per_chat_values, reply_options
from app.core.schema_file import SchemaFile
from app.settings.table import Settings, per_chat
from mlx_engine.protocol.events import DraftSetting


class ReplySettings:
    """Changes apply from the next message. (The Dialogue applies the draft length to the running reply as well.)

    Changing may raise StoreError: the change then lasts until the program ends.
    """

    def __init__(self, settings: Settings, conversation: Conversation, schema: SchemaFile | None = None) -> None:
        """schema: what every reply has to match."""
        self._schema = schema
        self.chat = ChatSettings(per_chat_values(settings))
        self._conversation = conversation
        self.draft_length_when_on: DraftSetting = "auto"
        """What to draft with when drafting is turned on again."""
        self._apply()

    @property
    def draft_length(self) -> DraftSetting:
        """0 while drafting is off."""
        return self.options.draft_length

    @property
    def in_short(self) -> str:
        """What people should always see of them, in a few words."""
        schema = f"schema {self._schema.name}" if self._schema else ""
        return " · ".join(filter(None, (describe_own(self.chat.values), schema)))

    def use_schema(self, schema: SchemaFile | None) -> str:
        """Hold replies to a schema, or to none. It is not stored, and ends where another chat is opened or begun.
        Returns a sentence about it."""
        self._schema = schema
        self._apply()
        return self.describe_schema()

    def describe_schema(self) -> str:
        """The schema, or how to set one."""
        if self._schema is None:
            return "Replies may be any text. Use /schema FILE to hold them to a JSON schema."
        return f"Replies match {self._schema.name} from your next message. /schema off ends that."

    def follow_chat(self) -> str:
        """Use the settings of the chat that is now open. Returns a warning, empty if they are all valid."""
        self._schema = None
        invalid = self.chat.open(self._conversation.params)
        self._apply()
        if not invalid:
            return ""
        names = ", ".join(per_chat()[name].label for name in invalid)
        return f"These settings of this chat cannot be used here, so the defaults apply: {names}."

    def change(self, values: Mapping[str, Any]) -> str:
        """Set these values in this chat. Returns a sentence about what has changed."""
        before = self.chat.values
        self.chat.change(values)
        self._apply()
        self._conversation.set_params(self.chat.stored)
        return describe_changes(before, self.chat.values)

    def set_drafting(self, setting: DraftSetting | Literal["on"]) -> None:
        """Draft this many tokens per round; on: as many as before drafting was turned off."""
        self.chat.switch_drafting(self.draft_length_when_on if setting == "on" else setting)
        self._apply()
        self._conversation.set_params(self.chat.stored)

    def _apply(self) -> None:
        self.options = replace(reply_options(self.chat.values), schema=self._schema.text if self._schema else None)
        self._conversation.system = self.options.system
        self.draft_length_when_on = self.options.draft_length or self.draft_length_when_on
