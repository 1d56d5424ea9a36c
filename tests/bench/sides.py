"""The parent's end of a side: start it, ask it, end it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


class SideError(Exception):
    """A side could not do what it was asked."""


class Side:
    """A child process that runs one engine; see serve.py."""

    def __init__(
        self, name: str, python: Path, module: str, environment: dict[str, str], folder: Path | None = None
    ) -> None:
        """folder: to run in, which comes before everything on Python's path; None: where this process runs."""
        self.name = name
        self._process = subprocess.Popen(
            [python, "-m", module],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        """One request, answered. Raises SideError."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"op": op, **request}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SideError(f"{self.name} ended with exit status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
