"""From the body of a request for messages, or for the count of their tokens, to an AnswerRequest.

Clients write the same conversation differently from turn to turn: a text as a string or as a list of blocks, with
or without `cache_control`, with other ids, with a first line that changes. None of that reaches the request, so
that the same conversation is the same prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from app.serve.dialects.conversation import OTHER_STAND_IN, PARAGRAPHS, STAND_INS
from app.serve.dialects.fields import Fields
from app.serve.dialects.options import (
    read_draft_length,
    read_sampling,
    read_schema,
    read_stop,
    read_token_limit,
)
from app.serve.request import AnswerRequest, ToolChoice
from mlx_engine.protocol.events import Message, Tool, ToolCall

BILLING_LINE = re.compile(r"\Ax-anthropic-billing-header:[^\n]*\n*")
"""Claude Code begins its system prompt with it, and changes it within a conversation."""
THOUGHTFUL_EFFORTS = ("xhigh", "max")


def read_request(values: Mapping[str, Any]) -> AnswerRequest:
    """Raises BadRequestError."""
    body = Fields(values)
    conversation = _Conversation(body)
    tools, strict_tools, places = _read_tools(body, conversation.referenced_tools)
    form, choice = _form(body), body.object("tool_choice")
    return AnswerRequest(
        messages=tuple(conversation.messages),
        tools=tools,
        tool_choice=_read_tool_choice(body, tools),
        is_single_call=bool(choice and choice.flag("disable_parallel_tool_use")),
        strict_tools=strict_tools,
        schema=read_schema(form),
        sampling=read_sampling(body),
        max_tokens=read_token_limit(body, "max_tokens"),
        stop=read_stop(body, "stop_sequences"),
        is_thinking=_read_is_thinking(body),
        is_streamed=bool(body.flag("stream")),
        model=body.text("model") or "",
        draft_length=read_draft_length(body),
        places=places | ({"schema": form.place()} if form else {}),
    )


class _Conversation:
    """Messages as the engine takes them, with ids of calls that count up. Raises BadRequestError."""

    def __init__(self, body: Fields) -> None:
        self.messages: list[Message] = []
        self.referenced_tools: set[str] = set()
        """Names of deferred tools that the results of a search for tools name."""
        self._ids: dict[str, str] = {}
        """From the client's ids of calls to those here."""
        self._calls = 0
        self._add_system(body, "system")
        for message in body.objects("messages"):
            self._read(message)
        if self.messages and self.messages[-1].calls:
            raise body.error(
                "messages", "ends in calls of tools. Send their results as tool_result blocks of a user."
            )
        if not any(message.role in ("user", "tool") for message in self.messages):
            raise body.error("messages", "has no message of a user. Send at least one.")

    def _read(self, message: Fields) -> None:
        match message.value("role"):
            case "system":
                self._add_system(message, "content")
            case "user":
                self._add_user(message)
            case "assistant":
                self._add_assistant(message)
            case _:
                raise message.error("role", "must be user, assistant or system.")

    def _add_system(self, fields: Fields, key: str) -> None:
        """One that follows others is a message of its own, so that what was read before stays the same."""
        text = _joined(BILLING_LINE.sub("", _text(block)) for block in _blocks(fields, key))
        if text.strip():
            self._add(Message("system", text), PARAGRAPHS)

    def _add_user(self, message: Fields) -> None:
        """Results of tools first: they belong to the calls before."""
        blocks = list(_blocks(message, "content"))
        results = [self._result(block) for block in blocks if block.value("type") == "tool_result"]
        text = _joined(_text(block) for block in blocks if block.value("type") != "tool_result")
        if not results and not text.strip():
            raise message.error("content", "is empty. Send text, or leave the message out.")
        self.messages += results
        if text.strip():
            self._add(Message("user", text), PARAGRAPHS)

    def _add_assistant(self, message: Fields) -> None:
        """What other servers' tools did for the model is left out."""
        text, thinking, calls = "", "", list[ToolCall]()
        for block in _blocks(message, "content"):
            match block.value("type"):
                case "text":
                    text += block.text("text") or ""
                case "thinking":
                    thinking += block.text("thinking") or ""
                case "tool_use":
                    calls.append(self._call(block))
        if text.strip() or calls:
            self._add(Message("assistant", text, thinking, tuple(calls)), "")

    def _add(self, message: Message, between: str) -> None:
        """In one with the message before it, where the same side goes on."""
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != message.role or last.calls:
            self.messages.append(message)
        else:
            self.messages[-1] = Message(
                last.role, last.text + between + message.text, last.thinking + message.thinking, message.calls
            )

    def _call(self, block: Fields) -> ToolCall:
        self._calls += 1
        id = f"call_{self._calls}"
        self._ids[block.name("id")] = id
        return ToolCall(block.name("name"), block.arguments("input"), id)

    def _result(self, block: Fields) -> Message:
        id = self._ids.get(block.name("tool_use_id"))
        if id is None:
            raise block.error("tool_use_id", "names no tool_use block of the messages before.")
        parts = list(_blocks(block, "content"))
        self.referenced_tools |= {
            part.name("tool_name") for part in parts if part.value("type") == "tool_reference"
        }
        text = _joined(map(_text, parts))
        return Message("tool", f"Error: {text}" if block.flag("is_error") else text, call_id=id)


