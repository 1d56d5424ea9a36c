"""What a chat template must not see: control spellings in messages, and what is tokens already.

Each is replaced by a private-use character that no message contains, and restored in what the template rendered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from mlx_engine.protocol.errors import RequestError

STAND_INS = (*range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE))
"""Private-use characters."""


class HiddenTexts:
    """Stand-ins for the control spellings in some texts, and for sequences of tokens."""

    def __init__(self, controls: re.Pattern[str], texts: Sequence[str], inserts: Sequence[Sequence[int]]) -> None:
        """inserts: the sequences of tokens. Raises RequestError if there is no character left."""
        self._controls = controls
        spellings = {match for text in texts for match in controls.findall(text)}
        used = set().union(*texts) if spellings or inserts else set()
        needed = len(spellings) + len(inserts)
        free = list(islice((chr(code) for code in STAND_INS if chr(code) not in used), needed))
        if len(free) < needed:
            raise RequestError(
                "The conversation contains every private-use character. Remove some of them.", "messages"
            )
        self._spellings = dict(zip(sorted(spellings), free))
        self._originals = {ord(stand_in): spelling for spelling, stand_in in self._spellings.items()}
        self.stand_ins = free[len(spellings) :]
        """In the order of `inserts`."""
        self.inserted = dict(zip(self.stand_ins, inserts))
        """Stand-in -> the tokens that it replaces."""
        self.insert_pattern = re.compile("([" + "".join(self.stand_ins) + "])" if self.stand_ins else "(?!)")

    def hide(self, text: str) -> str:
        """The text with a stand-in for each control spelling."""
        return self._controls.sub(lambda match: self._spellings[match.group()], text)

    def show(self, text: str) -> str:
        """The text as it was before `hide`."""
        return text.translate(self._originals)
