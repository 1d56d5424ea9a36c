"""Which folders `--model` and `--drafter` mean: names of the catalog, folders, hub ids; matched by config."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from models import hub_cache, pocket
from models.catalog import Catalog, load_catalog
from models.errors import CatalogError, ModelsError, PathError, PullError
from models.folders import called, find_pair
from models.verify import recorded_files, verify_folder
from tests.fakes.cache import put
from tests.fakes.packagings import copied
from tests.paths import GOLDEN

E4B_TARGET = "mlx-community/gemma-4-e4b-it-4bit"
E4B_DRAFTER = "google/gemma-4-E4B-it-assistant"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


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


def test_a_name_of_the_catalog_is_what_was_pulled_for_it(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(
        ModelsError, match=r"e4b-4bit is not on this machine. Run `slipstream models pull e4b-4bit`"
    ):
        find_pair("e4b", "auto", catalog, tmp_path)
    target = put(tmp_path, E4B_TARGET, GOLDEN / "e4b" / "target")
    pair = find_pair("E4B", "auto", catalog, tmp_path)
    assert (pair.target, pair.drafter, pair.name) == (target, None, "e4b-4bit")
    assert "pull e4b-4bit" in pair.notice
    drafter = put(tmp_path, E4B_DRAFTER, GOLDEN / "e4b" / "assistant")
    for drafter_word in ("auto", E4B_DRAFTER, "e4b-8bit", str(drafter)):
        pair = find_pair("e4b", drafter_word, catalog, tmp_path)
        assert (pair.target, pair.drafter, pair.notice) == (target, drafter, "")
    assert find_pair("e4b", "none", catalog, tmp_path).drafter is None


def test_the_pocket_has_a_name_too(catalog: Catalog, tmp_path: Path) -> None:
    pair = find_pair("pocket", "auto", catalog, tmp_path)
    assert pair == find_pair(None, "auto")


def test_a_hub_id_is_its_snapshot(tmp_path: Path, catalog: Catalog) -> None:
    target = put(tmp_path, "me/own-e4b", GOLDEN / "e4b" / "target")
    put(tmp_path, "me/other-assistant", GOLDEN / "31b" / "assistant")
    assert find_pair("me/own-e4b", "auto", catalog, tmp_path).drafter is None
    drafter = put(tmp_path, "me/own-e4b-drafter", GOLDEN / "e4b" / "assistant")
    pair = find_pair("me/own-e4b", "auto", catalog, tmp_path)
    assert (pair.target, pair.drafter) == (target, drafter)
    with pytest.raises(ModelsError, match="pull me/nothing"):
        find_pair("me/nothing", "auto", catalog, tmp_path)


def test_a_snapshot_of_the_catalog_named_by_its_folder_finds_its_drafter(tmp_path: Path, catalog: Catalog) -> None:
    target = put(tmp_path, E4B_TARGET, GOLDEN / "e4b" / "target")
    drafter = put(tmp_path, E4B_DRAFTER, GOLDEN / "e4b" / "assistant")
    assert find_pair(str(target), "auto", catalog, tmp_path).drafter == drafter
    assert find_pair(E4B_TARGET, "auto", catalog, tmp_path).name == "e4b-4bit"


def test_an_incomplete_pull_is_not_a_model(tmp_path: Path, catalog: Catalog) -> None:
    put(tmp_path, E4B_TARGET, GOLDEN / "e4b" / "target")
    put(tmp_path, "me/x", GOLDEN / "e4b" / "target")
    for repo in (E4B_TARGET, "me/x"):
        blobs = hub_cache.repo_folder(tmp_path, repo) / "blobs"
        max(blobs.iterdir(), key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(ModelsError, match="not on this machine"):
        find_pair("e4b", "auto", catalog, tmp_path)
    with pytest.raises(ModelsError, match="is not complete"):
        find_pair("me/x", "auto", catalog, tmp_path)


def test_a_wrong_drafter_is_refused_with_both_numbers(tmp_path: Path, catalog: Catalog) -> None:
    target = GOLDEN / "e2b" / "target"
    words = r"hidden size of 64; .*e2b/target has 32\. Use the -assistant folder of the same variant"
    pair = find_pair(str(target), str(pocket.DRAFTER_FOLDER), catalog, tmp_path)
    assert (pair.target, pair.drafter) == (target, None)
    assert re.search(words, pair.refusal)


def test_and_the_right_one_is_named_where_the_catalog_knows_it(tmp_path: Path, catalog: Catalog) -> None:
    pair = find_pair("pocket", str(GOLDEN / "e2b" / "assistant"), catalog, tmp_path)
    assert pair.drafter is None
    assert re.search(r"hidden size of 32; .* has 64\. The right one is .*pocket/drafter", pair.refusal)


def test_branches_that_differ_are_said(tmp_path: Path, catalog: Catalog) -> None:
    put(tmp_path, "mlx-community/gemma-4-E4B-it-qat-4bit", GOLDEN / "e4b" / "target")
    put(tmp_path, E4B_DRAFTER, GOLDEN / "e4b" / "assistant")
    pair = find_pair("e4b-qat", E4B_DRAFTER, catalog, tmp_path)
    assert "QAT" in pair.notice
    assert find_pair("e4b-qat", "auto", catalog, tmp_path).drafter is None


@pytest.mark.parametrize(
    ("target", "drafter"),
    [("me/e4b-qat", "me/z-qat-draft"), ("qat-lab/e4b", "me/z-qat-draft"), ("me/e4b", "me/a-draft")],
)
def test_the_drafter_of_the_same_branch_is_found_by_the_repositories_names(
    tmp_path: Path, catalog: Catalog, target: str, drafter: str
) -> None:
    put(tmp_path, "me/a-draft", GOLDEN / "e4b" / "assistant")
    put(tmp_path, "me/z-qat-draft", GOLDEN / "e4b" / "assistant")
    folder = put(tmp_path, target, GOLDEN / "e4b" / "target")
    for model in (target, str(folder)):
        pair = find_pair(model, "auto", catalog, tmp_path)
        assert pair.drafter is not None
        assert called(pair.drafter) == drafter
        assert pair.notice == ""


def test_what_a_folder_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = put(tmp_path, "me/own-e4b", GOLDEN / "e4b" / "target")
    assert called(snapshot) == "me/own-e4b"
    (tmp_path / "link").symlink_to(snapshot)
    assert called(tmp_path / "link") == "me/own-e4b"
    assert [called(pocket.TARGET_FOLDER), called(pocket.DRAFTER_FOLDER)] == ["pocket", "pocket-drafter"]
    monkeypatch.chdir(model_folder(tmp_path / "gemma"))
    assert [called(path) for path in (Path(), tmp_path / "gemma")] == ["gemma", "gemma"]


def test_a_folder_of_a_catalog_name_is_meant_with_its_path(
    tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_folder(tmp_path / "e4b")
    monkeypatch.chdir(tmp_path)
    assert find_pair("./e4b", "none", catalog, tmp_path / "cache").target == Path("e4b")
    with pytest.raises(ModelsError, match="e4b-4bit is not on this machine"):
        find_pair("e4b", "none", catalog, tmp_path / "cache")


@pytest.mark.parametrize("typed", ["~nobody-of-that-name/x", "/a\0b"])
def test_a_path_that_means_no_place_is_said(tmp_path: Path, catalog: Catalog, typed: str) -> None:
    for model, drafter in ((typed, "auto"), ("pocket", typed)):
        with pytest.raises(PathError, match=r"home folder here|zero byte"):
            find_pair(model, drafter, catalog, tmp_path)


def test_names_that_mean_nothing(tmp_path: Path, catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="Did you mean"):
        find_pair("e4c", "auto", catalog, tmp_path)
    assert find_pair("/nowhere/at/all", "auto", catalog, tmp_path).target == Path("/nowhere/at/all")
    with pytest.raises(PullError):
        find_pair("a..b/c", "auto", catalog, tmp_path)


PUBLISHED_TARGET, PUBLISHED_DRAFTER = "gemma-4-e4b-it-4bit", "gemma-4-E4B-it-assistant-bf16"


def test_an_assistant_in_the_cache_that_the_catalog_does_not_name_is_found(
    tmp_path: Path, catalog: Catalog
) -> None:
    put(tmp_path, E4B_TARGET, GOLDEN / "e4b" / "target")
    put(tmp_path, "me/e4b-qat-assistant", GOLDEN / "e4b" / "assistant")
    assert find_pair("e4b", "auto", catalog, tmp_path).drafter is None
    drafter = put(tmp_path, f"mlx-community/{PUBLISHED_DRAFTER}", GOLDEN / "e4b" / "assistant")
    pair = find_pair("e4b", "auto", catalog, tmp_path)
    assert (pair.drafter, pair.notice, pair.refusal) == (drafter, "", "")
    own = put(tmp_path, E4B_DRAFTER, GOLDEN / "e4b" / "assistant")
    assert find_pair("e4b", "auto", catalog, tmp_path).drafter == own


def test_published_folders_side_by_side_are_a_pair(tmp_path: Path, catalog: Catalog) -> None:
    here, cache = tmp_path / "here", tmp_path / "cache"
    target = copied(GOLDEN / "e4b" / "target", here / PUBLISHED_TARGET)
    for name, source in (
        ("a-assistant-of-another-size", GOLDEN / "31b" / "assistant"),
        ("b-qat-assistant", GOLDEN / "e4b" / "assistant"),
        ("c-another-target", GOLDEN / "e4b" / "target"),
        ("d-broken", GOLDEN / "e4b" / "assistant"),
        (".hidden-assistant", GOLDEN / "e4b" / "assistant"),
    ):
        copied(source, here / name)
    (here / "d-broken" / "model.safetensors").unlink()
    os.mkfifo(model_folder(here / "e-pipe") / "model.safetensors")
    assert find_pair(str(target), "auto", catalog, cache).drafter is None
    in_cache = put(cache, "me/e4b-draft", GOLDEN / "e4b" / "assistant")
    assert find_pair(str(target), "auto", catalog, cache).drafter == in_cache
    other = copied(GOLDEN / "e4b" / "assistant", here / "an-assistant")
    assert find_pair(str(target), "auto", catalog, cache).drafter == other
    like = copied(GOLDEN / "e4b" / "assistant", here / PUBLISHED_DRAFTER)
    assert find_pair(str(target), "auto", catalog, cache).drafter == like


@pytest.mark.parametrize("name", ["assistant", "drafter", "mtp"])
def test_a_bundle_is_a_pair(tmp_path: Path, catalog: Catalog, name: str) -> None:
    bundle = tmp_path / "own-e4b"
    target = copied(GOLDEN / "e4b" / "target", bundle / "target")
    drafter = copied(GOLDEN / "e4b" / "assistant", bundle / name)
    for model in (bundle, target):
        pair = find_pair(str(model), "auto", catalog, tmp_path / "cache")
        assert (pair.target, pair.drafter) == (target, drafter)
    assert called(target) == "own-e4b"
    assert find_pair(str(bundle), "none", catalog, tmp_path / "cache").drafter is None
    (target / "config.json").rename(bundle / "config.json")
    assert find_pair(str(bundle), "auto", catalog, tmp_path / "cache").target == bundle


def test_an_own_catalog_may_name_a_bundle(tmp_path: Path) -> None:
    copied(GOLDEN / "e4b" / "target", tmp_path / "bundle" / "target")
    drafter = copied(GOLDEN / "e4b" / "assistant", tmp_path / "bundle" / "mtp")
    entry = {"family": "e4b", "precision": "float32", "recommended_memory_gb": 8, "draft_length": 2}
    own = {"format": 1, "entries": {"mine": entry | {"target": {"folder": "bundle"}, "drafter": None}}}
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(own))
    pair = find_pair("mine", "auto", load_catalog(tmp_path / "catalog.yaml"), tmp_path / "cache")
    assert (pair.target, pair.drafter) == (tmp_path / "bundle" / "target", drafter)


@pytest.mark.parametrize("name", ["target", "."])
def test_a_repository_may_be_a_bundle(tmp_path: Path, catalog: Catalog, name: str) -> None:
    bundle, cache = tmp_path / "bundle", tmp_path / "cache"
    bundle.mkdir()
    copied(GOLDEN / "e4b" / "target", bundle / name, dirs_exist_ok=True)
    copied(GOLDEN / "e4b" / "assistant", bundle / "mtp")
    snapshot = put(cache, "me/pair", bundle)
    assert [one.repo for one in hub_cache.installed(cache)] == ["me/pair"]
    for model in ("me/pair", str(snapshot)):
        pair = find_pair(model, "auto", catalog, cache)
        assert (pair.target, pair.drafter) == (snapshot / name, snapshot / "mtp")
        assert called(pair.target) == "me/pair"
        assert pair.drafter is not None
        for folder in (pair.target, pair.drafter):
            recorded = recorded_files(folder)
            assert recorded is not None
            assert "model.safetensors" in recorded[1]
            assert list(verify_folder(folder, recorded[1])) == []
    (snapshot / "mtp" / "model.safetensors").unlink()
    with pytest.raises(ModelsError, match="not complete"):
        find_pair("me/pair", "auto", catalog, cache)
