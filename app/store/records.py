"""The values that the store returns and accepts: plain data, shared by the app, the shell and exports."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from mlx_engine.protocol.events import ServerFigures
from mlx_engine.protocol.stats import speed_behind_first

Role = Literal["user", "assistant"]
State = Literal["generating", "complete", "stopped", "interrupted", "failed"]
"""interrupted: the program ended while the reply was being made."""
FinalState = Literal["complete", "stopped", "interrupted", "failed"]

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""The range of whole numbers that JSON, SQLite and others all represent exactly."""


class TurnStats(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The figures of one reply when it ended. None: not measured."""

    finish_reason: str | None = None
    """Why the reply ended: stop, length or cancelled; for a failed reply, an error message."""
    prompt_tokens: Count = 0
    cached_tokens: Count = 0
    """Prompt tokens that were not read: kept in memory or on disk."""
    disk_tokens: Count = 0
    """Those of them that came from disk."""
    generated_tokens: Count = 0
    rounds: Count = 0
    target_passes: Count = 0
    drafted: Count = 0
    accepted: Count = 0
    drafted_by_position: tuple[Count, ...] = ()
    accepted_by_position: tuple[Count, ...] = ()
    draft_length: Count = 0
    """Tokens drafted per round when the reply ended; 0 is plain decoding."""
    ttft_s: float | None = None
    decode_s: float = 0.0
    plain_tokens_per_s: float | None = None
    speedup: float | None = None
    peak_memory_bytes: Count | None = None
    model: str = ""
    drafter: str | None = None
    app_version: str = ""
    reported: ServerFigures | None = None
    """Of a reply that a server made: its counts, in place of those above. `decode_s` is then the time between the
    first text and the last, as they arrived here."""

    @property
    def tokens_per_s(self) -> float | None:
        """Decode speed, without the prompt."""
        if self.reported is not None:
            return speed_behind_first(self.reported.generated_tokens, self.decode_s)
        return self.generated_tokens / self.decode_s if self.generated_tokens and self.decode_s > 0 else None


class Chat(msgspec.Struct, frozen=True):
    """One conversation, without its messages."""

    id: int
    title: str
    model: str
    drafter: str | None
    params: dict[str, Any]
    """The settings of this chat, which the store does not interpret."""
    created_s: float
    updated_s: float
    message_count: int


class StoredMessage(msgspec.Struct, frozen=True):
    """One message and its position among its siblings, which answer the same parent."""

    id: int
    chat_id: int
    parent_id: int | None
    role: Role
    text: str
    thinking: str
    state: State
    created_s: float
    sibling: int = 1
    """Its number among its siblings, from 1, oldest first."""
    siblings: int = 1
    is_shown: bool = True
    """Whether this is the sibling that is shown."""
    stats: TurnStats | None = None
    typed_characters: int | None = None
    """How much of the person's message they typed; files follow. None: not known, in chats of earlier versions."""


class Hit(msgspec.Struct, frozen=True):
    """A message that matches a search."""

    chat_id: int
    title: str
    message_id: int
    role: Role
    excerpt: str
    """One line around the first match."""
    created_s: float


class NewMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A message to import. `parent` is the position of an earlier message of the same chat."""

    parent: int | None
    role: Role
    text: str
    thinking: str
    state: FinalState
    created_s: float
    is_shown: bool
    stats: TurnStats | None
    typed_characters: Count | None = None
    """See StoredMessage."""


class NewChat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chat to import, with its messages in the order they were created."""

    title: str
    model: str
    drafter: str | None
    params: dict[str, Any]
    created_s: float
    updated_s: float
    messages: tuple[NewMessage, ...]


class Imported(NamedTuple):
    """What an import did."""

    added: list[Chat]
    known: list[Chat]
    """Those that were there already, with all their messages."""
    grown: list[Chat]
    """Those that were there, and got more messages."""
