"""Shared by the tests of the loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import Target
from mlx_engine.protocol.events import FinishReason, RoundFacts
from mlx_engine.speculation.draft_choice import Choice, Offers, at_length
from mlx_engine.speculation.drafter import Drafter, Frontier
from mlx_engine.speculation.sampling import Distribution, Sampler
from tests.fakes.markov import StatelessDrafter

GREEDY = Sampler(temperature=0)


@dataclass
class ScriptedControl:
    """Draft lengths that follow a list, then stay at its last entry."""

    lengths: Sequence[int]
    rounds: int = field(default=0)
    is_cancelled: bool = False

    def next_draft(self, offers: Offers) -> Choice:
        length = self.lengths[min(self.rounds, len(self.lengths) - 1)]
        return at_length(length, offers, lambda index, offer, length: length)


def load_tensors(path: Path) -> dict[str, mx.array]:
    """The tensors of a safetensors file."""
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    return tensors


def token_list(tokens: mx.array) -> list[int]:
    """Token ids on the host."""
    return [int(token) for token in np.array(tokens)]


def session_for(target: Target, drafter: Drafter | None, prompt: Sequence[int]) -> Session:
    """A session of its own, at the start of its prompt."""
    prefix = PrefixCache(target)
    prefix.resume(prompt)
    return Session(target, [drafter] if drafter else [], prefix)


class Decoded(list[RoundFacts]):
    """All rounds of one reply, and why it ended."""

    finish_reason: FinishReason | None = None


def rounds(
    target: Target,
    drafter: Drafter | None,
    prompt: Sequence[int],
    max_tokens: int,
    *lengths: int,
    sampler: Sampler = GREEDY,
    stop_tokens: frozenset[int] = frozenset(),
    on_round: Callable[[RoundFacts, Session], None] = lambda done, session: None,
) -> Decoded:
    """All rounds of one reply through the real loop."""
    session = session_for(target, drafter, prompt)
    control = ScriptedControl(lengths)
    committed = Decoded()
    for done in generate(session, DecodeOptions(sampler, stop_tokens, max_tokens, control)):
        control.rounds += 1
        on_round(done, session)
        committed.append(done)
    committed.finish_reason = session.finish_reason
    return committed


def tokens(committed: Sequence[RoundFacts]) -> list[int]:
    """The reply's token ids."""
    return [token for done in committed for token in done.token_ids]


class OracleDrafter(StatelessDrafter):
    """Knows the greedy reply, and tells each token of it rightly with this chance, always the same ones."""

    def __init__(self, prompt_tokens: int, reply: Sequence[int], right: float, vocab: int) -> None:
        self._prompt_tokens = prompt_tokens
        draw = random.Random(len(reply))
        self._draft = [token if draw.random() < right else (token + 1) % vocab for token in reply]

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        begin = len(committed) - self._prompt_tokens
        draft = [*self._draft[begin : begin + length], *[0] * length][:length]
        return Distribution(mx.array(draft, dtype=mx.int32), None)
