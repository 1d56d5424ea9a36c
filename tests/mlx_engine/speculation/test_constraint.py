"""A constrained reply has the distribution of plain decoding with the same masks, whatever is drafted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.decode import DecodeOptions, generate
from mlx_engine.protocol.events import RoundFacts
from mlx_engine.speculation.constraint import masked
from mlx_engine.speculation.drafter import Drafter
from mlx_engine.speculation.sampling import Sampler
from tests.fakes.markov import MarkovDrafter, MarkovTarget, PointDrafter
from tests.mlx_engine.helpers import ScriptedControl, session_for, tokens
from tests.mlx_engine.speculation.distributions import ALPHA, P_LOGITS, Q_LOGITS, SAMPLERS, VOCAB, exact, pvalue

pytestmark = pytest.mark.sampled(4)

REPLY_TOKENS = 6_000
ALLOWED = np.array(
    [[1, 0, 1, 0, 1], [0, 1, 1, 0, 0], [1, 1, 0, 1, 1], [0, 0, 0, 0, 1], [1, 1, 0, 1, 0]],
    dtype=bool,
)
"""Which token may follow which. One row forces a token."""


@dataclass
class PairRule:
    """Allows what may follow the last token; a token that is not allowed must never be committed."""

    last: int = 0
    committed: list[int] = field(default_factory=list)

    def masks(self, draft: Sequence[int]) -> list[bytes]:
        return [bytes([int(np.packbits(ALLOWED[last], bitorder="little")[0])]) for last in (self.last, *draft)]

    def forced(self, limit: int) -> list[int]:
        return []

    def advance(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            assert ALLOWED[self.last, token]
            self.last = token
        self.committed += tokens


def constrained(
    drafter: Drafter | None, length: int, sampler: Sampler, rule: PairRule, max_tokens: int = REPLY_TOKENS
) -> tuple[list[RoundFacts], int]:
    """The rounds of a reply through the real loop, and how often the host waited."""
    session = session_for(MarkovTarget(P_LOGITS), drafter, [0, 0])
    options = DecodeOptions(sampler, frozenset(), max_tokens, ScriptedControl([length]), constraint=rule)
    return list(generate(session, options)), session.host_syncs


DRAFTERS: dict[str, Drafter] = {
    "good": MarkovDrafter(Q_LOGITS["good"]),
    "poor": MarkovDrafter(Q_LOGITS["poor"]),
    "forbidden": PointDrafter(ALLOWED.argmin(-1)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("drafter", "sampler", "length", "is_coupled"),
    [
        ("good", "all", 4, False),
        ("poor", "both", 2, False),
        ("forbidden", "all", 3, False),
        ("good", "all three", 4, True),
        ("good", "both", 0, False),
    ],
)
def test_pairs_through_the_loop(drafter: str, sampler: str, length: int, is_coupled: bool) -> None:
    settings, rule = SAMPLERS[sampler], PairRule()
    done, _ = constrained(DRAFTERS[drafter], length, replace(settings, is_coupled=is_coupled, seed=7), rule)
    reply = np.array([0, *tokens(done)])
    assert rule.committed == tokens(done)
    p = exact(np.where(ALLOWED, P_LOGITS, -np.inf), settings)
    observed = np.zeros((VOCAB, VOCAB))
    np.add.at(observed, (reply[:-1], reply[1:]), 1)
    assert pvalue(observed.ravel(), (p * observed.sum(-1, keepdims=True)).ravel()) > ALPHA


def test_a_greedy_reply_is_the_same_with_drafting_on_and_off() -> None:
    def reply(length: int) -> list[int]:
        return tokens(constrained(DRAFTERS["good"], length, Sampler(0), PairRule(), 50)[0])

    assert reply(0) == reply(1) == reply(4)


def test_a_drafted_round_waits_twice_and_a_plain_one_once() -> None:
    """A mask needs the tokens before it on the host: that is the price, and it is counted."""
    plain, plain_waits = constrained(DRAFTERS["good"], 0, Sampler(1.0), PairRule(), 40)
    drafted, drafted_waits = constrained(DRAFTERS["good"], 3, Sampler(1.0), PairRule(), 40)
    assert plain_waits == len(plain)
    assert not any(done.is_pipelined for done in plain)
    assert drafted_waits == len(drafted) + sum(done.drafted > 0 for done in drafted)


def test_without_a_constraint_nothing_waits_more() -> None:
    session = session_for(MarkovTarget(P_LOGITS), DRAFTERS["good"], [0, 0])
    done = list(generate(session, DecodeOptions(Sampler(1.0), frozenset(), 40, ScriptedControl([3]))))
    assert session.host_syncs == len(done)


def test_masks_of_a_vocabulary_that_is_no_multiple_of_eight() -> None:
    logits = mx.array([[1.0] * 11, [2.0] * 11], dtype=mx.bfloat16)
    got = masked(logits, [bytes([0b101, 0b100]), bytes([255, 255])])
    assert got.dtype == mx.bfloat16
    assert [i for i in range(11) if got[0, i].item() == 1] == [0, 2, 10]
    assert mx.array_equal(got[1], logits[1])
