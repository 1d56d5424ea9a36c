"""The scripts that complete commands: made for every shell, and tried in those that are here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from app.cli import main
from tests.app.tui.terminal import Terminal

pytestmark = pytest.mark.sampled(2)


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["zsh", "bash", "fish"])
def test_a_script_names_commands_flags_and_values(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    for word in ("models", "doctor", "completion", "convert", "max-tokens", "rejection", "pocket", "fish"):
        assert word in text
    assert "\x1b" not in text


@pytest.mark.parametrize("shell", ["zsh", "bash", "fish"])
def test_a_shell_can_read_it(shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    (tmp_path / "script").write_text(script(shell, capsys))
    subprocess.run([shell, "-n", tmp_path / "script"], check=True)


CASES: list[tuple[str, set[str], set[str]]] = [
    ("", {"chat", "models", "completion"}, {"pull", "--model", "notes.md"}),
    ("mo", {"models"}, {"chat"}),
    ("models ", {"list", "pull"}, {"chat", "notes.md"}),
    ("models pull ", {"pocket"}, {"list"}),
    ("models pull --", {"--offline", "--yes"}, {"--hub"}),
    ("--dr", {"--draft", "--drafter"}, {"--model"}),
    ("chat --draft ", {"auto", "off", "16"}, {"--model", "notes.md"}),
    ("run --sampling c", {"coupled"}, {"rejection"}),
    ("run --sampling=c", {"coupled"}, {"rejection", "notes.md"}),
    ("completion ", {"zsh", "bash", "fish"}, {"chat", "notes.md"}),
    ("chats export --output ", set(), {"list"}),
]
FILE_CASES: list[tuple[str, set[str], set[str]]] = [
    ("chats export --output n", {"notes.md"}, {"list"}),
    ("run n", {"notes.md"}, {"list"}),
    ("doctor ", set(), {"notes.md"}),
]


@pytest.mark.parametrize(("line", "expected", "missing"), CASES)
def test_bash_completes(
    line: str, expected: set[str], missing: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["slipstream", *line.replace("=", " = ").split(" ")]
    quoted = " ".join(f"'{word}'" for word in words)
    command = (
        f"{script('bash', capsys)}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _slipstream\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    run = subprocess.run(["bash", "-c", command], capture_output=True, check=True, text=True)
    assert run.stderr == ""
    offered = set(run.stdout.split())
    assert expected <= offered
    assert not missing & offered
    if not expected:
        assert not offered, "bash completes files then"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where one completes; the only file there is notes.md."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "notes.md").write_text("Notes.\n")
    return folder


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
@pytest.mark.parametrize(("line", "expected", "missing"), [*CASES, *FILE_CASES])
def test_fish_completes(
    line: str, expected: set[str], missing: set[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.parent / "script").write_text(script("fish", capsys))
    run = subprocess.run(
        ["fish", "--no-config", "-c", f"source ../script; complete -C 'slipstream {line}'"],
        capture_output=True, check=True, text=True, cwd=folder, env={**os.environ, "HOME": str(folder.parent)},
    )  # fmt: skip
    assert run.stderr == ""
    offered = {row.split("\t")[0].rpartition("=")[2] for row in run.stdout.splitlines()}
    assert expected <= offered
    assert not missing & offered


LISTING = "_listed() { zle list-choices }; zle -N _listed; bindkey '^T' _listed; setopt nobeep"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
@pytest.mark.parametrize(("line", "expected", "missing"), [*CASES, *FILE_CASES])
def test_zsh_completes(
    line: str, expected: set[str], missing: set[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a terminal, where the choices are listed below the line."""
    (folder.parent / "script").write_text(script("zsh", capsys))
    own = {"TERM": "dumb", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"], "HOME": str(folder.parent)}
    terminal = Terminal(["zsh", "-f", "-i"], (100, 100), own, folder)
    try:
        terminal.type(f"autoload -Uz compinit; compinit -u -D; source ../script; {LISTING}; print LO''ADED\r")
        terminal.until("LOADED\r\n")
        terminal.settle(0.1)
        terminal.written.clear()
        terminal.type(f"slipstream {line}\x14")
        if expected:
            terminal.until(lambda: all(word.encode() in terminal.drawn.partition(b"\n")[2] for word in expected))
        terminal.settle(0.3)
        offered = terminal.drawn.partition(b"\n")[2].decode().split()
        assert expected <= {*offered}
        assert not missing & {*offered}
    finally:
        terminal.close()
