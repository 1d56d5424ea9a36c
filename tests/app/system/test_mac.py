"""A Mac that cannot run MLX is told why, on made-up Macs."""

from __future__ import annotations

import platform
import runpy
import sys
from pathlib import Path

import pytest

import app
from app import cli
from app.cli import main
from app.shell import doctor
from app.system import mac
from app.system.device import machine_now
from app.system.exit_codes import FAILED
from app.system.mac import why_unusable, why_unusable_mac


@pytest.mark.parametrize(
    ("machine", "version", "is_translated", "words"),
    [
        ("arm64", "14.0", False, ""),
        ("arm64", "26.1", False, ""),
        ("arm64", "10.16", False, ""),
        ("arm64", "", False, ""),
        ("arm64", "13.6.9", False, "MLX needs macOS 14 or later, and this is macOS 13.6.9"),
        ("x86_64", "15.1", True, "under Rosetta"),
        ("x86_64", "15.1", False, "Intel processor"),
    ],
)
def test_what_a_mac_needs(machine: str, version: str, is_translated: bool, words: str) -> None:
    why = why_unusable_mac(machine, version, is_translated)
    assert (why is None) == (words == "")
    assert words in str(why) or not words


def test_other_systems_need_nothing() -> None:
    assert why_unusable() is None or sys.platform == "darwin"


@pytest.fixture
def _rosetta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "x86_64"))
    monkeypatch.setattr(mac, "_is_translated", lambda: True)


@pytest.mark.usefixtures("_rosetta")
@pytest.mark.parametrize("command", [["run", "Hi"], ["bench"], []])
def test_it_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.setattr(cli, "engine_for", None)
    assert main(command) == FAILED
    assert "under Rosetta" in capsys.readouterr().err


@pytest.mark.usefixtures("_rosetta")
def test_and_by_the_doctor() -> None:
    checks = {check.what: check for check in doctor._machine(machine_now(None), None)}
    assert "under Rosetta" in checks["system"].advice


def test_an_early_python_is_told_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 6, "final", 0))
    with pytest.raises(SystemExit, match=r"needs Python 3.11 or newer, and this is Python 3\.9\."):
        runpy.run_path(str(Path(app.__file__)))
