"""Compares a model's files with their records: sizes, hashes, index, headers, catalog."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from mlx_engine.files import config_file
from mlx_engine.files.config_bounds import tables_too_small
from mlx_engine.files.folder_files import MAX_FILE_BYTES, opened, read_json, snapshot_of
from mlx_engine.files.main_tensors import check_main_tensors
from mlx_engine.files.stored_dtypes import check_stored
from mlx_engine.files.tensor_names import assistant_names, target_names
from mlx_engine.files.weight_files import read_tensors, weight_files
from mlx_engine.protocol.errors import ModelFolderError
from models import hub_cache
from models.catalog import Catalog, CatalogEntry, Source
from models.config import Config, parse_config, read_config
from models.hub_cache import COMMIT, FileFacts, Sha256, Size
from models.memory_fit import loaded_bytes

CONVERSION = "conversion.json"
READ_BYTES = 1 << 20
OTHER_PARTS_BYTES = 2_000_000_000
"""The largest size of the vision and audio parts of a published checkpoint, which a text chat does not load."""


class Finding(msgspec.Struct, frozen=True):
    """One difference, as a sentence that says what to do."""

    place: str
    """The file, or the field of the catalog."""
    problem: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a file should contain."""

    size: int
    sha256: str | None
    """None for files that are recorded by git's hash."""
    git_hash: str | None = None


class _ConvertedFile(msgspec.Struct, frozen=True):
    size: Size
    sha256: Sha256


class _Conversion(msgspec.Struct, frozen=True):
    files: dict[str, _ConvertedFile]


def recorded_files(folder: Path) -> tuple[str, dict[str, Recorded]] | None:
    """(source, file -> record) of a folder: the hub's listing of its commit, or the record of its conversion."""
    snapshot, repo = snapshot_of(folder), hub_cache.repo_of(folder)
    if snapshot is not None and repo is not None and COMMIT.fullmatch(snapshot.name):
        listing = hub_cache.read_listing(snapshot.parent.parent.parent, repo, snapshot.name)
        if listing is not None:
            own = "" if folder == snapshot else f"{folder.name}/"
            records = from_listing(listing).items()
            files = {
                name.removeprefix(own): record
                for name, record in records
                if name.startswith(own) and "/" not in name.removeprefix(own)
            }
            return f"the hub's listing of {repo}", files
    if (folder / CONVERSION).exists():
        try:
            made = msgspec.convert(read_json(folder / CONVERSION), _Conversion)
        except msgspec.ValidationError as error:
            raise ModelFolderError(f"{folder / CONVERSION} is damaged: {error}. Convert it again.") from None
        files = {name: Recorded(file.size, file.sha256) for name, file in made.files.items()}
        return "the record of its conversion", files
    return None


def from_listing(listing: Mapping[str, FileFacts]) -> dict[str, Recorded]:
    """The records of the files that are pulled."""
    return {
        name: Recorded(facts.size, facts.lfs_sha256, None if facts.lfs_sha256 else facts.blob_id)
        for name, facts in hub_cache.files_to_pull(listing).items()
    }


def verify_folder(
    folder: Path, recorded: Mapping[str, Recorded], on_file: Callable[[str], None] = lambda name: None
) -> Iterator[Finding]:
    """Yields the differences between a folder and its records, and what is malformed in it. Reads every byte."""
    for name, record in recorded.items():
        on_file(name)
        problem = _difference(folder / name, record)
        if problem:
            yield Finding(name, problem)
    try:
        config = _check_tensors(folder)
        if (folder / "tokenizer.json").exists():
            tokenizer = read_json(folder / "tokenizer.json", MAX_FILE_BYTES)
            if not config.is_drafter:  # an assistant uses the target's
                _check_tokenizer(folder, tokenizer, config.layers.vocab_size)
        shards = {path.name for path in weight_files(folder)}
    except ModelFolderError as error:
        yield Finding(folder.name, str(error))
        return
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py":
            yield Finding(
                path.name, "This is code, and no part of the model. Slipstream never runs it; remove the file."
            )
        elif path.suffix == ".safetensors" and path.name not in shards:
            yield Finding(
                path.name, "These weights are not part of the model and are not loaded. Remove the file."
            )


