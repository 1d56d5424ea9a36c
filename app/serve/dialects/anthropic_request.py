"""From the body of a request for messages, or for the count of their tokens, to an AnswerRequest.

Clients write the same conversation differently from turn to turn: a text as a string or as a list of blocks, with
or without `cache_control`, with other ids, with a first line that changes. None of that reaches the request, so
that the same conversation is the same prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Any

from app.serve.dialects.fields import Json, flag_of, integer_in, json_text, list_of, number_in, object_of, text_of
from app.serve.errors import BadRequestError
from app.serve.request import AnswerRequest, ToolChoice
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, DraftSetting, Message, SamplingOptions, Tool, ToolCall

BETWEEN_TEXTS = "\n\n"
"""Between neighbouring texts that people or programs wrote."""
BILLING_LINE = re.compile(r"\Ax-anthropic-billing-header:[^\n]*\n*")
"""Claude Code begins its system prompt with it, and changes it within a conversation."""
SMALL_SHARE = 1e-6


def read_request(body: Json) -> AnswerRequest:
    """Raises BadRequestError."""
    conversation = _read_conversation(body)
    tools, strict_tools = _read_tools(body, conversation.referenced_tools)
    return AnswerRequest(
        messages=tuple(conversation.messages),
        tools=tools,
        tool_choice=_read_tool_choice(body, tools),
        strict_tools=strict_tools,
        schema=_read_schema(body),
        sampling=SamplingOptions(
            temperature=number_in(body.get("temperature"), "temperature", 0, 100),
            top_k=integer_in(body.get("top_k"), "top_k", 0),
            top_p=_read_top_p(body),
        ),
        max_tokens=integer_in(body.get("max_tokens"), "max_tokens", 1),
        stop=_read_stop(body),
        # `adaptive` is what Claude Code always sends, and asks for nothing.
        is_thinking=object_of(body.get("thinking"), "thinking").get("type") == "enabled",
        is_streamed=flag_of(body.get("stream"), "stream"),
        model=text_of(body.get("model"), "model"),
        draft_length=_read_draft_length(body),
    )


def _read_conversation(body: Json) -> _Conversation:
    conversation = _Conversation()
    conversation.add_system(_system_text(body.get("system"), "system"))
    for index, message in enumerate(list_of(body.get("messages"), "messages")):
        where = f"messages[{index}]"
        role, content = object_of(message, where).get("role"), message.get("content")
        match role:
            case "system":
                conversation.add_system(_system_text(content, f"{where}.content"))
            case "user":
                conversation.add_user(_blocks(content, f"{where}.content"), where)
            case "assistant":
                conversation.add_assistant(_blocks(content, f"{where}.content"))
            case _:
                raise BadRequestError(f"{where}.role must be user, assistant or system.", f"{where}.role")
    messages = conversation.messages
    if messages and messages[-1].calls:
        raise BadRequestError(
            "The last message calls tools. Send their results as tool_result blocks of a user message.", "messages"
        )
    if not any(message.role in ("user", "tool") for message in messages):
        raise BadRequestError("The request has no message of a user. Send at least one.", "messages")
    return conversation


@dataclass(slots=True)
class _Block:
    """A block of content, and where it is in the body."""

    kind: str
    value: Json
    where: str

    @property
    def text(self) -> str:
        """What it says to the model; of what is no text, that it is there."""
        match self.kind:
            case "text":
                return self.field("text")
            case "tool_reference":
                return f"The tool {self.field('tool_name')} can be called now."
            case "document" | "search_result" if (text := self._text_of_source()) is not None:
                return _joined((self.field("title"), text))
            case _:
                return f"[{self.kind}: cannot be shown to this model]"

    def field(self, name: str) -> str:
        """A field that is text."""
        return text_of(self.value.get(name), f"{self.where}.{name}")

    def _text_of_source(self) -> str | None:
        """None: it is a file, not text."""
        value, where = self.value, self.where
        if self.kind == "document":
            value, where = object_of(value.get("source"), f"{where}.source"), f"{where}.source"
            if value.get("type") == "text":
                return text_of(value.get("data"), f"{where}.data")
            if value.get("type") != "content":
                return None
        inner = _blocks(value.get("content"), f"{where}.content")
        return _joined(block.field("text") for block in inner if block.kind == "text")


@dataclass(slots=True)
class _Conversation:
    """Messages as the engine takes them, with ids of calls that count up."""

    messages: list[Message] = field(default_factory=list)
    referenced_tools: set[str] = field(default_factory=set)
    """Names of deferred tools that the results of a search for tools name."""
    _ids: dict[str, str] = field(default_factory=dict)
    """From the client's ids of calls to those here."""
    _calls: int = 0

    def add_system(self, text: str) -> None:
        """One that follows others is a message of its own, so that what was read before stays the same."""
        if text.strip():
            self._add(Message("system", text), BETWEEN_TEXTS)

    def add_user(self, blocks: list[_Block], where: str) -> None:
        """Results of tools first: they belong to the calls before."""
        results = [self._result(block) for block in blocks if block.kind == "tool_result"]
        text = _joined(block.text for block in blocks if block.kind != "tool_result")
        if not results and not text.strip():
            raise BadRequestError(f"{where} is empty. Send text, or leave the message out.", f"{where}.content")
        self.messages += results
        if text.strip():
            self._add(Message("user", text), BETWEEN_TEXTS)

    def add_assistant(self, blocks: list[_Block]) -> None:
        """What other servers' tools did for the model is left out."""
        message = Message(
            "assistant",
            "".join(block.text for block in blocks if block.kind == "text"),
            "".join(block.field("thinking") for block in blocks if block.kind == "thinking"),
            tuple(self._call(block) for block in blocks if block.kind == "tool_use"),
        )
        if message.text.strip() or message.calls:
            self._add(message, "")

    def _add(self, message: Message, between: str) -> None:
        """In one with the message before it, where the same side goes on."""
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != message.role or last.calls:
            self.messages.append(message)
        else:
            self.messages[-1] = Message(
                last.role, last.text + between + message.text, last.thinking + message.thinking, message.calls
            )

    def _call(self, block: _Block) -> ToolCall:
        self._calls += 1
        id = f"call_{self._calls}"
        self._ids[block.field("id")] = id
        arguments = object_of(block.value.get("input"), f"{block.where}.input")
        return ToolCall(
            _name(block.value, block.where), json_text(arguments, f"{block.where}.input", is_sorted=True), id
        )

    def _result(self, block: _Block) -> Message:
        id = block.field("tool_use_id")
        if id not in self._ids:
            where = f"{block.where}.tool_use_id"
            raise BadRequestError(f"{where} names no tool_use block of the messages before.", where)
        parts = _blocks(block.value.get("content"), f"{block.where}.content")
        self.referenced_tools |= {part.field("tool_name") for part in parts if part.kind == "tool_reference"}
        text = _joined(part.text for part in parts)
        is_error = flag_of(block.value.get("is_error"), f"{block.where}.is_error")
        return Message("tool", f"Error: {text}" if is_error else text, call_id=self._ids[id])


