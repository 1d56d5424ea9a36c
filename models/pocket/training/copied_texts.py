"""Texts to copy, at random, so that only looking back can tell what comes next.

One word in eight is kept from training: a held-out text consists of these alone.
"""

from __future__ import annotations

import random
import re
import string
import zlib
from collections.abc import Sequence

from models.pocket.training.lessons import Corpus
from models.pocket.training.out_of_scope import ANIMALS, FOODS, PEOPLE, PLACES, SPORTS, THINGS

HELD_OUT_ONE_IN = 8
ONE_WORD_SHARE = 0.5
"""Of the texts, made of words; the others are codes, numbers, lines, and sentences of the lessons."""
SHORTEST, LONGEST = 2, 24
"""Words of a text."""


class CopiedTexts:
    """Draws texts from the words of a corpus and of the questions beside it."""

    def __init__(self, corpus: Corpus, is_held_out: bool = False) -> None:
        """is_held_out: from the words that training never copies."""
        texts = " ".join(corpus.texts())
        nouns = (*PLACES, *FOODS, *ANIMALS, *SPORTS, *PEOPLE, *THINGS)
        found = {*re.findall(r"(?<![\w`-])[A-Za-z]{2,}(?![\w`-])", texts), *nouns}
        self.words = tuple(sorted(word for word in found if is_kept_back(word) == is_held_out))
        answers = " ".join(entry.answer for entry in corpus.entries).replace("\n", " ")
        sentences = sorted(set(re.findall(r"[A-Z][^.!?`]{12,110}[.!?]", answers)))
        self._sentences = tuple(s for s in sentences if is_kept_back(s) == is_held_out)

    def word(self, rng: random.Random) -> str:
        """One word."""
        return rng.choice(self.words)

    def distinct(self, rng: random.Random, count: int) -> list[str]:
        """Different words."""
        return rng.sample(self.words, count)

    def text(self, rng: random.Random) -> str:
        """A text of one or several lines."""
        if rng.random() < ONE_WORD_SHARE:
            return self._sentence(rng, self._length(rng))
        match rng.randrange(5):
            case 0:
                return " ".join(code(rng) for _ in range(rng.randint(1, 4)))
            case 1:
                return rng.choice((" ", ", ")).join(str(rng.randrange(1000)) for _ in range(rng.randint(2, 10)))
            case 2:
                return "\n".join(self._sentence(rng, rng.randint(1, 6)) for _ in range(rng.randint(2, 4)))
            case 3:
                return self.listed(self.distinct(rng, rng.randint(2, 6)))
            case _:
                return " ".join(rng.choice(self._sentences) for _ in range(rng.randint(1, 2)))

    @staticmethod
    def listed(points: Sequence[str]) -> str:
        """One point per line."""
        return "\n".join(f"- {point}" for point in points)

    def _sentence(self, rng: random.Random, length: int) -> str:
        text = " ".join(self.word(rng) for _ in range(length))
        return text[:1].upper() + text[1:] + rng.choice(".!?") if rng.random() < 0.3 else text

    @staticmethod
    def _length(rng: random.Random) -> int:
        """Short ones are more frequent."""
        return min(rng.randint(SHORTEST, LONGEST), rng.randint(SHORTEST, LONGEST))


def is_kept_back(text: str) -> bool:
    """Whether a word or sentence is kept for held-out texts. The same on every machine."""
    return zlib.crc32(text.lower().encode()) % HELD_OUT_ONE_IN == 0


def code(rng: random.Random) -> str:
    """Letters and digits without a meaning."""
    letters = rng.choice((string.ascii_lowercase, string.ascii_uppercase, string.ascii_letters + string.digits))
    return "".join(rng.choice(letters) for _ in range(rng.randint(3, 8)))
