"""Variations of a question as people type it: prefixes, case, punctuation, typos, synonyms, missing words."""

from __future__ import annotations

import random
from collections.abc import Callable

PREFIXES = (
    "please", "hey,", "hi,", "hello,", "quick question:", "can you tell me", "could you tell me", "tell me",
    "i would like to know", "i wonder,", "sorry,", "ok,", "so", "and", "just wondering,", "one more thing:",
    "do you know", "help:", "excuse me,", "well,",
)  # fmt: skip
SUFFIXES = (
    "please",
    "thanks",
    "in slipstream",
    "here",
    "then",
    "exactly",
    "for me",
    "again",
    "please?",
    "in this app",
)
SYNONYMS: tuple[frozenset[str], ...] = tuple(
    frozenset(words.split())
    for words in (
        "quit exit leave close", "stop halt interrupt", "show display see view", "key shortcut keybinding",
        "change set adjust alter", "quick fast quickly", "start begin launch open", "folder directory",
        "big large", "small tiny little", "message text", "reply answer response", "delete remove clear",
        "find locate", "explain describe", "mean stand", "why how-come", "use run", "chat conversation",
        "works functions", "option flag switch", "default standard", "speed pace", "machine computer mac",
        "write type enter", "copy grab", "save keep store", "turn switch", "disable deactivate",
        "enable activate", "need require", "guess propose suggest", "what's whats what", "how's how",
        "terminal shell", "program app application tool", "model llm", "wrong incorrect bad", "many much",
    )
)  # fmt: skip
OPTIONAL = frozenset(
    {
        "a",
        "an",
        "the",
        "do",
        "does",
        "i",
        "my",
        "me",
        "you",
        "your",
        "is",
        "are",
        "can",
        "to",
        "of",
        "in",
        "it",
        "there",
        "this",
        "that",
        "please",
    }
)


def vary(question: str, rng: random.Random) -> str:
    """One variation of `question`; about one in six comes back as it is."""
    if rng.random() < 0.16:
        return question
    steps: tuple[tuple[float, Callable[[str, random.Random], str]], ...] = (
        (0.25, _synonym),
        (0.25, _drop_words),
        (0.22, _frame),
        (0.15, _typo),
        (0.50, _restyle),
    )
    for chance, step in steps:
        if rng.random() < chance:
            question = step(question, rng)
    return question


def _synonym(question: str, rng: random.Random) -> str:
    words = question.split()
    known = [
        (i, group) for i, word in enumerate(words) for group in SYNONYMS if word.lower().strip("?.,!") in group
    ]
    if not known:
        return question
    index, group = rng.choice(known)
    bare = words[index].strip("?.,!")
    words[index] = words[index].replace(bare, rng.choice(sorted(group)))
    return " ".join(words)


def _drop_words(question: str, rng: random.Random) -> str:
    words = question.split()
    kept = [w for w in words if rng.random() > (0.35 if w.lower() in OPTIONAL else 0.08)]
    return " ".join(kept) if len(kept) >= 2 else question


def _frame(question: str, rng: random.Random) -> str:
    if rng.random() < 0.65:
        head = question if rng.random() < 0.3 else question[:1].lower() + question[1:]
        return f"{rng.choice(PREFIXES)} {head}"
    ending = question[-1:] if question[-1:] in "?.!" else ""
    return f"{question.removesuffix(ending)} {rng.choice(SUFFIXES)}{ending}"


def _typo(question: str, rng: random.Random) -> str:
    positions = [i for i in range(1, len(question) - 1) if question[i].isalpha() and question[i + 1].isalpha()]
    if not positions:
        return question
    i = rng.choice(positions)
    if rng.random() < 0.5:
        return question[:i] + question[i + 1] + question[i] + question[i + 2 :]
    return question[:i] + question[i + 1 :]


def _restyle(question: str, rng: random.Random) -> str:
    style = rng.randrange(5)
    if style == 0:
        return question.lower()
    if style == 1:
        return question.rstrip("?.!")
    if style == 2:
        return question.lower().rstrip("?.!")
    if style == 3:
        return question[:1].upper() + question[1:].rstrip("?.!") + "?"
    return question.upper() if rng.random() < 0.1 else question[:1].upper() + question[1:]
