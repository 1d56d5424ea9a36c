"""Draws training conversations from the corpus, and writes them as token ids in Gemma 4's chat format."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Protocol

from tokenizers import Tokenizer

from models.pocket.training.augment import vary
from models.pocket.training.lessons import Corpus, Turns, normalised
from models.pocket.training.out_of_scope import out_of_scope
from models.pocket.training.turns import Sample, answered, encode_turns

SYSTEM_TURNS = (
    "You are Slipstream's pocket model.", "Be brief.", "You are a helpful assistant.", "Answer briefly.",
    "Be friendly.", "You are a guide to Slipstream.", "Use plain language.",
)  # fmt: skip
SYSTEM_SHARE = 0.12
DIALOGUE_SHARE = 0.5
"""Of the conversations with the number of turns that some dialogue has."""
OUT_OF_SCOPE_SHARE = 0.07
VARIED_SHARE = 0.8
"""Of the questions; the others are asked as the corpus has them."""


class SampleSource(Protocol):
    """Draws conversations."""

    def draw(self, turn_count: int) -> Sample:
        """A conversation of `turn_count` turns."""
        ...


def render_prompt(turns: Turns, question: str, system: str | None = None) -> str:
    """The text before an answer: earlier turns, the question, and the open model turn."""
    text = "<bos>" + (f"<|turn>system\n{system}<turn|>\n" if system else "")
    for asked, answer in turns:
        text += f"<|turn>user\n{asked}<turn|>\n<|turn>model\n{answer}<turn|>\n"
    return text + f"<|turn>user\n{question}<turn|>\n<|turn>model\n"


def encode_conversation(tokenizer: Tokenizer, turns: Turns, system: str | None = None) -> Sample:
    """All turns as one sample; the answers and their closing tokens are learned."""
    return encode_turns(tokenizer, [answered(question, answer) for question, answer in turns], system)


@dataclass
class ConversationSource:
    """A seeded, endless source of conversations. Lessons are dealt like cards: each comes up equally often."""

    corpus: Corpus
    tokenizer: Tokenizer
    seed: int
    _rng: random.Random = field(init=False)
    _deck: list[tuple[str, str]] = field(init=False, default_factory=list)
    _refused: frozenset[str] = field(init=False)
    _dialogues: dict[int, list[Turns]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._refused = self.corpus.held_out_keys()
        for turns in self.corpus.dialogues:
            self._dialogues.setdefault(len(turns), []).append(turns)

    def draw(self, turn_count: int) -> Sample:
        """A conversation of `turn_count` turns."""
        scripted = self._dialogues.get(turn_count, [])
        if scripted and self._rng.random() < DIALOGUE_SHARE:
            turns = [(self._vary(q), a) for q, a in self._rng.choice(scripted)]
        else:
            turns = [self.turn() for _ in range(turn_count)]
        system = self._rng.choice(SYSTEM_TURNS) if self._rng.random() < SYSTEM_SHARE else None
        return encode_conversation(self.tokenizer, turns, system)

    def turn(self) -> tuple[str, str]:
        """A question and its answer."""
        if self._rng.random() < OUT_OF_SCOPE_SHARE:
            question, entry_id = out_of_scope(self._rng)
            answers = {e.id: e.answer for e in self.corpus.entries}
            return self._vary(question), answers[entry_id]
        if not self._deck:
            self._deck = [(self._rng.choice(e.ask), e.answer) for e in self.corpus.entries]
            self._rng.shuffle(self._deck)
        question, answer = self._deck.pop()
        return self._vary(question), answer

    def _vary(self, question: str) -> str:
        if self._rng.random() > VARIED_SHARE:
            return question
        varied = vary(question, self._rng)
        return question if normalised(varied) in self._refused else varied
