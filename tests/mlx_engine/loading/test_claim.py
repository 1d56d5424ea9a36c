"""Two large models in memory at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_engine.protocol import events
from tests.fakes.folders import write_pair
from tests.mlx_engine.rig import Rig, only

pytestmark = pytest.mark.slow

CONTEXT = 512


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"), CONTEXT)


def test_whoever_loads_a_second_large_model_is_told_of_the_first(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> tuple[Rig, list[str]]:
        rig = Rig(pair[0], None, estimates_folder=str(tmp_path / "state"))
        return rig, [each.message for each in only(events.Notice, rig.emitted)]

    small, said = load()
    assert not said
    monkeypatch.setattr("mlx_engine.loading.claim.LARGE_BYTES", 1)
    first, said = load()
    assert not said, "a small model is in nobody's way"
    _, [said_to_second] = load()
    assert said_to_second.startswith("Another Slipstream has target in memory")
    del first
    _, said = load()
    assert not said, "the place is free again"
    assert small.engine
