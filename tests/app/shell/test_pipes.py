"""`slipstream run` with a pipe on standard input, as a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.patience import PATIENCE_S


@pytest.mark.parametrize("words", [["run", "Hi"], ["run", "-"], ["run"]])
@pytest.mark.parametrize("sent", [b"", b"some text"])
def test_a_pipe_that_never_ends_is_named_and_ctrl_c_ends_it(tmp_path: Path, words: list[str], sent: bytes) -> None:
    program = f"import sys; from app import cli; cli.PIPE_HINT_S = 0.05; sys.exit(cli.main({words!r}))"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SLIPSTREAM_HOME": str(tmp_path)},
    ) as child:
        assert child.stdin
        assert child.stderr
        child.stdin.write(sent)
        child.stdin.flush()
        assert b"reading standard input until it ends." in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE_S) == 130
        assert b"Traceback" not in child.stderr.read()
