"""Editing a text in another program."""

from __future__ import annotations

import os
import platform
import resource
import signal
import stat
import sys
import tempfile
from pathlib import Path

import pytest

from app.system.editor import EditorError, edit, editor_command, undisturbed


def script(tmp_path: Path, code: str) -> list[str]:
    path = tmp_path / "editor.py"
    path.write_text(f"import os, sys\npath = sys.argv[1]\n{code}\n")
    return [sys.executable, str(path)]


def test_the_text_comes_back_changed(tmp_path: Path) -> None:
    command = script(tmp_path, "t = open(path).read(); open(path, 'w').write(t + ' more\\r\\nlines\\n')")
    assert edit("ä text", command) == "ä text more\nlines"


def test_the_file_is_private_named_for_markdown_and_gone_afterwards(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    command = script(tmp_path, f"open({str(seen)!r}, 'w').write(f'{{path}} {{os.stat(path).st_mode}}')")
    assert edit("text", command) == "text"
    path, mode = seen.read_text().split()
    assert path.endswith(".md")
    assert stat.S_IMODE(int(mode)) == 0o600
    assert not Path(path).exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit(3)", "exit status 3"),
        ("os.kill(os.getpid(), 9)", "signal 9"),
        ("os.remove(path)", "left no file"),
        ("open(path, 'wb').write(b'\\xff\\xfe')", "not UTF-8"),
        ("os.remove(path); os.mkdir(path)", "left no file"),
        ("os.truncate(path, 17 << 20)", "more than 16 MiB"),
    ],
)
def test_an_editor_that_fails_is_said(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(EditorError, match=said):
        edit("text", script(tmp_path, code))


def test_a_text_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(EditorError, match=r"for the editor: No such file or directory\. Choose another folder"):
        edit("text", script(tmp_path, "pass"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command = script(tmp_path, "pass")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        with pytest.raises(EditorError, match="for the editor: File too large"):
            edit("a longer text", command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["editor.py"], "nothing is left behind"


def test_which_editor(tmp_path: Path) -> None:
    for name in ("nano", "ed it"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o700)
    path = {"PATH": str(tmp_path)}
    assert editor_command({**path, "VISUAL": "'ed it' --wait", "EDITOR": "nano"}) == ["ed it", "--wait"]
    assert editor_command({**path, "VISUAL": " ", "EDITOR": "nano -w"}) == ["nano", "-w"]
    assert editor_command(path) == ["nano"]
    for environment, said in (
        ({**path, "EDITOR": "gone --wait"}, "EDITOR is 'gone --wait', but there is no such program"),
        ({**path, "EDITOR": "nano 'x"}, "cannot be parsed"),
        ({"PATH": str(tmp_path / "none")}, "No editor was found"),
    ):
        with pytest.raises(EditorError, match=said):
            editor_command(environment)
    with pytest.raises(EditorError, match="could not be started"):
        edit("text", [str(tmp_path / "gone")])


@pytest.mark.parametrize(("system", "editor"), [("Linux", "nano"), ("Darwin", "vim")])
def test_a_mac_s_nano_is_pico_which_breaks_long_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, editor: str
) -> None:
    for name in ("nano", "vim"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setattr(platform, "system", lambda: system)
    assert editor_command({"PATH": str(tmp_path)}) == [editor]
    assert editor_command({"PATH": str(tmp_path), "EDITOR": "nano"}) == ["nano"]


def test_ctrl_c_in_the_editor_is_not_ours() -> None:
    before = signal.getsignal(signal.SIGINT)
    with undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
