"""The hub's cache: what is in it, and taking a model out of it without touching anything else."""

from __future__ import annotations

import os
from pathlib import Path

import huggingface_hub
import pytest

from models import hub_cache
from models.errors import ModelsError, PullError
from tests.fakes.cache import COMMIT, put
from tests.paths import GOLDEN

SOURCE = GOLDEN / "e2b" / "target"
REPO = "someone/gemma"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HUB_CACHE": "/a/hub"}, "/a/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/b"}, "/b"),
        ({"HF_HOME": "/c"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HF_HOME": "/c", "HF_HUB_CACHE": "/a"}, "/a"),
    ],
)
def test_the_cache_is_where_the_library_has_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_cache.cache_folder() == Path.home() / ".cache" / "huggingface" / "hub"
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hub_cache.cache_folder() == Path(folder)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, None),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"HF_HUB_OFFLINE": "yes", "TRANSFORMERS_OFFLINE": "0"}, "HF_HUB_OFFLINE"),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, None),
        ({"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "true"}, "TRANSFORMERS_OFFLINE"),
        ({"TRANSFORMERS_OFFLINE": "2"}, None),
    ],
)
def test_offline_mode_is_what_the_library_takes_for_it(environment: dict[str, str], name: str | None) -> None:
    assert hub_cache.offline_variable(environment) == name


def test_a_snapshot_is_found_by_branch_commit_and_repository(tmp_path: Path) -> None:
    assert hub_cache.find_snapshot(tmp_path, REPO) is None
    folder = put(tmp_path, REPO, SOURCE)
    for revision in (None, "main", COMMIT):
        found = hub_cache.find_snapshot(tmp_path, REPO, revision)
        assert found is not None
        assert (found.folder, found.is_complete, found.missing) == (folder, True, ())
    assert hub_cache.find_snapshot(tmp_path, REPO, "v2") is None
    assert hub_cache.find_snapshot(tmp_path, REPO, "0" * 40) is None


def test_a_snapshot_that_is_not_complete_hides_none_that_is(tmp_path: Path) -> None:
    older, old, new = "1" * 40, "2" * 40, "3" * 40
    for second, commit in enumerate((old, older, new)):
        folder = put(tmp_path, REPO, SOURCE, commit)
        os.utime(folder, (second, second))
    (folder / "model.safetensors").unlink()
    os.utime(hub_cache.repo_folder(tmp_path, REPO) / "snapshots" / old, (9, 9))
    found = hub_cache.find_snapshot(tmp_path, REPO)
    assert found is not None
    assert (found.commit, found.is_complete) == (old, True)
    found = hub_cache.find_snapshot(tmp_path, REPO, "main")
    assert found is not None
    assert (found.commit, found.is_complete) == (new, False)
    hub_cache.write_ref(hub_cache.repo_folder(tmp_path, REPO), "main", older)
    found = hub_cache.find_snapshot(tmp_path, REPO)
    assert found is not None
    assert found.commit == older


def test_a_file_of_another_size_is_missing(tmp_path: Path) -> None:
    folder = put(tmp_path, REPO, SOURCE)
    (folder / "config.json").resolve().write_text("{}")
    found = hub_cache.find_snapshot(tmp_path, REPO)
    assert found is not None
    assert (found.is_complete, found.missing) == (False, ("config.json",))


def test_what_the_library_pulled_is_found_without_a_listing(tmp_path: Path) -> None:
    folder = put(tmp_path, REPO, SOURCE)
    for path in (hub_cache.repo_folder(tmp_path, REPO) / "trees").iterdir():
        path.unlink()
    found = hub_cache.find_snapshot(tmp_path, REPO)
    assert found is not None
    assert found.is_complete
    (folder / "model.safetensors").unlink()
    found = hub_cache.find_snapshot(tmp_path, REPO)
    assert found is not None
    assert found.missing == ("model.safetensors",)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 2, "files": {}}', '{"files": 5}', "[" * 9999])
