"""Chat completions: `POST /v1/chat/completions`, which most editors and agents speak."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from app.serve.answer import Answer, AnswerPiece
from app.serve.dialect import AnswerHead, AnswerStream
from app.serve.dialects.conversation import content_text, joined
from app.serve.dialects.fields import Fields
from app.serve.dialects.openai_answer import FINISH_REASONS, error_object, figures
from app.serve.dialects.openai_tools import read_tools
from app.serve.dialects.options import (
    ONE_ANSWER,
    read_draft_length,
    read_is_thinking,
    read_sampling,
    read_schema,
    read_text_or_texts,
    read_token_limit,
    refuse_if,
)
from app.serve.dialects.server_sent_events import COMMENT, DONE, event
from app.serve.errors import ServeError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import Message, ToolCall

THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Where clients give thoughts back; they are sent in the first, which most of them read."""


class ChatCompletions:
    """The dialect."""

    def read(self, body: Mapping[str, Any]) -> AnswerRequest:
        """Raises BadRequestError."""
        fields = Fields(body)
        _refuse_other_forms(fields)
        tools = read_tools(fields)
        options = fields.object("stream_options")
        return AnswerRequest(
            messages=joined((_message(message) for message in fields.objects("messages")), "messages"),
            tools=tools.tools,
            tool_choice=tools.choice,
            is_single_call=tools.is_single_call,
            strict_tools=tools.strict,
            schema=read_schema(fields.object("response_format")),
            sampling=read_sampling(fields),
            max_tokens=read_token_limit(fields, "max_completion_tokens", "max_tokens"),
            stop=read_text_or_texts(fields),
            is_thinking=read_is_thinking(fields),
            is_streamed=fields.flag("stream") or False,
            includes_usage=bool(options and options.flag("include_usage")),
            model=fields.text("model") or "",
            draft_length=read_draft_length(fields),
            places={"schema": "response_format", **tools.places},
        )

    def whole(self, request: AnswerRequest, head: AnswerHead, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or (None if answer.calls else "")}
        if answer.thinking:
            message["reasoning_content"] = answer.thinking
        if answer.calls:
            message["tool_calls"] = [_call(call) for call in answer.calls]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": FINISH_REASONS[answer.reason],
        }
        return _head(head, "chat.completion") | {"choices": [choice]} | figures(answer)

    def stream(self, request: AnswerRequest, head: AnswerHead) -> AnswerStream:
        return ChatStream(request, head)

    def error(self, error: ServeError) -> dict[str, Any]:
        return error_object(error)


class ChatStream:
    """Chunks of one choice, then `[DONE]`."""

    def __init__(self, request: AnswerRequest, head: AnswerHead) -> None:
        self._includes_usage = request.includes_usage
        self._head = _head(head, "chat.completion.chunk")
        self._calls = 0
        """How many were sent."""

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def wait(self) -> bytes:
        return COMMENT

    def add(self, piece: AnswerPiece) -> bytes:
        return b"".join(map(self._chunk, self._deltas(piece)))

    def end(self, answer: Answer) -> bytes:
        facts = figures(answer)
        reason = FINISH_REASONS[answer.reason]
        if self._includes_usage:
            usage = event(self._head | {"choices": []} | facts)
            return self._chunk({}, reason) + usage + DONE
        return self._chunk({}, reason, {"slipstream": facts["slipstream"]}) + DONE

    def fail(self, error: ServeError) -> bytes:
        # Without a finish reason and [DONE]: what came before is not an answer.
        return event(error_object(error))

    def _deltas(self, piece: AnswerPiece) -> Iterator[dict[str, Any]]:
        if piece.thinking:
            yield {"reasoning_content": piece.thinking}
        if piece.text:
            yield {"content": piece.text}
        for call in piece.calls:
            yield {"tool_calls": [{"index": self._calls} | _call(call)]}
            self._calls += 1

    def _chunk(
        self, delta: dict[str, Any], reason: str | None = None, facts: dict[str, Any] | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event(self._head | {"choices": [choice]} | (facts or {}))


def _message(fields: Fields) -> Message:
    match fields.value("role"):
        case "system" | "developer":
            return Message("system", content_text(fields, "content"))
        case "user":
            return Message("user", content_text(fields, "content"))
        case "assistant":
            return _reply(fields)
        case "tool":
            return Message(
                "tool",
                content_text(fields, "content"),
                call_id=fields.text("tool_call_id") or "",
                tool_name=fields.text("name") or "",
            )
        case _:
            raise fields.error(
                "role", "is none of system, developer, user, assistant and tool. Send one of these."
            )


def _reply(fields: Fields) -> Message:
    thoughts = (fields.value(name) for name in THOUGHT_FIELDS)
    thought_field = next((name for name, value in zip(THOUGHT_FIELDS, thoughts) if isinstance(value, str)), None)
    calls = []
    for call in fields.objects("tool_calls"):
        function = call.object("function")
        if function:
            calls.append(ToolCall(function.name("name"), function.arguments("arguments"), call.text("id") or ""))
    return Message(
        "assistant",
        content_text(fields, "content", separator="") or fields.text("refusal") or "",
        thinking=(fields.text(thought_field) or "") if thought_field else "",
        calls=tuple(calls),
    )


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _head(head: AnswerHead, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{head.id}", "object": kind, "created": head.created_s, "model": head.model}


def _refuse_other_forms(fields: Fields) -> None:
    refuse_if(fields, "n", (1, 1.0), ONE_ANSWER)
    refuse_if(fields, "logprobs", (False,), "cannot be given: drafting keeps no probabilities. Leave it out.")
    refuse_if(fields, "top_logprobs", (0,), "cannot be given: drafting keeps no probabilities. Leave it out.")
    refuse_if(fields, "logit_bias", ({}, []), "is not possible here. Leave it out.")
    refuse_if(fields, "functions", ([],), "is the old form of tools. Send tools.")
    refuse_if(fields, "audio", (), "cannot be produced here. Leave it out.")
    refuse_if(fields, "modalities", (["text"],), "names something other than text. Leave it out.")
