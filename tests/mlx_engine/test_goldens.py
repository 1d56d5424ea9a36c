"""Against Hugging Face transformers: five layouts, every position, with the window wrapped. See tests/golden."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.target import Gemma4Target, load_target
from mlx_engine.speculation import assistant_drafter
from mlx_engine.speculation.assistant_drafter import AssistantDrafter, check_pair
from mlx_engine.speculation.drafter import Frontier
from tests.mlx_engine.helpers import GREEDY, load_tensors, rounds, token_list, tokens
from tests.paths import GOLDEN

pytestmark = pytest.mark.slow

LAYOUTS = ("e2b", "e4b", "26b-a4b", "31b", "12b-unified")
TARGET_TOLERANCE = 1e-3
ASSISTANT_TOLERANCE = 5e-3
"""Rounding alone moves an assistant's scores, up to 10 in size, by a quarter of that."""


class Golden:
    """One layout: the pair as the engine loads it, and what the reference computed."""

    def __init__(self, layout: str) -> None:
        self.target = load_target(GOLDEN / layout / "target")
        self.assistant = load_assistant(GOLDEN / layout / "assistant")
        self.drafter = AssistantDrafter(self.assistant, self.target)
        self.expected = load_tensors(GOLDEN / layout / "golden.safetensors")

    def ids(self, name: str) -> list[int]:
        return token_list(self.expected[name])

    def read(self, name: str) -> tuple[TargetCache, mx.array]:
        """A cache holding the tokens called `name`, and the hidden states."""
        cache = self.target.new_cache()
        return cache, self.target.forward(self.expected[name].astype(mx.int32)[None], cache)

    def drafts(self, cache: TargetCache, hidden: mx.array, token: int, length: int = 4) -> list[int]:
        frontier = Frontier(mx.array([token], dtype=mx.int32), hidden[:, -1:], None)
        committed = [0] * cache.frontier + [token]
        return self.drafter.propose(committed, frontier, cache, length, GREEDY).tokens.tolist()  # type: ignore[return-value]


@pytest.fixture(scope="module", params=LAYOUTS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def test_target_logits_and_hidden_at_every_position(golden: Golden) -> None:
    _, hidden = golden.read("prompt_tokens")
    np.testing.assert_allclose(hidden[0], golden.expected["prompt_hidden"], atol=TARGET_TOLERANCE)
    np.testing.assert_allclose(
        golden.target.logits(hidden), golden.expected["prompt_logits"], atol=TARGET_TOLERANCE
    )


@pytest.mark.parametrize("chunk", [1, 3, 17, 40])
def test_target_read_in_chunks_is_the_same(golden: Golden, chunk: int) -> None:
    cache = golden.target.new_cache()
    prompt = golden.expected["prompt_tokens"].astype(mx.int32)
    rows = [golden.target.forward(prompt[None, i : i + chunk], cache) for i in range(0, len(prompt), chunk)]
    logits = golden.target.logits(mx.concatenate(rows, axis=1))
    np.testing.assert_allclose(logits, golden.expected["prompt_logits"], atol=TARGET_TOLERANCE)


@pytest.mark.parametrize("length", [0, 4])
def test_forty_greedy_tokens(golden: Golden, length: int) -> None:
    assert len(golden.ids("greedy_tokens")) == 40
    done = rounds(golden.target, golden.drafter, golden.ids("prompt_tokens"), 40, length)
    assert tokens(done) == golden.ids("greedy_tokens")


def test_four_drafted_tokens(golden: Golden) -> None:
    cache, hidden = golden.read("prompt_tokens")
    assert golden.drafts(cache, hidden, golden.ids("greedy_tokens")[0]) == golden.ids("drafted_tokens")


def test_four_drafted_tokens_after_single_steps_past_the_window(golden: Golden) -> None:
    cache = golden.target.new_cache()
    for token in golden.ids("late_tokens"):
        hidden = golden.target.forward(mx.array([[token]]), cache)
    np.testing.assert_allclose(hidden[0, -1], golden.expected["late_hidden"].reshape(-1), atol=TARGET_TOLERANCE)
    assert golden.drafts(cache, hidden, golden.ids("late_bonus")[0]) == golden.ids("late_drafted_tokens")


def test_the_other_draft_position(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assistant_drafter, "DRAFT_POSITION_OFFSET", -1)
    cache, hidden = golden.read("prompt_tokens")
    assert golden.drafts(cache, hidden, golden.ids("greedy_tokens")[0]) == golden.ids("drafted_tokens_prev")


def test_drafts_step_by_step(golden: Golden) -> None:
    cache, hidden = golden.read("prompt_tokens")
    hidden, token = hidden[:, -1:], golden.ids("greedy_tokens")[0]
    for step, drafted in enumerate(golden.ids("drafted_tokens")):
        embedding = golden.target.embed(mx.array([[token]]))
        state, hidden = golden.assistant(embedding, hidden, cache.shared_kv(), cache.frontier)
        logits = np.array(golden.assistant.logits(state)[0, 0])
        scored = np.isfinite(logits)
        expected = np.array(golden.expected["drafted_logits"])[step]
        np.testing.assert_allclose(logits[scored], expected[scored], atol=ASSISTANT_TOLERANCE)
        np.testing.assert_allclose(
            hidden[0, 0], np.array(golden.expected["drafted_hidden"])[step], atol=ASSISTANT_TOLERANCE
        )
        assert golden.assistant.argmax(state).tolist() == [[drafted]] == [[int(logits.argmax())]]
        token = drafted


def test_a_rollback_leaves_the_reference_state(golden: Golden) -> None:
    cache, hidden = golden.read("prompt_tokens")
    golden.target.forward(mx.array([[5, 6, 7, 8, 9, 10, 11]]), cache)
    cache.rollback(7)
    assert golden.drafts(cache, hidden, golden.ids("greedy_tokens")[0]) == golden.ids("drafted_tokens")


def test_the_pair_belongs_together(golden: Golden) -> None:
    check_pair(golden.assistant, golden.target.facts, ("drafter", "target"))


def test_float32_is_what_is_compared(golden: Golden) -> None:
    assert isinstance(golden.target, Gemma4Target)
    assert golden.target.dtype_name == "float32"
