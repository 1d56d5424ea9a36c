"""The layers, run in stretches and compiled, are mlx-lm's own to the bit."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import mlx.core as mx
import pytest

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.network import layer_stack
from mlx_engine.network.assistant import Assistant
from mlx_engine.network.layer_stack import MOST_COMPILED_ROWS
from mlx_engine.network.mlx_lm_gemma4 import gemma4_text
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import Gemma4Target
from mlx_engine.protocol.events import Ready
from mlx_engine.speculation.assistant_drafter import AssistantDrafter
from mlx_engine.speculation.sampling import Sampler
from models import pocket
from tests.fakes import tiny
from tests.mlx_engine.helpers import ScriptedControl, token_list
from tests.mlx_engine.rig import Rig, only

READ = [20, 1, 5, 1, 3]
"""Rows of one pass after another; the first is longer than the window."""


def twins(layout: str) -> tuple[Gemma4Target, Gemma4Target]:
    """The same network, as it is and compiled."""
    model = gemma4_text.Model(gemma4_text.ModelArgs.from_dict(tiny.text_config(layout)))
    tiny.randomise(model, tiny.SEEDS.get(layout, 0))
    return Gemma4Target(model), Gemma4Target(model, is_compiled=True)


def tokens(begin: int, end: int) -> mx.array:
    return mx.array([[(31 * at + 7) % tiny.VOCAB for at in range(begin, end)]])


def passes() -> list[mx.array]:
    ends = [sum(READ[:count]) for count in range(len(READ) + 1)]
    return [tokens(begin, end) for begin, end in pairwise(ends)]


def same(one: mx.array, other: mx.array) -> bool:
    return bool(mx.array_equal(one, other).item())


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_a_target_is_what_mlx_lm_makes_of_it(layout: str) -> None:
    target, _ = twins(layout)
    ours, theirs = target.new_cache(), target.new_cache()
    for ids in passes():
        assert same(target.forward(ids, ours), target._model.model(ids, cache=theirs.layers))
    for mine, its in zip(ours.arrays(), theirs.arrays(), strict=True):
        assert same(mine, its)


@pytest.mark.parametrize("layout", tiny.LAYOUTS)
def test_an_assistant_is_what_mlx_lm_makes_of_its_layers(layout: str) -> None:
    target, _ = twins(layout)
    cache = target.new_cache()
    hidden = target.forward(tokens(0, 20), cache)[:, -1:]
    network, embedding = tiny.assistant(layout), target.embed(tokens(20, 21))
    kept = cache.shared_kv()
    x = network.pre_projection(mx.concatenate([embedding, hidden], axis=-1))
    for layer in network.model.layers:
        x, _, _ = layer(x, shared_kv=kept[layer.layer_type], offset=20)
    state, following = network(embedding, hidden, kept, 20)
    assert same(state, network.model.norm(x))
    assert same(following, network.post_projection(network.model.norm(x)))


@pytest.mark.slow
def test_compiled_a_reply_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[int] = []
    own = layer_stack.after_attention

    def seen(layer: Any, x: mx.array, attended: Any) -> mx.array:
        traced.append(x.shape[1])
        return own(layer, x, attended)

    monkeypatch.setattr(layer_stack, "after_attention", seen)
    plain, compiled = twins("e2b")
    caches = plain.new_cache(), compiled.new_cache()
    for ids in passes():
        assert same(plain.forward(ids, caches[0]), compiled.forward(ids, caches[1]))
    networks = [tiny.assistant("e2b", is_compiled=is_compiled) for is_compiled in (False, True)]
    said = reply(plain, networks[0])
    assert reply(compiled, networks[1]) == said
    traced.clear()
    assert reply(compiled, networks[1]) == said
    assert len(traced) == len(plain._layers), "more than the prompt was put together again"


def reply(target: Gemma4Target, network: Assistant) -> list[int]:
    """Forty sampled tokens, two drafts a round."""
    prefix = PrefixCache(target)
    prefix.resume(token_list(tokens(0, 12)[0]))
    options = DecodeOptions(Sampler(temperature=0.8, seed=5), frozenset(), 40, ScriptedControl([2]))
    rounds = generate(Session(target, [AssistantDrafter(network, target)], prefix), options)
    return [id for done in rounds for id in done.token_ids]


def test_a_prompt_is_never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mx, "compile", lambda made: pytest.fail("a chunk of a prompt was compiled"))
    for layout in ("e2b", "31b"):
        _, target = twins(layout)
        cache = target.new_cache()
        mx.eval(target.read(tokens(0, MOST_COMPILED_ROWS + 1), cache))


@pytest.mark.parametrize("is_compiled", [None, False, True])
def test_both_networks_of_a_pair_are_compiled_if_wanted(
    is_compiled: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    def record(segment: object) -> object:
        made.append(segment)
        return segment

    monkeypatch.setattr(mx, "compile", record)
    rig = Rig(pocket.TARGET_FOLDER, pocket.DRAFTER_FOLDER, is_compiled=is_compiled)
    holds = mx.metal.is_available() if is_compiled is None else is_compiled
    assert only(Ready, rig.emitted)[0].is_compiled == holds
    # Between two layers each, before the first and after the last: of 30 layers and of 2.
    assert len(made) == (31 + 3 if holds else 0)
