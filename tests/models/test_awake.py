"""A Mac stays awake while a pull or a bench runs, by a stand-in for `caffeinate` on a made-up Mac."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import pull
from models.awake import staying_awake


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """What was started; the stand-in waits to be ended."""
    tool = tmp_path / "caffeinate"
    tool.write_text("#!/bin/sh\nexec sleep 600\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    started: list[list[str]] = []
    popen = subprocess.Popen

    def recording(command: list[str], **options: object) -> object:
        started.append(list(command))
        return popen(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", recording)
    return iter([started])


def test_it_lasts_as_long_as_the_process(
    calls: Iterator[list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = next(calls)
    with staying_awake(99):
        assert started == [], "not a Mac"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with staying_awake(99):
        ((program, *arguments),) = started
    assert program.endswith("/caffeinate")
    assert arguments == ["-i", "-w", "99"]


def test_without_the_tool_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setenv("PATH", str(tmp_path))
    with staying_awake(99):
        pass


def test_a_pull_keeps_it_awake(
    calls: Iterator[list[list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = next(calls)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    job = pull.PullJob((), str(tmp_path))
    running = pull.Pull(job, lambda event: None)
    running.start()
    running.wait()
    (keeper,) = [command for command in started if command[0].endswith("caffeinate")]
    assert keeper[1:] == ["-i", "-w", str(running.process_id)]
