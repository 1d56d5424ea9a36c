"""What all APIs have in common about messages.

The same conversation is read as the same messages, whether a client writes a content as text or in parts, and
however it divides what people and the system say.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.serve.dialects.fields import Fields, whole_characters
from app.serve.errors import BadRequestError
from mlx_engine.protocol.events import Message

PARAGRAPHS = "\n\n"
"""Between what was sent in parts."""
STAND_INS = {
    "image": "[an image, which cannot be read here]",
    "image_url": "[an image, which cannot be read here]",
    "input_image": "[an image, which cannot be read here]",
    "audio": "[a recording, which cannot be read here]",
    "input_audio": "[a recording, which cannot be read here]",
    "document": "[a document, which cannot be read here]",
    "file": "[a file, which cannot be read here]",
    "input_file": "[a file, which cannot be read here]",
}
"""What the model reads in place of a part that is no text."""
TEXT_KINDS = (None, "text", "input_text", "output_text")
OTHER_STAND_IN = "[something that cannot be read here]"


def content_text(fields: Fields, key: str, separator: str = PARAGRAPHS) -> str:
    """A content that is text, a list of parts or null."""
    parts = fields.value(key)
    if not isinstance(parts, list):
        return fields.text(key) or ""
    texts = [_part_text(part, fields, f"{key}[{index}]") for index, part in enumerate(parts)]
    return separator.join(text for text in texts if text)


def joined(messages: Iterable[Message], key: str) -> tuple[Message, ...]:
    """What people, or the system, say in several messages after one another becomes one message.

    A system message within the conversation stays where it is: moved to the front it would change the beginning of
    the prompt, which is what was read already. A reply that was stopped before its first word is left out.
    key: the field of the messages, for BadRequestError.
    """
    whole: list[Message] = []
    told = (message for message in messages if message.role != "assistant" or message.text or message.calls)
    for role, run in itertools.groupby(told, key=lambda message: message.role):
        if role in ("user", "system"):
            whole.append(Message(role, PARAGRAPHS.join(message.text for message in run if message.text)))
        else:
            whole += run
    if not whole:
        raise BadRequestError(f"{key} is empty. Send at least one message.", key)
    if whole[-1].calls:
        raise BadRequestError(f"The last message in {key} calls tools. Send their results behind it.", key)
    if any(_is_orphan(message, before) for before, message in itertools.pairwise([None, *whole])):
        raise BadRequestError(
            f"{key} has the result of a tool that no message before it calls. Send the call too.", key
        )
    called = {call.id for message in whole for call in message.calls}
    if "" not in called and any(message.call_id and message.call_id not in called for message in whole):
        raise BadRequestError(
            f"{key} has a result with the id of no call in it. Send the id of the call that it is from.", key
        )
    _check_question(whole, key)
    return tuple(whole)


def _is_orphan(message: Message | None, before: Message | None) -> bool:
    """Whether it is a result behind no call, which the model would never read."""
    is_result = message is not None and message.role == "tool"
    return is_result and not (before is not None and (before.calls or before.role == "tool"))


def _check_question(messages: Sequence[Message], key: str) -> None:
    """Raise BadRequestError if there is nothing to answer. A reply at the end is continued."""
    asked = messages[:-1] if messages[-1].role == "assistant" else messages
    if not asked:
        raise BadRequestError(f"{key} has only a reply. Send the message that it answers before it.", key)
    if asked[-1].role in ("user", "system") and not asked[-1].text.strip():
        raise BadRequestError(f"The message to answer in {key} has no text. Send some.", key)


def _part_text(part: Any, fields: Fields, key: str) -> str:
    if isinstance(part, str):
        return whole_characters(part)
    if not isinstance(part, Mapping):
        raise fields.error(key, "is no part of a message. Send text, or an object with a type.")
    kind = part.get("type")
    if isinstance(kind, str) and kind in STAND_INS:
        return STAND_INS[kind]
    inner = Fields(part, fields.place(key))
    text = inner.text("refusal" if kind == "refusal" else "text")
    if text is None and kind in TEXT_KINDS:
        raise inner.error("text", "is missing. Send the text of this part.")
    return OTHER_STAND_IN if text is None else text