def _blocks(content: Any, where: str) -> list[_Block]:
    if content is None or isinstance(content, str):
        content = [{"type": "text", "text": content}]
    blocks: list[_Block] = []
    for index, value in enumerate(list_of(content, where)):
        place = f"{where}[{index}]"
        block = object_of(value, place)
        kind = text_of(block.get("type"), f"{place}.type")
        if not kind:
            raise BadRequestError(f"{place}.type is missing.", f"{place}.type")
        blocks.append(_Block(kind, block, place))
    return blocks


def _system_text(content: Any, where: str) -> str:
    return _joined(BILLING_LINE.sub("", block.text) for block in _blocks(content, where))


def _joined(texts: Iterable[str]) -> str:
    return BETWEEN_TEXTS.join(filter(None, texts))


def _read_tools(body: Json, referenced: Set[str]) -> tuple[tuple[Tool, ...], frozenset[str]]:
    """The tools that the client runs itself, and the names of the strict ones.

    Tools that the API's own servers would run are left out, and so are deferred ones until a result names them.
    """
    tools: dict[str, Tool] = {}
    strict: set[str] = set()
    for index, value in enumerate(list_of(body.get("tools"), "tools")):
        where = f"tools[{index}]"
        tool = object_of(value, where)
        if tool.get("type") not in (None, "custom"):
            continue
        name = _name(tool, where)
        if flag_of(tool.get("defer_loading"), f"{where}.defer_loading") and name not in referenced:
            continue
        if name in tools:
            raise BadRequestError(f"Two tools are called {name}. Give each a name of its own.", f"{where}.name")
        schema = object_of(tool.get("input_schema"), f"{where}.input_schema")
        description = text_of(tool.get("description"), f"{where}.description")
        tools[name] = Tool(name, description, json_text(schema, f"{where}.input_schema"))
        if flag_of(tool.get("strict"), f"{where}.strict"):
            strict.add(name)
    return tuple(tools.values()), frozenset(strict)


