"""Drafters of the catalog beside those of its entries: by name, by kind, for their family alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.catalog import BUNDLED_FILE, Catalog, load_catalog
from models.config import read_config
from models.errors import CatalogError, ModelsError
from models.folders import find_pair
from tests.fakes.cache import put
from tests.paths import GOLDEN

FOLDER = GOLDEN / "drafters"
TARGET = FOLDER / "target-12b"
REPOS = {"tiny-dspark": "me/tiny-dspark", "tiny-dflash": "me/tiny-dflash", "tiny-eagle3": "me/tiny-eagle3"}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The bundled one, with a family whose models are here."""
    layers = msgspec.to_builtins(read_config(TARGET).layers)
    entry = {
        "family": "tiny", "precision": "bf16", "target": {"repo": "me/tiny"},
        "drafter": {"repo": "me/tiny-assistant"},
        "recommended_memory_gb": 4, "draft_length": 2,
    }  # fmt: skip
    own = {
        "format": 1,
        "families": {"tiny": {"title": "Tiny", "licence": "none", "parameters": 1, "layers": layers}},
        "entries": {"tiny": entry},
        "drafters": {
            name: {"family": "tiny", "kind": name.partition("-")[2], "source": {"repo": repo}}
            for name, repo in REPOS.items()
        },
    }
    path = tmp_path_factory.mktemp("own") / "catalog.yaml"
    path.write_text(json.dumps(own))
    return load_catalog(path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    put(tmp_path, "me/tiny", TARGET)
    return tmp_path


def test_the_bundled_ones_are_marked_unchecked_and_have_a_note_where_they_need_one() -> None:
    drafters = load_catalog().drafters
    assert {drafter.kind for drafter in drafters.values()} == {"dspark", "dflash", "eagle3"}
    assert {drafter.family for drafter in drafters.values()} == {"12b", "26b-a4b", "31b"}, (
        "none is known of others"
    )
    for name, drafter in drafters.items():
        assert name.startswith(f"{drafter.family}-{drafter.kind}")
        assert drafter.source.repo
        assert not drafter.source.checked
        assert not drafter.source.qat
    header = BUNDLED_FILE.read_text().partition("\nformat:")[0]
    for field in msgspec.structs.fields(type(drafters["12b-dspark"])):
        assert field.name in header.partition("# drafters ")[2], field.name


@pytest.mark.parametrize("model", ["tiny", "me/tiny", str(TARGET)])
@pytest.mark.parametrize("word", ["tiny-dspark", "Tiny-DSpark", "dspark"])
def test_a_drafter_is_found_by_name_and_by_kind(cache: Path, catalog: Catalog, model: str, word: str) -> None:
    folder = put(cache, REPOS["tiny-dspark"], FOLDER / "dspark-12b")
    pair = find_pair(model, word, catalog, cache)
    assert (pair.drafter, pair.refusal) == (folder, "")


def test_one_that_is_not_here_says_how_to_get_it(cache: Path, catalog: Catalog) -> None:
    with pytest.raises(ModelsError, match=r"tiny-eagle3 is not .*\. Run `slipstream models pull tiny-eagle3`"):
        find_pair("tiny", "eagle3", catalog, cache)


def test_one_for_another_family_is_refused_with_both_numbers_before_it_is_pulled(
    cache: Path, catalog: Catalog
) -> None:
    pair = find_pair("tiny", "12b-dspark", catalog, cache)
    assert pair.drafter is None
    assert "12b-dspark was made for a target with a hidden size of 3840; me/tiny has 72." in pair.refusal
    assert "The right one is me/tiny-assistant" in pair.refusal


def test_a_file_that_is_not_what_its_entry_says_is_refused_with_both_numbers(
    cache: Path, catalog: Catalog
) -> None:
    put(cache, REPOS["tiny-dflash"], GOLDEN / "e2b" / "assistant")
    pair = find_pair("tiny", "dflash", catalog, cache)
    assert pair.drafter is None
    assert "a hidden size of 32; " in pair.refusal
    assert "has 72" in pair.refusal


def test_a_kind_that_nobody_made_for_the_model_is_said(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(ModelsError, match="no dspark drafter for pocket"):
        find_pair("pocket", "dspark", catalog, tmp_path)


def test_a_drafter_is_no_model_to_chat_with(cache: Path, catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match=r"31b-dflash is a drafter: .* 31b and --drafter 31b-dflash"):
        find_pair("31b-dflash", "auto", catalog, cache)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("mine", {"family": "7b"}, "family '7b' is unknown"),
        ("mine", {"kind": "medusa"}, "kind"),
        ("mine", {"source": {}}, "either repo or folder"),
        ("12b-4bit", {}, "the name of a model and of a drafter"),
        ("12b", {}, "alias '12b' already means a drafter"),
    ],
)
def test_a_wrong_drafter_in_ones_own_file_is_named(
    tmp_path: Path, name: str, change: dict[str, Any], words: str
) -> None:
    good = {"family": "12b", "kind": "dspark", "source": {"repo": "me/mine"}}
    path = tmp_path / "catalog.yaml"
    path.write_text(json.dumps({"format": 1, "drafters": {name: good | change}}))
    with pytest.raises(CatalogError, match=words):
        load_catalog(path)
