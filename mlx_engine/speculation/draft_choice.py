"""What decides which drafter drafts the next round, and how many tokens. No MLX, no clock.

Before each round every drafter offers what it can propose now. A policy picks one offer and a length, from what it
learned of the rounds before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, RoundFacts
from mlx_engine.protocol.stats import is_another_context

FIRST_BURST_AFTER_ROUNDS = 8
BURST_EVERY_ROUNDS = 256
BURST_ROUNDS = 6
"""Now and then a few rounds are plain, so that the baseline decode speed is measured: 2% of the rounds. They
come in bursts because only a plain round that follows another plain round shows that speed."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a drafter can propose in the next round."""

    tokens: int
    """The most; 0 if it has nothing to propose."""
    chances: Sequence[float] | None = None
    """By position, the chance that the draft is accepted if all before it are. None: the drafter cannot tell, and
    the policy learns it."""

    @property
    def is_certain(self) -> bool:
        """Every draft will be accepted."""
        return self.tokens > 0 and self.chances is not None and min(self.chances) == 1


@dataclass(frozen=True, slots=True)
class Choice:
    """Which drafter drafts a round, and how many tokens."""

    drafter: int
    """Its index among the offers; of no meaning in a plain round."""
    length: int
    """0 makes a plain round."""


PLAIN = Choice(0, 0)

Offers = Sequence[Offer]


class DraftPolicy(Protocol):
    """Chooses the draft of each round from the rounds before it."""

    def choose(self, offers: Offers) -> Choice:
        """The next round's draft, within what is offered. Asking changes nothing."""
        ...

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """Learn from a finished round and from how long it took."""
        ...


def at_length(length: int, offers: Offers, tokens_of: Callable[[int, Offer, int], float]) -> Choice:
    """The offer that brings the most tokens at this length, the first of equals.

    tokens_of: the expected tokens of a round, by index, offer and length.
    """
    choices = [Choice(index, min(length, offer.tokens)) for index, offer in enumerate(offers)]
    drafting = [choice for choice in choices if choice.length]
    if not drafting:
        return PLAIN
    return max(drafting, key=lambda choice: tokens_of(choice.drafter, offers[choice.drafter], choice.length))


def expected_tokens(chances: Sequence[float], length: int) -> float:
    """Tokens of a round that drafts `length` tokens with these chances, the target's own token included."""
    tokens = reached = 1.0
    for chance in chances[:length]:
        reached *= chance
        tokens += reached
    return tokens


def check_length(length: int) -> None:
    """Raises RequestError if a draft length is not 0 to 16."""
    if not 0 <= length <= MAX_DRAFT_LENGTH:
        raise RequestError(f"Draft length {length} is out of range: use 0 (off) to {MAX_DRAFT_LENGTH}.")


class FixedLength:
    """Always the same draft length, apart from the bursts of plain rounds that measure the baseline speed."""

    def __init__(
        self, length: int, tokens_of: Callable[[int, Offer, int], float] = lambda index, offer, length: length
    ) -> None:
        """tokens_of: see `at_length`."""
        self._rounds = self._context_tokens = 0
        self._tokens_of = tokens_of
        self.set(length)

    def set(self, length: int, measures_baseline: bool = True) -> None:
        """Change the length from the next round on, with or without bursts.

        Raises RequestError if the length is not 0 to 16.
        """
        check_length(length)
        self._length, self._measures_baseline = length, measures_baseline

    def choose(self, offers: Offers) -> Choice:
        """See DraftPolicy."""
        phase = (self._rounds - FIRST_BURST_AFTER_ROUNDS) % BURST_EVERY_ROUNDS
        is_burst = self._rounds >= FIRST_BURST_AFTER_ROUNDS and phase < BURST_ROUNDS
        if is_burst and self._measures_baseline:
            return PLAIN
        return at_length(self._length, offers, self._tokens_of)

    def observe(self, done: RoundFacts, round_s: float) -> None:
        """See DraftPolicy. In another context the baseline speed is measured again."""
        has_changed = is_another_context(self._context_tokens, done.context_tokens)
        self._rounds = 0 if has_changed else self._rounds + 1
        self._context_tokens = done.context_tokens
