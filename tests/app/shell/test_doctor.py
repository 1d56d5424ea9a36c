"""`slipstream doctor`: people are asked to send what it prints, so it names nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.system.privacy import impersonal
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


def test_only_whole_names_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/al")
    monkeypatch.setenv("LOGNAME", "al")
    text = "/home/al/x, /home/alan/y, /mnt/al/z, al, /home/al"
    assert impersonal(text) == "~/x, /home/alan/y, /mnt/USER/z, al, ~"
