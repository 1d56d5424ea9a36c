"""Collects the tokens of one call until it is complete. A call that is cut off never becomes one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from mlx_engine.protocol.events import ToolCall
from mlx_engine.text.call_parser import NoCallError, parse_calls
from mlx_engine.text.tool_format import Mark


@dataclass(frozen=True, slots=True)
class CallMarks:
    """Token ids, -1 for one that the tokenizer does not have."""

    ORDER: ClassVar[tuple[Mark, ...]] = (Mark.CALL, Mark.CALL_END, Mark.QUOTE)

    opens: int
    closes: int
    quote: int


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What the tokens of a call were."""

    calls: tuple[ToolCall, ...] = ()
    text: str = ""
    """All of it as text, if it was no call."""
    refusal: str = ""
    """Why it was none."""


class CallReader:
    """Reads what follows the mark that opens a call."""

    def __init__(self, decode: Callable[[list[int]], str], marks: CallMarks, controls: frozenset[int]) -> None:
        self._decode, self._marks, self._controls = decode, marks, controls
        self._pieces: list[list[int]] = [[]]
        """The tokens, split at quote marks."""
        self._has_other_control = False

    def add(self, id: int) -> None:
        """One more token, none of the marks that open or close a call."""
        if id == self._marks.quote:
            self._pieces.append([])
        elif id in self._controls:
            self._has_other_control = True
        else:
            self._pieces[-1].append(id)

    def finish(self, is_closed: bool, is_cut: bool = False) -> CallOutcome:
        """is_closed: by the end mark. is_cut: the reply was ended by a limit or by a person."""
        pieces = [self._decode(ids) if ids else "" for ids in self._pieces]
        try:
            if is_cut:
                raise NoCallError("it was cut off")
            if self._has_other_control:
                raise NoCallError("it contains a control token")
            calls = parse_calls(pieces, is_closed)
        except NoCallError as error:
            end = Mark.CALL_END.value if is_closed else ""
            text = Mark.CALL.value + Mark.QUOTE.value.join(pieces) + end
            return CallOutcome(text=text, refusal=f"The model's call of a tool is no call: {error}.")
        return CallOutcome(
            tuple(
                ToolCall(name, json.dumps(arguments, ensure_ascii=False), f"call_{secrets.token_hex(12)}")
                for name, arguments in calls
            )
        )
