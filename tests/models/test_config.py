"""Configs of every layout are read and matched; what is malformed is refused with its file and key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.protocol.errors import ModelFolderError, PairMismatchError
from models import pocket
from models.config import check_match, parse_config, read_config
from tests.paths import GOLDEN

LAYOUTS = ["e2b", "e4b", "12b-unified", "26b-a4b", "31b"]
PAIRS = {name: (GOLDEN / name / "target", GOLDEN / name / "assistant") for name in LAYOUTS}


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(ModelFolderError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_of_every_layout_match_themselves_and_no_other(layout: str) -> None:
    target, drafter = (read_config(folder) for folder in PAIRS[layout])
    assert not target.is_drafter
    assert drafter.is_drafter
    check_match(target, drafter, ("d", "t"), "")
    pocket_drafter = read_config(pocket.DRAFTER_FOLDER)
    with pytest.raises(
        PairMismatchError, match=r"d was made for a target with a hidden size of 64; t has 32\. Use X\."
    ):
        check_match(target, pocket_drafter, ("d", "t"), "Use X.")


def test_kv_geometry_tells_pairs_of_one_width_apart() -> None:
    target, drafter = read_config(PAIRS["e2b"][0]), read_config(PAIRS["31b"][1])
    with pytest.raises(
        PairMismatchError, match=r"full attention K/V \(heads, head size\) of \(2, 16\); t has \(1, 16\)"
    ):
        check_match(target, drafter, ("d", "t"), "")


CONFIG = json.loads((PAIRS["31b"][0] / "config.json").read_text())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "llama"}, "'llama'"),
        ({"model_type": ["gemma4"]}, "model"),
        ({"model_type": None}, "model"),
        ({"model_file": "x.py"}, "model_file"),
        ({"auto_map": {}}, "auto_map"),
        ({"text_config": None}, "text_config"),
        ({"text_config": []}, "text_config"),
    ],
)
def test_a_config_of_another_kind(changes: dict[str, Any], words: str) -> None:
    assert words in refusal(lambda: parse_config(CONFIG | changes, Path("here/config.json")))


OUT_OF_BOUNDS: tuple[Any, ...] = (0, -1, "6", 1.5, True, 10**12, [], float("nan"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key in ("num_hidden_layers", "hidden_size", "sliding_window", "num_key_value_heads", "global_head_dim")
        for value in OUT_OF_BOUNDS
    ]
    + [("num_hidden_layers", 1_000_000), ("num_hidden_layers", None), ("num_kv_shared_layers", 6)]
    + [("layer_types", None), ("layer_types", ["x"] * 6), ("layer_types", [[]] * 6), ("layer_types", "full")],
)
def test_a_number_out_of_bounds_is_named(key: str, value: Any) -> None:
    config = CONFIG | {"text_config": CONFIG["text_config"] | {key: value}}
    words = refusal(lambda: parse_config(config, Path("here/config.json")))
    assert key in words
    assert "here/config.json" in words
