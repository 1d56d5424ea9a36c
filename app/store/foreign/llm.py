"""The output of `llm logs --json`: a list of prompts with their responses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.store.foreign.conversation import Conversation, in_line
from app.store.foreign.values import seconds, string


def read_llm(rows: Sequence[Any], name: str) -> Iterator[Conversation]:
    """The conversations in decoded JSON."""
    turns: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (seconds(row.get("datetime_utc")), string(row.get("id")))):
        turns.setdefault(string(row.get("conversation_id")) or string(row.get("id")), []).append(row)
    for conversation in turns.values():
        first, last = conversation[0], conversation[-1]
        spoken = [
            (role, string(turn.get(key)), seconds(turn.get("datetime_utc")))
            for turn in conversation
            for role, key in (("user", "prompt"), ("assistant", "response"))
        ]
        yield Conversation(
            entries=in_line([("system", string(first.get("system")), 0.0), *spoken]),
            title=string(first.get("conversation_name")),
            model=string(last.get("model")),
            created_s=seconds(first.get("datetime_utc")),
            updated_s=seconds(last.get("datetime_utc")),
        )
