"""What an agent sends over one session, in the structure that coding agents were recorded with, with made-up text.

The answers in the conversation are given, not the model's own, so that every server reads the same.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any

from tests.bench.environment import REPOSITORY

TURNS = 10
RESULT_CHARACTERS, MESSAGE_CHARACTERS, ANSWER_CHARACTERS = 1200, 250, 500
TITLE_SYSTEM_CHARACTERS = 2120
TOOLS = {
    "bash": (4628, ("command", "timeout", "description")),
    "edit": (1369, ("path", "old", "new", "all")),
    "glob": (517, ("pattern", "path")),
    "grep": (657, ("pattern", "path", "include")),
    "read": (1158, ("path", "offset", "limit")),
    "skill": (399, ("name",)),
    "task": (3019, ("description", "prompt", "kind", "id", "command")),
    "todowrite": (2012, ("todos",)),
    "webfetch": (750, ("url", "format", "timeout")),
    "write": (623, ("path", "content")),
}
"""Recorded: the length of each tool's description, and about how many parameters it has."""
PERSON_WRITES = {4, 7}
"""Before these turns a person wrote; before the others a tool was called."""

Body = dict[str, Any]
"""Of a request of chat completions."""


class Text:
    """Sentences from the words of this repository's own documentation; another seed, another text."""

    def __init__(self, seed: int) -> None:
        pages = [REPOSITORY / "README.md", REPOSITORY / ".github" / "ARCHITECTURE.md"]
        found = {word for page in pages for word in re.findall(r"[a-z]{2,}", page.read_text("utf-8").lower())}
        self._words = sorted(found)
        self._draw = random.Random(seed)

    def of(self, characters: int) -> str:
        """About so many characters."""
        words: list[str] = []
        length = 0
        while length < characters:
            sentence = self._draw.choices(self._words, k=self._draw.randint(5, 14))
            words.append(" ".join(sentence).capitalize() + ".")
            length += len(words[-1]) + 1
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Session:
    """Requests of one agent."""

    turns: list[Body]
    title: Body
    """Sent beside the first."""


def agent_session(seed: int, system_characters: int, max_tokens: int) -> Session:
    """The requests of every turn; system_characters: of the system text, which comes before the tools."""
    text = Text(seed)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": text.of(system_characters)},
        {"role": "user", "content": text.of(MESSAGE_CHARACTERS)},
    ]
    tools = [_tool(name, text) for name in TOOLS]
    turns = []
    for turn in range(TURNS):
        if turn in PERSON_WRITES:
            messages.append({"role": "assistant", "content": text.of(ANSWER_CHARACTERS)})
            messages.append({"role": "user", "content": text.of(MESSAGE_CHARACTERS)})
        elif turn:
            messages += _called(f"call_{turn}", text)
        turns.append({"messages": list(messages), "tools": tools, "tool_choice": "auto"} | _common(max_tokens))
    title = [
        {"role": "system", "content": text.of(TITLE_SYSTEM_CHARACTERS)},
        {"role": "user", "content": "Generate a title for this conversation:"},
        {"role": "user", "content": messages[1]["content"]},
    ]
    return Session(turns, {"messages": title} | _common(max_tokens))


def two_callers(seed: int, system_characters: int, turns: int, max_tokens: int) -> list[Body]:
    """Two conversations with a shared system text, their turns alternating."""
    text = Text(seed)
    system = {"role": "system", "content": text.of(system_characters)}
    callers: list[list[dict[str, Any]]] = [[system], [system]]
    requests = []
    for turn in range(turns):
        for messages in callers:
            if turn:
                messages.append({"role": "assistant", "content": text.of(ANSWER_CHARACTERS)})
            messages.append({"role": "user", "content": text.of(MESSAGE_CHARACTERS)})
            requests.append({"messages": list(messages)} | _common(max_tokens))
    return requests


def schema_of(fields: int) -> dict[str, Any]:
    """A form of short fields, all required."""
    kinds: list[dict[str, Any]] = [
        {"type": "string", "maxLength": 12},
        {"type": "integer", "minimum": 0, "maximum": 999},
        {"type": "boolean"},
        {"enum": ["draft", "verify", "accept"]},
    ]
    properties = {f"field_{index}": kinds[index % len(kinds)] for index in range(fields)}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _common(max_tokens: int) -> Body:
    return {
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": max_tokens,
    }


def _tool(name: str, text: Text) -> dict[str, Any]:
    characters, parameters = TOOLS[name]
    properties = {parameter: {"type": "string", "description": text.of(60)} for parameter in parameters}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": text.of(characters),
            "parameters": {"type": "object", "properties": properties, "required": [parameters[0]]},
        },
    }


def _called(id: str, text: Text) -> list[dict[str, Any]]:
    call = {"name": "read", "arguments": json.dumps({"path": text.of(20)})}
    return [
        {"role": "assistant", "content": "", "tool_calls": [{"id": id, "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": id, "name": "read", "content": text.of(RESULT_CHARACTERS)},
    ]
