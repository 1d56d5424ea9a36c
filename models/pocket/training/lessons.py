"""Reads the corpus: questions with one answer each, their held-out paraphrases, and short dialogues."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

CORPUS = Path(__file__).parent / "corpus"
Turns = list[tuple[str, str]]
"""A conversation: (question, answer), oldest first."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One question that the pocket model can answer, in many wordings."""

    id: str
    kind: str
    """fact | concept | chat | other"""
    must: tuple[str, ...]
    """For facts: what an answer has to contain to be correct."""
    ask: tuple[str, ...]
    held_out: tuple[str, ...]
    """Paraphrases that training never sees."""
    answer: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """Everything that the pocket model is trained on."""

    entries: tuple[Lesson, ...]
    dialogues: tuple[Turns, ...]

    def held_out(self, kind: str | None = None) -> list[tuple[str, Lesson]]:
        """(question, lesson) for every held-out paraphrase, of one kind or of all."""
        return [(q, e) for e in self.entries if kind in (None, e.kind) for q in e.held_out]

    def held_out_keys(self) -> frozenset[str]:
        """Normalised held-out questions, for refusing a training question that equals one."""
        return frozenset(normalised(question) for question, _ in self.held_out())

    def texts(self) -> list[str]:
        """All training text, for the tokenizer."""
        texts = [text for e in self.entries for text in (*e.ask, e.answer, e.answer)]
        return texts + [text for turns in self.dialogues for turn in turns for text in turn]


def normalised(question: str) -> str:
    """A question without case, punctuation and doubled spaces."""
    return " ".join(re.sub(r"[^a-z0-9+ ]", " ", question.lower()).split())


def load_corpus(folder: Path = CORPUS) -> Corpus:
    """Read every .yaml file of `folder`; a training question equal to a held-out one is left out."""
    raw = [item for path in sorted(folder.glob("*.yaml")) for item in yaml.safe_load(path.read_text())]
    held = {normalised(str(q)) for item in raw for q in item.get("held_out", ())}
    entries, dialogues = [], []
    for item in raw:
        if "turns" in item:
            dialogues.append([(str(question).strip(), str(answer).strip()) for question, answer in item["turns"]])
            continue
        entries.append(
            Lesson(
                id=item["id"],
                kind=item["kind"],
                must=tuple(map(str, item.get("must", ()))),
                ask=tuple(str(q) for q in item["ask"] if normalised(str(q)) not in held),
                held_out=tuple(map(str, item.get("held_out", ()))),
                answer=item["answer"].strip(),
            )
        )
    return Corpus(tuple(entries), tuple(dialogues))
