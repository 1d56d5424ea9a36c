"""Whatever a drafter's config.json says, it is refused in a sentence that names the key, and the chat goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.loading.pair import LoadedPair, load_pair
from mlx_engine.protocol.errors import ModelFolderError
from mlx_engine.protocol.events import Load
from mlx_engine.speculation.drafter import DraftedTarget, DrafterSource
from mlx_engine.speculation.drafters import load_drafter
from tests.mlx_engine.speculation.golden_drafts import FOLDER, NAMES, changed

NO_NUMBERS: list[Any] = ["7", 2.5, True, [1], {"a": 1}, -1, 1 << 70]
NO_FLAGS: list[Any] = ["no", 3, [True]]
NUMBERS = {
    "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads",
    "num_key_value_heads", "sliding_window", "num_target_layers", "block_size", "mask_token_id", "markov_rank",
    "draft_vocab_size", "head_dim",
}  # fmt: skip
FLAGS = {"attention_bias", "norm_before_residual", "norm_before_fc", "fc_norm", "norm_output"}
TAPS = {"target_layer_ids", "aux_hidden_state_layer_ids", "eagle_aux_hidden_state_layer_ids"}
NESTED = {"dflash_config", "transformer_layer_config"}


@pytest.fixture(scope="module")
def pair() -> LoadedPair:
    return load_pair(Load(str(FOLDER / "target-12b")), lambda event: None)


def wrong_values(config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """The level of the config, the key, and what it must not be."""
    for level in (config, *(config[key] for key in NESTED & config.keys())):
        for key in level:
            wrong = NO_NUMBERS if key in NUMBERS and level[key] is not None else []
            wrong = NO_FLAGS if key in FLAGS else wrong
            wrong = ["7", 7, {}, [[1, 4], [6]], [1.0], ["1"], [True], []] if key in TAPS else wrong
            wrong = [3, "x", [1]] if key in NESTED else wrong
            wrong = [3, [3], ["mamba"], []] if key == "layer_types" else wrong
            yield from ((level, key, value) for value in wrong)


def refusal(pair: LoadedPair, folder: Path) -> str:
    target = DraftedTarget(FOLDER / "target-12b", pair.target, pair.format)
    with pytest.raises(ModelFolderError) as caught:
        load_drafter(DrafterSource(str(folder)), target, lambda size_bytes: None)
    return str(caught.value).replace(str(folder), "")


@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_another_kind_is_refused_by_its_key(tmp_path: Path, pair: LoadedPair, name: str) -> None:
    folder = changed(tmp_path, name, lambda config: None)
    config = json.loads((folder / "config.json").read_text())
    tried = 0
    for level, key, wrong in wrong_values(config):
        right, level[key] = level[key], wrong
        (folder / "config.json").write_text(json.dumps(config))
        why = refusal(pair, folder)
        assert key in why, (key, wrong, why)
        assert "\n" not in why
        assert "Error" not in why
        assert len(why) < 300
        level[key] = right
        tried += 1
    assert tried > 60


@pytest.mark.parametrize(
    "rotation",
    [
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
    ],
)
def test_a_rotation_that_cannot_be_run_is_refused(
    tmp_path: Path, pair: LoadedPair, rotation: dict[str, Any]
) -> None:
    folder = changed(tmp_path, "dflash-12b", lambda config: config.update(rotation))
    assert "the rotation is 'yarn'" in refusal(pair, folder)


def test_every_kind_compares_the_number_of_the_targets_layers(tmp_path: Path, pair: LoadedPair) -> None:
    for name in ("dspark-12b", "dflash-12b", "eagle3-deepspec"):
        folder = changed(tmp_path, name, lambda config: config.update(num_target_layers=48))
        assert "for a target with 48 layers; " in refusal(pair, folder)


def test_a_model_that_is_no_drafter_is_named(tmp_path: Path, pair: LoadedPair) -> None:
    folder = changed(tmp_path, "dflash-12b", lambda config: config.update(architectures=["MedusaModel"]))
    assert "is a 'qwen3' model, and no drafter" in refusal(pair, folder)
