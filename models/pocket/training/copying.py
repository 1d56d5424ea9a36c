"""Exercises in copying: questions that contain their answer, whole or with one change."""

from __future__ import annotations

import random
from collections.abc import Sequence

from models.pocket.training.copied_texts import CopiedTexts
from models.pocket.training.lessons import Corpus
from models.pocket.training.wordings import load_wordings

SHARES = {"repeat": 0.42, "twice": 0.1, "quote": 0.1, "change": 0.15, "add": 0.09, "pattern": 0.08, "count": 0.06}
"""Of the exercises by kind."""
NUMBERS_SHOWN, NUMBERS_ADDED = 4, 6


class Copying:
    """Draws (question, answer)."""

    def __init__(self, corpus: Corpus, is_held_out: bool = False) -> None:
        """is_held_out: in wordings and of words that training never sees."""
        self._texts = CopiedTexts(corpus, is_held_out)
        self._wordings = load_wordings("copying")
        self._is_held_out = is_held_out

    def draw(self, rng: random.Random, kind: str | None = None) -> tuple[str, str]:
        """An exercise of a kind of `SHARES`, or of any."""
        kind = kind or rng.choices(list(SHARES), weights=list(SHARES.values()))[0]
        values, answer = self._task(rng, kind)
        return self._template(rng, kind).format_map(values), answer

    def again(self, rng: random.Random, answer: str) -> tuple[str, str]:
        """Asks for the answer before it."""
        return self._template(rng, "again"), answer

    def twice(self, rng: random.Random, question: str, answer: str) -> tuple[str, str]:
        """Asks a lesson's question and wants its answer twice."""
        return self._template(rng, "lesson_twice").format(question=question), f"{answer}\n{answer}"

    def _template(self, rng: random.Random, kind: str) -> str:
        return self._wordings[kind].draw(rng, self._is_held_out)

    def _task(self, rng: random.Random, kind: str) -> tuple[dict[str, str], str]:
        """What the template is filled with, and the answer."""
        texts = self._texts
        match kind:
            case "change":
                *words, new = texts.distinct(rng, rng.randint(4, 14))
                at = rng.randrange(1, len(words))
                changed = [*words[:at], new, *words[at + 1 :]]
                return {"text": " ".join(words), "old": words[at], "new": new}, " ".join(changed)
            case "add":
                *points, new = texts.distinct(rng, rng.randint(3, 8))
                return {"text": texts.listed(points), "new": new}, texts.listed([*points, new])
            case "pattern":
                period = self._listed_words(rng, texts.distinct(rng, rng.randint(2, 4)))
                return {"text": period * 2}, period * 2
            case "count":
                first, step = rng.randint(1, 80), rng.choice((1, 1, 1, 2))
                numbers = [str(first + step * at) for at in range(NUMBERS_SHOWN + NUMBERS_ADDED)]
                return {"text": ", ".join(numbers[:NUMBERS_SHOWN])}, ", ".join(numbers[NUMBERS_SHOWN:])
        text = texts.text(rng)
        return {"text": text}, {"repeat": text, "twice": f"{text}\n{text}", "quote": f'"{text}"'}[kind]

    @staticmethod
    def _listed_words(rng: random.Random, words: Sequence[str]) -> str:
        mark = rng.choice(("\n", ", ", " "))
        return "".join(f"{word}{mark}" for word in words)
