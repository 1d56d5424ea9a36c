"""Block drafters and EAGLE-3 are known by their configs: matched, measured, and refused with both numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mlx_engine.files.weight_files import read_tensors
from mlx_engine.network import tapped_rows
from mlx_engine.protocol.errors import ModelFolderError
from models import drafter_config
from models.catalog import load_catalog
from models.config import read_config
from models.folders import find_pair
from models.memory_fit import loaded_bytes, size_of_folders
from models.verify import verify_folder
from tests.golden.layouts import HIDDEN_SIZE
from tests.mlx_engine.speculation.golden_drafts import loaded
from tests.paths import GOLDEN

FOLDER = GOLDEN / "drafters"
TARGET = FOLDER / "target-12b"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and path != TARGET)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_drafter_for_its_target(name: str, tmp_path: Path) -> None:
    config = read_config(FOLDER / name)
    assert config.is_drafter
    assert config.hidden_size == 72
    pair = find_pair(str(TARGET), str(FOLDER / name), load_catalog(), tmp_path)
    assert (pair.drafter, pair.refusal) == (FOLDER / name, "")
    assert not list(verify_folder(FOLDER / name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_for_another_target_it_is_refused_with_both_numbers(name: str, tmp_path: Path) -> None:
    other = GOLDEN / "e2b" / "target"
    pair = find_pair(str(other), str(FOLDER / name), load_catalog(), tmp_path)
    assert pair.drafter is None
    assert f"a hidden size of 72; {other} has {HIDDEN_SIZE}" in pair.refusal


@pytest.mark.parametrize("name", NAMES)
def test_its_memory_is_part_of_the_sum(name: str) -> None:
    """Weights without what is not loaded, and a window of K/V of its own."""
    tensors = read_tensors(FOLDER / name)
    left_out = ("confidence_head.", "t2d", "d2t")
    expected = sum(tensor.size_bytes for key, tensor in tensors.items() if not key.startswith(left_out))
    assert loaded_bytes(tensors, read_config(FOLDER / name)) == expected
    size = size_of_folders(TARGET, FOLDER / name)
    assert size.drafter_bytes == expected
    (drafter,) = size.drafters
    (tapped,) = loaded(FOLDER / name).target.new_cache().tapped
    assert drafter.layers.sliding_layers == (1 if name in ("eagle3-llama", "eagle3-deepspec") else 2)
    assert drafter.layers.window == drafter_config.DRAFTER_WINDOW == tapped_rows.MOST_ROWS
    assert drafter.tapped_numbers == size.layers.hidden_size * len(tapped.layers)
    assert not drafter.has_snapshots


@pytest.mark.parametrize("name", ["eagle3-llama", "dspark-12b"])
def test_beside_its_target_it_is_found(name: str, tmp_path: Path) -> None:
    target = Path(shutil.copytree(TARGET, tmp_path / "models" / "target"))
    drafter = Path(shutil.copytree(FOLDER / name, tmp_path / "models" / "target-block"))
    cache = tmp_path / "cache"
    assert find_pair(str(target), "auto", load_catalog(), cache).drafter == drafter


@pytest.mark.parametrize("value", [None, 0, -1, "72", 1.5, True])
def test_a_wrong_number_is_named(tmp_path: Path, value: object) -> None:
    folder = Path(shutil.copytree(FOLDER / "eagle3-llama", tmp_path / "drafter"))
    config = json.loads((folder / "config.json").read_text())
    config["transformer_layer_config"]["hidden_size"] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match="hidden_size"):
        read_config(folder)


def test_code_that_a_target_names_is_still_refused(tmp_path: Path) -> None:
    """Only drafters of known packagings are saved with it."""
    folder = Path(shutil.copytree(TARGET, tmp_path / "target"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"": "config.Config"}}))
    with pytest.raises(ModelFolderError, match="code of its own"):
        read_config(folder)
