"""Whether a chat template is from before July 2026, by what it renders: names and dates in it prove nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from mlx_engine.text.sandbox import TemplateFailedError

EMPTY_THOUGHT = re.compile(r"<\|channel>\s*(thought)?\s*<channel\|>")
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": {"at": None}}}
WITH_CALL: list[dict[str, Any]] = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
]
Render = Callable[..., str]
"""Messages, and variables by name, to the rendered text. Raises TemplateFailedError."""


def old_habits(render: Render) -> list[str]:
    """What this template does that the ones since July 2026 do not, as clauses for people."""
    return list(_habits(render))


def _habits(render: Render) -> Iterator[str]:
    if any(EMPTY_THOUGHT.search(_rendered(render, HISTORY, is_thinking)) for is_thinking in (False, True)):
        yield "puts an empty thought into earlier replies"
    if "at:None" in _rendered(render, WITH_CALL, False):
        yield "writes null as None"


def _rendered(render: Render, messages: list[dict[str, Any]], is_thinking: bool) -> str:
    try:
        return render(messages, add_generation_prompt=False, enable_thinking=is_thinking)
    except TemplateFailedError:
        return ""  # a template for other conversations says nothing about its age
