"""Which folders `--model` and `--drafter` mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import pocket
from models.folders import find_pair


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def test_nothing_named_is_the_pocket_pair() -> None:
    pair = find_pair(None, "auto")
    assert (pair.target, pair.drafter) == (pocket.TARGET_FOLDER, pocket.DRAFTER_FOLDER)
    assert pair.is_pocket


def test_none_is_no_drafter() -> None:
    assert find_pair(None, "none").drafter is None


@pytest.mark.parametrize("name", ["gemma/drafter", "gemma/assistant", "gemma-assistant"])
def test_auto_finds_the_drafter_inside_or_beside(tmp_path: Path, name: str) -> None:
    target = model_folder(tmp_path / "gemma")
    assert find_pair(str(target), "auto").drafter is None
    drafter = model_folder(tmp_path / name)
    pair = find_pair(str(target), "auto")
    assert pair.drafter == drafter
    assert not pair.is_pocket


def test_a_named_drafter_is_taken_as_it_is(tmp_path: Path) -> None:
    assert find_pair(str(tmp_path), "~/d").drafter == Path.home() / "d"
