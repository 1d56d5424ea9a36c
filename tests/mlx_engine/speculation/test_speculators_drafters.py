"""EAGLE-3 and speculators' block drafters: every likely mistake changes the drafts, bad files are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.engine import Engine
from mlx_engine.loading.pair import load_pair
from mlx_engine.network.eagle_network import EagleContext
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.protocol.events import Event, Generate, Load, Message, Ready, Round
from mlx_engine.speculation.block_drafter import BlockDrafter
from mlx_engine.speculation.draft_vocabulary import DraftVocabulary
from mlx_engine.speculation.eagle_drafter import EagleDrafter
from mlx_engine.speculation.steering import ReplyControl
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, load_tensors
from tests.mlx_engine.speculation.golden_drafts import FOLDER, GOLDENS, changed, drafter_in, drafts_of, loaded

pytestmark = pytest.mark.sampled(4)

EAGLES = ("eagle3-llama", "eagle3-qwen3", "eagle3-deepspec")
BLOCKS = ("dspark-anchor", "dspark-masks", "dflash-speculators")
SPECULATORS = ("eagle3-llama", "eagle3-qwen3", *BLOCKS)
TAPS = {
    "eagle3-llama": "eagle_aux_hidden_state_layer_ids",
    "eagle3-qwen3": "eagle_aux_hidden_state_layer_ids",
    "eagle3-deepspec": "target_layer_ids",
} | dict.fromkeys(BLOCKS, "aux_hidden_state_layer_ids")
DEFAULT_TAPS = [2, 6, 9]
"""Of twelve layers, where the config has none."""

Config = dict[str, Any]


def taps_of(config: Config, name: str) -> list[int]:
    return list(config[TAPS[name]] or DEFAULT_TAPS)


def one_layer_later(config: Config, name: str) -> None:
    config[TAPS[name]] = [layer + 1 for layer in taps_of(config, name)]


def reversed_taps(config: Config, name: str) -> None:
    config[TAPS[name]] = taps_of(config, name)[::-1]


def other_mask(config: Config, name: str) -> None:
    config["mask_token_id"] = 9


def other_slot(config: Config, name: str) -> None:
    method = config["speculators_config"]["proposal_methods"][0]
    method["speculative_tokens"] = 2 * config["block_size"] - 1 - method["speculative_tokens"]


def narrow_window(config: Config, name: str) -> None:
    config["transformer_layer_config"]["sliding_window"] = 2


def both_ways(config: Config, name: str) -> None:
    config["sliding_window_non_causal"] = True


def flipped(key: str) -> Callable[[Config, str], None]:
    def flip(config: Config, name: str) -> None:
        config[key] = not config[key]

    flip.__name__ = key
    return flip


CONFIG_MISTAKES: list[tuple[str, Callable[[Config, str], None]]] = [
    *((name, one_layer_later) for name in (*EAGLES, *BLOCKS)),
    *((name, reversed_taps) for name in ("eagle3-deepspec", "eagle3-qwen3", *BLOCKS)),
    *((name, mistake) for name in BLOCKS for mistake in (other_mask, other_slot)),
    ("eagle3-llama", flipped("norm_before_residual")),
    ("eagle3-llama", flipped("norm_output")),
    ("eagle3-qwen3", flipped("norm_before_residual")),
    ("eagle3-qwen3", flipped("norm_output")),
    ("eagle3-qwen3", narrow_window),
    ("dspark-anchor", narrow_window),
    ("dspark-anchor", both_ways),
]


@pytest.mark.parametrize(("name", "mistake"), CONFIG_MISTAKES)
def test_a_wrong_number_changes_the_drafts(
    tmp_path: Path, name: str, mistake: Callable[[Config, str], None]
) -> None:
    folder = changed(tmp_path, name, lambda config: mistake(config, name))
    assert drafts_of(name, loaded(folder))[0] != [made["draft"] for made in GOLDENS[name]["rounds"]]


Drafting = BlockDrafter | EagleDrafter


def without_markov(monkeypatch: pytest.MonkeyPatch, drafter: Drafting) -> None:
    monkeypatch.setattr(drafter._model, "corrected", lambda logits, previous: logits)


def with_scaled_embedding(monkeypatch: pytest.MonkeyPatch, drafter: Drafting) -> None:
    embed = drafter._model.embed
    monkeypatch.setattr(drafter._model, "embed", lambda tokens: embed(tokens) * 72**0.5)


def without_offsets(monkeypatch: pytest.MonkeyPatch, drafter: Drafting) -> None:
    ids = drafter._vocabulary._ids
    assert ids is not None
    monkeypatch.setattr(drafter, "_vocabulary", DraftVocabulary(mx.arange(len(ids)), 2048))


def without_tap_norms(monkeypatch: pytest.MonkeyPatch, drafter: Drafting) -> None:
    network = drafter._model.network
    monkeypatch.setattr(type(network), "states", lambda network, taps: network.fc(taps))


def not_shifted(monkeypatch: pytest.MonkeyPatch, drafter: Drafting) -> None:
    """Tokens beside their own states, instead of those before them."""
    assert isinstance(drafter, EagleDrafter)
    follow = EagleContext.follow
    monkeypatch.setattr(
        EagleContext, "follow", lambda context, tapped, tokens: follow(context, tapped, [tokens[0], *tokens])
    )


def without_rows_of_the_round(monkeypatch: pytest.MonkeyPatch, drafter: Drafting) -> None:
    """Rows of drafts stay, and those of the target are not read again."""
    assert isinstance(drafter, EagleDrafter)
    monkeypatch.setattr(EagleContext, "forget", lambda context, rows: None)


def without_value_norm(monkeypatch: pytest.MonkeyPatch, drafter: Drafting) -> None:
    for layer in drafter._model.network.layers:
        monkeypatch.setattr(layer.self_attn, "v_norm", lambda values: values)


def without_layer_scalar(monkeypatch: pytest.MonkeyPatch, drafter: Drafting) -> None:
    for layer in drafter._model.network.layers:
        monkeypatch.setattr(layer, "layer_scalar", mx.array(1.0))


def only_the_last_row(monkeypatch: pytest.MonkeyPatch, drafter: Drafting) -> None:
    for layer in drafter._model.network.layers:
        monkeypatch.setattr(layer, "window", 1)


NETWORK_MISTAKES = [
    ("dspark-masks", without_markov),
    *((name, with_scaled_embedding) for name in ("dspark-masks", "dflash-speculators")),
    *((name, without_offsets) for name in ("eagle3-llama", "dspark-anchor", "dspark-masks")),
    ("eagle3-llama", without_tap_norms),
    ("eagle3-qwen3", without_tap_norms),
    *((name, mistake) for name in EAGLES for mistake in (not_shifted, only_the_last_row)),
    *((name, without_rows_of_the_round) for name in EAGLES),
    ("eagle3-deepspec", without_value_norm),
    ("eagle3-deepspec", without_layer_scalar),
]


@pytest.mark.parametrize(("name", "mistake"), NETWORK_MISTAKES)
def test_a_mistake_in_the_network_changes_the_drafts(
    monkeypatch: pytest.MonkeyPatch, name: str, mistake: Callable[[pytest.MonkeyPatch, Drafting], None]
) -> None:
    pair = loaded(FOLDER / name)
    mistake(monkeypatch, drafter_in(pair))
    try:
        drafts = drafts_of(name, pair)[0]
    except (ValueError, IndexError):  # shapes that no longer fit are a change as well
        return
    assert drafts != [made["draft"] for made in GOLDENS[name]["rounds"]]


def layer(**values: object) -> Callable[[Config], None]:
    return lambda config: config["transformer_layer_config"].update(values)


def speculative(tokens: object) -> Callable[[Config], None]:
    return lambda config: config["speculators_config"]["proposal_methods"][0].update(speculative_tokens=tokens)


REFUSED: list[tuple[str, Callable[[Config], None], str]] = [
    *((name, layer(vocab_size=4096), "4096 tokens .* 2048") for name in SPECULATORS),
    *((name, layer(hidden_size=80), "80 numbers .* 72") for name in SPECULATORS),
    *((name, layer(model_type="mamba"), "'mamba'") for name in SPECULATORS),
    *((name, layer(rope_parameters={"rope_type": "yarn"}), "'yarn'") for name in SPECULATORS),
    *((name, layer(rope_parameters=[7]), "rope_parameters") for name in SPECULATORS),
    *((name, layer(num_hidden_layers=400), "num_hidden_layers is 400") for name in SPECULATORS),
    *((name, lambda config: config.update(transformer_layer_config=3), "transformer_layer_config")
      for name in SPECULATORS),
    *((name, lambda config, key=TAPS[name]: config.update({key: [1, 4, 6, 8, 40]}), "40|41") for name in TAPS),
    *((name, lambda config, key=TAPS[name]: config.update({key: []}), TAPS[name]) for name in TAPS),
    *((name, lambda config, key=TAPS[name]: config.update({key: [1, 4]}), "shape|5 lay|left") for name in TAPS),
    *((name, lambda config: config.update(block_size=0), "block_size is 0") for name in BLOCKS),
    *((name, lambda config: config.update(block_size=400), "block_size is 400") for name in BLOCKS),
    *((name, lambda config: config.update(mask_token_id=2048), "mask_token_id is 2048") for name in BLOCKS),
    *((name, speculative(3), "speculative_tokens is 3") for name in BLOCKS),
    *((name, lambda config: config.update(markov_head_type="gated"), "'gated'; only vanilla")
      for name in BLOCKS[:2]),
    *((name, lambda config: config.update(markov_head_type="rnn"), "'rnn'; only vanilla") for name in BLOCKS[:2]),
    ("eagle3-llama", lambda config: config.update(draft_vocab_size=4096), "draft_vocab_size is 4096"),
    ("eagle3-llama", lambda config: config.update(draft_vocab_size=500), "d2t"),
    ("eagle3-deepspec", lambda config: config.update(vocab_size=4096), "4096 tokens .* 2048"),
    ("eagle3-deepspec", lambda config: config.update(num_hidden_layers=2), "num_hidden_layers is 2"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(
    tmp_path: Path, name: str, change: Callable[[Config], None], message: str
) -> None:
    pair = loaded(changed(tmp_path, name, change))
    assert not pair.drafters
    (refusal,) = pair.refusals
    assert re.search(message, refusal), refusal


def beyond(tensors: dict[str, mx.array]) -> None:
    tensors["d2t"] = tensors["d2t"] + 1600


def before(tensors: dict[str, mx.array]) -> None:
    tensors["d2t"] = tensors["d2t"] - 1600


def without(*names: str) -> Callable[[dict[str, mx.array]], None]:
    def remove(tensors: dict[str, mx.array]) -> None:
        for name in names:
            del tensors[name]

    return remove


def fractions(tensors: dict[str, mx.array]) -> None:
    tensors["d2t"] = tensors["d2t"].astype(mx.float32)


BAD_TENSORS: list[tuple[str, Callable[[dict[str, mx.array]], None], str]] = [
    *((name, change, message) for name in ("eagle3-llama", "dspark-anchor") for change, message in (
        (beyond, "names the token [0-9]+, but the model's vocabulary has 2048"),
        (before, "names the token -[0-9]+, but the model's vocabulary has 2048"),
        (without("d2t", "t2d"), "'d2t' is missing"),
        (fractions, "'d2t' is .*float32"),
        (without("lm_head.weight"), "lm_head.weight' is missing"),
        (without("fc.weight"), "fc.weight' is missing"),
    )),
    ("eagle3-llama", without("fc_norm.1.weight"), "fc_norm.1.weight' is missing"),
    ("eagle3-deepspec", without("embed_tokens.weight"), "embed_tokens.weight' is missing"),
    ("eagle3-deepspec", without("layers.0.hidden_norm.weight"), "hidden_norm.weight' is missing"),
    ("dspark-masks", without("markov_head.markov_w2.weight"), "markov_w2.weight' is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), BAD_TENSORS)
def test_tensors_that_do_not_fit_are_refused_and_the_chat_goes_on(
    tmp_path: Path, name: str, change: Callable[[dict[str, mx.array]], None], message: str
) -> None:
    folder = changed(tmp_path, name, lambda config: None)
    tensors = load_tensors(folder / "model.safetensors")
    mx.eval(tensors)
    change(tensors)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    pair = loaded(folder)
    assert not pair.drafters
    assert re.search(message, pair.refusals[0]), pair.refusals
    prefix = PrefixCache(pair.target)
    prefix.resume(GOLDENS[name]["prompt_ids"])
    options = DecodeOptions(GREEDY, frozenset(), 3, ScriptedControl([0]))
    assert list(generate(Session(pair.target, [], prefix), options))


def test_code_that_speculators_names_is_not_run(tmp_path: Path) -> None:
    """Its configs all name some; the file may be anything."""
    folder = changed(tmp_path, "eagle3-llama", lambda config: None)
    assert "auto_map" in json.loads((folder / "config.json").read_text())
    (folder / "config.py").write_text("raise SystemExit('run')\n")
    assert drafter_in(loaded(folder))


def test_absent_layers_are_the_default_ones_of_the_target(tmp_path: Path) -> None:
    name = "eagle3-llama"
    assert json.loads((FOLDER / name / "config.json").read_text())[TAPS[name]] is None
    named = changed(tmp_path, name, lambda config: config.update({TAPS[name]: DEFAULT_TAPS}))
    assert drafts_of(name, loaded(named))[0] == drafts_of(name)[0]


def test_two_drafters_may_tap_the_same_layers() -> None:
    """Each takes rows of its own."""
    names = ("dspark-12b", "eagle3-deepspec")
    folders = tuple(str(FOLDER / name) for name in names)
    pair = load_pair(Load(str(FOLDER / "target-12b"), folders), lambda event: None)
    assert pair.refusals == []
    golden = GOLDENS["eagle3-deepspec"]
    prefix = PrefixCache(pair.target)
    prefix.resume([*golden["prompt_ids"], golden["greedy"][0]])
    options = DecodeOptions(GREEDY, frozenset(), 20, ScriptedControl([4]))
    session = Session(pair.target, list(pair.drafters.values()), prefix)
    reply = [token for done in generate(session, options) for token in done.token_ids]
    assert reply == golden["greedy"][1 : 1 + len(reply)]
    block, eagle = session.drafters
    tokens = [*golden["prompt_ids"], *golden["greedy"][:3]]
    for drafter in (block, eagle):
        alone = loaded(FOLDER / names[session.drafters.index(drafter)])
        assert drafted(pair.target, drafter, tokens) == drafted(alone.target, drafter_in(alone), tokens)


def test_the_target_keeps_no_rows_for_drafters_that_are_left_out(tmp_path: Path) -> None:
    """One of a kind that is there already, and one that the warm-up refuses."""
    broken = changed(tmp_path, "eagle3-llama", lambda config: None)
    tensors = load_tensors(broken / "model.safetensors")
    tensors["fc.weight"] = tensors["fc.weight"] * mx.nan
    mx.eval(tensors)
    mx.save_safetensors(str(broken / "model.safetensors"), tensors)
    folders = tuple(str(folder) for folder in (broken, FOLDER / "dspark-12b", FOLDER / "dspark-masks"))
    emitted: list[Event] = []
    engine = Engine(Load(str(FOLDER / "target-12b"), folders), emitted.append)
    (ready,) = (event for event in emitted if isinstance(event, Ready))
    assert set(ready.drafters) == {"dspark"}
    assert "only one drafter of the kind dspark" in str(ready.refusal)
    assert "NaN" in str(ready.refusal)
    kept = [rows.layers for rows in engine._target.new_cache().tapped]
    assert [bool(layers) for layers in kept] == [False, True, False]
    engine.generate(Generate(1, (Message("user", "Hello"),), max_tokens=8, draft_length=4), ReplyControl(4))
    assert sum(event.drafted for event in emitted if isinstance(event, Round)) > 0


def drafted(target: Any, drafter: Any, tokens: list[int]) -> list[int]:
    prefix = PrefixCache(target)
    prefix.resume(tokens)
    options = DecodeOptions(GREEDY, frozenset(), 9, ScriptedControl([4]))
    drafts: list[int] = []
    propose = drafter.propose

    def seen(*asked: Any) -> Any:
        proposal = propose(*asked)
        drafts.extend(np.array(proposal.tokens).tolist())
        return proposal

    drafter.propose = seen
    next(generate(Session(target, [drafter], prefix), options))
    del drafter.propose
    return drafts
