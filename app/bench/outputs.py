"""Where results are written besides the history: files that a person names, or standard output for `-`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from app.bench import history, picture, report, spreadsheet
from app.bench.results import Results
from app.store.transfer import write_file
from app.system.console import STANDARD_OUTPUT, say
from app.text.sanitise import sanitise
from mlx_engine.protocol.errors import SlipstreamError

WRITERS: Mapping[str, Callable[[Results], str]] = {
    "json": lambda results: history.encode(results).decode(),
    "csv": lambda results: sanitise(spreadsheet.as_csv(results)),
    "markdown": lambda results: sanitise(report.as_markdown(results)),
    "svg": lambda results: sanitise(picture.as_svg(results)),
}
"""None of them lets a name of a model or a file steer the terminal of whoever prints the result."""


class Outputs:
    """The files of one run."""

    def __init__(self, wanted: Mapping[str, str], may_replace: bool) -> None:
        """wanted: a place by format. Raises SlipstreamError at once if one of them could not be written later."""
        self._wanted = wanted
        self._may_replace = may_replace
        if list(wanted.values()).count(STANDARD_OUTPUT) > 1:
            raise SlipstreamError("Only one format can go to standard output: name files for the others.")
        for place in wanted.values():
            if place != STANDARD_OUTPUT:
                _check(Path(place), may_replace)

    @property
    def takes_standard_output(self) -> bool:
        """Whether nothing else may be printed there."""
        return STANDARD_OUTPUT in self._wanted.values()

    def write(self, results: Results) -> list[str]:
        """Write all of them; their names. Raises SlipstreamError."""
        for format, place in self._wanted.items():
            text = WRITERS[format](results)
            if place == STANDARD_OUTPUT:
                say(text, end="")
            else:
                write_file(Path(place), text, self._may_replace)
        return [place for place in self._wanted.values() if place != STANDARD_OUTPUT]


def _check(path: Path, may_replace: bool) -> None:
    if os.path.lexists(path) and not may_replace:
        raise SlipstreamError(
            f"{path} exists already. Choose another name, or allow it to be replaced with --force."
        )
    if path.is_dir():
        raise SlipstreamError(f"{path} is a folder. Name a file.")
    if not os.access(path.parent, os.W_OK):
        raise SlipstreamError(f"{path} cannot be written: {path.parent} is not a folder that can be written to.")
