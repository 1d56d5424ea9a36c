"""Edits a text in the person's own editor. Knows no screen; the caller has to release the terminal first."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mlx_engine.protocol.errors import SlipstreamError

COMMON_EDITORS = ("nano", "vim", "vi")
COMMON_EDITORS_OF_A_MAC = ("vim", "vi", "nano")
"""What macOS calls nano is pico (since 12.3), which breaks long lines."""
MOST_BYTES = 16 << 20


class EditorError(SlipstreamError):
    """The editor did not return a text; the message says why."""


def editor_command(environment: Mapping[str, str]) -> list[str]:
    """The command in `$VISUAL`, else `$EDITOR`, else a common editor that is installed. Raises EditorError."""
    for variable in ("VISUAL", "EDITOR"):
        if command := environment.get(variable, "").strip():
            try:
                arguments = shlex.split(command)
            except ValueError as error:
                raise EditorError(f"${variable} is {command!r}, which cannot be parsed: {error}.") from None
            if not arguments or shutil.which(arguments[0], path=environment.get("PATH")) is None:
                raise EditorError(f"${variable} is {command!r}, but there is no such program. Use another one.")
            return arguments
    common = COMMON_EDITORS_OF_A_MAC if platform.system() == "Darwin" else COMMON_EDITORS
    editor = next((name for name in common if shutil.which(name, path=environment.get("PATH"))), None)
    if editor is None:
        raise EditorError("No editor was found. Choose one: export EDITOR=nano")
    return [editor]


def edit(text: str, command: list[str]) -> str:
    """Let the person edit `text`; returns the result. Blocks. Raises EditorError."""
    with _file_of(text) as path:
        try:
            status = subprocess.run([*command, str(path)], check=False).returncode
        except OSError as error:
            raise EditorError(f"{command[0]} could not be started: {error.strerror}.") from None
        if status:
            how = f"failed with exit status {status}" if status > 0 else f"was ended by signal {-status}"
            raise EditorError(f"{command[0]} {how}. The prompt is unchanged.")
        return _read(path, command[0])


@contextmanager
def _file_of(text: str) -> Iterator[Path]:
    """A temporary file with the text. Raises EditorError."""
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
    problem = f"The prompt could not be written to a file for the editor: {error.strerror}."
    return f"{problem} Choose another folder for it: export TMPDIR=/tmp"


def _read(path: Path, editor: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError:
        raise EditorError(f"{editor} left no file behind. The prompt is unchanged.") from None
    if len(data) > MOST_BYTES:
        raise EditorError(f"{editor} wrote more than {MOST_BYTES >> 20} MiB. The prompt is unchanged.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise EditorError(f"{editor} wrote text that is not UTF-8. The prompt is unchanged.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let ctrl+c reach only the editor. Main thread only.

    Sets a handler and not SIG_IGN, which the editor would inherit.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
