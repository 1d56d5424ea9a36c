"""A response while it is streamed: its items one after another, each opened, filled and closed by events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.serve.answer import Answer, AnswerPiece, Usage
from app.serve.dialect import AnswerHead
from app.serve.dialects.openai_answer import FINISH_REASONS
from app.serve.dialects.openai_tools import split_name
from app.serve.dialects.server_sent_events import event
from app.serve.errors import ServeError
from app.serve.request import AnswerRequest
from mlx_engine.protocol.events import Tool, ToolCall


@dataclass(frozen=True, slots=True)
class TextItem:
    """How an item that holds text is written."""

    type: str
    id_prefix: str
    parts: str
    """The field with its parts, of which there is one."""
    index: str
    part_type: str
    part_event: str
    text_event: str
    item_fields: dict[str, Any]
    part_fields: dict[str, Any]
    event_fields: dict[str, Any]


MESSAGE = TextItem(
    type="message",
    id_prefix="msg",
    parts="content",
    index="content_index",
    part_type="output_text",
    part_event="response.content_part",
    text_event="response.output_text",
    item_fields={"role": "assistant"},
    part_fields={"annotations": [], "logprobs": []},
    event_fields={"logprobs": []},
)
THOUGHTS = TextItem(
    # As a summary: Codex shows that, and gives it back.
    type="reasoning",
    id_prefix="rs",
    parts="summary",
    index="summary_index",
    part_type="summary_text",
    part_event="response.reasoning_summary_part",
    text_event="response.reasoning_summary_text",
    item_fields={},
    part_fields={},
    event_fields={},
)


class ResponseStream:
    """The events of one response, and the response that they add up to."""

    def __init__(self, request: AnswerRequest, head: AnswerHead) -> None:
        self._id = head.id
        self._events = 0
        self._output: list[dict[str, Any]] = []
        """Items that are closed."""
        self._open: TextItem | None = None
        self._texts: list[str] = []
        """Of the open item."""
        self.response: dict[str, Any] = {
            "id": f"resp_{head.id}",
            "object": "response",
            "created_at": head.created_s,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": request.max_tokens,
            "model": head.model,
            "output": self._output,
            "parallel_tool_calls": not request.is_single_call,
            "previous_response_id": None,
            "store": False,
            "temperature": request.sampling.temperature,
            "tool_choice": _choice(request),
            "tools": [],  # not repeated: those of an agent are longer than most answers
            "top_p": request.sampling.top_p,
            "usage": None,
            "metadata": {},
        }

    def begin(self) -> bytes:
        return self._state("response.created") + self.wait()

    def wait(self) -> bytes:
        # A comment is not enough: Codex gives up after 300 s without an event.
        return self._state("response.in_progress")

    def add(self, piece: AnswerPiece) -> bytes:
        written = b""
        if piece.thinking:
            written += self._add_text(THOUGHTS, piece.thinking)
        if piece.text:
            written += self._add_text(MESSAGE, piece.text)
        for call in piece.calls:
            written += self._close() + self._add_call(call)
        return written

    def end(self, answer: Answer) -> bytes:
        # The API has no other word for an answer that is not whole, but content_filter.
        is_whole = FINISH_REASONS[answer.reason] != "length"
        written = b""
        if not answer.text and not answer.calls:
            written += self._open_text(MESSAGE)  # so that there is something to read
        written += self._close("completed" if is_whole else "incomplete")
        self.response |= {
            "status": "completed" if is_whole else "incomplete",
            "incomplete_details": None if is_whole else {"reason": "max_output_tokens"},
            "usage": _usage(answer.usage),
            "slipstream": answer.drafting.fields,
        }
        return written + self._state(f"response.{self.response['status']}")

    def fail(self, error: ServeError) -> bytes:
        code = "server_error" if error.status >= 500 else error.code
        self.response |= {"status": "failed", "error": {"code": code, "message": str(error)}}
        return self._state("response.failed")

    def _add_text(self, kind: TextItem, text: str) -> bytes:
        opened = b"" if self._open is kind else self._open_text(kind)
        self._texts.append(text)
        return opened + self._text_event(kind, "delta", {"delta": text} | kind.event_fields)

    def _open_text(self, kind: TextItem) -> bytes:
        written = self._close()
        self._open, self._texts = kind, []
        written += self._item_event("added", _text_item(kind, self._item_id(kind.id_prefix), [], "in_progress"))
        return written + self._part_event(kind, "added", "")

    def _close(self, status: str = "completed") -> bytes:
        kind, self._open = self._open, None
        if kind is None:
            return b""
        text = "".join(self._texts)
        written = self._text_event(kind, "done", {"text": text} | kind.event_fields)
        written += self._part_event(kind, "done", text)
        item = _text_item(kind, self._item_id(kind.id_prefix), [_part(kind, text)], status)
        return written + self._item_done(item)

    def _add_call(self, call: ToolCall) -> bytes:
        namespace, name = split_name(call.name)
        item: dict[str, Any] = {
            "id": self._item_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": call.id,
            "name": name,
            "arguments": "",
        }
        if namespace:
            item["namespace"] = namespace
        place = {"item_id": item["id"], "output_index": len(self._output)}
        arguments = "response.function_call_arguments"
        written = self._item_event("added", item)
        written += self._event(f"{arguments}.delta", place | {"delta": call.arguments})
        written += self._event(f"{arguments}.done", place | {"name": name, "arguments": call.arguments})
        return written + self._item_done(item | {"status": "completed", "arguments": call.arguments})

    def _item_done(self, item: dict[str, Any]) -> bytes:
        written = self._item_event("done", item)
        self._output.append(item)
        return written

    def _item_event(self, step: str, item: dict[str, Any]) -> bytes:
        return self._event(f"response.output_item.{step}", {"output_index": len(self._output), "item": item})

    def _part_event(self, kind: TextItem, step: str, text: str) -> bytes:
        return self._event(f"{kind.part_event}.{step}", self._place(kind) | {"part": _part(kind, text)})

    def _text_event(self, kind: TextItem, step: str, fields: dict[str, Any]) -> bytes:
        return self._event(f"{kind.text_event}.{step}", self._place(kind) | fields)

    def _place(self, kind: TextItem) -> dict[str, Any]:
        return {"item_id": self._item_id(kind.id_prefix), "output_index": len(self._output), kind.index: 0}

    def _item_id(self, prefix: str) -> str:
        return f"{prefix}_{self._id}_{len(self._output)}"

    def _state(self, name: str) -> bytes:
        return self._event(name, {"response": self.response})

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        data = {"type": name, "sequence_number": self._events} | fields
        self._events += 1
        return event(data, name)


def _text_item(kind: TextItem, id: str, parts: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {"id": id, "type": kind.type, "status": status, kind.parts: parts} | kind.item_fields


def _part(kind: TextItem, text: str) -> dict[str, Any]:
    return {"type": kind.part_type, "text": text} | kind.part_fields


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.thinking_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _choice(request: AnswerRequest) -> str | dict[str, Any]:
    if isinstance(request.tool_choice, Tool):
        return {"type": "function", "name": split_name(request.tool_choice.name)[1]}
    return request.tool_choice
