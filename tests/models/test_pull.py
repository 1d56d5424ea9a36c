"""Pulls from a local hub: what arrives, what is requested, what is refused, and resuming after any end."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import msgspec
import pytest
from huggingface_hub import close_session

from mlx_engine.files.folder_files import opened
from models import hub_cache, pull_files
from models.hub import MAX_RETRY_AFTER_S, Hub
from models.pull import (
    Listed,
    Pull,
    PullEvent,
    PullFailed,
    PullFinished,
    PullJob,
    PullProgress,
    RepoPulled,
    RepoRevision,
    Waiting,
)
from models.pull_files import Pace, Puller
from models.pull_worker import answer
from tests.cases import cases
from tests.fakes.hub import COMMIT, Cut, FakeHub, Gzipped, NoRange, OtherRange, Stall, Status, Wrong, serve
from tests.paths import GOLDEN
from tests.patience import PATIENCE_S

TARGET = GOLDEN / "e2b" / "target"
REPO = "someone/gemma-4-tiny"
TOKEN = "hf_canary_that_must_stay_at_home"
WEIGHTS = random.Random(7).randbytes(3 << 20)
HASH = hashlib.sha256(WEIGHTS).hexdigest()
NEWER = "ed" * 20
EVIL_REPOS = [
    "../x",
    "/etc/passwd",
    "a\\b",
    "a/b/c",
    "a",
    "..",
    "a/..",
    "a/b--c",
    "-a/b",
    "a/b.git",
    "a/" + "b" * 99,
]
EVIL_REVISIONS = ["../../../x", "/x", "a\\b", "-x", "a..b", "x/y", "\x00", "a b"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    with serve() as hub:
        hub.repos[REPO] = {
            "config.json": (TARGET / "config.json").read_bytes(),
            "tokenizer.json": b'{"version": "1.0"}' * 40,
            "chat_template.jinja": b"{{ bos_token }}",
            "model.safetensors": WEIGHTS,
            "modeling.py": b"raise SystemExit('never pulled')",
            "pytorch_model.bin": b"never pulled",
            "sub/model.safetensors": b"never pulled",
        }
        point_at(monkeypatch, hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
        yield hub
    close_session()


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)  # for child processes
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def job(cache: Path, *repos: str, **changes: Any) -> PullJob:
    wanted = tuple(RepoRevision(repo) for repo in repos or (REPO,))
    defaults: dict[str, Any] = {
        "timeout_s": PATIENCE_S,
        "retry_waits_s": (0.0, 0.0),
        "reserve_bytes": 0,
        "report_every_s": 0.0,
    }
    return PullJob(wanted, str(cache), **(defaults | changes))


def pull(cache: Path, *repos: str, **changes: Any) -> list[PullEvent]:
    """All events of a job done in this process."""
    events: list[PullEvent] = []
    answer(job(cache, *repos, **changes), events.append)
    return events


def failure(events: list[PullEvent]) -> PullFailed:
    assert isinstance(events[-1], PullFailed)
    assert TOKEN not in repr(events)
    assert events[-1].message.endswith(".")
    return events[-1]


def test_a_repository_arrives_where_every_tool_of_the_cache_looks(hub: FakeHub, tmp_path: Path) -> None:
    events = pull(tmp_path)
    assert isinstance(events[-1], PullFinished)
    pulled = next(event for event in events if isinstance(event, RepoPulled))
    assert pulled.commit == COMMIT
    found = huggingface_hub.try_to_load_from_cache(REPO, "model.safetensors", cache_dir=tmp_path)
    assert Path(str(found)).read_bytes() == WEIGHTS
    assert Path(str(found)).parent == Path(pulled.folder)
    library = huggingface_hub.snapshot_download(
        REPO, cache_dir=tmp_path, local_files_only=True, allow_patterns=["*.json", "model.safetensors", "*.jinja"]
    )
    assert Path(library) == Path(pulled.folder)
    [repo] = huggingface_hub.scan_cache_dir(tmp_path).repos
    assert repo.size_on_disk == hub_cache.size_on_disk(tmp_path, REPO)[0]
    assert not list(tmp_path.rglob("*.incomplete"))


def test_each_file_is_flushed_to_the_disk_when_it_is_whole(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it gets its name: a power cut must not leave a whole name with half of the bytes."""
    flushed: list[int] = []
    monkeypatch.setattr(
        pull_files, "flush_to_disk", lambda descriptor: flushed.append(os.fstat(descriptor).st_size)
    )
    events = pull(tmp_path)
    assert isinstance(events[-1], PullFinished)
    (repo,) = (path.parent for path in tmp_path.rglob("blobs"))
    assert sorted(flushed) == sorted(path.stat().st_size for path in (repo / "blobs").iterdir())


