"""The program from the command line: arguments and pipes in; output, messages and exit codes out."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from app import cli
from tests.fakes.folders import write_pair
from tests.paths import ROOT
from tests.patience import PATIENCE_S, PROGRAM_PATIENCE_S

QUESTION = "How do I turn drafting off?"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def slipstream(
    *arguments: str, stdin: bytes | None = None, open_files: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    """open_files: the number that the system allows."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    if open_files is not None:
        command = ["sh", "-c", f'ulimit -n {open_files} && exec "$@"', "sh", *command]
    pipe = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PROGRAM_PATIENCE_S, check=False, **pipe)  # type: ignore[return-value]


def as_json(*arguments: str) -> dict[str, Any]:
    run = slipstream("run", "--json", *arguments)
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout)  # type: ignore[no-any-return]


def refused(run: subprocess.CompletedProcess[bytes], exit_code: int) -> str:
    """The error message of a command that failed, which printed nothing else."""
    assert run.returncode == exit_code
    assert run.stdout == b""
    words = run.stderr.decode()
    assert "Traceback" not in words
    return words


@pytest.mark.slow
def test_the_pocket_pair_says_the_same_with_and_without_drafting() -> None:
    drafted = as_json("--draft", "4", "--temp", "0", QUESTION)
    plain = as_json("--draft", "off", "--temp", "0", QUESTION)
    assert drafted["token_ids"] == plain["token_ids"]
    assert drafted["text"] == plain["text"]
    assert "ctrl+t" in drafted["text"]
    assert drafted["finish_reason"] == "stop"
    assert plain["stats"]["drafted"] == 0
    assert plain["stats"]["tokens_per_round"] == 1.0
    stats = drafted["stats"]
    assert stats["host_syncs"] == stats["target_passes"] == stats["rounds"] < plain["stats"]["rounds"]
    assert stats["acceptance"] == stats["accepted"] / stats["drafted"]
    assert len(stats["drafted_by_position"]) == 4
    assert sum(counts["drafted"] for counts in stats["by_drafter"].values()) == stats["drafted"]
    assert set(stats["by_drafter"]) <= {"assistant", "lookup"}
    names = {"drafter": "pocket-drafter", "drafters": ["pocket-drafter", "lookup"], "server": None}
    assert drafted["model"] == {"target": "pocket", "draft": 4} | names


@pytest.mark.slow
def test_any_pair_of_folders(pair: tuple[Path, Path], tmp_path: Path) -> None:
    said = as_json("--model", str(pair[0]), "--drafter", str(pair[1]), "--max-tokens", "9", "Hi")
    assert said["stats"]["generated_tokens"] == len(said["token_ids"]) <= 9
    assert said["model"]["drafter"] == "target-assistant"
    beside = as_json("--model", str(pair[0]), "--max-tokens", "9", "Hi")
    assert beside["model"]["drafter"] == "target-assistant"
    alone = as_json("--model", str(pair[0]), "--drafter", "none", "--max-tokens", "9", "Hi")
    assert alone["model"]["drafter"] is None
    assert alone["token_ids"] == said["token_ids"]
    by_itself = Path(shutil.copytree(pair[0], tmp_path / "alone" / "target"))
    looked_up = as_json("--model", str(by_itself), "--max-tokens", "9", "Hi")
    assert looked_up["model"]["drafter"] == "lookup", "without an assistant, the text itself"


@pytest.mark.slow
def test_bytes_that_are_no_utf8_are_asked_about_as_well() -> None:
    assert as_json("--max-tokens", "3", "what is \udcff?", "--system", "be \udcff")["token_ids"]


@pytest.mark.slow
def test_coupled_one_seed_says_the_same_with_any_drafter() -> None:
    hot = ("--sampling", "coupled", "--temp", "1.2", "--top-k", "0", "--top-p", "1", "--seed", "7")
    off, *drafted = (
        as_json(*hot, *draft, QUESTION)
        for draft in (("--draft", "off"), ("--draft", "5"), ("--draft", "auto"), ("--drafter", "lookup"))
    )
    for each in drafted:
        assert each["token_ids"] == off["token_ids"]
    assert all(each["stats"]["drafted"] > 0 for each in drafted[:2])
    assert [each["model"]["draft"] for each in drafted] == [5, "auto", "auto"]
    assert drafted[-1]["model"]["drafter"] == "lookup"


@pytest.mark.slow
def test_estimates_are_kept_and_a_broken_file_is_told_of(home: Path) -> None:
    as_json("--drafter-bits", "8", QUESTION)
    (kept,) = (home / "state" / "estimates").iterdir()
    kept.write_bytes(b"{nonsense")
    run = slipstream("run", "--drafter-bits", "8", QUESTION)
    assert run.returncode == 0
    assert kept.name in run.stderr.decode()
    assert slipstream("run", "--drafter-bits", "8", QUESTION).stderr == b"", "it was written anew"


