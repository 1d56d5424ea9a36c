"""Every command where something that it takes for granted is missing: it ends in one sentence."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import cli
from tests.paths import ROOT
from tests.patience import PROGRAM_PATIENCE_S

pytestmark = pytest.mark.sampled(4)

COMMANDS = {
    "chat": ["--plain"],
    "run": ["Hi"],
    "serve": ["--port", "0"],
    "bench": ["--quick"],
    "paths": [],
    "doctor": [],
    "settings": [],
    "completion": ["bash"],
    "chats list": ["--json"],
    "chats cache": ["--json"],
    "chats search": ["word", "--json"],
    "chats show": ["1"],
    "chats export": ["1"],
    "chats import": ["/nowhere"],
    "chats rm": ["1"],
    "models list": [],
    "models info": ["pocket"],
    "models pull": ["e2b", "--offline"],
    "models rm": ["e2b", "--yes"],
    "models verify": ["pocket"],
    "models convert": ["e2b", "/nowhere/out"],
}
"""Every command, with arguments."""
NO_HOME = "import pwd\ndef getpwuid(number):\n    raise KeyError(number)\npwd.getpwuid = getpwuid\n"


def leaves(parser: argparse.ArgumentParser) -> list[str]:
    """The names of all commands that have no commands of their own."""
    names: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                names += [f"{name} {rest}".strip() for rest in leaves(child)]
    return names or [""]


def test_the_table_has_every_command() -> None:
    # What these say first is that an agent is not installed, a server does not answer, or no key was typed.
    others = {"launch", "servers list", "servers test", "servers key"}
    assert set(leaves(cli._parser())) == set(COMMANDS) | others


def sentence(name: str, environment: dict[str, str | None], sink: str = "") -> str:
    """The one line on standard error with which a command fails."""
    merged = {**os.environ, **{key: value for key, value in environment.items() if value is not None}}
    for key in [key for key, value in environment.items() if value is None]:
        merged.pop(key, None)
    command = [sys.executable, "-m", "app.cli", *name.split(), *COMMANDS[name]]
    run = subprocess.run(
        ["sh", "-c", f'exec "$@" {sink}', "sh", *command],
        cwd=ROOT, env=merged, capture_output=True, check=False, stdin=subprocess.DEVNULL,
        timeout=PROGRAM_PATIENCE_S,
    )  # fmt: skip
    said = run.stderr.decode()
    assert run.returncode == 1, said
    assert said.count("\n") == 1, said
    assert said.startswith("slipstream: ")
    return said


@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_home_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_HOME)
    gone: dict[str, str | None] = dict.fromkeys(("HOME", "SLIPSTREAM_HOME", "HF_HOME"))
    assert "There is no home folder" in sentence(name, gone | {"PYTHONPATH": str(tmp_path)})


@pytest.mark.parametrize("name", COMMANDS)
def test_with_a_home_folder_whose_name_is_not_utf8(name: str, tmp_path: Path) -> None:
    home = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    assert r"/\xff/" in sentence(name, {"SLIPSTREAM_HOME": home})


@pytest.mark.slow
@pytest.mark.parametrize("sink", [">/dev/full", ">&-"])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "bench"])
def test_with_output_that_cannot_be_written(name: str, sink: str, tmp_path: Path) -> None:
    sentence(name, {"SLIPSTREAM_HOME": str(tmp_path)}, sink)


@pytest.mark.parametrize("flag", ["--model", "--drafter"])
def test_with_a_model_folder_whose_name_is_not_utf8(flag: str, tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    Path(folder).mkdir()
    run = subprocess.run(
        [sys.executable, "-m", "app.cli", "run", flag, folder, "Hi"],
        cwd=ROOT, env={**os.environ, "SLIPSTREAM_HOME": str(tmp_path)}, capture_output=True, check=False,
    )  # fmt: skip
    said = run.stderr.decode()
    assert (run.returncode, said.count("\n"), "Traceback" in said) == (1, 1, False), said


@pytest.mark.slow
def test_a_pipe_in_place_of_the_log_the_estimates_or_the_catalog_hangs_nothing(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", "run", "Hi", "--max-tokens", "4", *words],
            cwd=ROOT, env={**os.environ, "SLIPSTREAM_HOME": str(tmp_path)}, capture_output=True, check=False,
            stdin=subprocess.DEVNULL, timeout=PROGRAM_PATIENCE_S,
        )  # fmt: skip

    assert run().returncode == 0
    (estimates,) = (tmp_path / "state" / "estimates").iterdir()
    for path in (estimates, tmp_path / "state" / "engine.log"):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    said = run()
    assert (said.returncode, bool(said.stdout)) == (0, True)
    lines = said.stderr.decode().splitlines()
    assert len(lines) == 2
    assert any("engine.log cannot be written (it is not a regular file)" in line for line in lines)
    assert any(
        "estimates for automatic drafting cannot be used (it is not a regular file)" in line for line in lines
    )
    (tmp_path / "config").mkdir()
    os.mkfifo(tmp_path / "config" / "catalog.yaml")
    refused = run()
    assert refused.returncode == 1
    assert refused.stderr.endswith(b"catalog.yaml cannot be read: it is not a regular file.\n")
