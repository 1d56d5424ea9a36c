"""What the target is trained on: lessons, and exercises between them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

from tokenizers import Tokenizer

from models.pocket.training.conversations import SYSTEM_SHARE, SYSTEM_TURNS, ConversationSource
from models.pocket.training.copying import Copying
from models.pocket.training.lessons import Corpus
from models.pocket.training.tool_lessons import ToolLessons, declared, load_tools
from models.pocket.training.turns import Sample, Turn, answered, encode_turns

Practice = Literal["copying", "lessons", "tools", "review"]
"""A stage of the training, by what is new in it; in review nothing is."""
Kind = Literal["lessons", "copying", "tools"]
SHARES: dict[Practice, dict[Kind, float]] = {
    "lessons": {"lessons": 1.0},
    "tools": {"lessons": 0.7, "tools": 0.3},
    "review": {"lessons": 0.85, "tools": 0.15},
}
SHARES_WITH_COPYING: dict[Practice, dict[Kind, float]] = {
    "copying": {"copying": 1.0},
    "lessons": {"lessons": 0.8, "copying": 0.2},
    "tools": {"lessons": 0.6, "copying": 0.15, "tools": 0.25},
    "review": {"lessons": 0.75, "copying": 0.13, "tools": 0.12},
}
"""Of the conversations."""
LESSON_SHARE = 0.3
"""Of the turns of a conversation with tools declared."""
COPYING_SHARES = {"copy": 0.64, "again": 0.14, "twice": 0.1, "lesson": 0.12}
"""Of the turns of a conversation for copying: an exercise, the answer before it again, a lesson's answer twice,
or a lesson."""
BOTH_TOOLS_SHARE = 0.7
MOST_TURNS = 4
"""Of a conversation with exercises: those are longer than lessons."""


@dataclass
class PracticeSource:
    """A seeded, endless source of conversations, with and without exercises. See SampleSource."""

    corpus: Corpus
    tokenizer: Tokenizer
    practice: Practice
    seed: int
    has_copying: bool = False
    _rng: random.Random = field(init=False)
    _lessons: ConversationSource = field(init=False)
    _copying: Copying = field(init=False)
    _tools: ToolLessons = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._lessons = ConversationSource(self.corpus, self.tokenizer, self.seed)
        self._copying = Copying(self.corpus)
        self._tools = ToolLessons()

    def draw(self, turn_count: int) -> Sample:
        """A conversation of `turn_count` turns, or of the most that one with exercises has."""
        shares = (SHARES_WITH_COPYING if self.has_copying else SHARES)[self.practice]
        kind = self._rng.choices(list(shares), weights=list(shares.values()))[0]
        if kind == "lessons":
            return self._lessons.draw(turn_count)
        return self.exercises(kind, min(turn_count, MOST_TURNS))

    def exercises(self, kind: Kind, turn_count: int) -> Sample:
        """A conversation for copying or with tools declared, with a lesson here and there."""
        system = self._rng.choice(SYSTEM_TURNS) if self._rng.random() < SYSTEM_SHARE else ""
        if kind == "copying":
            return encode_turns(self.tokenizer, self._copying_turns(turn_count), system)
        tools = load_tools()
        if self._rng.random() > BOTH_TOOLS_SHARE:
            tools = (self._rng.choice(tools),)
        names = [tool.name for tool in tools]
        turns = [
            answered(*self._lessons.turn())
            if self._rng.random() < LESSON_SHARE
            else self._tools.draw(self._rng, names)
            for _ in range(turn_count)
        ]
        return encode_turns(self.tokenizer, turns, system + declared(tools))

    def _copying_turns(self, turn_count: int) -> list[Turn]:
        turns: list[tuple[str, str]] = []
        for _ in range(turn_count):
            kind = self._rng.choices(list(COPYING_SHARES), weights=list(COPYING_SHARES.values()))[0]
            if kind == "again" and turns:
                turns.append(self._copying.again(self._rng, turns[-1][1]))
            elif kind == "twice":
                turns.append(self._copying.twice(self._rng, *self._lessons.turn()))
            elif kind == "lesson":
                turns.append(self._lessons.turn())
            else:
                turns.append(self._copying.draw(self._rng))
        return [answered(*turn) for turn in turns]
