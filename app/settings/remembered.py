"""What the app remembers from one run to the next: choices made on its screen. Never the person's own file.

Each change reads, changes and writes the file under a lock, one value at a time, so that two running chats keep
each other's choices. A damaged file is moved aside; if the file cannot be written, the choice is not remembered.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from app.system.files import opening_alone
from mlx_engine.files.atomic import replace_file

MAX_FILE_BYTES = 64 << 10
LOCK_WAIT_S = 0.5
"""The screen is frozen while it waits; whoever has the lock only writes a few hundred bytes."""


class Choices(msgspec.Struct, frozen=True):
    """The remembered values. None: never chosen."""

    theme: str | None = None
    model: str | None = None
    """As it was chosen: a catalog name, a folder or a hub id."""
    has_panel: bool | None = None
    """Whether the gauge panel is shown, overriding the width's default."""


class RememberedChoices:
    """The choices in one file; without a path, for this run only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.values = Choices()
        self.notice: str | None = None
        """A sentence for the person about a problem with the file; None if there is none."""

    @classmethod
    def read(cls, path: Path) -> RememberedChoices:
        """The choices stored at `path`. Never raises: a damaged file is moved aside and `notice` says so."""
        state = cls(path)
        state.values = msgspec.convert(state._load(), Choices)
        return state

    def as_settings(self) -> dict[str, Any]:
        """Values for settings that nothing else sets."""
        return {"theme": self.values.theme, "model": self.values.model}

    def remember(self, **changes: str | bool | None) -> None:
        """Store values for the next run. If that fails, they apply to this run and `notice` says so."""
        self.values = msgspec.structs.replace(self.values, **changes)
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with opening_alone(self._path, LOCK_WAIT_S):
                values = {**self._load(), **changes}
                replace_file(self._path, json.dumps(values, indent=1).encode() + b"\n")
        except OSError as error:
            self.notice = f"{self._path} cannot be written ({error.strerror}): this choice lasts until you quit."

    def _load(self) -> dict[str, Any]:
        """All values in the file, including those that only a newer version knows."""
        assert self._path is not None
        try:
            if not self._path.is_file():
                return {}
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            self.notice = f"{self._path} cannot be read ({error.strerror}): using the default theme and model."
            return {}
        try:
            if len(data) > MAX_FILE_BYTES:
                raise msgspec.ValidationError("too large")
            values = msgspec.json.decode(data, type=dict[str, Any])
            msgspec.convert(values, Choices)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            self._put_aside()
            return {}
        return values

    def _put_aside(self) -> None:
        assert self._path is not None
        number = 1
        while os.path.lexists(aside := self._path.with_name(f"{self._path.name}.corrupt-{number}")):
            number += 1
        with suppress(OSError):
            self._path.rename(aside)
            self.notice = f"{self._path} was damaged and moved to {aside.name}: using the default theme and model."
