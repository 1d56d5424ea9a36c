"""The output files of a run, besides the history: files named by the person, or standard output for `-`."""

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
"""All of them sanitise names of models and files, which could otherwise steer the terminal."""


class Outputs:
    """The output files of one run."""

    def __init__(self, paths: Mapping[str, str], may_replace: bool) -> None:
        """paths: a path or `-` by format. Raises SlipstreamError at once if one of them cannot be written."""
        self._paths = paths
        self._may_replace = may_replace
        if list(paths.values()).count(STANDARD_OUTPUT) > 1:
            raise SlipstreamError("Only one format can go to standard output. Name files for the others.")
        for path in paths.values():
            if path != STANDARD_OUTPUT:
                check_file(Path(path), may_replace)

    @property
    def takes_standard_output(self) -> bool:
        """Whether one of them takes standard output, so that nothing else may be printed there."""
        return STANDARD_OUTPUT in self._paths.values()

    def has(self, format: str) -> bool:
        """Whether this format is written."""
        return format in self._paths

    def write(self, results: Results) -> list[str]:
        """Write all of them. Returns the names of the files. Raises SlipstreamError."""
        for format, path in self._paths.items():
            text = WRITERS[format](results)
            if path == STANDARD_OUTPUT:
                say(text, end="")
            else:
                write_file(Path(path), text, self._may_replace)
        return [path for path in self._paths.values() if path != STANDARD_OUTPUT]


def check_file(path: Path, may_replace: bool) -> None:
    """Raises SlipstreamError if the file cannot be written, or exists and may not be replaced."""
    if os.path.lexists(path) and not may_replace:
        raise SlipstreamError(f"{path} already exists. Choose another name, or use --force to replace it.")
    if path.is_dir():
        raise SlipstreamError(f"{path} is a folder. Use the name of a file.")
    if not os.access(path.parent, os.W_OK):
        raise SlipstreamError(f"{path} cannot be written: {path.parent} is not a writable folder.")
