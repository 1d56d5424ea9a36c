"""`slipstream models pull`, `rm`, `verify` and `convert`: the commands that read or change model files."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.core.models_list import own_and_bundled, removable_repos
from app.shell.models_show import print_json, print_sum, resolve
from app.shell.pull import pull
from app.system.console import ask, is_terminal, say, tell, warn
from app.system.device import ask_device, machine_now
from app.system.exit_codes import FAILED, OK
from app.text import figures
from mlx_engine.protocol.errors import SlipstreamError
from models import hub_cache, verify
from models.bundles import parts_of, target_in
from models.catalog import Catalog, CatalogEntry, Source, check_repo, check_revision
from models.config import read_config
from models.errors import ModelsError
from models.folders import called, find_pair
from models.hub_cache import RepoSnapshot, find_snapshot
from models.memory_fit import Fit, PairSize, expected_half_precision_bytes, fit, size_of_entry
from models.pull import RepoRevision


def pull_models(options: argparse.Namespace) -> int:
    """`pull`."""
    catalog, cache = own_and_bundled(), hub_cache.cache_folder()
    name = catalog.name_of(options.model)
    requests = _requests(options, catalog, name)
    if not requests:
        say(f"Nothing to pull: {name or options.model} uses folders on this machine.")
        return OK
    show = "json" if options.json else "line"
    if not options.offline and not options.yes:
        size = _expected_size(requests, catalog, name, cache)
        if size is not None and not _may_pull(fit(size, machine_now(ask_device()))):
            return FAILED
    pull(requests, cache, is_offline=options.offline, show=show, is_insisting=options.insist)
    return OK


def _requests(options: argparse.Namespace, catalog: Catalog, name: str | None) -> list[RepoRevision]:
    if options.revision is not None:
        check_revision(options.revision)
    if name is None:
        if (found := catalog.drafter_of(options.model)) is not None:
            source = found[1].source
            return [RepoRevision(source.repo, options.revision or source.revision)] if source.repo else []
        if "/" not in options.model:
            catalog.find(options.model)  # raises CatalogError, with names that are similar
        return [RepoRevision(check_repo(options.model), options.revision)]
    entry = catalog.entries[name]
    sources = entry.sources[:1] if options.no_drafter else entry.sources
    revisions = [options.revision or entry.target.revision, entry.drafter.revision if entry.drafter else None]
    return [RepoRevision(one.repo, revision) for one, revision in zip(sources, revisions) if one.repo is not None]


def _expected_size(
    requests: list[RepoRevision], catalog: Catalog, name: str | None, cache: Path
) -> PairSize | None:
    """The size of the model, from the catalog or else from the hub; None if neither knows."""
    if name is not None:
        size = size_of_entry(catalog.entries[name], catalog)
        if size.target_bytes is not None and size.drafter_bytes is not None:
            return size
    listed = pull(requests, cache, scope="description", show="nothing")
    weights = [
        sum(
            facts.size
            for file, facts in hub_cache.files_to_pull(one.files).items()
            if file.endswith(".safetensors")
        )
        for one in listed
    ]
    target = find_snapshot(cache, requests[0].repo, listed[0].commit)
    config = read_config(target_in(target.folder)) if target else None
    if config is None or config.is_drafter:
        return None
    half_bytes = expected_half_precision_bytes(weights[0], config.bits) + sum(weights[1:])
    return PairSize(weights[0], sum(weights[1:]), config.layers, 2, half_precision_bytes=half_bytes)


def _may_pull(found: Fit) -> bool:
    """Whether to continue: a model that does not fit is pulled only if the person confirms."""
    if found.verdict != "does not fit":
        return True
    print_sum(found, tell)
    return _confirm("Pull it anyway?")


def _confirm(question: str) -> bool:
    if not is_terminal(sys.stdin):
        warn(f"{question} Standard input is not a terminal, so nobody can answer. Use --yes to confirm.")
        return False
    return ask(question)


def remove_models(options: argparse.Namespace) -> int:
    """`rm`."""
    catalog, cache = own_and_bundled(), hub_cache.cache_folder()
    repos = _removable(options.model, catalog, cache)
    sizes = {repo: hub_cache.size_on_disk(cache, repo)[0] for repo in repos}
    for repo, size in sizes.items():
        tell(f"{figures.size(size)}  {repo}")
    if not options.yes and not _confirm(f"Remove these from {cache}?"):
        return FAILED
    freed = sum(hub_cache.remove(cache, repo) for repo in repos)
    if options.json:
        print_json({"removed": repos, "freed_bytes": freed})
    else:
        say(f"{figures.size(freed).strip()} freed.")
    return OK


def _removable(model: str, catalog: Catalog, cache: Path) -> list[str]:
    """The repositories of a model, except a drafter that another model here also uses."""
    name = catalog.name_of(model)
    if name is None:
        return [check_repo(catalog.location_of(model))]
    return removable_repos(name, catalog, cache)


def verify_models(options: argparse.Namespace) -> int:
    """`verify`. Returns 1 if there are findings."""
    catalog, cache = own_and_bundled(), hub_cache.cache_folder()
    reports = _all_reports(catalog, cache) if options.model is None else _reports(options, catalog, cache)
    if options.json:
        print_json({"checked": reports, "findings": sum(len(report["findings"]) for report in reports)})
    else:
        for report in reports:
            _print_report(report)
    return 1 if any(report["findings"] for report in reports) else 0


def _all_reports(catalog: Catalog, cache: Path) -> list[dict[str, Any]]:
    """Reports on all models here: in the hub cache, and in the folders that the catalog names."""
    reports = [report for one in hub_cache.installed(cache) for report in _snapshot_reports(one, catalog)]
    for entry in catalog.entries.values():
        for source in entry.sources:
            if source.folder is not None and (folder := target_in(Path(source.folder))).is_dir():
                expected = entry if source is entry.target else None
                reports.append(_report(called(folder), folder, expected, catalog))
    return reports


def _reports(options: argparse.Namespace, catalog: Catalog, cache: Path) -> list[dict[str, Any]]:
    entry, pair = None, None
    model = catalog.location_of(options.model)
    try:
        _, entry, pair = resolve(model, catalog)
    except SlipstreamError:
        snapshot = find_snapshot(cache, model) if "/" in model else None
        if snapshot is None and not options.hub:
            raise
        if snapshot is not None:
            return _snapshot_reports(snapshot, catalog)
    if pair is None and not options.hub:
        raise ModelsError(
            f"{options.model} is not on this machine. Run `slipstream models pull {options.model}`, "
            "or add --hub to check the hub only."
        )
    reports = []
    if pair is not None:
        reports.append(_report(called(pair.target), pair.target, entry, catalog))
        if pair.drafter is not None:
            reports.append(_report(called(pair.drafter), pair.drafter, None, catalog))
    if options.hub:
        sources = entry.sources if entry else (Source(repo=check_repo(model)),)
        reports += [_hub_report(source, cache) for source in sources if source.repo is not None]
    return reports


def _snapshot_reports(snapshot: RepoSnapshot, catalog: Catalog) -> list[dict[str, Any]]:
    """One for each model in it: it may be a bundle."""
    return [
        _report("/".join((snapshot.repo, *part.relative_to(snapshot.folder).parts)), part, None, catalog)
        for part in parts_of(snapshot.folder)
    ]


def _report(what: str, folder: Path, entry: CatalogEntry | None, catalog: Catalog) -> dict[str, Any]:
    recorded = verify.recorded_files(folder)
    source, files = recorded if recorded else (None, {})
    findings = list(verify.verify_folder(folder, files, _say_file))
    if entry is not None and not findings:
        findings += verify.verify_entry(entry, catalog, folder)
    return {
        "what": what,
        "folder": str(folder),
        "compared_with": source,
        "files": len(files),
        "findings": findings,
    }


def _say_file(name: str) -> None:
    if is_terminal(sys.stderr):
        tell(f"reading {name}")


def _hub_report(source: Source, cache: Path) -> dict[str, Any]:
    assert source.repo is not None
    [listed] = pull([RepoRevision(source.repo, source.revision)], cache, scope="listing", show="nothing")
    local = find_snapshot(cache, source.repo, source.revision)
    findings = list(verify.verify_source(source, listed.commit, listed.files, local.commit if local else None))
    return {"what": source.repo, "folder": None, "compared_with": f"the hub at {listed.commit[:12]}",
            "files": len(listed.files), "findings": findings}  # fmt: skip


def _print_report(report: dict[str, Any]) -> None:
    source, findings = report["compared_with"], report["findings"]
    if source is None:
        state = _count(findings, "problem") if findings else "files are well-formed"
        say(f"{report['what']}: {state}; no sizes or hashes are recorded for this folder")
    else:
        state = _count(findings, "difference") if findings else "OK"
        say(f"{report['what']}: {state} ({report['files']} files, compared with {source})")
    for finding in findings:
        say(f"  {finding.place}: {finding.problem}")


def _count(findings: list[Any], noun: str) -> str:
    return f"{len(findings)} {noun if len(findings) == 1 else noun + 's'}"


def convert_model(options: argparse.Namespace) -> int:
    """`convert`."""
    pair = find_pair(options.source, "auto", own_and_bundled(), hub_cache.cache_folder())
    source = pair.drafter if options.drafter else pair.target
    if source is None:
        raise ModelsError(
            pair.refusal
            or f"{options.source} has no drafter on this machine. Use the drafter's own folder or hub id."
        )
    command = [
        sys.executable,
        "-P",
        "-m",
        "mlx_engine.loading.convert",
        str(source.resolve()),
        str(options.copy.absolute()),
    ]
    command += ["--bits", str(options.bits), "--group-size", str(options.group_size)]
    record: dict[str, Any] | None = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                message = json.loads(line)
                if "error" in message:
                    raise ModelsError(message["error"])
                if "step" in message and not options.json:
                    tell(message["step"])
                record = message.get("record", record)
        except BaseException:
            child.kill()
            raise
    if record is None:
        raise ModelsError("The conversion stopped without a result. It may have run out of memory.")
    if options.json:
        print_json({"folder": str(options.copy), **record})
    else:
        before, after = (figures.size(record[f"weights_bytes_{when}"]).strip() for when in ("before", "after"))
        say(f"Wrote {options.copy} ({before} reduced to {after}). Use it with --model or --drafter.")
    return OK
