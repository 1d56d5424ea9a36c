"""`slipstream models` and `slipstream doctor` from the command line, with a local hub and cache."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core import downloads
from app.shell import doctor, models_files
from app.shell import models as models_command
from app.system import device
from models import hub_cache, pocket
from models.catalog import load_catalog
from models.memory_fit import Machine, fit, size_of_folders
from models.pull import PullProgress
from tests.fakes.cache import put
from tests.fakes.hub import COMMIT, FakeHub, Status, serve
from tests.paths import GOLDEN

TARGET, DRAFTER = "mlx-community/gemma-4-e4b-it-4bit", "google/gemma-4-E4B-it-assistant"
HUGE = Machine("Apple M5 Max", 128 << 30, 96 << 30, True, 90 << 30)
TINY = Machine("Apple M1", 8 << 30, 5 << 30, True, 5 << 30)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    on(HUGE, monkeypatch)
    return tmp_path / "cache"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serve() as hub:
        for repo, folder in ((TARGET, "target"), (DRAFTER, "assistant")):
            hub.repos[repo] = {path.name: path.read_bytes() for path in (GOLDEN / "e4b" / folder).iterdir()}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("app.shell.models_show", "app.shell.models_files"):
        monkeypatch.setattr(f"{module}.ask_device", lambda: None)
        monkeypatch.setattr(f"{module}.machine_now", lambda device: machine)


def slipstream(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="slipstream")
    subparsers = parser.add_subparsers(required=True)
    models_command.add_parser(subparsers)
    doctor.add_parser(subparsers)
    options = parser.parse_args(words)
    code = options.command(options)
    assert isinstance(code, int)
    return code


class Shell:
    """Runs commands and captures their output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> str:
        assert slipstream(*words) == 0, self._capsys.readouterr()
        return self._capsys.readouterr().out

    def json(self, *words: str, code: int = 0) -> Any:
        assert slipstream(*words, "--json") == code
        return json.loads(self._capsys.readouterr().out)

    def refused(self, *words: str) -> str:
        assert slipstream(*words) == 1
        return self._capsys.readouterr().err


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def test_list_shows_everything_with_its_fit_and_a_first_choice(shell: Shell, cache: Path) -> None:
    put(cache, TARGET, GOLDEN / "e4b" / "target")
    put(cache, "me/gemma", GOLDEN / "e2b" / "target")
    text = shell("models", "list")
    assert (
        len([line for line in text.splitlines() if "Gemma 4" in line and "for Gemma" not in line]) == 21
    )  # with the suggestion
    assert "Also here: me/gemma" in text
    assert "To start with: 31b-4bit." in text
    rows = {row["name"]: row for row in shell.json("models", "list")["models"]}
    assert rows["e4b-4bit"]["here"] == "no drafter"
    assert rows["pocket"]["here"] == "yes"
    assert rows["31b-bf16"]["fit"] == "fits"
    assert rows["e4b-qat"]["fit"] is None
    assert [row["name"] for row in shell.json("models", "list", "--here")["models"]] == ["e4b-4bit", "pocket"]


def test_list_shows_the_sizes_of_files_that_are_here(shell: Shell, cache: Path) -> None:
    """Also with an assistant that the catalog does not name; and the catalog's where the files cannot be read."""
    unknown = "mlx-community/gemma-4-E4B-it-qat-4bit"
    folder = put(cache, unknown, GOLDEN / "e4b" / "target")
    size = size_of_folders(GOLDEN / "e4b" / "target", GOLDEN / "e4b" / "assistant")

    def row(name: str) -> Any:
        return next(row for row in shell.json("models", "list")["models"] if row["name"] == name)

    assert row("e4b-qat")["weights_bytes"] == size.target_bytes
    assert row("e4b-qat")["here"] == "no drafter"
    put(cache, "me/gemma-e4b-it-qat-assistant-bf16", GOLDEN / "e4b" / "assistant")
    found = row("e4b-qat")
    assert (found["fit"], found["here"]) == ("fits", "yes")
    assert found["needed_bytes"] == fit(size, HUGE).needed_bytes
    assert shell.json("models", "info", "e4b-qat")["fit"]["needed_bytes"] == found["needed_bytes"]
    (folder / "config.json").resolve().write_bytes(b"{" * (folder / "config.json").stat().st_size)
    assert row("e4b-qat")["weights_bytes"] is None


