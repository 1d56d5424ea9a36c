"""What differs between a model's files and what is recorded of them: sizes, hashes, index, headers, catalog."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mlx_engine.files.folder_files import MAX_FILE_BYTES, opened, read_json
from mlx_engine.files.weight_files import read_tensors, weight_files
from mlx_engine.protocol.errors import ModelFolderError
from models import hub_cache
from models.catalog import Catalog, Entry, Source
from models.config import Config, parse_config
from models.hub_cache import COMMIT, FileFacts, Sha256, Size
from models.memory_fit import loaded_bytes

CONVERSION = "conversion.json"
READ_BYTES = 1 << 20
OTHER_PARTS_BYTES = 2_000_000_000
"""At most this much of a published checkpoint sees and hears, and is not loaded for a text chat."""


class Finding(msgspec.Struct, frozen=True):
    """One difference, in words that say what to do."""

    place: str
    """The file or the catalog's field."""
    problem: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a file should be."""

    size: int
    sha256: str | None
    """None for files that are recorded by git's own hash."""
    git_hash: str | None = None


class _ConvertedFile(msgspec.Struct, frozen=True):
    size: Size
    sha256: Sha256


class _Conversion(msgspec.Struct, frozen=True):
    files: dict[str, _ConvertedFile]


def recorded_files(folder: Path) -> tuple[str, dict[str, Recorded]] | None:
    """(where from, file -> record) of a folder: the hub's listing of its commit, or its conversion's record."""
    if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
        repo = folder.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
        listing = hub_cache.read_listing(folder.parent.parent.parent, repo, folder.name)
        if listing is not None:
            return f"the hub's listing of {repo}", from_listing(listing)
    if (folder / CONVERSION).exists():
        try:
            made = msgspec.convert(read_json(folder / CONVERSION), _Conversion)
        except msgspec.ValidationError as error:
            raise ModelFolderError(f"{folder / CONVERSION} is damaged: {error}. Convert again.") from None
        files = {name: Recorded(file.size, file.sha256) for name, file in made.files.items()}
        return "the record of its conversion", files
    return None


def from_listing(listing: Mapping[str, FileFacts]) -> dict[str, Recorded]:
    """The records of the files that are fetched."""
    return {
        name: Recorded(facts.size, facts.lfs_sha256, None if facts.lfs_sha256 else facts.blob_id)
        for name, facts in hub_cache.wanted_files(listing).items()
    }


def verify_folder(
    folder: Path, recorded: Mapping[str, Recorded], on_file: Callable[[str], None] = lambda name: None
) -> Iterator[Finding]:
    """Differences between a folder and its records, and whatever is malformed in it. Reads every byte."""
    for name, record in recorded.items():
        on_file(name)
        problem = _difference(folder / name, record)
        if problem:
            yield Finding(name, problem)
    try:
        _config_beside_code(folder)
        read_tensors(folder)
        if (folder / "tokenizer.json").exists():
            read_json(folder / "tokenizer.json", MAX_FILE_BYTES)
        shards = {path.name for path in weight_files(folder)}
    except ModelFolderError as error:
        yield Finding(folder.name, str(error))
        return
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            yield Finding(
                path.name, "Code in a model folder; Slipstream never runs it, and it should not be there."
            )
        elif path.suffix == ".safetensors" and path.name not in shards:
            yield Finding(path.name, "Weights that no index names; they are not loaded, and should not be there.")


def _config_beside_code(folder: Path) -> Config:
    """The folder's config, read even where code lies beside it: verify reports the code by itself."""
    return parse_config(read_json(folder / "config.json"), folder / "config.json")


def _difference(path: Path, record: Recorded) -> str | None:
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.size:
                return f"It has {size:,} bytes where {record.size:,} are recorded. Pull it again."
            digest = (
                hashlib.sha256() if record.sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            )
            while block := file.read(READ_BYTES):
                digest.update(block)
    except ModelFolderError as error:
        return str(error)
    found, expected = digest.hexdigest(), record.sha256 or record.git_hash
    if found != expected:
        return f"Its content has the hash {found[:12]}… where {str(expected)[:12]}… is recorded. Fetch it again."
    return None


def verify_entry(entry: Entry, catalog: Catalog, target: Path) -> Iterator[Finding]:
    """Differences between a catalog entry's facts and the config of its target. Raises ModelFolderError."""
    config, expected = _config_beside_code(target), catalog.family(entry).layers
    found = config.layers
    for name in expected.__struct_fields__:
        if getattr(found, name) != getattr(expected, name):
            words = f"The catalog says {getattr(expected, name)}, the model's config {getattr(found, name)}."
            yield Finding(f"{entry.family}.{name}", words)
    if entry.target.size_source == "listed":
        weights = loaded_bytes(read_tensors(target), config)
        if weights != entry.target.size_bytes:
            words = f"The catalog says {entry.target.size_bytes:,} bytes of weights, the headers {weights:,}."
            yield Finding("size_bytes", words)


def verify_source(
    source: Source, commit: str, listing: Mapping[str, FileFacts], local: str | None
) -> Iterator[Finding]:
    """Differences between the catalog, the hub's answer of now, and the commit on this machine."""
    weights = sum(facts.size for name, facts in listing.items() if name in _weights(listing))
    size = source.size_bytes
    if size is not None and not 0.95 * size <= weights <= 1.1 * size + OTHER_PARTS_BYTES:
        yield Finding(
            source.place,
            f"The catalog says {size / 1e9:.2f} GB ({source.size_source}), the hub lists "
            f"{weights / 1e9:.2f} GB of weights (parts that a text chat does not load included).",
        )
    if source.revision is not None and COMMIT.fullmatch(source.revision) and source.revision != commit:
        yield Finding(source.place, f"The catalog pins {source.revision[:12]}, the hub gives {commit[:12]}.")
    if local is not None and local != commit:
        words = f"The hub has the commit {commit[:12]}, this machine {local[:12]}. Pull again for the newer one."
        yield Finding(source.place, words)


def _weights(listing: Mapping[str, FileFacts]) -> set[str]:
    return {name for name in hub_cache.wanted_files(listing) if name.endswith(".safetensors")}
