"""Text from a stream of token ids: the answer, and the thoughts before it.

Gemma 4 thinks in a channel: `<|channel>thought\\n ... <channel|>answer`. The marks are told by their ids, so
that no text can be taken for one; the channel's name is plain text after the first of them.
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
    """What some tokens added to a reply."""

    text: str
    thinking: str


class ReplyText:
    """Turns the tokens of one reply into text as they come. Marks without a partner are tolerated."""

    def __init__(self, tokenizer: Tokenizer, opens: int, closes: int, controls: frozenset[int]) -> None:
        """opens, closes: ids of the channel's marks, -1 where there is none; controls: all ids without text."""
        self._marks = {opens: True, closes: False}
        self._controls = controls
        self._answer, self._thoughts = TextStream(tokenizer), TextStream(tokenizer)
        self._is_thinking = False
        self._name: str | None = None
        """What may still be the channel's name; None behind it."""
        self.answer_ids: list[int] = []
        """Tokens of the answer so far, thoughts left out."""

    def add(self, ids: Iterable[int]) -> Piece:
        """What these tokens complete; may be nothing."""
        text = thinking = ""
        for id in ids:
            if id in self._marks:
                thinking += self._finish_thoughts() if self._is_thinking else ""
                self._is_thinking = self._marks[id]
                self._name = "" if self._is_thinking else None
            elif self._is_thinking:
                thinking += self._behind_name(self._thoughts.add([id]))
            else:
                self.answer_ids.append(id)
                text += self._answer.add([id])
        return Piece(text, thinking)

    def finish(self) -> Piece:
        """What is still held back."""
        return Piece(self._answer.finish(), self._finish_thoughts())

    @property
    def has_plain_answer(self) -> bool:
        """The answer's tokens stand for its text and nothing else."""
        return self._controls.isdisjoint(self.answer_ids)

    def _behind_name(self, thinking: str) -> str:
        """Hold text back while it may be the channel's name; let it go, or drop the name, when that is clear."""
        if self._name is None:
            return thinking
        self._name += thinking
        first, newline, rest = self._name.partition("\n")
        if CHANNEL_NAME.startswith(first) and not newline:
            return ""
        held, self._name = self._name, None
        return rest if first == CHANNEL_NAME else held

    def _finish_thoughts(self) -> str:
        held, self._name = self._name or "", None
        return ("" if held == CHANNEL_NAME else held) + self._thoughts.finish()


class TextStream:
    """Turns token ids into text, holding back a character until all its bytes are there.

    Gemma's tokenizer spells what its vocabulary lacks in byte tokens; every other token is text by itself.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, ids: Iterable[int]) -> str:
        """The text that these tokens complete; may be empty. Control tokens have none."""
        return self._characters.decode(b"".join(map(self._bytes, ids)))

    def finish(self) -> str:
        """What is still held back: an unfinished character, as a replacement character."""
        return self._characters.decode(b"", final=True)

    def _bytes(self, id: int) -> bytes:
        spelling = BYTE_TOKEN.fullmatch(self._tokenizer.id_to_token(id) or "")
        if spelling:
            return bytes([int(spelling[1], 16)])
        text: str = self._tokenizer.decode([id], skip_special_tokens=True)
        return text.encode()
