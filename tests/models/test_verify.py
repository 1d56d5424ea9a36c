"""Verify finds every kind of difference, and nothing where there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from mlx_engine.protocol.errors import ModelFolderError
from models import hub_cache, pocket
from models.catalog import Source, load_catalog
from models.verify import Finding, recorded_files, verify_entry, verify_folder, verify_source
from tests.fakes.cache import COMMIT, put
from tests.paths import GOLDEN

SOURCE = GOLDEN / "e2b" / "target"
REPO = "someone/gemma"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return put(tmp_path, REPO, SOURCE)


def findings(folder: Path) -> list[Finding]:
    recorded = recorded_files(folder)
    return list(verify_folder(folder, recorded[1] if recorded else {}))


def content(snapshot: Path, name: str) -> Path:
    return (snapshot / name).resolve()


def test_a_pull_is_as_it_should_be(snapshot: Path) -> None:
    recorded = recorded_files(snapshot)
    assert recorded is not None
    assert REPO in recorded[0]
    assert recorded[1].keys() == {"config.json", "generation_config.json", "model.safetensors"}
    seen: list[str] = []
    assert list(verify_folder(snapshot, recorded[1], seen.append)) == []
    assert sorted(seen) == sorted(recorded[1])


@pytest.mark.parametrize("name", ["model.safetensors", "generation_config.json"])
def test_one_flipped_byte_is_found(snapshot: Path, name: str) -> None:
    path = content(snapshot, name)
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    [found] = findings(snapshot)
    assert found.place == name
    assert "hash" in found.problem


def test_a_cut_file_is_found_twice_by_size_and_by_header(snapshot: Path) -> None:
    path = content(snapshot, "model.safetensors")
    path.write_bytes(path.read_bytes()[:-10])
    problems = [found.problem for found in findings(snapshot)]
    assert "are recorded" in problems[0]
    assert "damaged" in problems[1]


def test_what_is_missing_too_much_or_code(snapshot: Path) -> None:
    (snapshot / "model-evil.safetensors").write_bytes(b"")
    (snapshot / "evil.py").write_text("")
    (snapshot / "generation_config.json").unlink()
    assert [found.place for found in findings(snapshot)] == [
        "generation_config.json",
        "evil.py",
        "model-evil.safetensors",
    ]


def test_a_plain_folder_has_its_headers_and_config_checked(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SOURCE, tmp_path / "copy"))
    assert recorded_files(folder) is None
    assert findings(folder) == []
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert "'llama'" in findings(folder)[0].problem


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 99_999])
def test_a_tokenizer_that_is_none(tmp_path: Path, text: str) -> None:
    folder = Path(shutil.copytree(SOURCE, tmp_path / "copy"))
    (folder / "tokenizer.json").write_text(text)
    assert "tokenizer.json is damaged" in findings(folder)[0].problem


def test_a_conversions_own_record_counts(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SOURCE, tmp_path / "copy"))
    record = {"files": {"config.json": {"size": 5, "sha256": "a" * 64}}}
    (folder / "conversion.json").write_text(json.dumps(record))
    assert "5 are recorded" in findings(folder)[0].problem
    (folder / "conversion.json").write_text('{"files": 5}')
    with pytest.raises(ModelFolderError, match=r"conversion\.json is damaged"):
        recorded_files(folder)


def test_the_catalog_is_compared_with_the_config() -> None:
    catalog = load_catalog()
    entry = catalog.entries["pocket"]
    assert list(verify_entry(entry, catalog, pocket.TARGET_FOLDER)) == []
    fields = [found.place for found in verify_entry(catalog.entries["e2b-4bit"], catalog, pocket.TARGET_FOLDER)]
    assert "e2b.hidden_size" in fields
    wrong = msgspec.structs.replace(entry, target=msgspec.structs.replace(entry.target, size_bytes=5))
    [found] = verify_entry(wrong, catalog, pocket.TARGET_FOLDER)
    assert "8,467,736" in found.problem


def test_the_hub_is_compared_with_the_catalog_and_with_what_is_here(tmp_path: Path) -> None:
    put(tmp_path, REPO, SOURCE)
    listing = hub_cache.read_listing(tmp_path, REPO, COMMIT)
    assert listing is not None
    size = listing["model.safetensors"].size
    right = Source(repo=REPO, revision=COMMIT, size_bytes=size, size_source="listed")
    assert list(verify_source(right, COMMIT, listing, COMMIT)) == []
    wrong = Source(repo=REPO, revision="c" * 40, size_bytes=2 * size, size_source="calculated")
    problems = [found.problem for found in verify_source(wrong, COMMIT, listing, "d" * 40)]
    assert len(problems) == 3
    assert "calculated" in problems[0]
    assert "pins cccccccccccc" in problems[1]
    assert "Pull it again" in problems[2]
