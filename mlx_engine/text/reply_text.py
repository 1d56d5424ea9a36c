"""From a stream of token ids to text: the thoughts, the answer and the calls of a reply.

Gemma 4 thinks in a channel: `<|channel>thought\\n ... <channel|>answer`. The channel's marks are recognised by
their ids, so that no text can be mistaken for one. The channel's name is plain text after the opening mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer

from mlx_engine.protocol.events import ToolCall
from mlx_engine.text.call_reader import CallMarks, CallReader
from mlx_engine.text.common_prefix import common_length

BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
CHANNEL_NAME = "thought"
LONGEST_RUN = 256
"""Tokens that are held back at most; a run of bytes is rarely longer than the four of one character."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What some tokens add to a reply."""

    text: str
    thinking: str
    calls: tuple[ToolCall, ...] = ()
    refused_calls: tuple[str, ...] = ()
    """Why calls are none; they are in the text."""


class ReplyDecoder:
    """Turns the tokens of one reply into text as they arrive. Marks without a partner are tolerated."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        opens: int,
        closes: int,
        controls: frozenset[int],
        call_marks: CallMarks | None = None,
    ) -> None:
        """opens, closes: ids of the channel's marks, -1 if the tokenizer has none. controls: ids without text.
        call_marks: None if calls are text."""
        self._tokenizer = tokenizer
        self._marks = {opens: True, closes: False}
        self._controls = controls
        self._answer, self._thoughts = TextStream(tokenizer, controls), TextStream(tokenizer, controls)
        self._is_thinking = False
        self._name: str | None = None
        """Text that may still be the channel's name; None after the name."""
        self._call_marks = call_marks or CallMarks(-1, -1, -1)
        self._call: CallReader | None = None
        """Of a call that has begun."""
        self.answer_ids: list[int] = []
        """Tokens of the answer so far with its calls, without the thoughts."""
        self.calls: list[ToolCall] = []
        """All calls so far."""
        self._has_refused_call = False
        self.thinking_tokens = 0
        """Tokens of the thoughts so far, without their marks."""

    def add(self, ids: Iterable[int]) -> Piece:
        """What these tokens complete; may be empty."""
        text = thinking = ""
        calls: list[ToolCall] = []
        refusals: list[str] = []
        for id in ids:
            if self._call or id == self._call_marks.opens:
                piece = self._add_to_call(id)
                text += piece.text
                thinking += piece.thinking
                calls += piece.calls
                refusals += piece.refused_calls
            elif id in self._marks:
                thinking += self._finish_thoughts() if self._is_thinking else ""
                self._is_thinking = self._marks[id]
                self._name = "" if self._is_thinking else None
            elif self._is_thinking:
                self.thinking_tokens += 1
                thinking += self._after_name(self._thoughts.add([id]))
            else:
                self.answer_ids.append(id)
                text += self._answer.add([id])
        return Piece(text, thinking, tuple(calls), tuple(refusals))

    def finish(self, is_cut: bool = False) -> Piece:
        """What is still held back. is_cut: the reply was ended by a limit or by a person."""
        rest = self._end_call(is_closed=False, is_cut=is_cut) if self._call else Piece("", "")
        text, thinking = self._answer.finish() + rest.text, self._finish_thoughts() + rest.thinking
        return Piece(text, thinking, rest.calls, rest.refused_calls)

    @property
    def has_plain_answer(self) -> bool:
        """The answer's tokens are all text and complete calls: they mean the same when they are read again."""
        marks = self._call_marks
        others = self._controls - {marks.opens, marks.closes, marks.quote}
        return others.isdisjoint(self.answer_ids) and not self._has_refused_call

    def _add_to_call(self, id: int) -> Piece:
        """A token from the mark on that opens a call. A second such mark ends the call before it."""
        marks = self._call_marks
        if not self._is_thinking:
            self.answer_ids.append(id)
        if self._call and id not in (marks.opens, marks.closes):
            self._call.add(id)
            return Piece("", "")
        if self._call:
            before = self._end_call(is_closed=id == marks.closes)
        elif self._is_thinking:
            before = Piece("", self._finish_thoughts())
        else:
            before = Piece(self._answer.finish(), "")
        if id == marks.opens:
            self._call = CallReader(self._decoded, marks, self._controls)
        return before

    def _end_call(self, is_closed: bool, is_cut: bool = False) -> Piece:
        assert self._call
        outcome, self._call = self._call.finish(is_closed, is_cut), None
        self.calls += outcome.calls
        self._has_refused_call |= bool(outcome.refusal)
        refusals = (outcome.refusal,) if outcome.refusal else ()
        text, thinking = ("", outcome.text) if self._is_thinking else (outcome.text, "")
        return Piece(text, thinking, outcome.calls, refusals)

    def _decoded(self, ids: list[int]) -> str:
        stream = TextStream(self._tokenizer, self._controls)
        return stream.add(ids) + stream.finish()

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
    """Turns token ids into text as they arrive; all its pieces together are the decoded whole.

    Tokens are decoded in runs, behind the run before: what a token stands for can depend on its neighbours (bytes
    of one character, the space before a word). A run that may still change is held back.
    """

    def __init__(self, tokenizer: Tokenizer, controls: frozenset[int] = frozenset()) -> None:
        """controls: ids that have no text."""
        self._tokenizer = tokenizer
        self._controls = controls
        self._before: list[int] = []
        """The run whose text was returned last."""
        self._held: list[int] = []
        """Tokens after it, whose text has not been returned."""

    def add(self, ids: Iterable[int]) -> str:
        """The text that these tokens complete; may be empty."""
        text = ""
        for id in ids:
            if id not in self._controls:
                self._held.append(id)
                text += self._complete() or ""
        return text

    def finish(self) -> str:
        """The rest; a character that is not complete is a replacement character."""
        text = self._new_text()[1] if self._held else ""
        self._before, self._held = [], []
        return text

    def _complete(self) -> str | None:
        """The text of the held run, if no later token can change it."""
        is_bytes = BYTE_TOKEN.fullmatch(self._tokenizer.id_to_token(self._held[-1]) or "")
        if is_bytes and len(self._held) < LONGEST_RUN:
            return None
        is_appended, text = self._new_text()
        if (not is_appended or text.endswith("\ufffd")) and len(self._held) < LONGEST_RUN:
            return None
        self._before, self._held = self._held, []
        return text

    def _new_text(self) -> tuple[bool, str]:
        """Whether the held run only adds to the text before it, and what it adds."""
        before, both = self._decoded(self._before), self._decoded(self._before + self._held)
        if both.startswith(before):
            return True, both[len(before) :]
        return False, both[common_length(before, both) :]

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""
