"""The macOS clipboard, with a script in place of pbcopy."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.system.clipboard import copy_with_pbcopy


def pbcopy(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "pbcopy"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_text_is_handed_over_in_utf_8_whatever_the_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    pbcopy(tmp_path, monkeypatch, f'{{ echo "$LC_ALL"; cat; }} > {tmp_path}/copied')
    assert copy_with_pbcopy("déjà vu")
    assert (tmp_path / "copied").read_text("utf-8") == "en_US.UTF-8\ndéjà vu"


def test_one_that_fails_or_is_not_there_has_copied_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbcopy(tmp_path, monkeypatch, "exit 1")
    assert not copy_with_pbcopy("words")
    (tmp_path / "pbcopy").unlink()
    assert not copy_with_pbcopy("words")