def test_only_data_is_asked_for_and_small_files_first(hub: FakeHub, tmp_path: Path) -> None:
    pull(tmp_path)
    resolved = [asked.path.rpartition("/")[2] for asked in hub.asked if "/resolve/" in asked.path]
    assert resolved == ["chat_template.jinja", "tokenizer.json", "config.json", "model.safetensors"]


def opened_bytes(path: Path) -> bytes:
    """What the engine reads, through the link to the blob."""
    with opened(path) as file:
        return file.read()


@pytest.mark.parametrize("part", ["", "target/"])
def test_a_bundle_is_pulled_with_its_drafter_and_nothing_else(hub: FakeHub, tmp_path: Path, part: str) -> None:
    files = hub.repos[REPO]
    own = {f"{part}{name}": data for name, data in files.items() if "/" not in name}
    own |= {f"mtp/{name}": files[name] for name in ("config.json", "model.safetensors")}
    hub.repos[REPO] = own | {"other/config.json": b"never pulled", "mtp/x/config.json": b"never pulled"}
    events = pull(tmp_path)
    assert isinstance(events[-1], PullFinished)
    pulled = next(event for event in events if isinstance(event, RepoPulled))
    snapshot = Path(pulled.folder)
    for folder in (snapshot / part, snapshot / "mtp"):
        assert opened_bytes(folder / "model.safetensors") == WEIGHTS
    assert {path.name for path in snapshot.iterdir() if path.is_dir()} == {"mtp", *filter(None, [part[:-1]])}
    assert not any(path.is_dir() or path.suffix == ".py" for path in (snapshot / "mtp").iterdir())
    found = hub_cache.find_snapshot(tmp_path, REPO)
    assert found is not None
    assert found.is_complete


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model-00001-of-00002.safetensors"], "no model-00002-of-00002.safetensors"),
        (["model-q4.safetensors"], "no model.safetensors"),
        (["model.safetensors", "model-00001-of-00001.safetensors"], "two sets of weights"),
    ],
)
def test_weights_that_could_not_be_loaded_are_not_pulled(
    hub: FakeHub, tmp_path: Path, names: list[str], words: str
) -> None:
    files = hub.repos[REPO]
    hub.repos[REPO] = {"config.json": files["config.json"]} | dict.fromkeys(names, WEIGHTS)
    failed = failure(pull(tmp_path))
    assert failed.reason == "content"
    assert words in failed.message
    assert not any(tmp_path.rglob("*.incomplete"))


