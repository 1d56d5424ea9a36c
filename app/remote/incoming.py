"""The messages of a streamed answer, read one by one: text, thoughts, calls, and at the end what is known of it.

An answer is whole only with a finish reason. `[DONE]` alone proves nothing: two servers send it after a reply that
failed, one never sends it, and a body without a length ends the same way when its server is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.remote.address import ServerError
from app.remote.figures import Reported
from app.remote.kinds import ServerKind
from mlx_engine.protocol.events import Finished, FinishReason, Part, ServerFigures, ToolCall

REASONS: Mapping[str, FinishReason] = {"length": "length", "max_tokens": "length"}
"""All others, calls among them, are the model's own end."""


@dataclass(slots=True)
class _PartialCall:
    """A call that arrives in pieces."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class IncomingReply:
    """One answer while it arrives."""

    id: int
    kind: ServerKind
    max_tokens: int | None = None
    """What the request allowed; None: no limit."""
    repeated: str = ""
    """Text that the server sends again first; it is dropped."""
    reported: Reported = field(default_factory=Reported)
    finish_reason: str | None = None
    has_words: bool = False
    """Whether any text, thought or call has come."""
    _held: str = ""
    _calls: dict[int, _PartialCall] = field(default_factory=dict)

    def read(self, chunk: Any, elapsed_s: float) -> Part | None:
        """What one message adds; None: nothing to show. Raises ServerError for a message that reports an error."""
        if not isinstance(chunk, Mapping):
            raise ServerError(f"{self.kind.name} sent something that is no part of an answer.")
        self.reported.read(chunk)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else {}
        if not isinstance(choice, Mapping):
            return None
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self.finish_reason = reason
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            return None
        self._read_calls(delta.get("tool_calls"))
        text, thinking = self._without_repeated(_text(delta, "content")), _thoughts(delta)
        if not text and not thinking:
            return None
        self.has_words = True
        return Part(self.id, text, thinking, elapsed_s)

    def _without_repeated(self, text: str) -> str:
        """The text behind the repetition. What may still become one is held back."""
        if not self.repeated:
            return text
        self._held += text
        if self.repeated.startswith(self._held) and self._held != self.repeated:
            return ""
        new, self._held = self._held.removeprefix(self.repeated), ""
        self.repeated = ""
        return new

    def _read_calls(self, pieces: Any) -> None:
        for piece in pieces if isinstance(pieces, list) else []:
            if not isinstance(piece, Mapping):
                continue
            index = piece.get("index")
            call = self._calls.setdefault(index if isinstance(index, int) else len(self._calls), _PartialCall())
            function = piece.get("function")
            function = function if isinstance(function, Mapping) else {}
            call.id = call.id or _text(piece, "id")
            call.name += _text(function, "name")
            call.arguments += _text(function, "arguments")

    def calls(self) -> tuple[ToolCall, ...]:
        """The complete calls."""
        return tuple(
            ToolCall(call.name, call.arguments or "{}", call.id)
            for _, call in sorted(self._calls.items())
            if call.name
        )

    def finished(self) -> Finished:
        """The end, once the stream has ended. Raises ServerError if the answer is not whole."""
        if self.finish_reason is None:
            raise ServerError(self._why_not_whole())
        figures = self.figures()
        reason = REASONS.get(self.finish_reason, "stop")
        is_full = figures.generated_tokens is not None and figures.generated_tokens >= (self.max_tokens or 1 << 60)
        if self.kind.miscounts_ends and is_full:
            reason = "length"
        return ended(self.id, reason, figures, self._held, self.calls())

    def figures(self) -> ServerFigures:
        """What the server has reported so far."""
        return self.kind.figures(self.reported, self.kind.name)

    def _why_not_whole(self) -> str:
        name = self.kind.name
        if self.has_words or self._calls:
            return (
                f"{name} ended the reply without saying why, so it may not be whole: it may have been restarted, "
                "or have begun another chat's reply. /continue goes on with it."
            )
        return (
            f"{name} sent an empty reply. Some servers do this when the conversation is too long for the model's "
            "context, or when another request comes in between. Try again, or start a new chat with /new."
        )


def ended(
    id: int, reason: FinishReason, figures: ServerFigures, text: str = "", calls: tuple[ToolCall, ...] = ()
) -> Finished:
    """The end of a reply that a server made."""
    return Finished(
        id=id,
        reason=reason,
        text=text,
        thinking="",
        target_passes=None,
        host_syncs=None,
        peak_memory_bytes=figures.peak_memory_bytes,
        calls=calls,
        reported=figures,
    )


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _thoughts(delta: Mapping[str, Any]) -> str:
    """One of the two fields: a server that sends both sends the same twice."""
    return _text(delta, "reasoning_content") or _text(delta, "reasoning")
