"""The chat, `run` and `slipstream serve` as programs, with the pocket pair: one model for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.system.running_server import find_server
from tests.app.serve.test_command import program
from tests.paths import ROOT
from tests.patience import PROGRAM_PATIENCE_S

pytestmark = pytest.mark.slow

QUESTION = "How do I turn drafting off?"


def slipstream(home: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=ROOT,
        env=os.environ | {"SLIPSTREAM_HOME": str(home)},
        input=typed,
        capture_output=True,
        text=True,
        timeout=PROGRAM_PATIENCE_S,
        check=True,
    )


def test_the_chat_and_run_use_the_server_that_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with program(home, "--port", "0") as running:
        assert running.stdout is not None
        while "is ready" not in (line := running.stdout.readline()):
            assert line
        server = find_server(home / "state" / "server.json")
        assert server is not None
        where = server.url.removeprefix("http://")
        said = slipstream(home, "--plain", typed=f"{QUESTION}\n/requests\n").stdout
        assert f"Slipstream with pocket at {where}, answered by Slipstream." in said
        assert f"Attached to the server at {where}" in said
        assert "1: slipstream, done, " in said
        replied = json.loads(slipstream(home, "run", "--json", "--model", "pocket", QUESTION).stdout)
        assert (replied["model"]["target"], replied["model"]["server"]) == ("pocket", "Slipstream")
        own = slipstream(home, "run", "--json", "--drafter", "none", QUESTION)
        assert json.loads(own.stdout)["model"]["server"] is None
        assert f"A server with pocket runs at {where}." in own.stderr
