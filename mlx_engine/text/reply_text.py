"""From a stream of token ids to text: the thoughts and the answer of a reply.

Gemma 4 thinks in a channel: `<|channel>thought\\n ... <channel|>answer`. The channel's marks are recognised by
their ids, so that no text can be mistaken for one. The channel's name is plain text after the opening mark.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer

BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
CHANNEL_NAME = "thought"


@dataclass(frozen=True, slots=True)
class Piece:
    """The text that some tokens add to a reply."""

    text: str
    thinking: str


class ReplyDecoder:
    """Turns the tokens of one reply into text as they arrive. Marks without a partner are tolerated."""

    def __init__(self, tokenizer: Tokenizer, opens: int, closes: int, controls: frozenset[int]) -> None:
        """opens, closes: ids of the channel's marks, -1 if the tokenizer has none. controls: ids without text."""
        self._marks = {opens: True, closes: False}
        self._controls = controls
        self._answer, self._thoughts = TextStream(tokenizer), TextStream(tokenizer)
        self._is_thinking = False
        self._name: str | None = None
        """Text that may still be the channel's name; None after the name."""
        self.answer_ids: list[int] = []
        """Tokens of the answer so far, without the thoughts."""

    def add(self, ids: Iterable[int]) -> Piece:
        """The text that these tokens complete; may be empty."""
        text = thinking = ""
        for id in ids:
            if id in self._marks:
                thinking += self._finish_thoughts() if self._is_thinking else ""
                self._is_thinking = self._marks[id]
                self._name = "" if self._is_thinking else None
            elif self._is_thinking:
                thinking += self._after_name(self._thoughts.add([id]))
            else:
                self.answer_ids.append(id)
                text += self._answer.add([id])
        return Piece(text, thinking)

    def finish(self) -> Piece:
        """The text still held back."""
        return Piece(self._answer.finish(), self._finish_thoughts())

    @property
    def has_plain_answer(self) -> bool:
        """The answer's tokens are all text: none of them is a control token."""
        return self._controls.isdisjoint(self.answer_ids)

    def _after_name(self, thinking: str) -> str:
        """Hold text back while it may be the channel's name; then drop the name, or release the text."""
        if self._name is None:
            return thinking
        self._name += thinking
        name, newline, rest = self._name.partition("\n")
        if CHANNEL_NAME.startswith(name) and not newline:
            return ""
        held_back, self._name = self._name, None
        return rest if name == CHANNEL_NAME else held_back

    def _finish_thoughts(self) -> str:
        held_back, self._name = self._name or "", None
        return ("" if held_back == CHANNEL_NAME else held_back) + self._thoughts.finish()


class TextStream:
    """Turns token ids into text, holding back a character until all its bytes have arrived.

    Gemma's tokenizer spells characters outside its vocabulary in byte tokens; every other token is text by itself.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, ids: Iterable[int]) -> str:
        """The text that these tokens complete; may be empty. Control tokens have none."""
        return self._characters.decode(b"".join(map(self._bytes, ids)))

    def finish(self) -> str:
        """An unfinished character still held back, as a replacement character."""
        return self._characters.decode(b"", final=True)

    def _bytes(self, id: int) -> bytes:
        spelling = BYTE_TOKEN.fullmatch(self._tokenizer.id_to_token(id) or "")
        if spelling:
            return bytes([int(spelling[1], 16)])
        text: str = self._tokenizer.decode([id], skip_special_tokens=True)
        return text.encode()
