"""`slipstream doctor`: people are asked to send what it prints, so it names nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.shell import doctor
from app.system.privacy import impersonal
from models.memory_fit import Machine
from tests.paths import ROOT

NAME = "zaphod"


@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize("where", ["in the home folder", "elsewhere"])
def test_no_full_path_and_no_name_is_printed(tmp_path: Path, flags: list[str], where: str) -> None:
    home = tmp_path / "people" / NAME
    kept = home if where == "in the home folder" else tmp_path / "disk" / NAME / "kept"
    for folder in (home, kept / "slipstream" / "config"):
        folder.mkdir(parents=True, exist_ok=True)
    (kept / "slipstream" / "config" / "config.yaml").write_text("no_such_setting: 1\n")
    (kept / "slipstream" / "config" / "catalog.yaml").write_text("]")
    (kept / "hub").write_text("no folder")
    environment = {
        **os.environ, "HOME": str(home), "LOGNAME": NAME, "SLIPSTREAM_HOME": str(kept / "slipstream"),
        "HF_HUB_CACHE": str(kept / "hub"),
    }  # fmt: skip
    program = [sys.executable, "-c", "import sys; from app.cli import main; sys.exit(main())", "doctor", *flags]
    run = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, check=True, text=True)
    assert NAME not in run.stdout
    assert str(home) not in run.stdout
    assert "no_such_setting" in run.stdout
    assert ("~/slipstream/data" if kept == home else "/USER/kept/slipstream/data") in run.stdout
    if flags:
        assert json.loads(run.stdout)["checks"]


@pytest.mark.parametrize(
    ("limit_bytes", "words", "is_warned"),
    [
        (None, None, False),
        (0, "default", False),
        (16 << 30, "17.2 GB", False),
        (31 << 30, "33", True),
    ],
)
def test_the_limit_that_is_shown_is_named(
    monkeypatch: pytest.MonkeyPatch, limit_bytes: int | None, words: str | None, *, is_warned: bool
) -> None:
    """It is not the one that --wire sets."""
    monkeypatch.setattr(doctor, "wired_limit_bytes", lambda: limit_bytes)
    mac = Machine("Apple M4", 32 << 30, 21 << 30, True, 20 << 30)
    checks = [check for check in doctor._memory("memory", mac) if "limit" in check.what]
    assert [check.what for check in checks] == ([] if words is None else ["GPU memory limit"])
    assert all(str(words) in check.value and "(iogpu.wired_limit_mb)" in check.value for check in checks)
    assert any("iogpu.wired_limit_mb=0" in check.advice for check in checks) is is_warned


def test_only_whole_names_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/al")
    monkeypatch.setenv("LOGNAME", "al")
    text = "/home/al/x, /home/alan/y, /mnt/al/z, al, /home/al"
    assert impersonal(text) == "~/x, /home/alan/y, /mnt/USER/z, al, ~"
