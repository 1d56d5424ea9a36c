"""Values of decoded JSON whose types are unknown, and what they mean in a message."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

ROLES: Mapping[str, str] = {
    **dict.fromkeys(("user", "human", "me"), "user"),
    **dict.fromkeys(("assistant", "ai", "gpt", "model", "bot", "ollama"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function"), "tool"),
}
"""Our role by the word of another program."""

_CALLS = ("tool_use", "tool_result", "tool_call", "function_call", "token_budget", "reasoning_recap")
_MILLISECONDS = range(100_000_000_000, 100_000_000_000_000)
"""Times in this range are in milliseconds: in seconds they would be after the year 5000."""


def string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def seconds(value: Any) -> float:
    """A time as seconds since 1970, from a number or an ISO text; 0 if it is neither."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    number = float(max(-sys.maxsize, min(value, sys.maxsize)))
    return number / 1000 if _MILLISECONDS.start < number < _MILLISECONDS.stop else number


def joined(parts: Iterable[Any]) -> str:
    """The text of a message's parts; a line names each part that is no text."""
    return paragraphs(_text_of(part) if isinstance(part, dict) else string(part) for part in parts)


def _text_of(part: Mapping[str, Any]) -> str:
    kind = string(part.get("type")) or string(part.get("content_type"))
    text = string(part.get("text"))
    return text if text or kind in ("text", *_CALLS) else not_imported(part, kind.replace("_", " "))


def paragraphs(texts: Iterable[str]) -> str:
    """The texts that are not empty, with blank lines between them."""
    return "\n\n".join(filter(None, texts))


def not_imported(part: Mapping[str, Any], kind: str) -> str:
    """A line that names a part of a message."""
    label = " ".join(filter(None, (kind or "part", string(part.get("file_name")))))
    return f"[{label}: not imported]"
