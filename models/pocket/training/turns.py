"""Turns of a conversation in Gemma 4's chat format, and the samples that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

Turn = tuple[tuple[str, bool], ...]
"""Its text with control tokens spelled out, in pieces, and whether each is learned."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation as token ids; `learned[i]` says that ids[i] is a token of an answer."""

    ids: list[int]
    learned: list[bool]


def answered(question: str, answer: str) -> Turn:
    """A question and its answer, which is learned with its closing token."""
    return (f"<|turn>user\n{question}<turn|>\n<|turn>model\n", False), (f"{answer}<turn|>", True)


def encode_turns(tokenizer: Tokenizer, turns: Sequence[Turn], system: str | None = None) -> Sample:
    """All turns as one sample. system: the text of the system turn."""
    ids: list[int] = []
    learned: list[bool] = []
    before = "<bos>" + (f"<|turn>system\n{system}<turn|>\n" if system else "")
    for turn in turns:
        for text, is_learned in ((before, False), *turn):
            new = tokenizer.encode(text, add_special_tokens=False).ids
            ids.extend(new)
            learned.extend([is_learned] * len(new))
        before = "\n"
    return Sample(ids, learned)
