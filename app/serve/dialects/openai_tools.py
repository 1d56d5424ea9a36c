"""Tools and which of them to call, as OpenAI's APIs write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from app.serve.dialects.fields import Fields
from app.serve.request import ToolChoice
from mlx_engine.protocol.events import Tool

NAMESPACE_MARK = "::"
"""Between the names of a namespace and of a tool in it, as the model reads them. No other name contains it, so
that a call can be given back with both names apart."""
DEFAULT_NAMESPACE = "functions"
"""Where clients look for a tool whose call names no namespace."""
MAX_NAME_CHARACTERS = 256
UNUSABLE = re.compile(r"[\x00-\x1f(){}\[\]\"]|^\s|\s$")
"""Gemma's notation of calls has no way to write such a name."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a request says about tools."""

    tools: tuple[Tool, ...] = ()
    strict: frozenset[str] = frozenset()
    choice: ToolChoice = "auto"
    is_single_call: bool = False
    places: Mapping[str, str] = field(default_factory=dict)
    """See AnswerRequest."""


def read_tools(body: Fields) -> Tools:
    """Tools that run elsewhere, such as web search, are left out: they are the provider's own. Raises
    BadRequestError."""
    found = _Found()
    for fields in body.objects("tools"):
        found.add(fields)
    tools = Tools(
        tuple(found.tools.values()),
        frozenset(found.strict),
        is_single_call=body.flag("parallel_tool_calls") is False,
        places=found.places,
    )
    return _with_choice(tools, body)


def full_name(fields: Fields, namespace: str | None) -> str:
    """A tool's name as the model reads it."""
    name = fields.name("name")
    return name if namespace in (None, "", DEFAULT_NAMESPACE) else f"{namespace}{NAMESPACE_MARK}{name}"


def split_name(name: str) -> tuple[str | None, str]:
    """Namespace and name of a tool, for the client."""
    namespace, mark, rest = name.partition(NAMESPACE_MARK)
    return (namespace, rest) if mark else (None, name)


@dataclass(slots=True)
class _Found:
    """The functions among a request's tools, by name. Raises BadRequestError."""

    tools: dict[str, Tool] = field(default_factory=dict)
    strict: set[str] = field(default_factory=set)
    places: dict[str, str] = field(default_factory=dict)

    def add(self, fields: Fields, namespace: str = "") -> None:
        """A tool, or each tool in it if it is a namespace."""
        match fields.value("type"):
            case "namespace" if not namespace:
                name = _usable_name(fields)
                for inner in fields.objects("tools"):
                    self.add(inner, name)
            case "function":
                # Chat completions write the function within the tool, responses as the tool.
                self._add_function(fields.object("function") or fields, namespace)
            case _:
                pass

    def _add_function(self, function: Fields, namespace: str) -> None:
        _usable_name(function)
        name = full_name(function, namespace)
        tool = Tool(name, function.text("description") or "", function.schema("parameters"))
        if self.tools.setdefault(name, tool) != tool:
            raise function.error("name", "is also the name of another tool. Give each a name of its own.")
        self.places[f"tools.{name}"] = function.place("parameters")
        if function.flag("strict"):
            self.strict.add(name)


def _usable_name(fields: Fields) -> str:
    name = fields.name("name")
    if len(name) > MAX_NAME_CHARACTERS or UNUSABLE.search(name) or NAMESPACE_MARK in name:
        raise fields.error("name", "cannot be called. Use letters, digits, _ and -, at most 256 of them.")
    return name


def _with_choice(tools: Tools, body: Fields) -> Tools:
    value = body.value("tool_choice")
    if value is None:
        return tools
    if isinstance(value, str):
        return _with_kind(tools, body, value)
    if not isinstance(value, Mapping):
        raise body.error(
            "tool_choice", "cannot be read. Send auto, none, required, or an object that names a function."
        )
    fields = Fields(value, "tool_choice")
    match fields.value("type"):
        case "function":
            return replace(tools, choice=_chosen(_by_name(tools), fields))
        case "allowed_tools":
            allowed = fields.object("allowed_tools") or fields
            by_name = _by_name(tools)
            names = {_chosen(by_name, one).name for one in allowed.objects("tools")}
            kept = replace(
                tools, tools=tuple(tool for tool in tools.tools if tool.name in names), strict=tools.strict & names
            )
            return _with_kind(kept, body, allowed.text("mode") or "auto")
        case str() as kind:
            return _with_kind(tools, body, kind)
        case _:
            raise fields.error("type", "is missing. Send function, and the function's name.")


def _with_kind(tools: Tools, body: Fields, kind: str) -> Tools:
    if kind == "any":
        kind = "required"
    if kind not in ("auto", "none", "required"):
        raise body.error(
            "tool_choice", "names nothing that can be called here. Send auto, none, required or a function."
        )
    if kind == "required" and not tools.tools:
        raise body.error(
            "tool_choice", "asks for a call, but there are no functions in tools. Send some, or auto."
        )
    return replace(tools, choice=cast(ToolChoice, kind))


def _chosen(by_name: Mapping[str, Tool], fields: Fields) -> Tool:
    function = fields.object("function") or fields
    tool = by_name.get(full_name(function, function.text("namespace")))
    if tool is None:
        raise function.error("name", "is not among the functions in tools. Name one of them.")
    return tool


def _by_name(tools: Tools) -> dict[str, Tool]:
    return {tool.name: tool for tool in tools.tools}
