"""`slipstream models list` and `info`: the models, which are here and which fit, as tables or JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import msgspec

from app.core.models_list import drafter_rows, model_rows, own_and_bundled, size_of
from app.system.console import say, say_json, warn
from app.system.device import ask_device, machine_now
from app.system.exit_codes import OK
from app.text import figures
from mlx_engine.protocol.errors import SlipstreamError
from models import hub_cache
from models.catalog import Catalog, CatalogDrafter, CatalogEntry
from models.errors import ModelsError
from models.folders import PairFolders, find_pair
from models.memory_fit import Fit, fit, size_of_entry, size_of_folders, suggest


def print_json(value: Any) -> None:
    """One line of JSON on standard output."""
    say_json(json.dumps(msgspec.to_builtins(value, order="deterministic", enc_hook=str)))


def list_models(options: argparse.Namespace) -> int:
    """`list`."""
    catalog, cache, machine = own_and_bundled(), hub_cache.cache_folder(), machine_now(ask_device())
    rows = [row for row in model_rows(catalog, cache, machine) if not options.here or row["here"] != "-"]
    drafters = [row for row in drafter_rows(catalog, cache) if not options.here or row["here"] != "-"]
    sources = [source for entry in catalog.entries.values() for source in entry.sources]
    sources += [drafter.source for drafter in catalog.drafters.values()]
    known = {(source.repo or "").lower() for source in sources}
    others = sorted({one.repo for one in hub_cache.installed(cache) if one.repo.lower() not in known})
    choice, why = suggest(catalog, machine)
    if options.json:
        suggestion = {"name": choice, "why": why}
        print_json({"models": rows, "drafters": drafters, "others_here": others, "suggestion": suggestion})
        return OK
    say(f"{'NAME':<15} {'WEIGHTS':>8}  {'FIT':<13} {'HERE':<9} MODEL")
    for row in rows:
        weights, verdict = figures.size(row["weights_bytes"]), row["fit"] or "unknown"
        say(f"{row['name']:<15} {weights:>8}  {verdict:<13} {row['here']:<9} {row['title']}")
    if drafters:
        say(f"\n{'OTHER DRAFTERS':<24} {'WEIGHTS':>8}  {'HERE':<9} FOR --drafter")
    for row in drafters:
        say(f"{row['name']:<24} {figures.size(row['weights_bytes']):>8}  {row['here']:<9} {row['title']}")
    for repo in others:
        say(f"Also here: {repo}")
    say(f"\nTo start with: {choice}. {why}")
    return OK


def show_info(options: argparse.Namespace) -> int:
    """`info`."""
    if options.context is not None and options.context < 1:
        raise ModelsError(f"--context {options.context} is out of range: use 1 or more tokens.")
    catalog, machine = own_and_bundled(), machine_now(ask_device())
    drafter = catalog.drafter_of(options.model)
    if drafter is not None and catalog.name_of(options.model) is None:
        return _show_drafter(*drafter, catalog, options)
    name, entry, pair = resolve(options.model, catalog)
    size, source = size_of(entry, pair, catalog)
    result = fit(size, machine, options.context)
    if options.context is not None and options.context > result.context_tokens:
        warn(
            f"{options.model} can use at most {result.context_tokens:,} tokens of context; calculating with that."
        )
    if options.json:
        target = str(pair.target) if pair else None
        own = str(pair.drafter) if pair and pair.drafter else None
        print_json({"name": name, "entry": entry, "target": target, "drafter": own, "sizes_from": source,
                     "fit": result})  # fmt: skip
        return OK
    if entry is not None:
        family = catalog.family(entry)
        checked = "" if all(one.checked for one in entry.sources) else "; names and sizes not checked with the hub"
        say(f"{name}: {family.title}, {entry.precision}, {family.licence}{checked}")
        say(f"  model    {entry.target.location}\n  drafter  {entry.drafter.location if entry.drafter else '-'}")
        say(f"  drafts   starts with {entry.draft_length} per round; for {entry.recommended_memory_gb} GB or more")
        if entry.note:
            say(f"  {entry.note}")
        others = ", ".join(catalog.drafters_for(entry.family)) if not entry.target.qat else ""
        if others:
            say(f"  others   {others} (--drafter)")
    say(f"Sizes from {source}.")
    print_sum(result)
    return OK


def _show_drafter(name: str, drafter: CatalogDrafter, catalog: Catalog, options: argparse.Namespace) -> int:
    """`info` for a drafter: what it is for, and the sum beside each model that it is for."""
    machine, cache = machine_now(ask_device()), hub_cache.cache_folder()
    entries = {
        own: entry
        for own, entry in catalog.entries.items()
        if entry.family == drafter.family and entry.target.qat == drafter.source.qat
    }
    fits = {}
    for own, entry in entries.items():
        try:
            pair = find_pair(own, name, catalog, cache)
            size = size_of_folders(pair.target, pair.drafter)
        except SlipstreamError:
            size = size_of_entry(entry, catalog, drafter.source)
        fits[own] = fit(size, machine, options.context)
    if options.json:
        print_json({"name": name, "drafter": drafter, "fits": fits})
        return OK
    checked = "" if drafter.source.checked else "; name and size not checked with the hub"
    say(f"{name}: {drafter.kind} for {catalog.families[drafter.family].title}{checked}")
    say(f"  drafter  {drafter.source.location}")
    if drafter.source.size_bytes:
        say(f"  weights  {figures.size(drafter.source.size_bytes).strip()}, {drafter.source.size_source}")
    if drafter.note:
        say(f"  {drafter.note}")
    for own, found in fits.items():
        needed = figures.size(found.needed_bytes)
        say(f"  with {own:<14} {needed:>9}  {found.verdict or 'unknown'}")
    return OK


def print_sum(result: Fit, say: Callable[[str], None] = say) -> None:
    """Print the memory sum line by line, and the verdict."""
    for line in result.lines:
        say(f"  {line.what:<24} {figures.size(line.size_bytes):>9}")
    machine = result.machine
    say(f"  {'total':<24} {figures.size(result.needed_bytes):>9}")
    origin = "measured by MLX" if machine.is_measured else "estimated"
    say(f"  {'memory for models':<24} {figures.size(machine.working_set_bytes):>9}  {origin}")
    say(f"  {'free now':<24} {figures.size(machine.free_bytes):>9}")
    say(f"{(result.verdict or 'unknown').capitalize()}. {result.why}")
    if result.largest_context_tokens:
        say(f"Largest context that fits: {result.largest_context_tokens:,} tokens.")


def resolve(model: str, catalog: Catalog) -> tuple[str | None, CatalogEntry | None, PairFolders | None]:
    """The catalog entry of a name, its folders on this machine, or both. Raises ModelsError if neither exists."""
    name = catalog.name_of(model)
    entry = catalog.entries[name] if name else None
    try:
        pair = find_pair(model, "auto", catalog, hub_cache.cache_folder())
    except SlipstreamError:
        if entry is None:
            raise
        pair = None
    if pair is not None and entry is None and pair.name is not None:
        name, entry = pair.name, catalog.entries[pair.name]
    return name, entry, pair
