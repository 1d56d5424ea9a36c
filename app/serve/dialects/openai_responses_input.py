"""The input of a response: items, of which several are one message of the model."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

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
    reply: Message | None = None
    """What the model said in the items before: thoughts, a text and calls, in this order."""
    for item in body.objects("input"):
        said = _said_by_model(item)
        if said is None:
            other = _other_message(item)
            if other is None:
                continue
            if reply:
                yield reply
            reply = None
            yield other
        elif reply and _continues(reply, said):
            reply = _with(reply, said)
        else:
            if reply:
                yield reply
            reply = said
    if reply:
        yield reply


def _said_by_model(item: Fields) -> Message | None:
    match item.value("type"):
        case "reasoning":
            # Thoughts that a client was shown are their own summary.
            thinking = content_text(item, "content", "") or content_text(item, "summary", "")
            return Message("assistant", "", thinking=thinking)
        case "function_call":
            name = full_name(item, item.text("namespace"))
            call = ToolCall(name, item.arguments("arguments"), item.text("call_id") or "")
            return Message("assistant", "", calls=(call,))
        case "message" | None if item.value("role") == "assistant":
            return Message("assistant", content_text(item, "content", ""))
        case _:
            return None


def _other_message(item: Fields) -> Message | None:
    """None: an item of a kind that means nothing here, such as a search that ran elsewhere."""
    match item.value("type"):
        case "message" | None:
            return _message(item)
        case "function_call_output":
            return Message("tool", content_text(item, "output"), call_id=item.text("call_id") or "")
        case "item_reference":
            raise item.error(
                "type", "refers to an item of an earlier answer, and none are stored here. Send the item."
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
        case _:
            raise item.error("role", "is none of system, developer, user and assistant. Send one of these.")


def _continues(reply: Message, said: Message) -> bool:
    """Whether the model may have said both in one message: thoughts come first, and calls last."""
    if said.calls:
        return True
    return not reply.calls and not reply.text and not (said.thinking and reply.thinking)


def _with(reply: Message, said: Message) -> Message:
    return replace(
        reply,
        text=reply.text + said.text,
        thinking=reply.thinking + said.thinking,
        calls=reply.calls + said.calls,
    )