def test_a_listing_that_cannot_be_read_is_no_listing(tmp_path: Path, text: str) -> None:
    put(tmp_path, REPO, SOURCE)
    (hub_cache.repo_folder(tmp_path, REPO) / "trees" / f"{COMMIT}.json").write_text(text)
    assert hub_cache.read_listing(tmp_path, REPO, COMMIT) is None


def test_a_config_that_names_code_is_no_model_and_code_beside_it_does_not_matter(tmp_path: Path) -> None:
    folder = put(tmp_path, REPO, SOURCE)
    (folder / "modeling.py").write_text("raise SystemExit('never run')")
    assert [one.repo for one in hub_cache.installed(tmp_path)] == [REPO]
    config = (folder / "config.json").read_text()
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(config.replace("{", '{"auto_map": {"AutoModel": "modeling.X"},', 1))
    assert hub_cache.installed(tmp_path) == []


def test_only_models_of_the_family_are_listed(tmp_path: Path) -> None:
    put(tmp_path, REPO, SOURCE)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama"}')
    put(tmp_path / "cache", "someone/llama", other)
    put(tmp_path / "cache", REPO, SOURCE)
    assert [one.repo for one in hub_cache.installed(tmp_path / "cache")] == [REPO]
    assert hub_cache.installed(tmp_path / "nothing") == []


def test_removing_a_model_frees_its_bytes_and_nothing_else(tmp_path: Path) -> None:
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("stay")
    put(cache, REPO, SOURCE)
    put(cache, "someone/other", SOURCE)
    folder = hub_cache.repo_folder(cache, REPO)
    (folder / "snapshots" / COMMIT / "link").symlink_to(outside)
    (folder / "blobs" / "x.incomplete").write_bytes(b"x" * 1000)
    total, partial = hub_cache.size_on_disk(cache, REPO)
    assert partial == 1000
    assert hub_cache.remove(cache, REPO) == total
    assert not folder.exists()
    assert (outside / "precious").read_text() == "stay"
    assert hub_cache.find_snapshot(cache, "someone/other") is not None
    with pytest.raises(ModelsError, match="is not in"):
        hub_cache.remove(cache, REPO)


def test_contents_that_are_shared_are_left_to_the_others(tmp_path: Path) -> None:
    """As the library's shared store keeps them: a link in `blobs/`, the bytes in the cache's own `blobs/`."""
    put(tmp_path, REPO, SOURCE)
    store = tmp_path / "blobs" / "aa"
    store.mkdir(parents=True)
    blobs = hub_cache.repo_folder(tmp_path, REPO) / "blobs"
    weights = max(blobs.iterdir(), key=lambda path: path.stat().st_size)
    weights.rename(store / ("aa" * 32))
    weights.symlink_to(Path("..") / ".." / "blobs" / "aa" / ("aa" * 32))
    found = hub_cache.find_snapshot(tmp_path, REPO)
    assert found is not None
    assert found.is_complete
    hub_cache.remove(tmp_path, REPO)
    assert not hub_cache.repo_folder(tmp_path, REPO).exists()


def test_a_link_in_place_of_a_repository_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("stay")
    cache = tmp_path / "cache"
    cache.mkdir()
    hub_cache.repo_folder(cache, REPO).symlink_to(outside)
    with pytest.raises(ModelsError, match="is not in"):
        hub_cache.remove(cache, REPO)
    assert (outside / "precious").exists()
    for repo in ("../outside", "..", "a/../../outside", "/etc"):
        with pytest.raises(PullError):
            hub_cache.remove(cache, repo)


def test_the_library_agrees_about_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, REPO, SOURCE)
    [repo] = huggingface_hub.scan_cache_dir(tmp_path).repos
    assert repo.repo_id == REPO
    assert {revision.commit_hash for revision in repo.revisions} == {COMMIT}
