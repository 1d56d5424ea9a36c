"""A text in the person's own editor. Knows no screen; whoever calls gives the terminal away first."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlx_engine.protocol.errors import SlipstreamError

USUAL_EDITORS = ("nano", "vim", "vi")
MOST_BYTES = 16 << 20


class EditorError(SlipstreamError):
    """The editor brought nothing back; the message says why."""


def editor_command(environment: Mapping[str, str]) -> list[str]:
    """`$VISUAL`, else `$EDITOR`, else one that is usually there. Raises EditorError."""
    for variable in ("VISUAL", "EDITOR"):
        if wanted := environment.get(variable, "").strip():
            try:
                words = shlex.split(wanted)
            except ValueError as error:
                raise EditorError(f"${variable} is {wanted!r}, which cannot be read: {error}.") from None
            if not words or shutil.which(words[0], path=environment.get("PATH")) is None:
                raise EditorError(f"${variable} names {wanted!r}, and there is no such program. Name another.")
            return words
    found = next((name for name in USUAL_EDITORS if shutil.which(name, path=environment.get("PATH"))), None)
    if found is None:
        raise EditorError("There is no editor here. Name one: export EDITOR=nano")
    return [found]


def edit(text: str, command: list[str]) -> str:
    """What `text` has become when the editor ends. Blocks. Raises EditorError."""
    with _file_of(text) as path:
        try:
            status = subprocess.run([*command, str(path)], check=False).returncode
        except OSError as error:
            raise EditorError(f"{command[0]} could not be started: {error.strerror}.") from None
        if status:
            how = f"ended with exit status {status}" if status > 0 else f"was ended by signal {-status}"
            raise EditorError(f"{command[0]} {how}; the prompt is as it was.")
        return _read(path, command[0])


@contextmanager
def _file_of(text: str) -> Iterator[Path]:
    """A file that is there for the editor only. Raises EditorError."""
    try:
        folder = TemporaryDirectory(prefix="slipstream-", ignore_cleanup_errors=True)
    except OSError as error:
        raise EditorError(_unwritten(error)) from None
    with folder as name:
        path = Path(name) / "prompt.md"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
        except OSError as error:
            raise EditorError(_unwritten(error)) from None
        yield path


def _unwritten(error: OSError) -> str:
    words = f"The prompt cannot be written to a file for the editor: {error.strerror}."
    return f"{words} Name another folder for it: export TMPDIR=/tmp"


def _read(path: Path, editor: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError:
        raise EditorError(f"{editor} left no file behind; the prompt is as it was.") from None
    if len(data) > MOST_BYTES:
        raise EditorError(f"{editor} left more than {MOST_BYTES >> 20} MB; the prompt is as it was.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise EditorError(f"{editor} left what is not UTF-8; the prompt is as it was.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl+c in an editor is the editor's. Main thread only.

    A handler of ours rather than SIG_IGN, which the editor would inherit.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