def _blocks(fields: Fields, key: str) -> Iterator[Fields]:
    """The blocks of a content; a text is one block, null is none."""
    if isinstance(text := fields.value(key), str):
        yield Fields({"type": "text", "text": text})
    else:
        yield from fields.objects(key)


def _text(block: Fields) -> str:
    """What a block says to the model; of what is no text, that it is there."""
    match kind := block.value("type"):
        case "text":
            return block.text("text") or ""
        case "tool_reference":
            return f"The tool {block.name('tool_name')} can be called now."
        case "search_result":
            return _joined((block.text("title") or "", _texts(block)))
        case "document":
            return _text_of_document(block)
        case str():
            return STAND_INS.get(kind, OTHER_STAND_IN)
    raise block.error("type", "must be the name of a kind of block, such as text.")


def _text_of_document(block: Fields) -> str:
    source = block.object("source")
    title = block.text("title") or ""
    match source and source.value("type"):
        case "text" if source:
            return _joined((title, source.text("data") or ""))
        case "content" if source:
            return _joined((title, _texts(source)))
        case _:
            return _joined((title, STAND_INS["document"]))


def _texts(fields: Fields) -> str:
    """The texts among the blocks of its content."""
    blocks = _blocks(fields, "content")
    return _joined(block.text("text") or "" for block in blocks if block.value("type") == "text")


def _joined(texts: Iterable[str]) -> str:
    return PARAGRAPHS.join(filter(None, texts))


def _read_tools(body: Fields, referenced: Set[str]) -> tuple[tuple[Tool, ...], frozenset[str], dict[str, str]]:
    """The tools that the client runs itself, the names of the strict ones, and the places of their schemas.

    Tools that the API's own servers would run are left out, and so are deferred ones until a result names them.
    """
    tools: dict[str, Tool] = {}
    strict: set[str] = set()
    places: dict[str, str] = {}
    for fields in body.objects("tools"):
        if fields.value("type") not in (None, "custom"):
            continue
        name = fields.name("name")
        if fields.flag("defer_loading") and name not in referenced:
            continue
        if name in tools:
            raise fields.error("name", "is also the name of another tool. Give each a name of its own.")
        tools[name] = Tool(name, fields.text("description") or "", fields.schema("input_schema"))
        places[f"tools.{name}"] = fields.place("input_schema")
        if fields.flag("strict"):
            strict.add(name)
    return tuple(tools.values()), frozenset(strict), places


def _read_tool_choice(body: Fields, tools: tuple[Tool, ...]) -> ToolChoice:
    choice = body.object("tool_choice")
    if choice is None:
        return "auto"
    match choice.value("type"):
        case "auto" | "none" as kind:
            return "none" if kind == "none" else "auto"
        case "any" if tools:
            return "required"
        case "any":
            raise choice.error("type", "asks for a call, but there are no tools. Send some, or auto.")
        case "tool":
            for tool in tools:
                if tool.name == choice.value("name"):
                    return tool
            raise choice.error("name", "is none of the request's tools.")
    raise choice.error("type", "must be auto, any, tool or none.")


def _read_is_thinking(body: Fields) -> bool:
    """Claude Code says `adaptive` and a high effort in every request; only more than that asks for thoughts."""
    thinking, config = body.object("thinking"), body.object("output_config")
    effort = config and config.text("effort")
    match thinking and thinking.text("type"):
        case "enabled":
            return True
        case "adaptive":
            return effort in THOUGHTFUL_EFFORTS
    return False


def _form(body: Fields) -> Fields | None:
    """`output_config.format`, or `output_format` as older clients write it."""
    config = body.object("output_config")
    return (config and config.object("format")) or body.object("output_format")