@pytest.mark.slow
def test_a_reply_matches_the_schema_of_a_file(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}')
    said = as_json("--schema", str(schema), "--max-tokens", "300", "--seed", "1", QUESTION)
    assert isinstance(json.loads(said["text"])["sure"], bool)
    cut = slipstream("run", "--schema", str(schema), "--max-tokens", "2", QUESTION)
    assert cut.returncode == 1
    assert b"cut off, so it does not match the schema" in cut.stderr


def test_a_schema_that_cannot_be_read_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    for content, reason in ((b"{", "not valid JSON"), (b"[1]", "no JSON object"), (b"\xff", "UTF-8")):
        path.write_bytes(content)
        assert reason in refused(slipstream("run", "--schema", str(path), "Hi"), 1)
    assert "is not a file" in refused(slipstream("run", "--schema", str(tmp_path), "Hi"), 1)
    path.write_text('{"type": "array", "uniqueItems": true}')
    assert 'not supported, ["uniqueItems"]' in refused(slipstream("run", "--schema", str(path), "Hi"), 1)


@pytest.mark.slow
def test_thinking_is_asked_for_and_told_apart() -> None:
    said = as_json("--think", "--draft", "3", QUESTION)
    assert set(said) >= {"text", "thinking"}
    plain = as_json("--no-think", "--draft", "3", QUESTION)
    assert said["prompt_tokens"] > plain["prompt_tokens"], "the template says that it may think"


