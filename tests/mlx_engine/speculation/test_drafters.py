"""A kind of drafter is one row of the registry."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mlx_engine.loading.pair import load_pair
from mlx_engine.network.checkpoint import OnRead
from mlx_engine.protocol.events import LOOKUP, Load, Loading
from mlx_engine.speculation import drafters
from mlx_engine.speculation.drafter import DraftedTarget, Drafter, DrafterSource
from mlx_engine.speculation.drafters import DrafterKind
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.fakes.markov import COUNTING_DRAFTER

pytestmark = pytest.mark.slow


def load(source: DrafterSource, target: DraftedTarget, on_read: OnRead) -> Drafter:
    on_read(source.bits or 0)
    return COUNTING_DRAFTER


@pytest.mark.parametrize("has_folder", [False, True])
def test_a_new_kind_needs_one_row(has_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if has_folder:
        name = str(shutil.copytree(DRAFTER_FOLDER, tmp_path / "drafter"))
        row = DrafterKind("counting", load, reads=lambda source: source.config["model_type"].endswith("assistant"))
    else:
        name, row = "counting", DrafterKind("counting", load, reads=None)
    monkeypatch.setattr(drafters, "KINDS", (row, *drafters.KINDS))
    loading: list[Loading] = []
    pair = load_pair(Load(str(TARGET_FOLDER), (name,), drafter_bits=8), loading.append)
    assert list(pair.drafters.values()) == [COUNTING_DRAFTER]
    steps = dict.fromkeys(event.step for event in loading)
    assert list(steps) == ["reading target", "reading drafter"] if has_folder else ["reading target"]


def test_only_kinds_with_a_folder_have_weights() -> None:
    assert drafters.weights_bytes(DrafterSource(LOOKUP)) == 0
    assert not drafters.has_folder(DrafterSource(LOOKUP))
    assert drafters.weights_bytes(DrafterSource(str(DRAFTER_FOLDER))) > 100_000
