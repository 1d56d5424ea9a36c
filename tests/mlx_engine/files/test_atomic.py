"""A file is replaced whole or not at all, with the permissions asked for, and nothing is left beside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.files.atomic import replace_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("before")
    return path


@pytest.mark.parametrize("content", ["naïve", "naïve".encode()])
def test_the_content_is_replaced_and_private(path: Path, content: bytes | str) -> None:
    path.chmod(0o666)
    replace_file(path, content)
    assert path.read_text("utf-8") == "naïve"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_the_mode_is_the_one_asked_for_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        replace_file(path, "x", mode=0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("call", ["fchmod", "fsync", "replace"])
def test_a_failure_leaves_the_file_as_it_was_and_nothing_beside_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no room"):
        replace_file(path, "after", mode=0o644)
    assert path.read_text() == "before"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_the_content_is_on_the_disk_before_it_has_the_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def record(*a: Any, real: Callable[..., None] = real, name: str = name) -> None:
            calls.append(name)
            real(*a)

        monkeypatch.setattr(os, name, record)
    replace_file(path, "one")
    replace_file(path, "two", is_synced=False)
    assert calls == ["fsync", "replace", "replace"]
