"""The scripts that complete commands: made for every shell, and tried in those that are here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from app.cli import main


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


@pytest.mark.parametrize(
    ("line", "expected", "missing"),
    [
        ("", {"chat", "models", "completion"}, {"pull", "--model"}),
        ("mo", {"models"}, {"chat"}),
        ("models ", {"list", "pull"}, {"chat"}),
        ("models pull ", {"pocket"}, {"list"}),
        ("models pull --", {"--offline", "--yes"}, {"--hub"}),
        ("--dr", {"--draft", "--drafter"}, {"--model"}),
        ("chat --draft ", {"auto", "off", "16"}, {"--model"}),
        ("run --sampling c", {"coupled"}, {"rejection"}),
        ("completion ", {"zsh", "bash", "fish"}, {"chat"}),
        ("chats export --output ", set(), {"list"}),
    ],
)
def test_bash_completes(
    line: str, expected: set[str], missing: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["slipstream", *line.split(" ")]
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
