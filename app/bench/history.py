"""Results on disk: one file per run, by machine and pair. Files are written whole; no run overwrites another."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import msgspec

from app.bench.results import FORMAT, OLDEST_VERSION, VERSION, Results
from app.text.sanitise import sanitise_json
from mlx_engine.files.atomic import replace_file
from mlx_engine.protocol.errors import SlipstreamError

MOST_BYTES = 256 << 20


class _ResultsHeader(msgspec.Struct):
    format: str
    version: int


def encode(results: Results) -> bytes:
    """The results as JSON."""
    return sanitise_json(msgspec.json.encode(results).decode()).encode() + b"\n"


def decode(data: bytes, where: str) -> Results:
    """Raises SlipstreamError for anything but a results file of a version that can be read. where: its name."""
    try:
        head = msgspec.json.decode(data, type=_ResultsHeader)
    except (msgspec.DecodeError, ValueError):
        head = None
    if head is None or head.format != FORMAT:
        raise SlipstreamError(f"{where} is not a results file of `slipstream bench`.")
    if not OLDEST_VERSION <= head.version <= VERSION:
        age = "a newer" if head.version > VERSION else "an older"
        raise SlipstreamError(
            f"{where} was written by {age} Slipstream: its format is version {head.version}, and this Slipstream "
            f"reads versions {OLDEST_VERSION} to {VERSION}. Measure again, or compare with that Slipstream."
        )
    try:
        return msgspec.json.decode(data, type=Results)
    except (msgspec.DecodeError, ValueError) as error:
        raise SlipstreamError(f"{where} is damaged: {error}.") from None


def read_results(path: Path) -> Results:
    """Raises SlipstreamError."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SlipstreamError(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > MOST_BYTES:
        raise SlipstreamError(f"{path} is not a results file of `slipstream bench`: it is too large.")
    return decode(data, str(path))


class ResultsFile:
    """The file of one run, rewritten after every block so that a crash loses nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, folder: Path, results: Results) -> ResultsFile:
        """A new file for a run that is starting. Raises SlipstreamError if it cannot be written."""
        run_folder = folder / slug(machine_name(results)) / slug(pair_name(results))
        stem = re.sub(r"[^\dT-]", "-", results.begun_at[:19])
        try:
            run_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = _new_file(run_folder, stem)
        except OSError as error:
            raise SlipstreamError(f"{run_folder}: results cannot be saved there: {error.strerror}.") from None
        file = cls(path)
        file.write(results)
        return file

    def write(self, results: Results) -> None:
        """Replace the stored results. Raises SlipstreamError."""
        try:
            replace_file(self.path, encode(results))
        except OSError as error:
            raise SlipstreamError(f"{self.path} cannot be written: {error.strerror}.") from None

    def delete(self) -> None:
        """Delete the file, of a run that measured nothing."""
        with suppress(OSError):
            self.path.unlink()

    def previous(self) -> Path | None:
        """The file of the previous run of the same pair on the same machine."""
        earlier = [path for path in self.path.parent.glob("*.json") if path.stem < self.path.stem]
        return max(earlier, key=lambda path: path.stem, default=None)


def machine_name(results: Results) -> str:
    """A name that distinguishes machines in the history."""
    machine = results.machine
    return f"{machine.chip} {machine.cores} cores {machine.memory_bytes / 1e9:.0f} GB"


def pair_name(results: Results) -> str:
    """A name that distinguishes pairs, including how they were loaded."""
    pair = results.pair
    bits = f" {pair.drafter_bits}-bit" if pair.drafter_bits else ""
    bits += f" of {pair.drafter_vocabulary} tokens" if pair.drafter_vocabulary else ""
    marks = "".join(
        f", {mark}" for mark, applies in (("compiled", pair.is_compiled), ("wired", pair.is_wired)) if applies
    )
    if pair.server is not None:
        return f"{pair.target} at {pair.title} by {pair.server}"
    return f"{pair.title} {pair.precision} with {pair.drafter}{bits}{marks}"


def slug(name: str) -> str:
    """A name reduced to characters that are safe in a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "unnamed"


def _new_file(folder: Path, stem: str) -> Path:
    number = 1
    while True:
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            number += 1
            continue
        return path