def _check_tensors(folder: Path) -> Config:
    """The folder's config. Raises ModelFolderError where config or headers show that it would not load."""
    config, source = config_file.read_config(folder), folder / "config.json"
    parsed, tensors = parse_config(config, source), read_tensors(folder)
    check_stored(tensors, config, folder)
    if parsed.parts.is_assistant:
        assistant_names(tensors, parsed.parts, folder)
    elif not parsed.is_drafter:
        target_names(tensors, parsed.parts, folder)
    if not parsed.is_drafter_packaging:
        check_main_tensors(tensors, config, folder)
    return parsed


def _check_tokenizer(folder: Path, tokenizer: dict[str, Any], rows: int) -> None:
    """Raises ModelFolderError if an id of the tokenizer has no row in the tables."""
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, list):  # Unigram: pairs of token and score, in the order of their ids
        vocab = {str(pair[0]): id for id, pair in enumerate(vocab) if isinstance(pair, list) and pair}
    if not isinstance(vocab, dict):
        return
    ids = [id for id in vocab.values() if isinstance(id, int)]
    new = {str(token.get("content")) for token in added or () if isinstance(token, dict)} - vocab.keys()
    tokens = max(max(ids, default=-1) + 1, len(vocab) + len(new))
    if tokens > rows:
        raise tables_too_small(folder, tokens, rows)


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
    actual, expected = digest.hexdigest(), record.sha256 or record.git_hash
    if actual != expected:
        return f"Its content has the hash {actual[:12]}… where {str(expected)[:12]}… is recorded. Pull it again."
    return None


def verify_entry(entry: CatalogEntry, catalog: Catalog, target: Path) -> Iterator[Finding]:
    """Yields the differences between a catalog entry and the config of its target. Raises ModelFolderError."""
    config, expected = read_config(target), catalog.family(entry).layers
    actual = config.layers
    for name in expected.__struct_fields__:
        if getattr(actual, name) != getattr(expected, name):
            problem = f"The catalog says {getattr(expected, name)}, the model's config {getattr(actual, name)}."
            yield Finding(f"{entry.family}.{name}", problem)
    if entry.target.size_source == "listed":
        weights = loaded_bytes(read_tensors(target), config)
        if weights != entry.target.size_bytes:
            problem = f"The catalog says {entry.target.size_bytes:,} bytes of weights, the headers {weights:,}."
            yield Finding("size_bytes", problem)


def verify_source(
    source: Source, commit: str, listing: Mapping[str, FileFacts], local: str | None
) -> Iterator[Finding]:
    """Yields the differences between the catalog, the hub's present answer, and the commit on this machine."""
    weights = sum(facts.size for name, facts in listing.items() if name in _weights(listing))
    size = source.size_bytes
    if size is not None and not 0.95 * size <= weights <= 1.1 * size + OTHER_PARTS_BYTES:
        yield Finding(
            source.location,
            f"The catalog says {size / 1e9:.2f} GB ({source.size_source}), the hub lists "
            f"{weights / 1e9:.2f} GB of weights, including parts that a text chat does not load.",
        )
    if source.revision is not None and COMMIT.fullmatch(source.revision) and source.revision != commit:
        yield Finding(source.location, f"The catalog pins {source.revision[:12]}, the hub returns {commit[:12]}.")
    if local is not None and local != commit:
        problem = f"The hub has commit {commit[:12]}, this machine {local[:12]}. Pull it again to update."
        yield Finding(source.location, problem)


def _weights(listing: Mapping[str, FileFacts]) -> set[str]:
    return {name for name in hub_cache.files_to_pull(listing) if name.endswith(".safetensors")}
