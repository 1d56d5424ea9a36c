"""An answer while it is made, as every dialect writes it into its own JSON.

The engine's events become the few pieces that dialects need: text, thoughts, complete calls, then the facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from mlx_engine.protocol.events import ToolCall

EndReason = Literal["stop", "length", "tool_calls", "stop_string", "context", "cut_call", "cancelled"]
"""
stop         the model ended its turn
length       max_tokens was reached
tool_calls   the answer ends with calls
stop_string  one of the request's stop strings came
context      the context is full
cut_call     a call was cut off or is malformed; its text was given as text, and the client may try again
cancelled    a person stopped it in the chat beside it
"""


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """What one round adds. Empty fields add nothing."""

    text: str = ""
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    """Complete, with ids that are unique in the conversation."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer."""

    prompt_tokens: int
    """All of the prompt; those that were cached included."""
    cached_tokens: int
    """Those of the prompt that need not be read: kept in memory or on disk."""
    disk_tokens: int
    """Those of the cached ones that came from disk."""
    completion_tokens: int
    """Thoughts and calls included."""
    thinking_tokens: int


@dataclass(frozen=True, slots=True)
class Drafting:
    """What drafting did for one answer: the `slipstream` object beside the usage. None: not measured."""

    drafter: str | None
    """The name of the drafter that drafted most tokens for people; None: nothing was drafted."""
    drafted_tokens: int
    accepted_tokens: int
    rounds: int
    tokens_per_round: float | None
    speedup: float | None
    """Relative to plain decoding measured on this machine."""
    tokens_per_s: float | None
    ttft_s: float | None
    """From the request's arrival to its first token; waiting in the queue included."""
    cached_tokens: int
    disk_tokens: int
    read_tokens: int
    queued_s: float

    @property
    def fields(self) -> dict[str, Any]:
        """As every dialect writes it; clients ignore what they do not know."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    text: str
    thinking: str
    calls: tuple[ToolCall, ...]
    reason: EndReason
    stop_string: str | None
    """The stop string that ended it."""
    usage: Usage
    drafting: Drafting
