"""The engine's handle on the process that renders its chat template.

One process for each template, started while the weights are still to be read. A template that does not come back
costs its load, or one reply: its process is ended, and the next conversation gets a new one.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from mlx_engine.protocol import wire
from mlx_engine.text.sandbox import Limits, TemplateFailedError
from mlx_engine.text.template_worker import Answer, Compile, Refused, Render, Task

PATIENCE_S = 60.0
"""The process ends itself by processor time. This long it may be starved, or stopped, before it is killed."""


class TemplateProcess:
    """A chat template that is compiled and rendered elsewhere. Any thread may render."""

    def __init__(self, source: str, limits: Limits | None = None) -> None:
        """Starts the process and returns at once; `check` says whether the template can be used."""
        self._compile = Compile(source, limits or Limits())
        self._patience_s = PATIENCE_S
        self._child: subprocess.Popen[bytes] | None = None
        self._is_compiled = False
        self._rendering = threading.Lock()
        """The process answers one at a time."""
        self._begin()

    def check(self) -> None:
        """Wait until it is compiled. Raises TemplateFailedError."""
        if self._child is None:
            self._begin()
        if not self._is_compiled:
            try:
                self._receive(0)
            except TemplateFailedError:
                self.close()
                raise
            self._is_compiled = True

    def render(self, messages: Sequence[dict[str, Any]], now_s: float | None = None, **variables: Any) -> str:
        """The conversation as text. now_s: seconds since the epoch; None: now. Raises TemplateFailedError."""
        with self._rendering:
            self.check()
            self._send(Render(list(messages), variables, time.time() if now_s is None else now_s))
            return self._receive(len(messages))

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        self._is_compiled = False
        if child:
            _end(child)

    @property
    def process_id(self) -> int | None:
        """Of the process; None if none is running."""
        return self._child.pid if self._child else None

    def _begin(self) -> None:
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "mlx_engine.text.template_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # ctrl+c at the terminal is for the front end
            )
        except OSError as error:
            raise TemplateFailedError(f"its process could not be started: {error}") from None
        weakref.finalize(self, _end, child)
        self._child, self._is_compiled = child, False
        self._send(self._compile)

    def _send(self, task: Task) -> None:
        assert self._child
        assert self._child.stdin
        watch = threading.Timer(self._patience_s, self._child.kill)
        watch.start()
        try:
            wire.write(self._child.stdin, task)
        except OSError:
            pass  # it is gone; `_receive` says so
        finally:
            watch.cancel()

    def _receive(self, messages: int) -> str:
        child, seconds = self._child, self._compile.limits.limit_s(messages)
        assert child
        assert child.stdout
        watch = threading.Timer(seconds + self._patience_s, child.kill)
        watch.start()
        try:
            answer = wire.read(child.stdout, Answer)
        except wire.WireError:
            answer = None
        finally:
            watch.cancel()
        if answer is None:
            self.close()
            raise TemplateFailedError(_ending(child.returncode, seconds))
        if isinstance(answer, Refused):
            raise TemplateFailedError(answer.reason)
        return str(answer.text)


def _ending(status: int, seconds: float) -> str:
    if status in (-signal.SIGPROF, -signal.SIGKILL):
        return f"it takes longer than {seconds:.0f} seconds, or too much memory"
    return f"its process ended with status {status}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """Close the pipes and wait. A process that is busy is killed: what it renders has no reader."""
    for pipe in (child.stdin, child.stdout):
        if pipe:
            try:
                pipe.close()
            except OSError:
                pass  # it was gone before it had read everything
    child.kill()
    child.wait()
