"""Configs in the published form and as transformers 5.24 saves them describe the same network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_engine.files.config_file import read_config
from mlx_engine.files.layer_config import in_published_form
from mlx_engine.loading.convert import convert
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.target import load_target
from mlx_engine.protocol.errors import ModelFolderError
from models import config
from models.memory_fit import size_of_folders
from models.verify import verify_folder
from tests.fakes.packagings import copied, edited_config, resaved, text_only
from tests.paths import GOLDEN

LAYOUTS = ["e2b", "e4b", "12b-unified", "26b-a4b", "31b"]
SOURCE = Path("here/config.json")


@pytest.fixture(params=LAYOUTS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """The golden pair of a layout, and a copy of it as transformers 5.24 saves it."""
    published = GOLDEN / request.param
    again = copied(published, tmp_path / "again")
    for part in ("target", "assistant"):
        with edited_config(again / part) as found:
            resaved(found["text_config"])
            assert "per_layer_config" in found["text_config"]
    return published, again


def test_a_pair_saved_again_is_read_as_before(pair: tuple[Path, Path]) -> None:
    published, again = pair
    for part in ("target", "assistant"):
        assert config.read_config(again / part) == config.read_config(published / part)
        assert list(verify_folder(again / part, {})) == []
    sizes = [size_of_folders(folder / "target", folder / "assistant") for folder in pair]
    assert sizes[0] == sizes[1]


def test_it_computes_the_same(pair: tuple[Path, Path]) -> None:
    targets = [load_target(folder / "target") for folder in pair]
    assert targets[0].facts == targets[1].facts
    tokens = mx.array([list(range(2, 42))])
    logits = [target.logits(target.forward(tokens, target.new_cache())) for target in targets]
    assert mx.array_equal(logits[0], logits[1])
    assistants = [load_assistant(folder / "assistant") for folder in pair]
    assert assistants[0].config == assistants[1].config


def test_a_conversion_of_it_is_in_the_published_form(pair: tuple[Path, Path], tmp_path: Path) -> None:
    convert(pair[1] / "target", tmp_path / "copy", group_size=32)
    text = read_config(tmp_path / "copy")["text_config"]
    assert "per_layer_config" not in text
    assert text["global_head_dim"] == 16
    assert load_target(tmp_path / "copy").facts == load_target(pair[0] / "target").facts


@pytest.mark.parametrize("model_type", ["gemma4_text", "gemma4_unified_text"])
def test_the_text_model_alone_in_either_form(tmp_path: Path, model_type: str) -> None:
    folder = copied(GOLDEN / "12b-unified" / "target", tmp_path / "text")
    text_only(folder, model_type)
    with edited_config(folder) as found:
        resaved(found)
        if model_type == "gemma4_unified_text":  # its class in transformers has none of these
            for key in ("hidden_size_per_layer_input", "vocab_size_per_layer_input", "enable_moe_block"):
                del found[key]
    target = load_target(folder)
    expected = load_target(GOLDEN / "12b-unified" / "target")
    assert target.facts == expected.facts
    tokens = mx.array([list(range(2, 42))])
    logits = [one.logits(one.forward(tokens, one.new_cache())) for one in (target, expected)]
    assert mx.array_equal(logits[0], logits[1])


@pytest.mark.parametrize("part", ["target", "assistant"])
def test_layers_of_unsaid_kinds_are_refused_by_all_readers(tmp_path: Path, part: str) -> None:
    """transformers and mlx-lm fill the gap with different patterns."""
    folder = copied(GOLDEN / "e2b" / part, tmp_path / part)
    with edited_config(folder) as found:
        del found["text_config"]["layer_types"]
    load: Callable[[Path], object] = load_target if part == "target" else load_assistant
    for read in (load, config.read_config):
        with pytest.raises(ModelFolderError, match="layer_types is None, where a list of"):
            read(folder)


TEXT: dict[str, Any] = {
    "layer_types": ["sliding_attention", "full_attention"] * 6,
    "head_dim": 8,
    "num_key_value_heads": 4,
    "attention_k_eq_v": True,
}
FULL_LAYERS = ("01", "03", "05", "07", "09", "11")


def entries(**values: Any) -> dict[str, dict[str, Any]]:
    return {layer: dict(values) for layer in FULL_LAYERS}


def test_numbers_are_padded_and_sliding_layers_may_be_listed_too() -> None:
    explicit = entries(head_dim=16, num_key_value_heads=2) | {"00": {"head_dim": 8, "num_key_value_heads": 4}}
    for per_layer in (entries(head_dim=16, num_key_value_heads=2), explicit):
        published = in_published_form(TEXT | {"per_layer_config": per_layer}, SOURCE)
        assert published == TEXT | {"global_head_dim": 16, "num_global_key_value_heads": 2}
        again = published | {"per_layer_config": per_layer}
        assert in_published_form(again, SOURCE) == published


@pytest.mark.parametrize(
    "more",
    [
        {"00": None},
        {"00": {}},
        {"00": {"head_dim": None, "num_key_value_heads": None}},
        {"00": {"sliding_window": 64, "rms_norm_eps": 1e-6, "layer_scalar": None}},
    ],
)
def test_entries_may_repeat_what_all_layers_have_or_say_nothing(more: dict[str, Any]) -> None:
    text = TEXT | {"sliding_window": 64, "rms_norm_eps": 1e-6}
    full = entries(head_dim=16, num_key_value_heads=2)
    assert in_published_form(text | {"per_layer_config": full | more}, SOURCE) == in_published_form(
        text | {"per_layer_config": full}, SOURCE
    )


def test_no_entries_mean_that_all_layers_are_alike() -> None:
    published = in_published_form(TEXT | {"per_layer_config": {}}, SOURCE)
    assert (published["global_head_dim"], published["num_global_key_value_heads"]) == (8, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"per_layer_config": []}, "per_layer_config is []"),
        ({"per_layer_config": "05"}, "per_layer_config is '05'"),
        ({"per_layer_config": entries(head_dim=16), "layer_types": None}, "layer_types is None"),
        ({"per_layer_config": entries(head_dim=16) | {"1": {"head_dim": 16}}}, "each once"),
        ({"per_layer_config": entries(head_dim=16) | {"12": {"head_dim": 16}}}, "a layer from 0 to 11"),
        ({"per_layer_config": entries(head_dim=16) | {"-1": {"head_dim": 16}}}, "a layer from 0 to 11"),
        ({"per_layer_config": entries(head_dim=16) | {"x": {}}}, "a layer from 0 to 11"),
        ({"per_layer_config": entries(head_dim=16) | {"9" * 5000: {}}}, "a layer from 0 to 11"),
        ({"per_layer_config": entries(head_dim=16) | {"11": {}}}, "full-attention layers have 8 and 16"),
        ({"per_layer_config": entries(head_dim=16) | {"11": {"head_dim": 32}}}, "have 16 and 32"),
        ({"per_layer_config": {"11": {"head_dim": 16}}}, "full-attention layers have 8 and 16"),
        ({"per_layer_config": entries(head_dim=16) | {"00": {"head_dim": 16}}}, "a sliding layer has 16"),
        ({"per_layer_config": entries(head_dim=16) | {"11": 5}}, "per_layer_config 11 is 5"),
        ({"per_layer_config": entries(head_dim="16")}, "head_dim is '16', where a whole number"),
        ({"per_layer_config": entries(head_dim=True)}, "head_dim is True"),
        ({"per_layer_config": entries(head_dim=0)}, "head_dim is 0"),
        ({"per_layer_config": entries(num_key_value_heads=10**9)}, "num_key_value_heads is 1000000000"),
        ({"per_layer_config": entries(sliding_window=5)}, "sliding_window of its own"),
        ({"per_layer_config": entries(head_dim=16), "global_head_dim": 32}, "and global_head_dim says 32"),
        (
            {"per_layer_config": entries(num_key_value_heads=2), "num_global_key_value_heads": 1},
            "num_global_key_value_heads says 1",
        ),
        ({"per_layer_config": entries(num_key_value_heads=2), "attention_k_eq_v": False}, "attention_k_eq_v"),
        ({"per_layer_config": entries(head_dim=16), "head_dim": []}, "head_dim is []"),
    ],
)  # fmt: skip
def test_entries_that_contradict_each_other_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelFolderError) as caught:
        in_published_form(TEXT | changes, SOURCE)
    assert words in str(caught.value)
    assert str(SOURCE) in str(caught.value)
    assert len(str(caught.value)) < 300
