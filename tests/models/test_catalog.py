"""The catalog: the bundled facts agree with each other, and a person's own file is checked field by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlx_engine.files.weight_files import read_tensors
from models import pocket
from models.catalog import BUNDLED_FILE, Catalog, check_repo, check_revision, load_catalog
from models.config import read_config
from models.errors import CatalogError, PullError
from models.memory_fit import PROCESS_BYTES, loaded_bytes

GOOD: dict[str, Any] = {
    "family": "e4b",
    "precision": "4-bit",
    "target": {"repo": "me/mine"},
    "drafter": {"repo": "me/mine-assistant"},
    "recommended_memory_gb": 16,
    "draft_length": 2,
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def write(tmp_path: Path, text: str | dict[str, Any]) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_every_size_comes_in_every_precision_with_its_drafter(catalog: Catalog) -> None:
    for family in ("e2b", "e4b", "12b", "26b-a4b", "31b"):
        entries = {name: entry for name, entry in catalog.entries.items() if entry.family == family}
        assert {entry.precision for entry in entries.values()} == {"4-bit", "8-bit", "bf16"}
        assert any(entry.target.qat for entry in entries.values())
        sizes = {
            entry.precision: entry.target.size_bytes or 0 for entry in entries.values() if not entry.target.qat
        }
        assert 0 < sizes["4-bit"] < sizes["8-bit"] < sizes["bf16"]
        assert sizes["bf16"] <= 2.01 * (catalog.families[family].parameters or 0)
        assert all(entry.drafter is not None for entry in entries.values())
        assert catalog.find(family)[1].precision == "4-bit"


def test_qat_goes_with_qat_only(catalog: Catalog, tmp_path: Path) -> None:
    for name, entry in catalog.entries.items():
        assert entry.drafter is not None
        assert entry.target.qat == entry.drafter.qat == name.endswith("-qat")
        assert all(source.qat == ("qat" in source.location) for source in entry.sources)
    mixed = GOOD | {"target": {"repo": "me/mine", "qat": True}}
    words = refusal(write(tmp_path, {"format": 1, "entries": {"mixed": mixed}}))
    assert "QAT" in words
    assert "'mixed'" in words


def test_nothing_claims_to_have_been_checked_but_the_pair_in_the_box(catalog: Catalog) -> None:
    checked = [name for name, entry in catalog.entries.items() if any(source.checked for source in entry.sources)]
    assert checked == ["pocket"]
    assert all(source.revision is None for entry in catalog.entries.values() for source in entry.sources)


def test_the_pocket_entry_is_the_pair_in_the_box(catalog: Catalog) -> None:
    entry = catalog.entries["pocket"]
    assert entry.drafter is not None
    folders = (pocket.TARGET_FOLDER, pocket.DRAFTER_FOLDER)
    for source, folder in zip(entry.sources, folders):
        assert Path(source.location) == folder
        assert source.size_bytes == loaded_bytes(read_tensors(folder), read_config(folder))
    family = catalog.family(entry)
    assert family.layers == read_config(pocket.TARGET_FOLDER).layers
    assert family.parameters * 4 == entry.target.size_bytes


@pytest.mark.parametrize(
    ("family", "grown_kv_kb"), [("e2b", 6), ("e4b", 16), ("12b", 16), ("26b-a4b", 20), ("31b", 80)]
)
def test_the_growing_kv_is_what_is_known_of_the_family(catalog: Catalog, family: str, grown_kv_kb: int) -> None:
    layers = catalog.families[family].layers
    assert 2 * 2 * layers.full_layers * layers.full_kv_heads * layers.full_head_dim == grown_kv_kb << 10


def test_every_field_is_documented_in_the_header(catalog: Catalog) -> None:
    header = BUNDLED_FILE.read_text().partition("\nformat:")[0]
    structs: list[msgspec.Struct] = [
        catalog.entries["e4b-4bit"],
        catalog.families["e4b"],
        catalog.families["e4b"].layers,
    ]
    structs.append(catalog.entries["e4b-4bit"].target)
    for struct in structs:
        for name in struct.__struct_fields__:
            assert name in header, name
    assert PROCESS_BYTES  # the sum that recommended_memory_gb speaks of


def test_names_are_found_in_any_case_and_unknown_ones_bring_the_nearest(catalog: Catalog) -> None:
    assert catalog.find("E4B") == catalog.find("e4b-4bit")
    assert catalog.by_repo("MLX-Community/gemma-4-E4B-it-4bit") == catalog.find("e4b")
    with pytest.raises(CatalogError, match="Did you mean 12b-8bit"):
        catalog.find("12b-8bits")


def test_a_persons_own_file_adds_and_replaces(tmp_path: Path) -> None:
    own = {"mine": GOOD | {"aliases": ["m"]}, "e4b-4bit": GOOD | {"note": "my own"}, "local": dict(GOOD)}
    own["local"] = GOOD | {"target": {"folder": "models/x"}, "drafter": None}
    catalog = load_catalog(write(tmp_path, {"format": 1, "entries": own}))
    assert catalog.find("m")[1].target.repo == "me/mine"
    assert catalog.entries["e4b-4bit"].note == "my own"
    assert catalog.entries["local"].target.folder == str(tmp_path / "models" / "x")
    assert "e4b-8bit" in catalog.entries
    assert catalog.own_names == {"mine", "e4b-4bit", "local"}


def test_no_file_of_ones_own_is_fine(tmp_path: Path, catalog: Catalog) -> None:
    assert load_catalog(tmp_path / "none.yaml") == catalog


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"family": "e5b"}, "family 'e5b' is unknown"),
        ({"draft_length": 17}, "draft_length"),
        ({"draft_length": 0}, "draft_length"),
        ({"draft_length": "2"}, "draft_length"),
        ({"draft_length": True}, "draft_length"),
        ({"precision": "3-bit"}, "precision"),
        ({"recommended_memory_gb": -1}, "recommended_memory_gb"),
        ({"recommended_memory_gb": float("nan")}, "recommended_memory_gb"),
        ({"target": {"repo": "../x"}}, "not a hub id"),
        ({"target": {"repo": "a/b", "revision": "../../x"}}, "not a revision"),
        ({"target": {"repo": "a/b", "folder": "c"}}, "either repo or folder"),
        ({"target": {"folder": "~nobody-of-that-name/x"}}, "home folder here"),
        ({"target": {}}, "either repo or folder"),
        ({"target": {"repo": "a/b", "size_bytes": 5}}, "size_source"),
        ({"target": {"repo": "a/b", "size_bytes": -5, "size_source": "listed"}}, "size_bytes"),
        ({"target": {"repo": "a/b", "sha": "x"}}, "sha"),
        ({"target": "a/b"}, "target"),
        ({"aliases": ["e4b"]}, "alias 'e4b' already means e4b-4bit"),
        ({"aliases": ["../x"]}, "is not a name"),
        ({"colour": "red"}, "colour"),
        ({"target": None}, "target"),
    ],
)
def test_an_entry_that_is_wrong_is_named_with_its_field(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    refused = refusal(write(tmp_path, {"format": 1, "entries": {"mine": GOOD | change}}))
    assert "'mine'" in refused
    assert words in refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a catalog"),
        ("just words", "not a catalog"),
        ("- a\n- b", "not a catalog"),
        ("format: 2", "format is 2"),
        ("entries: {}", "format is None"),
        ("format: 1\nmodels: {}", "'models' is unknown"),
        ("format: 1\nentries: []\nfamilies: x", "families does not map"),
        ("format: 1\nentries:\n  a: {}\n  a: {}", "line 4: 'a' appears twice"),
        ("format: 1\nentries: &x {}\nfamilies: *x", "line 3: anchors are not allowed"),
        ("format: 1\nentries: {../x: {}}", "is not a name"),
        ("format: 1\nentries: {5: {}}", "is not a name"),
        ("format: 1\nentries: {a: 5}", "'a'"),
        ("format: 1\nx: [", "line 2"),
        ("a: !!python/object/apply:os.system [id]", "line 1"),
        ("\x00\x01", "not a catalog"),
        ("format: " + "9" * 5000, "not a catalog"),
        ("[" * 5000, "catalog.yaml"),
        ("a: \ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "not a catalog"),
        ("format: 1\n? [a, b]\n: x", "catalog.yaml"),
    ],
)
def test_a_file_that_is_no_catalog(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(write(tmp_path, text))


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    assert "larger than 1 MiB" in refusal(write(tmp_path, "#" * (1 << 21)))


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").mkdir()
    assert "cannot be read" in refusal(tmp_path / "catalog.yaml")


@pytest.mark.parametrize("repo", ["google/gemma-4-E4B-it", "a/b", "A1/b_c.d-e"])
def test_hub_ids(repo: str) -> None:
    assert check_repo(repo) == repo


@pytest.mark.parametrize("revision", ["main", "a" * 40, "v1.0", "refs_pr_4"])
def test_revisions(revision: str) -> None:
    assert check_revision(revision) == revision
    with pytest.raises(PullError):
        check_revision(f"../{revision}")
