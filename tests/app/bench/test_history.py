"""Results on disk: they are read back unchanged, never overwritten, and other files are refused."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bench.comparison import compare
from app.bench.history import ResultsFile, decode, encode, pair_name, read_results, slug
from app.bench.results import VERSION, FirstToken, MachineState, MeasuredReply, Results
from app.bench.rows import make_rows
from mlx_engine.protocol.errors import SlipstreamError
from tests.app.bench.support import SETTINGS, Bench, plan

COUNT = st.integers(0, 2**53)
SECONDS = st.just(0.0) | st.floats(1e-9, 1e9)
REPLIES = st.builds(
    MeasuredReply,
    prompt=st.text(max_size=10),
    kind=st.sampled_from(["chat", "code"]),
    context=st.sampled_from(["short", "medium", "long"]),
    mode=st.sampled_from(["greedy", "sampled"]),
    block=st.integers(0, 3),
    place=COUNT,
    setting=st.sampled_from(SETTINGS),
    tokens=COUNT,
    target_passes=COUNT,
    drafted=COUNT,
    accepted=COUNT,
    decode_s=SECONDS,
    peak_memory_bytes=COUNT,
    settled_memory_bytes=st.none() | COUNT,
    context_tokens=st.none() | COUNT,
    energy_j=st.none() | SECONDS,
    is_same=st.none() | st.booleans(),
    differs_at=st.none() | COUNT,
)
FIRSTS = st.builds(
    FirstToken,
    prompt=st.text(max_size=10),
    kind=st.just("chat"),
    context=st.just("long"),
    mode=st.just("greedy"),
    block=COUNT,
    prompt_tokens=COUNT,
    cached_tokens=COUNT,
    ttft_s=SECONDS,
)
STATES = st.builds(
    MachineState,
    load=st.none() | SECONDS,
    free_bytes=st.none() | COUNT,
    memory_pressure=st.none() | st.text(max_size=5),
    power=st.none() | st.text(max_size=5),
    thermal=st.none() | st.text(max_size=5),
)


@pytest.fixture(scope="module")
def results() -> Results:
    return Bench(plan(passes=1)).results()


BASE = Bench(plan(1, passes=1)).results()


@settings(max_examples=40)
@given(st.lists(REPLIES, max_size=10), st.lists(FIRSTS, max_size=3), STATES, st.lists(st.text(), max_size=3))
def test_what_is_written_is_read_the_same(
    replies: list[MeasuredReply], firsts: list[FirstToken], state: MachineState, notes: list[str]
) -> None:
    results = msgspec.structs.replace(
        BASE,
        replies=tuple(replies),
        rows=make_rows(replies, SETTINGS),
        first_tokens=tuple(firsts),
        after=state,
        notes=tuple(notes),
    )
    assert decode(encode(results), "FILE") == results


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(SlipstreamError, match="FILE is not a results file"):
        decode(data, "FILE")


@given(st.integers(0, 10_000), st.binary(max_size=4))
def test_a_damaged_file_is_refused_or_read(place: int, patch: bytes) -> None:
    data = encode(BASE)
    place %= len(data)
    damaged = data[:place] + patch + data[place + len(patch) :]
    with suppress(SlipstreamError):
        decode(damaged, "FILE")


@pytest.mark.parametrize(("version", "words"), [(VERSION + 1, "a newer"), (0, "an older")])
def test_another_version_is_named(tmp_path: Path, results: Results, version: int, words: str) -> None:
    content = json.loads(encode(results)) | {"version": version, "unheard_of": 1}
    path = tmp_path / "other.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SlipstreamError) as refused:
        read_results(path)
    assert f"{path} was written by {words} Slipstream" in str(refused.value)


def test_runs_are_kept_by_machine_and_pair_and_none_over_another(tmp_path: Path, results: Results) -> None:
    first = ResultsFile.create(tmp_path, results)
    second = ResultsFile.create(tmp_path, results)
    other = ResultsFile.create(
        tmp_path, msgspec.structs.replace(results, pair=msgspec.structs.replace(results.pair, title="12b"))
    )
    assert first.path.parent == second.path.parent
    assert first.path.parent.parent.name == "apple-m9-8-cores-16-gb"
    assert first.path.parent.name == "e4b-4-bit-with-fake-assistant"
    assert first.path != second.path
    assert other.path.parent != first.path.parent
    assert second.previous() == first.path
    assert first.previous() is None
    second.delete()
    assert read_results(first.path) == results
    assert [*first.path.parent.iterdir()] == [first.path]


def test_runs_with_wired_memory_are_of_another_pair(results: Results) -> None:
    wired = msgspec.structs.replace(results, pair=msgspec.structs.replace(results.pair, is_wired=True))
    assert pair_name(wired) == f"{pair_name(results)}, wired"
    assert compare(results, wired).differences == (f"the pair ({pair_name(results)} / {pair_name(wired)})",)


def test_runs_with_a_reduced_head_are_of_another_pair(results: Results) -> None:
    few = msgspec.structs.replace(results, pair=msgspec.structs.replace(results.pair, drafter_vocabulary=32768))
    assert pair_name(few) == f"{pair_name(results)} of 32768 tokens"
    assert compare(results, few).differences == (f"the pair ({pair_name(results)} / {pair_name(few)})",)


def test_a_file_of_the_first_version_is_still_read(tmp_path: Path, results: Results) -> None:
    content = json.loads(encode(results)) | {"version": 1}
    del content["pair"]["is_wired"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(content))
    old = read_results(path)
    assert old.pair.is_wired is None, "not recorded"
    assert pair_name(old) == pair_name(results)
    assert old.replies == results.replies


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ResultsFile.create(tmp_path, results)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.bench.history.os.fsync", full)
    with pytest.raises(SlipstreamError, match="No space left on device"):
        record.write(msgspec.structs.replace(results, took_s=999.0))
    assert read_results(record.path) == results
    assert [*record.path.parent.iterdir()] == [record.path]


def test_a_place_that_cannot_be_written(tmp_path: Path, results: Results) -> None:
    (tmp_path / "bench").write_text("a file in the way")
    with pytest.raises(SlipstreamError, match="results cannot be saved there"):
        ResultsFile.create(tmp_path / "bench", results)


@given(st.text())
def test_any_name_is_a_folder(name: str) -> None:
    assert slug(name)
    assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
