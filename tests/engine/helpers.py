"""Shared by the tests of the loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from mlx_engine.decode import Committed, Plan, Session, generate
from mlx_engine.drafters import Drafter, Frontier
from mlx_engine.engine import ReplyControl
from mlx_engine.kv_cache import TargetCache
from mlx_engine.sampling import Distribution, Randomness, Sampler
from mlx_engine.target import Target

GREEDY = Sampler(temperature=0)


@dataclass
class ScriptedLength:
    """A draft length that follows a list, then stays at its last entry."""

    lengths: Sequence[int]
    rounds: int = field(default=0)

    def next_length(self) -> int:
        return self.lengths[min(self.rounds, len(self.lengths) - 1)]

    def observe(self, drafted: int, committed: int, round_s: float) -> None:
        self.rounds += 1


def control(*lengths: int) -> ReplyControl:
    """A control whose rounds have these lengths."""
    made = ReplyControl(0)
    made.draft_length = ScriptedLength(lengths)  # type: ignore[assignment]
    return made


def rounds(
    target: Target,
    drafter: Drafter | None,
    prompt: Sequence[int],
    max_tokens: int,
    *lengths: int,
    sampler: Sampler = GREEDY,
    seed: int = 0,
    stop_tokens: frozenset[int] = frozenset(),
    on_round: Callable[[Committed, Session], None] = lambda done, session: None,
) -> list[Committed]:
    """All rounds of one reply through the real loop."""
    session = Session(target, drafter, target.new_cache())
    steering = control(*lengths)
    plan = Plan(sampler, Randomness(seed), stop_tokens, max_tokens, steering)
    committed = []
    for done in generate(session, prompt, plan):
        steering.draft_length.observe(done.drafted, len(done.token_ids), 0.0)
        on_round(done, session)
        committed.append(done)
    return committed


def tokens(committed: Sequence[Committed]) -> list[int]:
    """The reply's token ids."""
    return [token for done in committed for token in done.token_ids]


class OracleDrafter:
    """Knows the greedy reply, and tells each token of it rightly with this chance, always the same ones."""

    def __init__(self, prompt_tokens: int, reply: Sequence[int], right: float, vocab: int) -> None:
        self._prompt_tokens = prompt_tokens
        draw = random.Random(len(reply))
        self._draft = [token if draw.random() < right else (token + 1) % vocab for token in reply]

    def propose(
        self, frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler, randomness: Randomness
    ) -> Distribution:
        begin = cache.frontier - (self._prompt_tokens - 1)
        draft = [*self._draft[begin : begin + length], *[0] * length][:length]
        return Distribution(mx.array(draft, dtype=mx.int32), None)
