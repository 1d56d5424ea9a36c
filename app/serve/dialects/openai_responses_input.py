"""The input of a response: items, of which several are one message of the model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from app.serve.dialects.conversation import content_text
from app.serve.dialects.fields import Fields
from app.serve.dialects.openai_tools import full_name
from mlx_engine.protocol.events import Message, ToolCall


def read_input(body: Fields) -> Iterator[Message]:
    """The instructions, then the input, which is text or a list of items. Raises BadRequestError."""
    instructions = body.text("instructions")
    if instructions:
        yield Message("system", instructions)
    if isinstance(body.value("input"), str):
        yield Message("user", body.text("input") or "")
        return
    items = (message for message in map(_item, body.objects("input")) if message)
    for role, run in itertools.groupby(items, key=lambda message: message.role):
        if role == "assistant":
            yield from _replies(run)
        else:
            yield from run


def _item(item: Fields) -> Message | None:
    """None: an item of a kind that means nothing here, such as a search that ran elsewhere."""
    match item.value("type"):
        case "message" | None:
            return _message(item)
        case "reasoning":
            # What was sent as a summary is the thoughts themselves.
            thinking = content_text(item, "content", "") or content_text(item, "summary", "")
            return Message("assistant", "", thinking)
        case "function_call":
            name = full_name(item, item.text("namespace"))
            call = ToolCall(name, item.arguments("arguments"), item.text("call_id") or "")
            return Message("assistant", "", calls=(call,))
        case "function_call_output":
            return Message("tool", content_text(item, "output"), call_id=item.text("call_id") or "")
        case "item_reference":
            raise item.error(
                "type", "refers to an earlier answer, and none are stored here. Send the item itself."
            )
        case str():
            return None
        case _:
            raise item.error("type", "is no text. Send the type of the item, such as message.")


def _message(item: Fields) -> Message:
    match item.value("role"):
        case "system" | "developer":
            return Message("system", content_text(item, "content"))
        case "user":
            return Message("user", content_text(item, "content"))
        case "assistant":
            return Message("assistant", content_text(item, "content", ""))
        case _:
            raise item.error("role", "is none of system, developer, user and assistant. Send one of these.")


def _replies(items: Iterable[Message]) -> Iterator[Message]:
    """Thoughts, a text and calls that follow one another in this order are one message of the model, and so is a
    text behind calls whose results are still to come."""
    reply: list[Message] = []
    for item in items:
        has_thoughts_only = not reply or not (reply[-1].text or reply[-1].calls)
        is_beside_call = bool(reply and reply[-1].calls and item.text)
        if not (item.calls or has_thoughts_only or is_beside_call):
            yield _as_one(reply)
            reply = []
        reply.append(item)
    yield _as_one(reply)


def _as_one(items: Sequence[Message]) -> Message:
    return Message(
        "assistant",
        "".join(item.text for item in items),
        "".join(item.thinking for item in items),
        tuple(call for item in items for call in item.calls),
    )
