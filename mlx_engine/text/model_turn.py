"""The model's turns with calls of tools: its texts, calls and their results are one turn, in the order written.

The published template writes a text that stands beside a call behind the results, and closes the turn there. The
model wrote the text first, so here it comes first, and the turn stays open after the results.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mlx_engine.protocol.events import Message, ToolCall
from mlx_engine.text.tool_format import Mark, Part, Parts, written_call, written_result, written_thought

UNKNOWN_TOOL = "unknown"
NO_TEXT = "\ud800"
"""Begins the key of a reply with calls. No message contains it, so no text stands for tokens of a call."""


@dataclass(frozen=True, slots=True)
class ModelTurn:
    """Messages from the first of the model's to the last before a person's, with at least one call among them."""

    messages: list[Message] = field(default_factory=list)
    is_newest: bool = False
    """No message of a person follows, so the model sees its thoughts again."""

    @property
    def has_pending_calls(self) -> bool:
        """It ends in calls without results."""
        return bool(self.messages[-1].calls)

    @property
    def has_results_last(self) -> bool:
        return self.messages[-1].role == "tool"


def in_turns(messages: Sequence[Message]) -> list[Message | ModelTurn]:
    """The conversation with each turn that has calls as one entry, without results that have no call."""
    turns: list[list[Message]] = []
    for message in messages:
        is_models = message.role in ("assistant", "tool")
        if is_models and turns and turns[-1][-1].role in ("assistant", "tool"):
            turns[-1].append(message)
        else:
            turns.append([message])
    last_user = max((index for index, turn in enumerate(turns) if turn[0].role == "user"), default=-1)
    entries: list[Message | ModelTurn] = []
    for index, turn in enumerate(turns):
        kept = _with_calls_only(turn)
        if any(message.calls for message in kept):
            entries.append(ModelTurn(kept, index > last_user))
        else:
            entries += kept
    return entries


def reply_key(text: str, calls: Sequence[ToolCall] = ()) -> str:
    """What a reply is remembered by: its text, and what its calls say, however clients write that."""
    if not calls:
        return text
    parts = [part for call in calls for part in (call.name, _canonical(call.arguments))]
    return "\0".join([NO_TEXT + text.strip(), *parts])


def written_turn(
    turn: ModelTurn, encode: Callable[[Parts], list[int]], known: Callable[[str], list[int]]
) -> list[int]:
    """Token ids of the turn, open at its end. known: the tokens of a reply by its key, empty if not known.

    Raises RequestError.
    """
    ids: list[int] = []
    pending: list[ToolCall] = []
    for message, following in zip(turn.messages, [*turn.messages[1:], None]):
        if message.role == "tool":
            ids += encode(written_result(_name(message, pending), message.text))
            continue
        pending = list(message.calls)
        if message.thinking and turn.is_newest:
            ids += encode(written_thought(message.thinking))
        ids += known(reply_key(message.text, message.calls)) or encode(_written_reply(message))
        if message.calls and (following is None or following.role != "tool"):
            ids += encode(iter([Mark.RESULT]))
    return ids


def _written_reply(message: Message) -> Parts:
    yield message.text.strip()
    for call in message.calls:
        yield from written_call(call)


def joined(parts: Parts) -> list[Part]:
    """The parts with neighbouring texts in one: the tokenizer reads them as one."""
    whole: list[Part] = []
    for part in parts:
        if isinstance(part, str) and whole and isinstance(whole[-1], str):
            whole[-1] += part
        elif part:
            whole.append(part)
    return whole


def _with_calls_only(turn: list[Message]) -> list[Message]:
    """Without the results that follow no message with calls."""
    kept: list[Message] = []
    for message in turn:
        if message.role != "tool" or (kept and (kept[-1].calls or kept[-1].role == "tool")):
            kept.append(message)
    return kept


def _name(result: Message, pending: list[ToolCall]) -> str:
    """Of the tool that a result is from. pending: the turn's latest calls; those without an id are taken off."""
    if not result.call_id:
        return pending.pop(0).name if pending else result.tool_name or UNKNOWN_TOOL
    names = {call.id: call.name for call in pending}
    return names.get(result.call_id) or result.tool_name or UNKNOWN_TOOL


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments or "{}"), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