def test_shards_without_an_index_are_pulled(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos[REPO]["model-00001-of-00001.safetensors"] = hub.repos[REPO].pop("model.safetensors")
    assert isinstance(pull(tmp_path)[-1], PullFinished)


def test_the_listing_says_sizes_before_anything_is_written(hub: FakeHub, tmp_path: Path) -> None:
    [listed, finished] = pull(tmp_path / "cache", scope="listing")
    assert isinstance(listed, Listed)
    assert isinstance(finished, PullFinished)
    assert listed.commit == COMMIT
    assert listed.files["model.safetensors"].size == len(WEIGHTS)
    assert listed.files["model.safetensors"].lfs_sha256 == HASH
    assert not (tmp_path / "cache").exists()
    assert "/resolve/" not in repr(hub.asked)


def test_a_description_is_everything_but_the_weights(hub: FakeHub, tmp_path: Path) -> None:
    pull(tmp_path, scope="description")
    found = hub_cache.find_snapshot(tmp_path, REPO)
    assert found is not None
    assert found.missing == ("model.safetensors",)
    assert (found.folder / "config.json").is_file()


def test_progress_adds_up_over_several_repositories(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["someone/other"] = {"config.json": hub.repos[REPO]["config.json"], "model.safetensors": b"x" * 1000}
    events = pull(tmp_path, REPO, "someone/other")
    progress = [event for event in events if isinstance(event, PullProgress)]
    done = [event.done_bytes for event in progress]
    assert done == sorted(done)
    assert done[-1] == progress[-1].total_bytes
    assert [event.repo for event in events if isinstance(event, RepoPulled)] == [REPO, "someone/other"]
    total = sum(event.total_bytes for event in events if isinstance(event, Listed))
    assert total == progress[-1].total_bytes


def test_what_is_there_is_not_asked_for_again(hub: FakeHub, tmp_path: Path) -> None:
    pull(tmp_path)
    hub.asked.clear()
    events = pull(tmp_path)
    assert isinstance(events[-1], PullFinished)
    assert [asked.path for asked in hub.asked] == [f"/api/models/{REPO}"]
    listed = next(event for event in events if isinstance(event, Listed))
    assert listed.present_bytes == listed.total_bytes


def test_a_revision_is_resolved_and_recorded(hub: FakeHub, tmp_path: Path) -> None:
    answer(msgspec.structs.replace(job(tmp_path), repos=(RepoRevision(REPO, COMMIT),)), lambda event: None)
    assert hub_cache.find_snapshot(tmp_path, REPO, COMMIT)
    assert not (hub_cache.repo_folder(tmp_path, REPO) / "refs").exists()
    pull(tmp_path)
    assert (hub_cache.repo_folder(tmp_path, REPO) / "refs" / "main").read_text() == COMMIT
    assert all("main" not in asked.path for asked in hub.asked_for("/resolve/"))


def test_a_newer_commit_takes_over_when_all_of_it_is_here(hub: FakeHub, tmp_path: Path) -> None:
    pull(tmp_path)
    main = hub_cache.repo_folder(tmp_path, REPO) / "refs" / "main"
    newer_weights = WEIGHTS[::-1]
    hub.repos[REPO]["model.safetensors"] = newer_weights
    hub.listing_changes = {"sha": NEWER}

    def in_use() -> str | None:
        found = hub_cache.find_snapshot(tmp_path, REPO)
        return found.commit if found and found.is_complete and main.read_text() == found.commit else None

    assert isinstance(pull(tmp_path, scope="description")[-1], PullFinished)
    assert in_use() == COMMIT
    assert failure(pull(tmp_path, reserve_bytes=1 << 60)).reason == "room"
    assert in_use() == COMMIT
    hub.fail(hashlib.sha256(newer_weights).hexdigest(), Cut(1000), *[Cut(0)] * 2)
    assert failure(pull(tmp_path)).reason == "network"
    assert in_use() == COMMIT
    assert isinstance(pull(tmp_path)[-1], PullFinished)
    assert in_use() == NEWER


@pytest.mark.parametrize("after", [0, 1, 1000, len(WEIGHTS) - 1])
def test_a_cut_connection_is_taken_up_where_it_broke(hub: FakeHub, tmp_path: Path, after: int) -> None:
    hub.fail(HASH, Cut(after))
    events = pull(tmp_path)
    assert isinstance(events[-1], PullFinished)
    assert any(isinstance(event, Waiting) and "broke off" in event.why for event in events)
    ranges = [asked.range for asked in hub.asked_for(HASH)]
    assert ranges == [None, f"bytes={after}-" if after else None]


def test_tries_that_bring_something_are_not_counted(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail(HASH, *[Cut(100_000)] * 8)
    assert isinstance(pull(tmp_path)[-1], PullFinished)
    assert len(hub.asked_for(HASH)) == 9


def test_a_network_that_stays_away_ends_the_pull_and_keeps_what_came(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail(HASH, Cut(1000), *[Cut(0)] * 2)
    assert failure(pull(tmp_path)).reason == "network"
    hub.asked.clear()
    assert isinstance(pull(tmp_path)[-1], PullFinished)
    assert [asked.range for asked in hub.asked_for(HASH)] == ["bytes=1000-"]


def test_a_server_without_ranges_starts_over(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail(HASH, Cut(1000), NoRange())
    events = pull(tmp_path)
    assert isinstance(events[-1], PullFinished)
    progress = [event for event in events if isinstance(event, PullProgress)]
    assert progress[-1].done_bytes == progress[-1].total_bytes


def test_wrong_content_is_deleted_and_pulled_once_more(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail(HASH, Wrong())
    events = pull(tmp_path)
    assert isinstance(events[-1], PullFinished)
    assert any(isinstance(event, Waiting) and "not what the hub lists" in event.why for event in events)


@pytest.mark.parametrize("name", ["model.safetensors", "chat_template.jinja"])
def test_content_that_stays_wrong_is_refused_and_leaves_nothing(hub: FakeHub, tmp_path: Path, name: str) -> None:
    path = HASH if name == "model.safetensors" else "/cached/"
    hub.fail(path, Wrong(), Wrong())
    failed = failure(pull(tmp_path))
    assert failed.reason == "content"
    assert name in failed.message
    assert not list(tmp_path.rglob("*.incomplete"))
    assert not list(tmp_path.rglob(name))


def test_a_spoilt_beginning_is_noticed_at_the_end(hub: FakeHub, tmp_path: Path) -> None:
    blobs = hub_cache.repo_folder(tmp_path, REPO) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{HASH}.incomplete").write_bytes(b"\0" * 5000)
    assert isinstance(pull(tmp_path)[-1], PullFinished)
    assert [asked.range for asked in hub.asked_for(HASH)] == ["bytes=5000-", None]
    assert (blobs / HASH).read_bytes() == WEIGHTS


def test_a_partial_file_that_is_too_long_is_begun_anew(hub: FakeHub, tmp_path: Path) -> None:
    blobs = hub_cache.repo_folder(tmp_path, REPO) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{HASH}.incomplete").write_bytes(WEIGHTS + b"more")
    assert isinstance(pull(tmp_path)[-1], PullFinished)
    assert [asked.range for asked in hub.asked_for(HASH)] == [None]
    assert (blobs / HASH).read_bytes() == WEIGHTS


def test_a_partial_file_that_is_whole_needs_no_request(hub: FakeHub, tmp_path: Path) -> None:
    blobs = hub_cache.repo_folder(tmp_path, REPO) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{HASH}.incomplete").write_bytes(WEIGHTS)
    events = pull(tmp_path)
    assert isinstance(events[-1], PullFinished)
    assert not hub.asked_for(HASH)
    assert any(isinstance(event, PullProgress) and event.is_checking for event in events)


@pytest.mark.parametrize(
    "content_range",
    [
        None,
        f"bytes 0-{len(WEIGHTS) - 1}/{len(WEIGHTS)}",
        f"bytes 999-{len(WEIGHTS) - 1}/{len(WEIGHTS)}",
        f"bytes 10000-{len(WEIGHTS) - 1}/{len(WEIGHTS)}",
        f"items 1000-{len(WEIGHTS) - 1}/{len(WEIGHTS)}",
    ],
)
def test_another_range_than_the_requested_one_is_refused_and_no_byte_of_it_is_kept(
    hub: FakeHub, tmp_path: Path, content_range: str | None
) -> None:
    hub.fail(HASH, Cut(1000))
    assert failure(pull(tmp_path, retry_waits_s=())).reason == "network"
    partial = hub_cache.repo_folder(tmp_path, REPO) / "blobs" / f"{HASH}.incomplete"
    hub.fail(HASH, OtherRange(content_range))
    failed = failure(pull(tmp_path, retry_waits_s=()))
    assert failed.reason == "server"
    assert "another part of model.safetensors" in failed.message
    assert partial.read_bytes() == WEIGHTS[:1000]
    assert isinstance(pull(tmp_path)[-1], PullFinished)


def test_an_encoding_that_nobody_asked_for_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail(HASH, Gzipped())
    assert "encoding" in failure(pull(tmp_path)).message


GATED = {"X-Error-Code": "GatedRepo"}
BAD_TOKEN = {"X-Error-Message": "Invalid credentials in Authorization header"}


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (Status(401, GATED), "gated", "licence"),
        (Status(403, GATED), "gated", "hf auth login"),
        (Status(401), "private", "does not exist, or is private"),
        (Status(401, BAD_TOKEN), "private", "token"),
        (Status(403), "private", "may not read"),
        (Status(404), "missing", "no such file or repository"),
        (Status(404, {"X-Error-Code": "RevisionNotFound"}), "missing", "no revision"),
        (Status(429), "busy", "too many requests"),
        (Status(500), "server", "status 500"),
        (Status(503), "server", "status 503"),
        (Status(418), "server", "418"),
    ],
)
@pytest.mark.parametrize("where", ["/api/models/", "/resolve/"])
def test_every_refusal_has_a_sentence_of_its_own(
    hub: FakeHub, tmp_path: Path, fault: Status, reason: str, words: str, where: str
) -> None:
    hub.fail(where, *[fault] * 3)
    failed = failure(pull(tmp_path))
    assert failed.reason == reason
    assert words in failed.message


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_may_pass_is_tried_again(hub: FakeHub, tmp_path: Path, status: int) -> None:
    hub.fail("/api/models/", Status(status, {"Retry-After": "0"}))
    hub.fail(HASH, Status(status))
    events = pull(tmp_path)
    assert isinstance(events[-1], PullFinished)
    assert sum(isinstance(event, Waiting) for event in events) == 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("where", ["/api/models/", HASH])
@pytest.mark.parametrize(
    ("retry_after", "wait_s"),
    [("7", 7.0), ("1", 2.0), ("3600", MAX_RETRY_AFTER_S), ("soon", 2.0), ("-5", 2.0), (None, 2.0)],
)
def test_the_wait_that_the_hub_asks_for_is_honoured_within_bounds(
    hub: FakeHub, tmp_path: Path, status: int, where: str, retry_after: str | None, wait_s: float
) -> None:
    hub.fail(where, Status(status, {} if retry_after is None else {"Retry-After": retry_after}))
    events: list[PullEvent] = []
    slept: list[float] = []
    Puller(job(tmp_path, retry_waits_s=(2.0,)), events.append, Hub(5.0), sleep=slept.append).run()
    assert isinstance(events[-1], PullFinished)
    assert slept == [wait_s]
    assert [event.wait_s for event in events if isinstance(event, Waiting)] == [wait_s]


def test_an_unknown_repository_and_revision(hub: FakeHub, tmp_path: Path) -> None:
    assert failure(pull(tmp_path, "someone/else")).reason == "private"
    events: list[PullEvent] = []
    answer(msgspec.structs.replace(job(tmp_path), repos=(RepoRevision(REPO, "v9"),)), events.append)
    assert "no revision 'v9'" in failure(events).message


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        point_at(monkeypatch, f"http://127.0.0.1:{closed.getsockname()[1]}")
        failed = failure(pull(tmp_path))
    close_session()
    assert failed.reason == "network"
    assert "refuses connections" in failed.message


@contextmanager
def proxy(status: int | None) -> Iterator[str]:
    """The address of a proxy that answers every request so; None: nobody listens there."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            assert status is not None
            self.send_error(status)

        do_CONNECT = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        if status is None:
            server.server_close()
            yield address
            return
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield address
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("scheme", "status", "words"),
    [
        ("https", 407, "The proxy refuses to connect to hub.invalid. Check HTTPS_PROXY."),
        ("https", 503, "The proxy refuses to connect to hub.invalid. Check HTTPS_PROXY."),
        ("http", 407, "The proxy requires a sign-in for hub.invalid."),
        ("https", None, "refuses connections. Check HF_ENDPOINT and any proxy."),
    ],
)
def test_a_proxy_in_the_way(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, status: int | None, words: str
) -> None:
    point_at(monkeypatch, f"{scheme}://hub.invalid")
    close_session()  # a session knows the proxies of the moment it began
    with proxy(status) as address:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
        failed = failure(pull(tmp_path))
    assert failed.reason == "network"
    assert words in failed.message
    assert hub.asked == []


def test_a_name_that_nobody_knows(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    point_at(monkeypatch, "http://hub.invalid")
    assert "cannot be found" in failure(pull(tmp_path)).message


def test_a_silent_server_times_out(hub: FakeHub, tmp_path: Path) -> None:
    stall = Stall(10)
    hub.fail(HASH, stall, stall, stall, stall)
    failed = failure(pull(tmp_path, timeout_s=0.05, retry_waits_s=()))
    stall.gate.set()
    assert "sent nothing for 0.05 s" in failed.message


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub: FakeHub, tmp_path: Path) -> None:
    pull(tmp_path)
    tokens = {(asked.server, asked.token) for asked in hub.asked}
    assert tokens == {("hub", f"Bearer {TOKEN}"), ("storage", None)}


def test_the_token_does_not_follow_a_redirected_listing(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail("/api/models/", Status(307, {"Location": f"{hub.storage_url}/api/models/{REPO}"}))
    pull(tmp_path, scope="listing")
    assert [asked.token for asked in hub.asked if asked.server == "storage"] == [None]


@pytest.mark.parametrize("goal", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_out_of_the_web_is_refused(hub: FakeHub, tmp_path: Path, goal: str) -> None:
    hub.fail("/resolve/", Status(302, {"Location": goal}))
    assert "redirects to" in failure(pull(tmp_path)).message


def test_redirects_without_end(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail("/", Status(200 + 107, {"Location": "/x"}), *[Status(302, {"Location": "/x"})] * 200)
    assert failure(pull(tmp_path)).reason in ("server", "network")


@pytest.mark.parametrize("repo", EVIL_REPOS)
def test_an_evil_repository_is_refused_before_any_request(hub: FakeHub, tmp_path: Path, repo: str) -> None:
    assert failure(pull(tmp_path / "cache", repo)).reason == "name"
    assert not hub.asked
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("revision", EVIL_REVISIONS)
def test_an_evil_revision_is_refused_before_any_request(hub: FakeHub, tmp_path: Path, revision: str) -> None:
    events: list[PullEvent] = []
    answer(msgspec.structs.replace(job(tmp_path / "cache"), repos=(RepoRevision(REPO, revision),)), events.append)
    assert failure(events).reason == "name"
    assert not hub.asked
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil", "a\\b", "a/../../b", "C:/x", "a//b", "x\x1b[2J"])
def test_an_evil_file_name_ends_it_before_any_file(hub: FakeHub, tmp_path: Path, name: str) -> None:
    hub.repos[REPO][name] = b"evil"
    failed = failure(pull(tmp_path / "cache"))
    assert "leads out of its folder" in failed.message
    assert not hub.asked_for("/resolve/")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"sha": None},
        {"sha": "../../x"},
        {"siblings": [{"rfilename": "config.json"}]},
        {"siblings": [{"rfilename": "config.json", "size": -1, "blobId": "a" * 40}]},
        {"siblings": [{"rfilename": "config.json", "size": 1, "blobId": "../../evil"}]},
        {"siblings": [{"rfilename": "model.safetensors", "size": 1, "blobId": "a" * 40, "lfs": {}}]},
        {"siblings": "many"},
    ],
)
def test_a_listing_that_makes_no_sense(hub: FakeHub, tmp_path: Path, changes: dict[str, Any]) -> None:
    hub.listing_changes = changes
    assert failure(pull(tmp_path / "cache")).reason == "content"
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_for_slipstream_is_refused_before_its_weights(hub: FakeHub, tmp_path: Path) -> None:
    hub.repos["someone/llama"] = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS}
    assert "'llama'" in failure(pull(tmp_path, "someone/llama")).message
    config = json.loads((TARGET / "config.json").read_text())
    config = {**config, "quantization_config": {"quant_method": "compressed-tensors"}}
    hub.repos["someone/w4a16"] = {"config.json": json.dumps(config).encode(), "model.safetensors": WEIGHTS}
    assert "quantized with compressed-tensors" in failure(pull(tmp_path, "someone/w4a16")).message
    hub.repos["someone/pickle"] = {"config.json": b"{}", "pytorch_model.bin": b""}
    assert "safetensors" in failure(pull(tmp_path, "someone/pickle")).message
    assert not hub.asked_for(HASH)


def test_a_disk_that_is_too_small_is_noticed_first(hub: FakeHub, tmp_path: Path) -> None:
    failed = failure(pull(tmp_path, reserve_bytes=1 << 60))
    assert failed.reason == "room"
    assert "still to be pulled" in failed.message
    assert "--insist" in failed.message
    assert not hub.asked_for("/resolve/")


def test_a_person_can_insist_since_a_mac_frees_more_when_it_is_needed(hub: FakeHub, tmp_path: Path) -> None:
    assert isinstance(pull(tmp_path, reserve_bytes=1 << 60, is_insisting=True)[-1], PullFinished)


@pytest.fixture
def _without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on exFAT."""

    def refuse(target: str, link: Path) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "symlink", refuse)


@pytest.mark.usefixtures("_without_links")
def test_without_links_files_are_copied(hub: FakeHub, tmp_path: Path) -> None:
    for _ in range(2):
        assert isinstance(pull(tmp_path)[-1], PullFinished)
    found = hub_cache.find_snapshot(tmp_path, REPO)
    assert found is not None
    assert found.is_complete
    assert (found.folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not (found.folder / "model.safetensors").is_symlink()
    assert not list(found.folder.glob(".*"))


@pytest.mark.usefixtures("_without_links")
def test_without_links_and_without_room_for_a_copy_it_says_so(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, copy: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", refuse)
    failed = failure(pull(tmp_path))
    assert failed.reason == "disk"
    assert "file system without links" in failed.message
    assert "No space left" in failed.message


def test_a_cache_that_cannot_be_written(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert failure(pull(tmp_path / "cache")).reason == "disk"


@pytest.mark.parametrize("by", ["option", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_opens_no_socket(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    pull(tmp_path)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "__init__", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    if by != "option":
        monkeypatch.setenv(by, "1")
    events = pull(tmp_path, is_offline=by == "option")
    assert [type(event) for event in events] == [RepoPulled, PullFinished]
    failed = failure(pull(tmp_path, "someone/else", is_offline=by == "option"))
    assert failed.reason == "offline"
    assert (by if by != "option" else "--offline") in failed.message


def test_the_pace_is_that_of_the_last_seconds() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.bytes_per_s is None
    for second in range(20):
        now = float(second)
        pace.add(1000 if second < 10 else 50)
    assert pace.bytes_per_s == 50.0


# In a process of its own: stopping it, killing it, limits.


class Watched:
    """A pull in its child process, and a queue of its events."""

    def __init__(self, job: PullJob) -> None:
        self.events: queue.SimpleQueue[PullEvent] = queue.SimpleQueue()
        self.pull = Pull(job, self.events.put)
        self.pull.start()

    def until(self, kind: type, **facts: Any) -> Any:
        """The next event of a kind with these attributes; fails if the pull ends before."""
        while True:
            event = self.events.get(timeout=PATIENCE_S)
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in facts.items()):
                return event
            assert not isinstance(event, PullFinished | PullFailed), event


def test_cancel_leaves_neither_process_nor_thread_and_the_next_one_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    stall = Stall(1_500_000)
    hub.fail(HASH, stall)
    watched = Watched(job(tmp_path))
    watched.until(PullProgress, file="model.safetensors", file_done_bytes=1_500_000)
    child = watched.pull._child
    assert child is not None
    watched.pull.cancel()
    assert child.returncode == -signal.SIGTERM  # at once, and not by the harder way after it
    assert watched.pull._reader is not None
    assert not watched.pull._reader.is_alive()
    stall.gate.set()
    came = (hub_cache.repo_folder(tmp_path, REPO) / "blobs" / f"{HASH}.incomplete").stat().st_size
    assert came == 1_500_000
    hub.asked.clear()
    assert isinstance(pull(tmp_path)[-1], PullFinished)
    assert [asked.range for asked in hub.asked_for(HASH)] == [f"bytes={came}-"]


def test_cancel_before_the_first_answer_and_twice(hub: FakeHub, tmp_path: Path) -> None:
    watched = Watched(job(tmp_path))
    watched.pull.cancel()
    watched.pull.cancel()
    assert watched.pull._child is not None
    assert watched.pull._child.returncode is not None


CHUNK_BYTES = 64 << 10
"""What is read from the network at once."""
RANDOM_SIZES = tuple(random.Random(11).randrange(len(WEIGHTS)) for _ in range(30))


@pytest.mark.parametrize(
    "after_bytes",
    [
        1,
        len(WEIGHTS) - 1,
        *cases(RANDOM_SIZES[:2], (2, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, *RANDOM_SIZES)),
    ],
)
def test_kill_9_and_resume(hub: FakeHub, tmp_path: Path, after_bytes: int) -> None:
    stall = Stall(after_bytes)
    hub.fail(HASH, stall)
    watched = Watched(job(tmp_path))
    watched.until(PullProgress, file="model.safetensors", file_done_bytes=after_bytes)
    assert watched.pull.process_id is not None
    os.kill(watched.pull.process_id, signal.SIGKILL)
    failed = watched.until(PullFailed)
    watched.pull.wait()
    stall.gate.set()
    assert failed.reason == "died"
    assert "SIGKILL" in failed.message
    came = (hub_cache.repo_folder(tmp_path, REPO) / "blobs" / f"{HASH}.incomplete").stat().st_size
    hub.asked.clear()
    resumed = Watched(job(tmp_path))
    assert came <= after_bytes
    assert resumed.until(Listed).present_bytes >= came
    resumed.until(PullFinished)
    resumed.pull.wait()
    assert [asked.range for asked in hub.asked_for(HASH)] == [f"bytes={came}-" if came else None]
    blobs = hub_cache.repo_folder(tmp_path, REPO) / "blobs"
    assert (blobs / HASH).read_bytes() == WEIGHTS
    assert not [*blobs.glob("*.incomplete")]


@pytest.mark.parametrize(
    ("does", "told"),
    [
        (
            "echo \"thread 'main' panicked\" >&2; echo 'index out of range.' >&2; exit 3",
            "status 3: index out of range. Pull",
        ),
        ("kill -40 $$", "by signal 40. Pull"),
        ("echo surprise; exec cat", "sent something else than a report (JSON is malformed"),
        ("exit 0", "with exit status 0. Pull"),
    ],
)
def test_a_pull_process_that_breaks_off_is_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, told: str
) -> None:
    stand_in = tmp_path / "stand-in"
    stand_in.write_text(f"#!/bin/sh\n{does}\n")
    stand_in.chmod(0o700)
    monkeypatch.setattr("models.pull.sys.executable", str(stand_in))
    watched = Watched(job(tmp_path))
    failed = watched.until(PullFailed)
    watched.pull.wait()
    assert failed.reason == "died"
    assert told in failed.message


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ("4bit/model.safetensors", "4bit/config.json", "8bit/model.safetensors"),
            "folders of their own (4bit, 8bit)",
        ),
        (("config.json", "4bit/model.safetensors"), "folders of their own (4bit)"),
        (("model.safetensors",), "no config.json"),
        (("config.json", "pytorch_model.bin"), "no model in the safetensors format"),
    ],
)
def test_why_a_repository_cannot_be_pulled(
    hub: FakeHub, tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    hub.repos[REPO] = dict.fromkeys(names, b"{}")
    watched = Watched(job(tmp_path))
    failed = watched.until(PullFailed)
    watched.pull.wait()
    assert failed.reason == "content"
    assert told in failed.message
    assert not hub.asked_for("/resolve/")


def test_nothing_is_asked_but_the_model(hub: FakeHub, tmp_path: Path) -> None:
    watched = Watched(job(tmp_path))
    watched.until(PullFinished)
    watched.pull.wait()
    others = [asked.path for asked in hub.asked if REPO not in asked.path and not asked.path.startswith("/blob/")]
    assert others == []


def test_two_pulls_of_one_model_transfer_it_once(hub: FakeHub, tmp_path: Path) -> None:
    stall = Stall(1000)
    hub.fail(HASH, stall)
    first = Watched(job(tmp_path))
    first.until(PullProgress, file="model.safetensors", file_done_bytes=1000)
    second = Watched(job(tmp_path))
    assert "another process" in second.until(Waiting, file="model.safetensors").why
    stall.gate.set()
    first.until(PullFinished)
    second.until(PullFinished)
    first.pull.wait()
    second.pull.wait()
    assert len(hub.asked_for(HASH)) == 1


def test_the_pull_ends_with_its_parent(hub: FakeHub, tmp_path: Path) -> None:
    stall = Stall(1000)
    hub.fail(HASH, stall)
    with worker(job(tmp_path)) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert any(b'"model.safetensors","file_done' in line for line in child.stdout)
        child.stdin.close()
        assert child.wait(timeout=PATIENCE_S) == 1
    stall.gate.set()


@pytest.mark.parametrize("limit", [20_000, 1_000_000, 3_000_000])
def test_a_full_disk_in_the_middle(hub: FakeHub, tmp_path: Path, limit: int) -> None:
    with worker(job(tmp_path), limit) as child:
        assert child.stdout is not None
        events = [msgspec.json.decode(line, type=PullEvent) for line in child.stdout]
        assert child.wait(timeout=60) == 0
    failed = failure(events)
    assert failed.reason == "disk"
    assert "is full" in failed.message
    partial = hub_cache.repo_folder(tmp_path, REPO) / "blobs" / f"{HASH}.incomplete"
    assert partial.stat().st_size == limit
    hub.asked.clear()
    assert isinstance(pull(tmp_path)[-1], PullFinished)
    assert [asked.range for asked in hub.asked_for(HASH)] == [f"bytes={limit}-"]


def worker(job: PullJob, file_bytes: int | None = None) -> subprocess.Popen[bytes]:
    """The worker's process as it is, with a limit on the size of files."""
    code = "import resource, runpy\n"
    if file_bytes is not None:
        code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_bytes}, {file_bytes}))\n"
    code += "runpy.run_module('models.pull_worker', run_name='__main__')"
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    child.stdin.write(msgspec.json.encode(job) + b"\n")
    child.stdin.flush()
    return child


def test_nothing_of_the_token_is_printed(hub: FakeHub, tmp_path: Path) -> None:
    hub.fail(HASH, *[Status(403)] * 3)
    run = subprocess.run(
        [sys.executable, "-P", "-m", "models.pull_worker"],
        input=msgspec.json.encode(job(tmp_path)) + b"\n",
        capture_output=True,
        check=False,
        env={**os.environ, "HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug"},
    )
    assert TOKEN.encode() not in run.stdout + run.stderr
