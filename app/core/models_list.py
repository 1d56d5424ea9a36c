"""The catalog as the lists show it: what each model is, whether it fits, and how much of it is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.system import places
from models import hub_cache
from models.catalog import Catalog, CatalogEntry, Source, load_catalog
from models.hub_cache import find_snapshot
from models.memory_fit import Fit, Machine, fit, size_of_entry


def own_and_bundled() -> Catalog:
    """The catalog with a person's own entries. Raises CatalogError."""
    return load_catalog(places.own_catalog())


def model_rows(catalog: Catalog, cache: Path, machine: Machine) -> list[dict[str, Any]]:
    """The catalog in order: what each entry is, whether it fits, and how much of it is on this machine.

    Raises PullError if the cache cannot be read.
    """
    return [
        _row(name, entry, catalog, fit(size_of_entry(entry, catalog), machine), _state(entry, cache))
        for name, entry in catalog.entries.items()
    ]


def _row(name: str, entry: CatalogEntry, catalog: Catalog, found: Fit, state: str) -> dict[str, Any]:
    return {
        "name": name,
        "aliases": entry.aliases,
        "title": f"{catalog.family(entry).title} {entry.precision}{' QAT' if entry.target.qat else ''}",
        "licence": catalog.family(entry).licence,
        "target": entry.target,
        "drafter": entry.drafter,
        "weights_bytes": entry.target.size_bytes,
        "fit": found.verdict,
        "needed_bytes": found.needed_bytes,
        "largest_context_tokens": found.largest_context_tokens,
        "recommended_memory_gb": entry.recommended_memory_gb,
        "draft_length": entry.draft_length,
        "here": state,
        "note": entry.note,
    }


def _state(entry: CatalogEntry, cache: Path) -> str:
    """`yes`, `no drafter`, `part` or `-`: how much of an entry is on this machine."""
    target, *drafter = (have(source, cache) for source in entry.sources)
    if target != "yes":
        return target
    return "yes" if all(state == "yes" for state in drafter) else "no drafter"


def have(source: Source, cache: Path) -> str:
    """`yes`, `part` or `-`: how much of one half of a pair is on this machine."""
    if source.repo is None:
        return "yes" if Path(source.location).is_dir() else "-"
    found = find_snapshot(cache, source.repo, source.revision)
    if found is not None and found.is_complete:
        return "yes"
    return "part" if found or hub_cache.size_on_disk(cache, source.repo)[0] else "-"
