"""A request of the chat, in the words of one server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.remote.address import ServerError
from app.remote.kinds import ServerKind
from mlx_engine.protocol.events import Generate, Message, Tool

GO_ON = "Continue your last message exactly where it ends. Write only what follows, and repeat nothing of it."
"""Asked where a server cannot continue a message by itself."""


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """What is sent."""

    body: Mapping[str, Any]
    """Of the request, without `stream`."""
    notices: tuple[str, ...] = ()
    """What of the person's wishes this server does not fulfil, in sentences."""
    repeated: str = ""
    """Text that the server sends again before the reply."""


def server_request(request: Generate, kind: ServerKind, model: str, context_tokens: int | None) -> ServerRequest:
    """Raises ServerError for what this server cannot do and the reply would be wrong without."""
    if request.schema is not None and not kind.obeys_schemas:
        raise ServerError(
            f"{kind.name} does not keep to JSON schemas, so the reply might not match. Leave the schema out."
        )
    notices: list[str] = []
    messages = list(request.messages)
    if messages and messages[-1].role == "assistant" and not messages[-1].text:
        messages.pop()  # it was stopped while it thought
    is_continued = bool(messages) and messages[-1].role == "assistant"
    body: dict[str, Any] = {"model": model}
    repeated = ""
    if is_continued and kind.continues is None:
        messages.append(Message("user", GO_ON))
        notices.append(f"{kind.name} cannot continue a message itself, so the model is asked to in words.")
    elif is_continued:
        body |= kind.continues or {}
        text = messages[-1].text
        repeated = text if kind.repeats_continued else text[len(text.rstrip()) :] if kind.trims_continued else ""
    body["messages"] = _messages(messages)
    body |= _sampling(request, kind, notices)
    body |= _limit(request, kind, context_tokens)
    if kind.thinking is not None:
        body |= kind.thinking(request.is_thinking)
    elif request.is_thinking:
        notices.append(f"Whether the model thinks is set at {kind.name}: a request cannot switch it.")
    if kind.drafting is not None:
        body |= kind.drafting(request.draft_length)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.schema is not None:
        schema = {"name": "reply", "strict": True, "schema": json.loads(request.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    body |= kind.asks or {}
    return ServerRequest(body, tuple(notices), repeated)


def _messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Results without the id of their call follow the order of the calls."""
    written: list[dict[str, Any]] = []
    open_ids: list[str] = []
    for number, message in enumerate(messages):
        each: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.calls:
            ids = [call.id or f"call_{number}_{index}" for index, call in enumerate(message.calls)]
            open_ids = list(ids)
            each["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for id, call in zip(ids, message.calls)
            ]
        if message.role == "tool":
            id = message.call_id or (open_ids[0] if open_ids else f"call_{number}")
            open_ids = [other for other in open_ids if other != id]
            each["tool_call_id"] = id
            if message.tool_name:
                each["name"] = message.tool_name
        written.append(each)
    return written


def _sampling(request: Generate, kind: ServerKind, notices: list[str]) -> dict[str, Any]:
    """What a person set; the rest stays as the server has it."""
    options = request.sampling
    body: dict[str, Any] = {
        name: value
        for name, value in (
            ("temperature", options.temperature), ("top_p", options.top_p), ("seed", options.seed),
        )
        if value is not None
    }  # fmt: skip
    others = {
        "top_k": options.top_k,
        "min_p": options.min_p or None,
        "repetition_penalty": None if options.repetition_penalty == 1 else options.repetition_penalty,
    }
    for name, value in others.items():
        if value is None:
            continue
        if name not in kind.samplers:
            notices.append(f"{name} was not sent: {kind.name} does not take it.")
            continue
        body[kind.samplers[name]] = value
        if name in kind.dropped_while_drafting:
            notices.append(f"{kind.name} ignores {name} while it drafts.")
    return body


def _limit(request: Generate, kind: ServerKind, context_tokens: int | None) -> dict[str, Any]:
    most = request.max_tokens
    if most is None and kind.share_of_context is not None and context_tokens is not None:
        most = max(1, context_tokens // kind.share_of_context)
    elif most is None:
        most = kind.most_tokens
    if most is not None and context_tokens is not None:
        most = min(most, context_tokens)  # vLLM refuses more
    return {} if most is None else {kind.token_limit: most}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": json.loads(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}
