"""Numbers that break, drafters that fail, errors nobody expected: the turn says why, the next one works."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.decode import DecodeOptions, generate
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import BrokenNumbersError, ModelFolderError
from mlx_engine.protocol.events import Generate, Message, RoundFacts
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.guarded import GuardedDrafter
from mlx_engine.speculation.sampling import Distribution, RandomStream, Sampler
from mlx_engine.warm_up import WarmUp
from tests.fakes.folders import write_pair
from tests.fakes.markov import (
    COUNTING_DRAFTER,
    COUNTING_PROMPT,
    COUNTING_REPLY,
    COUNTING_VOCAB,
    StatelessDrafter,
    counting_target,
)
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, rounds, session_for, tokens
from tests.mlx_engine.rig import Rig, only, token_ids

HELLO = (Message("user", "Hello there, how are you?"),)


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(temperature=0.1), Sampler(temperature=0.1, is_coupled=True)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("length", "broken", "said"),
    [
        (0, 8, [5, 6, 7, 8]),
        (1, 8, [5, 6, 7, 8]),
        (3, 8, [5, 6, 7, 8]),
        (3, 7, []),  # in the last row of the first round, after three drafts that all stand
        (3, 6, []),
        (0, 4, []),
    ],
)
def test_scores_that_are_no_numbers_end_the_reply_with_what_there_was(
    length: int, broken: int, said: list[int], value: float, sampler: Sampler
) -> None:
    session = session_for(counting_target(broken, value), COUNTING_DRAFTER, COUNTING_PROMPT)
    committed: list[RoundFacts] = []
    with pytest.raises(BrokenNumbersError, match="not numbers"):
        committed.extend(generate(session, DecodeOptions(sampler, frozenset(), 7, ScriptedControl([length]))))
    assert tokens(committed) == said
    assert session.host_syncs == len(committed) + 1, "nothing more to wait for than the rounds themselves"


class NumberlessDrafter(StatelessDrafter):
    """Scores that are no numbers: nothing can be said of how its tokens were drawn."""

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        nothing = mx.full((length, COUNTING_VOCAB), mx.nan)
        return sampler.draw(nothing, cache.frontier + 1, RandomStream.DRAFT)


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(temperature=0.1), Sampler(temperature=0.1, is_coupled=True)])
def test_a_drafter_whose_scores_are_no_numbers_changes_no_word(sampler: Sampler) -> None:
    said = tokens(rounds(counting_target(), NumberlessDrafter(), COUNTING_PROMPT, 7, 3, sampler=sampler))
    assert said == list(COUNTING_REPLY)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


def test_the_turn_after_broken_numbers_is_a_clean_one(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(*pair)
    clean = token_ids(rig.ask(Generate(1, HELLO, max_tokens=8, draft_length=3)))
    target = rig.engine._target
    logits, passes = target.logits, 0

    def breaking(hidden: mx.array) -> mx.array:
        nonlocal passes
        passes += 1
        scores = logits(hidden)
        return (
            mx.where(mx.arange(scores.shape[0])[:, None] == scores.shape[0] - 1, mx.nan, scores)
            if (passes == 3)
            else scores
        )

    monkeypatch.setattr(target, "logits", breaking)
    with pytest.raises(BrokenNumbersError):
        rig.ask(Generate(2, HELLO, max_tokens=8, draft_length=3))
    assert clean[: len(token_ids(rig.emitted))] == token_ids(rig.emitted) != []
    again = rig.ask(Generate(3, HELLO, max_tokens=8, draft_length=3))
    assert only(events.Started, again)[0].cached_tokens == 0
    assert token_ids(again) == clean

    # The drafter fails as well: told once, and the words stay.
    def failing(*arguments: object) -> Distribution:
        raise ValueError("[rope] no such position")

    (drafter,) = rig.engine._drafters.values()
    assert isinstance(drafter, GuardedDrafter)
    monkeypatch.setattr(drafter._drafter, "propose", failing)
    told = rig.ask(Generate(4, HELLO, max_tokens=8, draft_length=3))
    (notice,) = only(events.Notice, told)
    assert "no such position" in notice.message
    assert token_ids(told) == clean
    assert not only(events.Notice, rig.ask(Generate(5, HELLO, max_tokens=8, draft_length=3)))


def test_a_network_that_does_not_compute_is_refused_in_words(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: WarmUp) -> None:
        raise RuntimeError("[matmul] Last dimension of first input")

    monkeypatch.setattr(WarmUp, "run_target", failing)
    with pytest.raises(ModelFolderError, match=r"cannot be run .*Last dimension"):
        Rig(pair[0], None)
