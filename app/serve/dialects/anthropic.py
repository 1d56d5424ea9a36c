"""Anthropic's messages, as Claude Code and the SDKs speak them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from app.serve.answer import Answer, AnswerPiece, EndReason, Usage
from app.serve.dialect import AnswerHead, AnswerStream
from app.serve.dialects.anthropic_request import read_request
from app.serve.dialects.server_sent_events import event
from app.serve.errors import ServeError, TooLongError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import ToolCall

STOP_REASONS: dict[EndReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "stop_string": "stop_sequence",
    "context": "model_context_window_exceeded",
    "cut_call": "max_tokens",  # the one reason after which agents go on by themselves
    "cancelled": "end_turn",  # the person wants no more of it, so nobody is to go on
}
ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
SIGNATURE = "slipstream"
"""Of thoughts. Clients send it back; nothing depends on it."""


class AnthropicMessages:
    """`POST /v1/messages`, and the body of `POST /v1/messages/count_tokens`."""

    def read(self, body: Mapping[str, Any]) -> AnswerRequest:
        """See Dialect."""
        return read_request(body)

    def whole(self, request: AnswerRequest, head: AnswerHead, answer: Answer) -> dict[str, Any]:
        """See Dialect."""
        blocks = [_thinking(answer.thinking, SIGNATURE)] if answer.thinking else []
        if answer.text or not (answer.thinking or answer.calls):
            blocks.append(_text(answer.text))
        blocks += [_tool_use(call, json.loads(call.arguments)) for call in answer.calls]
        return _message(head, _usage(answer.usage)) | {
            "content": blocks,
            **_ending(answer),
            "slipstream": answer.drafting.fields,
        }

    def stream(self, request: AnswerRequest, head: AnswerHead) -> AnswerStream:
        """See Dialect."""
        return _MessageStream(head)

    def error(self, error: ServeError) -> dict[str, Any]:
        """See Dialect."""
        message = str(error)
        if isinstance(error, TooLongError):
            # Claude Code compacts when it reads these words.
            message = f"prompt is too long: {error.prompt_tokens} tokens > {error.context_tokens} maximum"
        kind = ERROR_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        return {
            "type": "error",
            "error": {"type": kind, "message": message, "code": error.code, "param": error.param},
        }


class _MessageStream:
    """Writes an answer block by block: of thoughts, of text, or one call."""

    def __init__(self, head: AnswerHead) -> None:
        self._head = head
        self._index = -1
        """Of the newest block."""
        self._open: str | None = None
        """The kind of the block that may still grow."""

    def begin(self) -> bytes:
        """See AnswerStream."""
        # How much is cached is not known yet; the event at the end says it.
        usage = _token_counts(self._head.prompt_tokens, 0, 0)
        message = _message(self._head, usage) | {"content": [], "stop_reason": None, "stop_sequence": None}
        return _event("message_start", message=message) + self.wait()

    def wait(self) -> bytes:
        """See AnswerStream."""
        return _event("ping")

    def add(self, piece: AnswerPiece) -> bytes:
        """See AnswerStream."""
        return b"".join(self._grown(piece))

    def end(self, answer: Answer) -> bytes:
        """See AnswerStream."""
        empty = self._opened(_text("")) if self._index < 0 else b""
        facts = {
            "delta": _ending(answer),
            "usage": _usage(answer.usage),
            "slipstream": answer.drafting.fields,
        }
        return empty + self._closed() + _event("message_delta", **facts) + _event("message_stop")

    def fail(self, error: ServeError) -> bytes:
        """See AnswerStream."""
        return _event("error", error=AnthropicMessages().error(error)["error"])

    def _grown(self, piece: AnswerPiece) -> Iterator[bytes]:
        if piece.thinking:
            if self._open != "thinking":
                yield self._opened(_thinking("", ""))
            yield self._delta("thinking_delta", thinking=piece.thinking)
        if piece.text:
            if self._open != "text":
                yield self._opened(_text(""))
            yield self._delta("text_delta", text=piece.text)
        for call in piece.calls:
            yield self._opened(_tool_use(call, {}))
            yield self._delta("input_json_delta", partial_json=call.arguments)
            yield self._closed()

    def _opened(self, block: dict[str, Any]) -> bytes:
        closed = self._closed()
        self._index += 1
        self._open = block["type"]
        return closed + _event("content_block_start", index=self._index, content_block=block)

    def _delta(self, kind: str, **fields: Any) -> bytes:
        return _event("content_block_delta", index=self._index, delta={"type": kind, **fields})

    def _closed(self) -> bytes:
        """The end of the open block, if there is one."""
        kind, self._open = self._open, None
        if kind is None:
            return b""
        signed = self._delta("signature_delta", signature=SIGNATURE) if kind == "thinking" else b""
        return signed + _event("content_block_stop", index=self._index)


def _thinking(text: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": signature}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _tool_use(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _message(head: AnswerHead, usage: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"msg_{head.id}", "type": "message", "role": "assistant", "model": head.model, "usage": usage}


def _ending(answer: Answer) -> dict[str, Any]:
    reason = STOP_REASONS[answer.reason]
    return {"stop_reason": reason, "stop_sequence": answer.stop_string, "stop_details": None}


def _usage(usage: Usage) -> dict[str, Any]:
    counts = _token_counts(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return counts | {"output_tokens_details": {"thinking_tokens": usage.thinking_tokens}}


def _token_counts(prompt_tokens: int, cached_tokens: int, output_tokens: int) -> dict[str, Any]:
    """Of the prompt, the cached tokens count apart."""
    return {
        "input_tokens": prompt_tokens - cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached_tokens,
        "output_tokens": output_tokens,
    }


def _event(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)