def _read_tool_choice(body: Json, tools: tuple[Tool, ...]) -> ToolChoice:
    choice = object_of(body.get("tool_choice"), "tool_choice")
    match choice.get("type"):
        case None | "auto":
            return "auto"
        case "none":
            return "none"
        case "any" if tools:
            return "required"
        case "any":
            raise BadRequestError("tool_choice asks for a call, but the request has no tools.", "tool_choice")
        case "tool":
            named = next((tool for tool in tools if tool.name == choice.get("name")), None)
            if named is None:
                raise BadRequestError("tool_choice.name is none of the request's tools.", "tool_choice.name")
            return named
    raise BadRequestError("tool_choice.type must be auto, any, tool or none.", "tool_choice.type")


def _read_schema(body: Json) -> str | None:
    """`output_config.format`, or `output_format` as older clients write it."""
    where, value = "output_config.format", object_of(body.get("output_config"), "output_config").get("format")
    if value is None:
        where, value = "output_format", body.get("output_format")
    if value is None:
        return None
    form = object_of(value, where)
    if form.get("type") != "json_schema":
        raise BadRequestError(f"{where}.type must be json_schema.", f"{where}.type")
    if form.get("schema") is None:
        raise BadRequestError(f"{where}.schema is missing.", f"{where}.schema")
    return json_text(object_of(form["schema"], f"{where}.schema"), f"{where}.schema")


def _read_stop(body: Json) -> tuple[str, ...]:
    stop = tuple(
        text_of(value, f"stop_sequences[{index}]")
        for index, value in enumerate(list_of(body.get("stop_sequences"), "stop_sequences"))
    )
    if "" in stop:
        raise BadRequestError("stop_sequences contains an empty text. Leave it out.", "stop_sequences")
    return stop


def _read_top_p(body: Json) -> float | None:
    """0 keeps the most likely token alone, as a very small share does."""
    share = number_in(body.get("top_p"), "top_p", 0, 1)
    return None if share is None else max(share, SMALL_SHARE)


def _read_draft_length(body: Json) -> DraftSetting:
    own = object_of(body.get("slipstream"), "slipstream")
    if own.get("draft") in (None, "auto"):
        return "auto"
    length = integer_in(own.get("draft"), "slipstream.draft", 0)
    if length is None or length > MAX_DRAFT_LENGTH:
        raise BadRequestError(f"slipstream.draft must be auto, or 0 to {MAX_DRAFT_LENGTH}.", "slipstream.draft")
    return length


def _name(value: Json, where: str) -> str:
    name = text_of(value.get("name"), f"{where}.name")
    if not name:
        raise BadRequestError(f"{where}.name is missing.", f"{where}.name")
    return name
