"""A request for one answer, as every dialect reads it out of its own JSON. What a client adds and nobody needs is
gone by then, so that the same conversation gives the same tokens however a client writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.serve.errors import BadRequestError
from mlx_engine.protocol.events import DraftSetting, Message, SamplingOptions, Tool

ToolChoice = Literal["auto", "none", "required"] | Tool
"""`required`: at least one call; a tool: a call of this one."""


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """What the engine is asked for."""

    messages: tuple[Message, ...] = ()
    """Ending in the message to answer. Empty if there is a `prompt`."""
    prompt: str | None = None
    """Text to continue as it is, without the chat template (completions alone)."""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    is_single_call: bool = False
    """The answer ends with its first call."""
    strict_tools: frozenset[str] = frozenset()
    """Names of the tools whose arguments must match their schema."""
    schema: str | None = None
    """A JSON schema that the answer must match, as JSON text. `{"type": "object"}` where any object will do."""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    max_tokens: int | None = None
    """More than fits is not an error: the answer then ends where the context does."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these that it would contain."""
    is_thinking: bool = False
    is_streamed: bool = False
    includes_usage: bool = True
    """Chat completions and completions: a stream ends with the usage only where the client asks for it."""
    model: str = ""
    """The name that the client used, repeated in the answer; empty: none. Any name gets the loaded model."""
    draft_length: DraftSetting = "auto"
    """From the request's `slipstream` object, `{"draft": 0}`."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where the client wrote what the engine may refuse: `messages`, `schema`, `tools` and `tools.NAME`."""

    def __post_init__(self) -> None:
        if not self.messages and self.prompt is None:
            raise BadRequestError("The request has no messages. Send at least one.", "messages")
