"""Converts database rows to records, also when damage that SQLite cannot detect has changed their bytes."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import msgspec

from app.store.errors import StoreError
from app.store.records import Chat, Role, State, StoredMessage, TurnStats
from app.text.sanitise import cleaned

DatabaseRow = Sequence[Any]

CHAT_COLUMNS = """chat.id, chat.title, chat.model, chat.drafter, chat.params_json, chat.created_s, chat.updated_s,
    (SELECT count(*) FROM message WHERE message.chat_id = chat.id)"""
MESSAGE_COLUMNS = "id, chat_id, parent_id, role, text, thinking, state, created_s, typed_characters"
STATS_COLUMNS = ", ".join(TurnStats.__struct_fields__)

_BY_POSITION = ("drafted_by_position", "accepted_by_position")


def params_to_json(params: Mapping[str, Any]) -> str:
    """Raises StoreError for values that JSON cannot represent."""
    try:
        return cleaned(json.dumps(params, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"The settings of a chat cannot be stored as JSON: {error}.") from error


def chat_from(row: DatabaseRow) -> Chat:
    """A row of `CHAT_COLUMNS`."""
    id, title, model, drafter, params_json, created_s, updated_s, message_count = row
    return Chat(
        id=id,
        title=_text(title),
        model=_text(model),
        drafter=None if drafter is None else _text(drafter),
        params=_params(params_json),
        created_s=_seconds(created_s),
        updated_s=_seconds(updated_s),
        message_count=message_count,
    )


def message_from(row: DatabaseRow, stats: TurnStats | None = None) -> StoredMessage:
    """A row of `MESSAGE_COLUMNS`, without its position among siblings."""
    id, chat_id, parent_id, role, text, thinking, state, created_s, typed_characters = row
    return StoredMessage(
        id=id,
        chat_id=chat_id,
        parent_id=parent_id if isinstance(parent_id, int) else None,
        role=role if role in get_args(Role) else "user",
        text=_text(text),
        thinking=_text(thinking),
        state=state if state in get_args(State) else "interrupted",
        created_s=_seconds(created_s),
        stats=stats,
        typed_characters=typed_characters if isinstance(typed_characters, int) else None,
    )


def stats_from(row: DatabaseRow) -> TurnStats | None:
    """A row of `STATS_COLUMNS`; None if it is invalid."""
    values = {name: _if_finite(value) for name, value in zip(TurnStats.__struct_fields__, row)}
    try:
        for name in _BY_POSITION:
            values[name] = msgspec.json.decode(values[name])
        if values["reported"] is not None:
            values["reported"] = msgspec.json.decode(values["reported"])
        return msgspec.convert(values, TurnStats)
    except (msgspec.MsgspecError, TypeError, UnicodeError):
        return None


def insert_stats(connection: sqlite3.Connection, message_id: int, stats: TurnStats) -> None:
    """Store the figures of a reply, replacing earlier ones."""
    values = {name: _if_finite(value) for name, value in msgspec.structs.asdict(stats).items()}
    for name in _BY_POSITION:
        values[name] = json.dumps(values[name])
    if stats.reported is not None:
        values["reported"] = msgspec.json.encode(stats.reported).decode()
    texts = {name: cleaned(value) for name, value in values.items() if isinstance(value, str)}
    # REPLACE uses the default where a figure is unknown in a column that must not be NULL.
    connection.execute(
        f"INSERT OR REPLACE INTO turn_stats (message_id, {STATS_COLUMNS}) VALUES (?{', ?' * len(values)})",
        (message_id, *{**values, **texts}.values()),
    )


def _if_finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def whole(value: object) -> int:
    """A number to sort by; 0 for anything that is not a whole number."""
    return value if isinstance(value, int) else 0


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)


def _seconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _params(value: object) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_text(value), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return {}
