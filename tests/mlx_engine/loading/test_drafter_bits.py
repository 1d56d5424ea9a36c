"""To how many bits a drafter is quantized where nobody chose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.loading import drafter_bits
from mlx_engine.loading import pair as loading
from mlx_engine.loading.drafter_bits import AS_STORED, chosen_bits
from mlx_engine.protocol.events import LOOKUP, Notice, Ready
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.mlx_engine.rig import Rig, only

M4, M5 = "applegpu_g16s", "applegpu_g17s"


def folder(path: Path, **config: Any) -> str:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "gemma4_assistant", **config}))
    return str(path)


def test_large_assistants_take_8_bits_on_m5_and_later(tmp_path: Path) -> None:
    large = folder(tmp_path / "12b-assistant", use_ordered_embeddings=False)
    small = folder(tmp_path / "e4b-assistant", use_ordered_embeddings=True)
    stored = folder(tmp_path / "12b-assistant-4bit", quantization={"bits": 4, "group_size": 64})
    model = folder(tmp_path / "e2b", model_type="gemma4_text")
    assert [chosen_bits(None, large, name) for name in (M5, "applegpu_g18p", M4, "applegpu_g13s", "x86_64")] == [
        8, 8, None, None, None,
    ]  # fmt: skip
    for other in (small, stored, model, LOOKUP, str(tmp_path / "nowhere")):
        assert chosen_bits(None, other, M5) is None, other


def test_a_person_can_insist(tmp_path: Path) -> None:
    large = folder(tmp_path / "12b-assistant")
    assert chosen_bits(AS_STORED, large, M5) is None
    assert chosen_bits(4, large, M5) == 4
    assert chosen_bits(8, large, M4) == 8


@pytest.mark.parametrize(
    ("setting", "bits", "is_told"), [(None, 8, True), (AS_STORED, None, False), (4, 4, False)]
)
def test_the_choice_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: int | None, bits: int | None, is_told: bool
) -> None:
    """On a made-up M5, with the pocket pair's assistant in place of a large one."""
    monkeypatch.setattr(loading, "_architecture", lambda: M5)
    monkeypatch.setattr(drafter_bits, "is_large_assistant", lambda source: True)
    for is_first in (True, False):
        rig = Rig(TARGET_FOLDER, DRAFTER_FOLDER, drafter_bits=setting, estimates_folder=str(tmp_path))
        (ready,) = only(Ready, rig.emitted)
        assert ready.drafter_bits == bits
        told = [notice.message for notice in only(Notice, rig.emitted) if "8 bits" in notice.message]
        assert bool(told) == (is_told and is_first), "told once"
