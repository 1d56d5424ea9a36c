"""The conversation: what was said, and what is sent next. Knows nothing of the screen or the engine."""

from __future__ import annotations

from dataclasses import dataclass

from mlx_engine.events import Message


@dataclass(slots=True)
class Exchange:
    """One message of the person and the reply to it so far."""

    prompt: str
    reply: str = ""
    thinking: str = ""
    """What the model thought before it answered; never sent again."""


class Conversation:
    """Exchanges in order; the last one may still be growing."""

    def __init__(self, system: str | None = None) -> None:
        self._system = system
        self._exchanges: list[Exchange] = []

    @property
    def last(self) -> Exchange | None:
        """The newest exchange, None at the start."""
        return self._exchanges[-1] if self._exchanges else None

    @property
    def last_answer(self) -> str | None:
        """The newest reply that says something, complete or stopped; None before the first."""
        return next((each.reply for each in reversed(self._exchanges) if each.reply), None)

    def ask(self, prompt: str) -> None:
        """Begin an exchange."""
        self._exchanges.append(Exchange(_without_surrogates(prompt)))

    def append(self, text: str, thinking: str = "") -> None:
        """Let the running reply grow. What it has is kept, however it ends."""
        self._exchanges[-1].reply += _without_surrogates(text)
        self._exchanges[-1].thinking += _without_surrogates(thinking)

    def regenerate(self) -> bool:
        """Forget the last reply, so that `to_send` asks for it again. False: there is nothing to ask again."""
        if not self._exchanges:
            return False
        self._exchanges[-1].reply = self._exchanges[-1].thinking = ""
        return True

    def clear(self) -> None:
        """Begin a new conversation with the same system text."""
        self._exchanges.clear()

    def to_send(self) -> tuple[Message, ...]:
        """The messages of the next request, ending in the newest prompt.

        Earlier prompts that never got a word in reply (failed, or stopped at once) are left out: what the
        person sent after them stands in their place.
        """
        messages = [Message("system", self._system)] if self._system else []
        for each in self._exchanges[:-1]:
            if each.reply:
                messages += [Message("user", each.prompt), Message("assistant", each.reply)]
        messages.append(Message("user", self._exchanges[-1].prompt))
        return tuple(messages)


def _without_surrogates(text: str) -> str:
    """Lone surrogates cannot be sent: they have no place in UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")
