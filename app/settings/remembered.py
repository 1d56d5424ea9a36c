"""What the app itself remembers from run to run: what was chosen on its screen. Never the person's own file.

Each change is read, changed and written under a lock, one value at a time, so that two running chats keep each
other's. What is broken is put aside, and what cannot be written is only not remembered.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from app.system.files import opening_alone, replace_file

MAX_FILE_BYTES = 64 << 10
LOCK_WAIT_S = 0.5
"""The screen stands still meanwhile; whoever holds the lock writes a few hundred bytes."""


class Choices(msgspec.Struct, frozen=True):
    """The values. None: never chosen."""

    theme: str | None = None
    model: str | None = None
    """As it was chosen: a name of the catalog, a folder or a hub id."""
    has_panel: bool | None = None
    """Whether the gauge panel is shown, whatever the width suggests."""


class RememberedChoices:
    """The values in one file; or for this run only, without a file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.values = Choices()
        self.notice: str | None = None
        """What a person has to know of the file, in a sentence."""

    @classmethod
    def read(cls, path: Path) -> RememberedChoices:
        """What is remembered at `path`. Always returns: broken content is put aside and told in `notice`."""
        state = cls(path)
        state.values = msgspec.convert(state._load(), Choices)
        return state

    def as_settings(self) -> dict[str, Any]:
        """What takes the place of a setting that is set nowhere else."""
        return {"theme": self.values.theme, "model": self.values.model}

    def remember(self, **changes: str | bool | None) -> None:
        """Keep values for the next run. Where that cannot be done, they hold for this one and `notice` says so."""
        self.values = msgspec.structs.replace(self.values, **changes)
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with opening_alone(self._path, LOCK_WAIT_S):
                values = {**self._load(), **changes}
                replace_file(self._path, json.dumps(values, indent=1).encode() + b"\n")
        except OSError as error:
            self.notice = f"{self._path} cannot be written ({error.strerror}): this choice ends with the chat."

    def _load(self) -> dict[str, Any]:
        """Everything in the file, also what only a newer version knows."""
        assert self._path is not None
        try:
            if not self._path.is_file():
                return {}
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            self.notice = f"{self._path} cannot be read ({error.strerror}): the chat looks as it does at first."
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
            self.notice = f"{self._path} was damaged and is kept as {aside.name}: theme and model are as at first."
