"""Drafters draft what the programs draft that they come from, and every likely mistake is seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np
import pytest
from scipy.stats import chisquare

from mlx_engine.decode import DecodeOptions, Session, generate, prefill
from mlx_engine.network import block_network, tapped_rows
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.speculation.block_drafter import BlockDrafter
from mlx_engine.speculation.draft_choice import Offer
from mlx_engine.speculation.sampling import Sampler
from tests.cases import cases
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, token_list
from tests.mlx_engine.speculation.golden_drafts import (
    FOLDER,
    GOLDENS,
    NAMES,
    changed,
    drafter_in,
    drafts_of,
    loaded,
    proposal,
)

pytestmark = pytest.mark.sampled(2)


@pytest.mark.parametrize("name", NAMES)
def test_the_drafts_are_those_of_the_reference(name: str) -> None:
    golden = GOLDENS[name]
    drafts, reply = drafts_of(name)
    assert drafts == [made["draft"] for made in golden["rounds"]]
    assert reply == golden["greedy"][1 : 1 + len(reply)]
    assert 0 in [made["accepted"] for made in golden["rounds"]], "a round after one with nothing accepted"


OWN = ("dspark-12b", "dflash-12b")
"""Of DeepSpec and of z-lab. test_speculators_drafters.py breaks the others."""


def one_layer_later(config: dict[str, Any]) -> None:
    taps = config.get("dflash_config", config)
    taps["target_layer_ids"] = [layer + 1 for layer in taps["target_layer_ids"]]


def reversed_taps(config: dict[str, Any]) -> None:
    taps = config.get("dflash_config", config)
    taps["target_layer_ids"] = taps["target_layer_ids"][::-1]


def other_mask(config: dict[str, Any]) -> None:
    config.get("dflash_config", config)["mask_token_id"] = 9


def other_window(config: dict[str, Any]) -> None:
    config["sliding_window"] += 1


CONFIG_MISTAKES: list[tuple[str, Callable[[dict[str, Any]], None]]] = [
    *((name, mistake) for name in OWN for mistake in (one_layer_later, reversed_taps, other_mask)),
    ("dflash-12b", other_window),
]


@pytest.mark.parametrize(("name", "mistake"), CONFIG_MISTAKES)
def test_a_wrong_number_changes_the_drafts(
    tmp_path: Path, name: str, mistake: Callable[[dict[str, Any]], None]
) -> None:
    folder = changed(tmp_path, name, mistake)
    assert drafts_of(name, loaded(folder))[0] != drafts_of(name)[0]


def without_value_norm(monkeypatch: pytest.MonkeyPatch, drafter: BlockDrafter) -> None:
    for layer in drafter._model.network.layers:
        monkeypatch.setattr(layer.self_attn, "v_norm", lambda values: values)


def with_full_rotation(monkeypatch: pytest.MonkeyPatch, drafter: BlockDrafter) -> None:
    for layer in drafter._model.network.layers:
        rope = nn.RoPE(layer.self_attn.head_dim, traditional=False, base=1e6)
        monkeypatch.setattr(layer.self_attn, "rope", rope)


def with_causal_block(monkeypatch: pytest.MonkeyPatch, drafter: BlockDrafter) -> None:
    for layer in drafter._model.network.layers:
        monkeypatch.setattr(layer, "window", 4096)


def with_block_both_ways(monkeypatch: pytest.MonkeyPatch, drafter: BlockDrafter) -> None:
    for layer in drafter._model.network.layers:
        monkeypatch.setattr(layer, "window", None)


def without_markov(monkeypatch: pytest.MonkeyPatch, drafter: BlockDrafter) -> None:
    monkeypatch.setattr(drafter._model, "corrected", lambda logits, previous: logits)


def without_embedding_scale(monkeypatch: pytest.MonkeyPatch, drafter: BlockDrafter) -> None:
    embed = drafter._model.embed
    monkeypatch.setattr(drafter._model, "embed", lambda tokens: embed(tokens) / 72**0.5)


NETWORK_MISTAKES = [
    ("dspark-12b", without_value_norm),
    ("dspark-12b", with_full_rotation),
    ("dspark-12b", with_causal_block),
    ("dspark-12b", without_markov),
    ("dspark-12b", without_embedding_scale),
    ("dflash-12b", with_block_both_ways),
    ("dflash-12b", without_embedding_scale),
]


@pytest.mark.parametrize(("name", "mistake"), NETWORK_MISTAKES)
def test_a_mistake_in_the_network_changes_the_drafts(
    monkeypatch: pytest.MonkeyPatch, name: str, mistake: Callable[[pytest.MonkeyPatch, BlockDrafter], None]
) -> None:
    pair = loaded(FOLDER / name)
    drafter = drafter_in(pair)
    assert isinstance(drafter, BlockDrafter)
    mistake(monkeypatch, drafter)
    assert drafts_of(name, pair)[0] != drafts_of(name)[0]


@pytest.mark.parametrize("name", NAMES)
def test_quantized_it_drafts_too(name: str) -> None:
    pair = loaded(FOLDER / name, bits=8)
    drafts, reply = drafts_of(name, pair)
    assert reply == GOLDENS[name]["greedy"][1 : 1 + len(reply)]
    assert drafts


@pytest.mark.parametrize("name", NAMES)
def test_the_next_turn_drafts_as_a_cold_start_does(name: str) -> None:
    """After plain rounds, a rollback and an edited message."""
    warm, cold = loaded(FOLDER / name), loaded(FOLDER / name)
    prompt = GOLDENS[name]["prompt_ids"]
    prefix = PrefixCache(warm.target)
    prompts = [prompt, [*prompt, 15, 1581, 7, 9], [*prompt[:40], 5, 6, 7, 8, 9, 10]]
    for turn in prompts:
        prefix.resume(turn)
        options = DecodeOptions(GREEDY, frozenset(), 12, ScriptedControl([0, 0, 3, 7, 0, 5]))
        list(generate(Session(warm.target, [drafter_in(warm)], prefix), options))
        fresh = PrefixCache(cold.target)
        fresh.resume(prefix.tokens)
        prefix_again = proposal(warm, prefix, prefix.tokens)
        assert prefix_again == proposal(cold, fresh, prefix.tokens)


@pytest.mark.parametrize("name", NAMES)
def test_two_chats_in_turn_draft_as_a_cold_start_does(name: str) -> None:
    """What the drafter made of each chat is still there; the second one begins as the first does."""
    warm, cold = loaded(FOLDER / name), loaded(FOLDER / name)
    prefix, prompt = PrefixCache(warm.target), GOLDENS[name]["prompt_ids"]
    chats = [prompt, [*prompt[:20], *range(30, 60)]]
    for turn in range(2):
        for index, chat in enumerate(chats):
            prefix.resume([*chat, 5, 6 + turn, 7, 8])
            options = DecodeOptions(GREEDY, frozenset(), 12, ScriptedControl([0, 3, 7, 0, 5]))
            list(generate(Session(warm.target, [drafter_in(warm)], prefix), options))
            chats[index] = list(prefix.tokens)
            fresh = PrefixCache(cold.target)
            fresh.resume(prefix.tokens)
            assert proposal(warm, prefix, prefix.tokens) == proposal(cold, fresh, prefix.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_draft_is_drawn_from_the_distribution_that_it_declares(name: str) -> None:
    pair = loaded(FOLDER / name)
    drafter, prefix = drafter_in(pair), PrefixCache(pair.target)
    tokens = GOLDENS[name]["prompt_ids"]
    prefix.resume(tokens)
    options = DecodeOptions(GREEDY, frozenset(), 9, ScriptedControl([4]))
    frontier = prefill(Session(pair.target, [drafter], prefix), options, lambda done_tokens: None)
    assert frontier
    pairs: list[list[int]] = []
    declared: dict[int, np.ndarray] = {}
    for seed in range(cases(400, 1000)):
        sampler = Sampler(temperature=1.5, top_k=6, seed=seed)
        draft = drafter.propose(tokens, frontier, prefix.cache, 2, sampler)
        assert draft.probs is not None
        pairs.append(token_list(draft.tokens))
        first = pairs[-1][0]
        if first not in declared:
            declared[first] = np.array(draft.probs[1], np.float64)
            declared[-1] = np.array(draft.probs[0], np.float64)
    drawn = np.array(pairs)
    most = int(np.bincount(drawn[:, 0]).argmax())
    for position, seen in ((-1, drawn[:, 0]), (most, drawn[drawn[:, 0] == most, 1])):
        expected = declared[position] * len(seen)
        kept = expected > 5
        observed = np.bincount(seen, minlength=len(expected))
        assert observed[declared[position] == 0].sum() == 0
        if kept.sum() > 1:
            counts = observed[kept]
            assert chisquare(counts, expected[kept] * counts.sum() / expected[kept].sum()).pvalue > 1e-6


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another target": (lambda config: config.update(num_target_layers=48), "48 layers; .* has 12"),
    "another vocabulary": (lambda config: config.update(vocab_size=4096), "4096 tokens .* 2048"),
    "a tap beyond the target": (lambda config: taps(config, [1, 4, 6, 8, 40]), "40"),
    "fewer taps": (lambda config: taps(config, [1, 4]), "shape"),
    "no taps": (lambda config: taps(config, []), "target_layer_ids"),
    "a block of nothing": (lambda config: put(config, "block_size", 0), "block_size is 0"),
    "a block of 400": (lambda config: put(config, "block_size", 400), "block_size is 400"),
    "a mask outside the vocabulary": (lambda config: put(config, "mask_token_id", 2048), "mask_token_id is 2048"),
}


def taps(config: dict[str, Any], layers: list[int]) -> None:
    put(config, "target_layer_ids", layers)


def put(config: dict[str, Any], name: str, value: object) -> None:
    config.get("dflash_config", config)[name] = value


@pytest.mark.parametrize(
    ("key", "wrong", "known"),
    [
        ("input_embedding_scale", 3.0, [1.0, 72**0.5]),
        ("output_multiplier", 0.5, [1, 1.0]),
        ("output_multiplier", "1", [1]),
        ("is_causal", False, [True, None]),
    ],
)
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_way_to_draft_that_is_not_known_is_refused_and_not_ignored(
    tmp_path: Path, key: str, wrong: object, known: list[object], is_nested: bool
) -> None:
    """z-lab's dflash 0.1.0 reads these; the layers of this drafter slide, so that they are causal."""

    def with_value(value: object) -> Path:
        def change(config: dict[str, Any]) -> None:
            (config["dflash_config"] if is_nested else config)[key] = value

        return changed(tmp_path / repr(value), "dflash-12b", change)

    pair = loaded(with_value(wrong))
    assert not pair.drafters
    (refusal,) = pair.refusals
    assert f"{key} is" in refusal
    expected = drafts_of("dflash-12b")
    for value in known:
        assert drafts_of("dflash-12b", loaded(with_value(value))) == expected


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("fault", REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path: Path, name: str, fault: str) -> None:
    change, words = REFUSED[fault]
    pair = loaded(changed(tmp_path, name, change))
    assert not pair.drafters
    (refusal,) = pair.refusals
    assert re.search(words, refusal), refusal


def test_it_offers_no_more_than_a_block() -> None:
    assert drafter_in(loaded(FOLDER / "dspark-12b")).offer([1], 16) == Offer(7)
    assert drafter_in(loaded(FOLDER / "dflash-12b")).offer([1], 16) == Offer(5)
    assert drafter_in(loaded(FOLDER / "dflash-12b")).offer([1], 2) == Offer(2)


def test_the_context_has_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_network, "MOST_ROWS", 20)
    monkeypatch.setattr(tapped_rows, "MOST_ROWS", 20)
    drafts, reply = drafts_of("dspark-12b")
    assert drafts != [made["draft"] for made in GOLDENS["dspark-12b"]["rounds"]]
    assert reply == GOLDENS["dspark-12b"]["greedy"][1:]
