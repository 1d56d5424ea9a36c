"""Which folders `--model` and `--drafter` mean: names of the catalog, folders, hub ids; matched by config."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from models import hub_cache, pocket
from models.catalog import Catalog, load_catalog
from models.errors import CatalogError, ModelsError, PathError, PullError
from models.folders import called, find_pair
from tests.fakes.cache import put
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
