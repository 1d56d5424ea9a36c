"""An assistant, a block drafter and lookup beside one target, through the real loop: each round has its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_engine.decode import Control, DecodeOptions, Session, generate
from mlx_engine.loading.pair import LoadedPair, load_pair
from mlx_engine.network.assistant import Assistant, AssistantConfig
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.protocol.events import LOOKUP, Load, RoundFacts
from mlx_engine.speculation.draft_choice import PLAIN, Choice, Offers
from mlx_engine.speculation.steering import DraftPolicies, ReplyControl, Steering
from tests.fakes import tiny
from tests.mlx_engine.helpers import GREEDY, tokens
from tests.mlx_engine.speculation.golden_drafts import FOLDER, GOLDENS

BLOCK = "dspark-12b"
TOKENS = 60


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> LoadedPair:
    target, assistant = FOLDER / "target-12b", tmp_path_factory.mktemp("assistant")
    _write_assistant(assistant, json.loads((target / "config.json").read_text())["text_config"])
    load = Load(str(target), (str(assistant), str(FOLDER / BLOCK), LOOKUP))
    loaded = load_pair(load, lambda event: None)
    assert loaded.refusals == []
    return loaded


def _write_assistant(folder: Path, text: dict[str, Any]) -> None:
    """One with random weights, which is right about as often as chance."""
    own = text | {
        "layer_types": ["sliding_attention", "full_attention"],
        "num_hidden_layers": 2,
        "hidden_size": 16,
    }
    config = {"model_type": "gemma4_assistant", "backbone_hidden_size": text["hidden_size"], "text_config": own}
    network = Assistant(AssistantConfig.from_dict(config))
    tiny.randomise(network, 5)
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())))


def replied(
    pair: LoadedPair, control: Control, on_round: Callable[[RoundFacts], None] = lambda done: None
) -> tuple[list[RoundFacts], Session]:
    prefix = PrefixCache(pair.target)
    prefix.resume(GOLDENS[BLOCK]["prompt_ids"])
    session = Session(pair.target, list(pair.drafters.values()), prefix)
    made = []
    for done in generate(session, DecodeOptions(GREEDY, frozenset(), TOKENS, control)):
        made.append(done)
        on_round(done)
    return made, session


class InTurn:
    """The choices of a list, again and again; nothing is drafted where a drafter offers too little."""

    is_cancelled = False

    def __init__(self, *choices: Choice) -> None:
        self._choices = choices
        self._turn = 0
        self._is_offered = True

    def next_draft(self, offers: Offers) -> Choice:
        choice = self._choices[self._turn % len(self._choices)]
        self._is_offered = not choice.length or (bool(offers) and offers[choice.drafter].tokens >= choice.length)
        return choice if self._is_offered else PLAIN

    def advance(self, done: RoundFacts) -> None:
        """A plain round may have begun before a choice was made, which then holds for the round after it."""
        length = self._choices[self._turn % len(self._choices)].length
        if bool(length) == bool(done.drafted) or not self._is_offered:
            self._turn += 1


@pytest.fixture(scope="module")
def plain(pair: LoadedPair) -> list[int]:
    reply = tokens(replied(pair, InTurn(PLAIN))[0])
    assert reply[: len(GOLDENS[BLOCK]["greedy"])] == GOLDENS[BLOCK]["greedy"]
    assert len(reply) == TOKENS
    return reply


@pytest.mark.parametrize(
    "choices",
    [
        (Choice(0, 2), Choice(1, 3)),
        (Choice(1, 7), Choice(0, 4), PLAIN),
        (PLAIN, PLAIN, Choice(1, 5)),
        (Choice(1, 2), Choice(2, 2), Choice(0, 1), Choice(1, 6)),
    ],
)
def test_whoever_drafts_a_round_the_tokens_are_the_targets(
    pair: LoadedPair, plain: list[int], choices: tuple[Choice, ...]
) -> None:
    control = InTurn(*choices)
    made, session = replied(pair, control, control.advance)
    assert tokens(made) == plain
    names = [drafter.name for drafter in pair.drafters.values()]
    drafted = {(done.drafter, done.drafted) for done in made if done.drafted}
    assert drafted <= {(names[choice.drafter], choice.length) for choice in choices}
    assert {name for name, _ in drafted} >= {names[choice.drafter] for choice in choices if choice.length} - {
        LOOKUP
    }
    assert session.target_passes == session.host_syncs == len(made), "one pass and one wait a round"


@pytest.mark.parametrize(("cheap", "dear"), [("dspark", "assistant"), ("assistant", "dspark")])
def test_auto_drafts_with_the_one_that_is_faster_and_changes_no_token(
    pair: LoadedPair, plain: list[int], cheap: str, dear: str
) -> None:
    """By made-up costs: a round with the dear one takes twenty times as long."""
    names = [drafter.name for drafter in pair.drafters.values()]
    policies = DraftPolicies(None, 3, names)
    costs_s = {cheap: 0.02, dear: 1.0}
    used: Counter[str | None] = Counter()

    def learn(done: RoundFacts) -> None:
        policies.observe(done, costs_s.get(done.drafter or "", 0.04 if done.drafted else 0.03))
        used[done.drafter if done.drafted else None] += 1

    for _ in range(3):
        made, session = replied(pair, Steering(ReplyControl("auto"), policies), learn)
        assert tokens(made) == plain
        assert session.target_passes == session.host_syncs == len(made)
    assert used[dear] < 0.2 * used.total()
    assert cheap == "assistant" or used[cheap] > used[dear]
