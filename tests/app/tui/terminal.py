"""A program in a terminal of its own: what it writes, what it leaves behind, and what becomes of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from tests.fakes.scripted_engine import Script
from tests.paths import ROOT
from tests.patience import PATIENCE_S

PROGRAM = ROOT / "tests" / "fakes" / "program.py"
SEQUENCES = re.compile(rb"\x1b\[[^a-zA-Z]*[a-zA-Z]")


def _begin_session() -> None:
    """In the child, as a terminal does it: what nohup or a shell in the background ignores is not ignored here."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _attributes(terminal: int) -> list[Any]:
    """Those that programs set. macOS sets PENDIN by itself where a program gives back the line mode."""
    flags = termios.tcgetattr(terminal)
    flags[3] &= ~termios.PENDIN
    return flags


class Terminal:
    """A pseudo terminal with a child on it, which has it as its controlling terminal."""

    def __init__(
        self,
        command: Sequence[str],
        size: tuple[int, int],
        environment: dict[str, str],
        folder: Path | None = None,
    ) -> None:
        self._parent, self._child = pty.openpty()
        self.written = bytearray()
        self.resize(*size)
        self.attributes = _attributes(self._child)
        """Before the program."""
        self.process = subprocess.Popen(
            command,
            stdin=self._child,
            stdout=self._child,
            stderr=self._child,
            env=environment,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_begin_session,  # noqa: PLW1509
        )

    def until(self, is_true: Callable[[], object] | str) -> None:
        """Read on until a condition holds, or until words have been written."""
        if isinstance(is_true, str):
            words = is_true.encode()
            is_true = lambda: words in self.drawn  # noqa: E731
        give_up_s = monotonic() + PATIENCE_S
        while not is_true():
            if not self._read(0.05) and self.process.poll() is not None and not is_true():
                raise AssertionError(f"it ended ({self.process.returncode}): {bytes(self.written[-2000:])!r}")
            assert monotonic() < give_up_s, bytes(self.written[-3000:])

    @property
    def drawn(self) -> bytes:
        """What was written, without escape sequences."""
        return SEQUENCES.sub(b"", bytes(self.written))

    def settle(self, quiet_s: float) -> None:
        """Read on until nothing more comes for a while, which is less than the cursor takes to blink."""
        give_up_s = monotonic() + PATIENCE_S
        while self._read(quiet_s):
            assert monotonic() < give_up_s, bytes(self.written[-3000:])

    def settle_for(self, time_s: float) -> None:
        """Read on for this time."""
        end_s = monotonic() + time_s
        while (left_s := end_s - monotonic()) > 0:
            self._read(left_s)

    def type(self, keys: bytes | str) -> None:
        """As from the keyboard, however much it is."""
        data = keys.encode() if isinstance(keys, str) else keys
        while data:
            _, is_free, _ = select.select([], [self._parent], [], 0.05)
            if is_free:
                data = data[os.write(self._parent, data[:1024]) :]
            self._read(0)

    def paste(self, text: str) -> None:
        """Bracketed, as terminals do it."""
        self.type(b"\x1b[200~" + text.encode("utf-8", "replace") + b"\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size."""
        fcntl.ioctl(self._child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, number: signal.Signals) -> None:
        """A signal, to the program alone."""
        self.process.send_signal(number)

    def hang_up(self) -> None:
        """The window is closed."""
        os.close(self._child)
        os.close(self._parent)
        self._parent = self._child = -1

    def wait(self) -> int:
        """The exit code, once everything has been read."""
        give_up_s = monotonic() + PATIENCE_S
        while self.process.poll() is None:
            if self._parent >= 0:
                self._read(0.05)
            else:
                self.process.wait(PATIENCE_S)
            assert monotonic() < give_up_s, bytes(self.written[-3000:])
        if self._parent >= 0:
            self.settle(0)
        return self.process.returncode

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal's attributes are those from before the program."""
        return _attributes(self._child) == self.attributes

    def close(self) -> None:
        """End the program, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._parent >= 0:
            self.hang_up()

    def _read(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self._parent], [], [], wait_s)
        if ready:
            self.written += os.read(self._parent, 65536)
        return bool(ready)


@contextmanager
def slipstream(
    home: Path,
    script: Script,
    *words: str,
    size: tuple[int, int] = (80, 24),
    faults: str = "",
    environment: dict[str, str] | None = None,
    folder: Path | None = None,
) -> Iterator[Terminal]:
    """The program as it is installed, its engine scripted. `faults`: see tests/fakes/program.py.

    folder: where it is started; None: here.
    """
    home.mkdir(parents=True, exist_ok=True)
    (home / "script.json").write_bytes(msgspec.json.encode(script))
    own = {
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "SLIPSTREAM_HOME": str(home),
        "HF_HOME": str(home / "hub"),
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
        "HOME": str(home),
    }
    command = [sys.executable, "-P", str(PROGRAM), str(home / "script.json"), faults, *words]
    terminal = Terminal(command, size, own | (environment or {}), folder)
    try:
        yield terminal
    finally:
        terminal.close()


@contextmanager
def answered(home: Path) -> Iterator[Terminal]:
    """The program after one message and its answer."""
    with slipstream(home, Script(pieces=["An answer."])) as terminal:
        terminal.until("ready")
        terminal.type("Hi\r")
        terminal.until("An answer.")
        yield terminal
