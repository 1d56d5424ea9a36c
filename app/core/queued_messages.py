"""Messages that were sent while a reply runs, and wait for it to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message as it was typed; its files are read when its turn comes."""

    text: str
    mentions: Sequence[str] = ()
    """Of files, by the person; the text of a paste mentions none."""


def joined(messages: Sequence[QueuedMessage]) -> QueuedMessage:
    """One message with the texts of all, below each other."""
    return QueuedMessage(
        "\n\n".join(message.text for message in messages),
        tuple(mention for message in messages for mention in message.mentions),
    )