def test_list_shows_a_bundle(shell: Shell, cache: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(GOLDEN / "e4b" / "target", bundle / "target")
    shutil.copytree(GOLDEN / "e4b" / "assistant", bundle / "assistant")
    put(cache, "me/pair", bundle)
    assert "Also here: me/pair" in shell("models", "list")
    verified = shell.json("models", "verify")["checked"]
    assert {"me/pair/target", "me/pair/assistant"} <= {report["what"] for report in verified}
    verified = shell.json("models", "verify", "me/pair")["checked"]
    assert [(report["files"], report["findings"]) for report in verified] == [(3, []), (2, [])]
    info = shell.json("models", "info", str(bundle))
    assert (info["target"], info["drafter"]) == (str(bundle / "target"), str(bundle / "assistant"))


def test_info_is_the_sum_line_by_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shell("models", "info", "12b", "--context", "4096")
    assert "names and sizes not checked with the hub" in text
    assert "K/V of 4,096 tokens" in text
    assert "Largest context" in text
    found = shell.json("models", "info", "12b")["fit"]
    assert sum(line["size_bytes"] for line in found["lines"]) == found["needed_bytes"]
    on(TINY, monkeypatch)
    assert shell.json("models", "info", "12b")["fit"]["verdict"] == "does not fit"
    assert "out of range" in shell.refused("models", "info", "12b", "--context", "0")


def test_a_context_that_no_model_of_the_family_reads_is_said(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slipstream("models", "info", "e4b", "--context", "999999999") == 0
    said = capsys.readouterr()
    assert "K/V of 131,072 tokens" in said.out
    assert said.err == "slipstream: e4b can use at most 131,072 tokens of context; calculating with that.\n"
    shell("models", "info", "e4b", "--context", "131072")
    assert capsys.readouterr().err == ""


def test_info_of_what_is_here_reads_the_files(shell: Shell, cache: Path) -> None:
    put(cache, TARGET, GOLDEN / "e4b" / "target")
    assert shell.json("models", "info", "e4b")["sizes_from"] == "the files, and for the drafter the catalog"
    put(cache, DRAFTER, GOLDEN / "e4b" / "assistant")
    for word in ("e4b", TARGET):
        found = shell.json("models", "info", word)
        assert found["sizes_from"] == "the files themselves"
        assert found["fit"]["lines"][0]["size_bytes"] < 300_000
    assert shell.json("models", "info", str(GOLDEN / "31b" / "target"))["fit"]["verdict"] == "fits"


def test_names_that_mean_nothing(shell: Shell) -> None:
    for command in ("info", "pull", "verify"):
        assert "Did you mean" in shell.refused("models", command, "e4c")
    assert "not a hub id" in shell.refused("models", "pull", "../x/y")
    assert "not a hub id" in shell.refused("models", "rm", "../x")
    assert "not a revision" in shell.refused("models", "pull", "e4b", "--revision", "../../x")


def test_a_pair_is_pulled_verified_and_removed(hub: FakeHub, shell: Shell, cache: Path) -> None:
    events = [json.loads(line) for line in shell("models", "pull", "e4b", "--json").splitlines()]
    assert [event["repo"] for event in events if event["type"] == "pulled"] == [TARGET, DRAFTER]
    assert shell.json("models", "list", "--here")["models"][0]["here"] == "yes"
    report = shell.json("models", "verify", code=0)
    assert [checked["what"] for checked in report["checked"]] == [DRAFTER, TARGET, "pocket", "pocket-drafter"]
    assert report["findings"] == 0
    repo = hub_cache.repo_folder(cache, TARGET)
    weights = max((repo / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "hash" in json.dumps(shell.json("models", "verify", code=1))
    freed = shell.json("models", "rm", "e4b", "--yes")
    assert freed["removed"] == [TARGET, DRAFTER]
    assert not repo.exists()
    assert "nothing to remove" in shell.refused("models", "rm", "e4b", "--yes")


def test_verify_says_where_there_is_nothing_to_compare_with(shell: Shell, cache: Path) -> None:
    put(cache, "me/own", GOLDEN / "e4b" / "target")
    nothing = "files are well-formed; no sizes or hashes are recorded for this folder"
    own, pocket_target, pocket_drafter = shell("models", "verify").splitlines()
    assert own.startswith("me/own: OK (")
    assert pocket_target == f"pocket: {nothing}"
    assert pocket_drafter == f"pocket-drafter: {nothing}"


def test_verify_names_what_the_catalog_has_wrong(hub: FakeHub, shell: Shell) -> None:
    shell("models", "pull", "e4b")
    report = shell.json("models", "verify", "e4b", "--hub", code=1)
    places = [finding["place"] for checked in report["checked"] for finding in checked["findings"]]
    assert "e4b.hidden_size" in places  # a toy under the name of E4B
    assert TARGET in places
    assert report["checked"][-1]["compared_with"] == f"the hub at {COMMIT[:12]}"
    assert "not on this machine" in shell.refused("models", "verify", "12b")
    assert shell.json("models", "verify", "pocket")["findings"] == 0


def test_a_drafter_that_another_model_uses_stays(shell: Shell, cache: Path) -> None:
    put(cache, TARGET, GOLDEN / "e4b" / "target")
    put(cache, DRAFTER, GOLDEN / "e4b" / "assistant")
    put(cache, "google/gemma-4-E4B-it", GOLDEN / "e4b" / "target")
    assert shell.json("models", "rm", "e4b", "--yes")["removed"] == [TARGET]
    assert shell.json("models", "rm", "e4b-bf16", "--yes")["removed"] == ["google/gemma-4-E4B-it", DRAFTER]


def test_a_drafter_of_the_catalog_is_listed_pulled_verified_and_removed(
    hub: FakeHub, shell: Shell, cache: Path
) -> None:
    repo, source = "deepseek-ai/dspark_gemma4_12b_block7", GOLDEN / "drafters" / "dspark-12b"
    hub.repos[repo] = {path.name: path.read_bytes() for path in source.iterdir()}
    assert "12b-dspark" in shell("models", "list")
    assert "12b-dspark" in shell("models", "info", "12b")
    assert "12b-dspark" not in shell("models", "info", "12b-qat")
    before = shell.json("models", "info", "12b-dspark")
    assert before["fits"]["12b-4bit"]["lines"][1]["size_bytes"] == 2_800_000_000
    text = shell("models", "info", "12b-dspark")
    assert "not checked with the hub" in text
    assert "without thinking" in text
    events = [json.loads(line) for line in shell("models", "pull", "12b-dspark", "--json").splitlines()]
    assert [event["repo"] for event in events if event["type"] == "pulled"] == [repo]
    assert [row["name"] for row in shell.json("models", "list", "--here")["drafters"]] == ["12b-dspark"]
    assert repo not in shell.json("models", "list")["others_here"]
    assert shell.json("models", "verify", "12b-dspark")["findings"] == 0
    assert shell.json("models", "rm", "12b-dspark", "--yes")["removed"] == [repo]
    assert "pulled model on this machine" in shell.refused("models", "verify", "12b-dspark")


def test_nothing_is_removed_or_fetched_without_a_yes(
    hub: FakeHub, shell: Shell, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache, TARGET, GOLDEN / "e4b" / "target")
    assert "--yes" in shell.refused("models", "rm", "e4b")
    assert hub_cache.find_snapshot(cache, TARGET) is not None
    on(TINY, monkeypatch)
    words = shell.refused("models", "pull", "12b")
    assert "Does not fit." in words
    assert "--yes" in words
    assert not hub.asked
    for answer, is_yes in (("y\n", True), ("yes\n", True), ("\n", False), ("n\n", False), ("", False)):
        typed = io.StringIO(answer)
        monkeypatch.setattr(typed, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", typed)
        assert models_files._confirm("?") is is_yes


def test_a_hub_id_is_weighed_by_what_the_hub_lists(
    hub: FakeHub, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["me/own"] = hub.repos[TARGET]
    shell("models", "pull", "me/own")
    on(Machine("Apple M1", 1, 1, True, 1), monkeypatch)
    hub.repos["me/two"] = hub.repos[TARGET]
    assert "Does not fit." in shell.refused("models", "pull", "me/two")
    shell("models", "pull", "me/two", "--yes")


def test_refusals_of_the_hub_are_one_sentence(hub: FakeHub, shell: Shell) -> None:
    hub.fail("/api/", Status(403, {"X-Error-Code": "GatedRepo"}))
    words = shell.refused("models", "pull", "e4b", "--yes")
    assert words.startswith("slipstream: mlx-community/gemma-4-e4b-it-4bit requires you to accept its licence")
    assert len(words.splitlines()) == 1


def test_offline_only_looks(hub: FakeHub, shell: Shell) -> None:
    assert "offline mode" in shell.refused("models", "pull", "e4b", "--offline")
    shell("models", "pull", "e4b")
    hub.asked.clear()
    shell("models", "pull", "e4b", "--offline")
    assert not hub.asked
    assert "Nothing to pull" in shell("models", "pull", "pocket")


def test_an_own_catalog_counts_and_a_broken_one_is_named(shell: Shell, tmp_path: Path) -> None:
    own = tmp_path / "home" / "config" / "catalog.yaml"
    own.parent.mkdir(parents=True)
    entry = {
        "family": "e4b", "precision": "4-bit", "target": {"folder": str(GOLDEN / "e4b" / "target")},
        "drafter": None, "recommended_memory_gb": 8, "draft_length": 2,
    }  # fmt: skip
    own.write_text(yaml.safe_dump({"format": 1, "entries": {"toy": entry}}))
    assert shell.json("models", "info", "toy")["name"] == "toy"
    own.write_text("format: 1\nentries: {toy: {family: e4b}}")
    words = shell.refused("models", "list")
    assert "'toy'" in words
    assert str(own) in words
    checks = shell.json("doctor")["checks"]
    assert any(check["what"] == "own catalog" and "'toy'" in check["advice"] for check in checks)


def test_convert_makes_a_folder_and_says_what_became_of_it(
    shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    made = shell.json("models", "convert", "pocket", str(copy), "--drafter", "--bits", "8", "--group-size", "32")
    assert made["weights_bytes_after"] < made["weights_bytes_before"]
    assert (
        slipstream("models", "convert", "pocket", str(tmp_path / "aloud"), "--drafter", "--group-size", "32") == 0
    )
    assert "\nwriting 1 MB\n" in capsys.readouterr().err
    assert shell.json("models", "verify", str(copy), code=0)["findings"] == 0
    assert "exists already" in shell.refused("models", "convert", "pocket", str(copy))
    folder = Path(shutil.copytree(pocket.TARGET_FOLDER, tmp_path / "apart" / "alone"))
    assert "no drafter" in shell.refused("models", "convert", str(folder), str(tmp_path / "x"), "--drafter")


def test_an_interrupt_is_130_and_says_how_to_go_on(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.shell.models_files.pull", interrupted)
    assert slipstream("models", "pull", "e4b") == 130
    assert "Run the same command again to resume" in capsys.readouterr().err


def test_the_progress_line() -> None:
    event = PullProgress("a/b", "model.safetensors", 5, 10, 25, 100, 2_500_000.0, 75.0, False)
    line = downloads.progress_line(event)
    assert line == "█████░░░░░░░░░░░░░░░  25% 2 MB/s 75 s  model.safetensors 50%"
    assert "checking" in downloads.progress_line(PullProgress("a/b", "m", 0, 0, 0, 0, None, None, True))
    assert [downloads.time_left(seconds) for seconds in (0.4, 89, 600, 3900)] == [
        "0 s",
        "89 s",
        "10 min",
        "1 h 5 min",
    ]


def test_the_doctor_says_what_to_do(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shell("doctor")
    assert "MLX device" in text
    assert "hub cache" in text
    size = os.terminal_size((50, 10))
    rough = {"TERM": "dumb", "TMUX": "x", "SSH_CONNECTION": "y"}
    advice = {check.what: check.advice for check in doctor._terminal(rough, size, True)}
    assert all(advice[what] for what in ("TERM", "COLORTERM", "inside", "size"))
    good = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    checks = {check.what: check for check in doctor._terminal(good, os.terminal_size((120, 40)), True)}
    assert not any(checks[what].advice for what in ("TERM", "COLORTERM", "inside", "size"))
    assert checks["inside"].value == "nothing"


def test_the_doctor_knows_chips_memory_and_a_missing_device() -> None:
    checks = {check.what: check for check in doctor._machine(TINY, None)}
    assert "GPU generation 13" in checks["chip"].value
    assert checks["chip"].advice
    assert "pip install" in checks["MLX device"].advice
    checks = {check.what: check for check in doctor._machine(HUGE, {"device": "gpu", "name": "M5"})}
    assert not any(check.advice for check in checks.values())
    assert "--float32 off" in checks["precision"].value, "nothing says that there is a GPU"
    metal = {"device": "gpu", "name": "M5", "is_metal": True}
    assert "precision" not in {check.what for check in doctor._machine(HUGE, metal)}
    low = Machine("Apple M5", 128 << 30, 96 << 30, True, 1 << 30)
    assert "Close other programs" in {check.what: check for check in doctor._machine(low, None)}["free now"].advice


def test_the_doctor_finds_unfinished_downloads(cache: Path) -> None:
    snapshot = put(cache, TARGET, GOLDEN / "e4b" / "target")
    (snapshot / "model.safetensors").resolve().unlink()
    advice = [check.advice for check in doctor._disk(cache, {"HF_HUB_OFFLINE": "1"})]
    assert any(f"models pull {TARGET}" in words for words in advice)
    assert any("Models cannot be pulled" in words for words in advice)


def test_the_doctor_finds_places_that_cannot_be_written(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    assert "state and logs" in shell("doctor")
    assert not any(check.advice for check in doctor._places())
    (tmp_path / "home" / "state").write_text("a file in the way")
    advice = {check.what: check.advice for check in doctor._places()}
    assert "home/state is not a folder" in advice["state and logs"]
    assert advice["chats"] == ""


def test_the_doctor_tries_whether_a_folder_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._folder("Places", "chats", tmp_path / "new").advice == ""
    assert list(tmp_path.iterdir()) == []

    def refused(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refused)
    assert f"{tmp_path} cannot be written" in doctor._folder("Places", "chats", tmp_path / "new").advice


def test_a_cache_that_cannot_be_read_is_one_sentence(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / ("long" * 100)))
    for command in ("list", "verify"):
        assert "cannot be read: File name too long" in shell.refused("models", command)
    advice = {check.what: check.advice for check in doctor.examine(None, {"HF_HUB_OFFLINE": "1"})}
    assert "cannot be read: File name too long" in advice["Gemma 4 models"]
    assert advice["HF_HUB_OFFLINE"]


def test_the_doctor_reads_the_settings(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "home" / "config" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("temp: 0.5\n")
    (check,) = doctor._settings()
    assert (check.value, check.advice) == (str(path), "")
    path.write_text("temp: hot\n")
    monkeypatch.setenv("SLIPSTREAM_TOP_K", "many")
    in_file, in_environment = (check.advice for check in doctor._settings())
    assert in_file.startswith(f"{path}, line 1: temp is 'hot'.")
    assert in_environment.startswith("SLIPSTREAM_TOP_K is 'many'.")
    assert f"-> {path}, line 1: temp is" in shell("doctor")
    path.write_text("temo: 1\n")
    monkeypatch.delenv("SLIPSTREAM_TOP_K")
    (check,) = doctor._settings()
    assert "Did you mean temp?" in check.advice
    path.unlink()
    (check,) = doctor._settings()
    assert check.value == f"none ({path})"


def test_the_device_answers_from_a_process_of_its_own() -> None:
    facts = device.ask_device()
    assert facts is not None
    assert facts["device"]
    assert load_catalog().entries