@pytest.mark.slow
def test_a_pipe_in_and_a_pipe_out_without_escape_codes() -> None:
    for arguments in (("run",), ("run", "-")):
        run = slipstream(*arguments, stdin=QUESTION.encode())
        assert run.returncode == 0
        assert b"ctrl+t" in run.stdout
        assert b"\x1b" not in run.stdout
        assert run.stdout.endswith(b"\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["run", "--help"], ["--version"], ["paths"], ["paths", "--json"], ["settings"],
        ["settings", "--example"], ["chats", "list", "--json"], ["models", "list", "--json"], ["models", "list"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("sink", [">/dev/full", ">&-", "2>&- >&-", ">/dev/full 2>/dev/full"])
@pytest.mark.sampled(3)
def test_output_that_cannot_be_written_ends_in_one_sentence(arguments: list[str], sink: str) -> None:
    command = ["sh", "-c", f'exec "$@" {sink}', "sh", sys.executable, "-m", "app.cli", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert run.returncode == 1
    said = run.stderr.decode()
    assert said.count("\n") == ("2>" not in sink)
    if "2>" not in sink:
        assert said.startswith("slipstream: Standard output ")


@pytest.mark.parametrize("arguments", [["run", "Hi"], ["--plain"], ["chat"], ["chats", "import", "-"], ["run"]])
def test_closed_standard_input_is_no_crash(arguments: list[str]) -> None:
    command = [
        "sh",
        "-c",
        'exec "$@" <&-',
        "sh",
        sys.executable,
        "-m",
        "app.cli",
        *arguments,
        "--model",
        "/nowhere",
    ]
    run = subprocess.run(
        command[: None if arguments[0] != "chats" else -2], cwd=ROOT, capture_output=True, check=False
    )
    assert run.returncode in (1, 2)
    assert b"Traceback" not in run.stderr
    assert run.stderr.startswith((b"slipstream: ", b"usage: "))


def test_help_has_no_colours() -> None:
    """From Python 3.14 on, argparse adds escape codes, which would be shown as text."""
    parsers = [cli._parser()]
    for parser in parsers:
        assert getattr(parser, "color", True) is False
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    assert len(parsers) > 10


def test_files_that_a_prompt_mentions_are_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Some notes.\n")
    path = tmp_path / "notes.txt"
    assert cli._prompt_to_run(f"Summarise @{path}") == (
        f"Summarise @{path}\n\n@{path} (12 bytes):\n```txt\nSome notes.\n```"
    )
    words = refused(slipstream("run", f"@{tmp_path}/nots.txt"), 1)
    assert f"Did you mean @{path}? Nothing was sent." in words
    assert "is a folder" in refused(slipstream("run", f"@{tmp_path}"), 1)
    assert "Patterns are not expanded" in refused(slipstream("run", "@*.toml"), 1)


@pytest.mark.parametrize(
    ("typed", "piped", "asked"),
    [
        ("Summarise", b"One.\nTwo.\n", "Summarise\n\nOne.\nTwo."),
        ("Summarise", b" \n", "Summarise"),
        ("Who?", b"by @nobody", "Who?\n\nby @nobody"),
        (None, b"One.\n", "One.\n"),
        ("-", b"One.\n", "One.\n"),
    ],
)
def test_a_pipe_is_joined_to_the_prompt(typed: str | None, piped: bytes, asked: str) -> None:
    code = "import sys; from app import cli; sys.stdout.write(cli._prompt_to_run(*sys.argv[1:] or [None]))"
    command = [sys.executable, "-c", code, *([typed] if typed is not None else [])]
    for stdin in ("pipe", "file"):
        if stdin == "pipe":
            run = subprocess.run(command, cwd=ROOT, input=piped, capture_output=True, check=True)
        else:
            with tempfile.TemporaryFile() as file:
                file.write(piped)
                file.seek(0)
                run = subprocess.run(command, cwd=ROOT, stdin=file, capture_output=True, check=True)
        assert run.stdout.decode() == asked


@pytest.mark.slow
def test_a_1_mb_pipe_is_refused_with_the_numbers() -> None:
    words = refused(slipstream("run", stdin=b"word " * 200_000), 1)
    assert "tokens long" in words
    assert "4096" in words


@pytest.mark.slow
def test_an_empty_prompt() -> None:
    assert "empty" in refused(slipstream("run", stdin=b" \n"), 1)


def test_a_pipe_that_is_not_utf8() -> None:
    words = refused(slipstream("run", stdin=b"caf\xe9"), 1)
    assert "byte 3 is 0xe9" in words
    assert "iconv" in words


def test_the_prompt_of_an_old_locale_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    words = refused(slipstream("run", "--model", "/nowhere/é"), 1)
    assert "no such folder" in words


def test_a_folder_that_is_not_there() -> None:
    assert "no such folder" in refused(slipstream("run", "--model", "/nowhere", "Hi"), 1)
    assert "no such folder" in refused(slipstream("run", "--drafter", "/nowhere", "Hi"), 1)


@pytest.mark.slow
def test_folders_that_cannot_be_loaded(pair: tuple[Path, Path], tmp_path: Path) -> None:
    broken = Path(shutil.copytree(pair[0], tmp_path / "broken"))
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:-100])
    assert "damaged" in refused(slipstream("run", "--model", str(broken), "Hi"), 1)
    with_code = Path(shutil.copytree(pair[0], tmp_path / "with code"))
    config = json.loads((with_code / "config.json").read_text())
    (with_code / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}}))
    assert "auto_map" in refused(slipstream("run", "--model", str(with_code), "Hi"), 1)
    other = ROOT / "tests" / "golden" / "31b" / "assistant"
    run = slipstream("run", "--model", str(pair[0]), "--drafter", str(other), "--max-tokens", "5", "Hi")
    assert run.returncode == 0
    assert run.stdout.strip()
    assert run.stderr.startswith(b"slipstream: Replies are made without a drafter. The drafter ")
    assert run.stderr.count(b"was made for a target with") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--draft", "17", "Hi"],
        ["run", "--draft", "0", "Hi"],
        ["run", "--draft", "auto!", "Hi"],
        ["run", "--temp", "-1", "Hi"],
        ["run", "--temp", "nan", "Hi"],
        ["run", "--top-p", "2", "Hi"],
        ["run", "--min-p", "1.5", "Hi"],
        ["run", "--repetition-penalty", "0", "Hi"],
        ["run", "--sampling", "maybe", "Hi"],
        ["run", "--drafter-bits", "5", "Hi"],
        ["run", "--draft-start", "0", "Hi"],
        ["run", "--seed", "x", "Hi"],
        ["run", "--max-tokens", "0", "Hi"],
        ["run", "--nonsense", "Hi"],
        ["nonsense"],
        ["--nonsense"],
        [],
    ],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    assert "slipstream" in refused(slipstream(*arguments), 2)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["paths"]])
def test_help_and_paths(arguments: list[str], home: Path) -> None:
    run = slipstream(*arguments)
    assert run.returncode == 0
    assert run.stdout
    if arguments == ["paths"]:
        assert str(home) in run.stdout.decode()


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_said_and_exits_130(tmp_path: Path) -> None:
    target, _ = write_pair(tmp_path, context_tokens=1_000_000)
    (target / "generation_config.json").write_text(json.dumps({"suppress_tokens": [1, 50, 106]}))
    command = [sys.executable, "-m", "app.cli", "run", "--model", str(target), "Hi"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout
        assert run.stdout.read(1)
        run.send_signal(signal.SIGINT)
        rest, errors = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 130
    assert errors == b""
    assert rest.endswith(b"\n")


@pytest.mark.slow
def test_few_open_files_are_enough_and_too_few_are_said() -> None:
    assert slipstream("run", "Hello", "--max-tokens", "4", open_files=64).stdout
    assert "Too many open files" in refused(slipstream("run", "Hello", open_files=9), 1)
