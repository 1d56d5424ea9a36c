"""`slipstream bench` from the command line: what it refuses, writes, and leaves after an interrupt."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app import cli
from app.bench import comparison, measuring, outputs, picture, report, spreadsheet, table
from app.bench.advice import advise
from app.bench.history import encode, read_results
from app.bench.live import LiveTable
from app.bench.measuring import BenchJob, load_of, measure
from app.bench.outputs import WRITERS, Outputs
from app.bench.results import Results
from app.bench.rows import make_rows
from app.bench.runner import BenchProgress
from app.core.pair_choice import PairOptions, choose_pair
from app.text.sanitise import UNSAFE_CODES
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import LOOKUP
from tests.app.bench.support import Bench, plan
from tests.paths import ROOT
from tests.patience import PROGRAM_PATIENCE_S


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def results() -> Results:
    return Bench(plan()).results()


def job_of(bench: Bench, results: Results, folder: Path, **files: str) -> BenchJob:
    pair = choose_pair(None, PairOptions())
    return BenchJob(pair, bench.plan, results.method, Outputs(files, may_replace=False), folder)


def test_a_mac_stays_awake_while_it_is_measured(
    monkeypatch: pytest.MonkeyPatch, results: Results, tmp_path: Path
) -> None:
    bench, awake = Bench(plan(passes=1)), list[str]()

    @contextmanager
    def staying_awake(process_id: int) -> Iterator[None]:
        awake.append(f"{process_id} after {len(bench.engine.requests)}")
        yield
        awake.append(f"until {len(bench.engine.requests)}")

    monkeypatch.setattr(measuring, "staying_awake", staying_awake)
    measure(job_of(bench, results, tmp_path / "kept"), bench.engine, bench.clock)
    assert awake == [f"{os.getpid()} after 0", f"until {len(bench.engine.requests)}"]
    assert bench.engine.requests


def test_a_run_is_shown_kept_and_written(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(plan(passes=1))
    files = {name: str(tmp_path / f"out.{name}") for name in outputs.WRITERS}
    assert measure(job_of(bench, results, tmp_path / "kept", **files), bench.engine, bench.clock) == 0
    said = capsys.readouterr()
    for words in ("draft", "ms/token", "tok/s", "accept", "speedup", "identical", "2.50×", "first token"):
        assert words in said.out
    assert all(len(line) <= 80 for line in said.out.splitlines())
    (kept,) = (tmp_path / "kept").rglob("*.json")
    assert str(kept) in said.err
    assert read_results(kept) == read_results(Path(files["json"]))
    assert all(Path(file).read_text() for file in files.values())
    assert bench.engine.is_closed
    with pytest.raises(SlipstreamError, match=r"already exists.*--force"):
        Outputs({"csv": files["csv"]}, may_replace=False)


def test_a_json_file_has_the_micro_figures(results: Results, tmp_path: Path) -> None:
    for flags, is_quick, has_micro in ((["json"], False, True), (["json"], True, False), (["csv"], False, False)):
        bench = Bench(plan(passes=1))
        folder = tmp_path / f"{flags[0]}{is_quick}"
        folder.mkdir()
        job = job_of(bench, results, folder / "kept", **{name: str(folder / f"out.{name}") for name in flags})
        job = replace(job, method=msgspec.structs.replace(results.method, is_quick=is_quick))
        assert measure(job, bench.engine, bench.clock) == 0
        (kept,) = (folder / "kept").rglob("*.json")
        assert read_results(kept).micro == (bench.engine.figures if has_micro else None)
        assert len(bench.engine.measures) == has_micro


def test_a_run_without_micro_figures_says_why(results: Results, tmp_path: Path) -> None:
    bench = Bench(plan(passes=1))
    bench.engine.figures = None
    job = job_of(bench, results, tmp_path / "kept", json=str(tmp_path / "out.json"))
    assert measure(job, bench.engine, bench.clock) == 0
    written = read_results(tmp_path / "out.json")
    assert written.replies
    assert written.micro is None
    assert "without micro-figures: no room" in written.notes


def test_a_stop_ends_the_micro_benchmark_and_keeps_the_run(results: Results, tmp_path: Path) -> None:
    bench = Bench(plan(passes=1))

    def interrupted(id: int) -> None:
        signal.raise_signal(signal.SIGINT)
        bench.engine.cancel_measures = lambda: bench.engine.fail(id, "The measurements were stopped.")

    bench.engine.measure = interrupted  # type: ignore[method-assign]
    job = job_of(bench, results, tmp_path / "kept", json=str(tmp_path / "out.json"))
    assert measure(job, bench.engine, bench.clock) == 0
    assert "stopped" in " ".join(read_results(tmp_path / "out.json").notes)


def test_an_interrupted_run_is_kept_and_exits_130(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(plan())
    bench.engine.before_reply = lambda request: (
        signal.raise_signal(signal.SIGINT) if len(bench.engine.requests) == 25 else None
    )
    csv_file = tmp_path / "out.csv"
    assert measure(job_of(bench, results, tmp_path / "kept", csv=str(csv_file)), bench.engine, bench.clock) == 130
    (kept,) = (tmp_path / "kept").rglob("*.json")
    found = read_results(kept)
    assert found.ended == "interrupted"
    assert len(found.replies) >= 16
    assert csv_file.exists()
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_interrupt_ends_at_once_and_loses_no_whole_block(results: Results, tmp_path: Path) -> None:
    bench = Bench(plan())

    def press(request: object) -> None:
        if len(bench.engine.requests) == 25:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    bench.engine.before_reply = press
    assert measure(job_of(bench, results, tmp_path), bench.engine, bench.clock) == 130
    (kept,) = tmp_path.rglob("*.json")
    assert len(read_results(kept).replies) >= 12


def test_an_interrupt_before_anything_was_measured_leaves_no_file(results: Results, tmp_path: Path) -> None:
    bench = Bench(plan())
    bench.engine.before_reply = lambda request: signal.raise_signal(signal.SIGINT)
    assert measure(job_of(bench, results, tmp_path), bench.engine, bench.clock) == 130
    assert not [*tmp_path.rglob("*.json")]


def test_an_engine_that_dies_leaves_what_was_measured(results: Results, tmp_path: Path) -> None:
    bench = Bench(plan())
    bench.engine.dies_at = 22
    assert measure(job_of(bench, results, tmp_path), bench.engine, bench.clock) == 1
    (kept,) = tmp_path.rglob("*.json")
    assert "SIGKILL" in read_results(kept).notes[-1]
    early = Bench(plan())
    early.engine.dies_at = 2
    with pytest.raises(SlipstreamError, match="SIGKILL"):
        measure(job_of(early, results, tmp_path / "early"), early.engine, early.clock)
    assert not [*(tmp_path / "early").rglob("*.json")]


def test_a_pair_without_a_drafter_is_measured_with_lookup_and_says_so(results: Results, tmp_path: Path) -> None:
    pair = choose_pair(None, PairOptions("none"))
    assert load_of(pair).drafters == (LOOKUP,)
    assert load_of(pair).estimates_folder is None, "the chat's estimates stay as they are"
    bench = Bench(plan(passes=1))
    job = BenchJob(pair, bench.plan, results.method, Outputs({}, may_replace=False), tmp_path)
    assert measure(job, bench.engine, bench.clock) == 0
    (kept,) = tmp_path.rglob("*.json")
    assert "measures off and prompt lookup" in read_results(kept).notes[0]


@pytest.mark.parametrize("is_wired", [False, True])
def test_whether_the_weights_were_wired_is_recorded(results: Results, tmp_path: Path, is_wired: bool) -> None:
    pair = choose_pair(None, PairOptions(is_wired=is_wired))
    bench = Bench(plan(passes=1))
    job = BenchJob(pair, bench.plan, results.method, Outputs({}, may_replace=False), tmp_path)
    assert measure(job, bench.engine, bench.clock) == 0
    (kept,) = tmp_path.rglob("*.json")
    found = read_results(kept)
    assert found.pair.is_wired is is_wired
    assert ("wired" in report.as_text(found).splitlines()[0]) is is_wired
    assert ("wired" in kept.parent.name) is is_wired


def test_a_pair_whose_drafter_is_refused_is_not_measured(results: Results, tmp_path: Path) -> None:
    bench = Bench(plan(passes=1))
    bench.engine.refusal = "The drafter is of another variant."
    pair = choose_pair(None, PairOptions("none"))
    job = BenchJob(pair, bench.plan, results.method, Outputs({}, may_replace=False), tmp_path)
    with pytest.raises(SlipstreamError, match="another variant"):
        measure(job, bench.engine, bench.clock)
    assert not [*tmp_path.rglob("*.json")]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["bench", *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_bad_files_are_refused_before_anything_is_loaded(
    tmp_path: Path, results: Results, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "measure", lambda *job: pytest.fail("it was measured"))
    (tmp_path / "empty").touch()
    (tmp_path / "mine.csv").write_text("mine")
    assert "no such file" in refused(capsys, "--prompts", str(tmp_path / "missing"))
    assert "is empty" in refused(capsys, "--prompts", str(tmp_path / "empty"))
    assert "no stored chats" in refused(capsys, "--chats")
    assert "already exists" in refused(capsys, "--csv", str(tmp_path / "mine.csv"))
    assert (tmp_path / "mine.csv").read_text() == "mine"
    assert "not a writable folder" in refused(capsys, "--svg", str(tmp_path / "no" / "x.svg"))
    assert "is a folder" in refused(capsys, "--force", "--json", str(tmp_path))
    assert "Only one" in refused(capsys, "--json", "-", "--csv", "-")
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_bytes(encode(results))
    new.write_bytes(encode(msgspec.structs.replace(results, version=99)))
    assert "a newer Slipstream" in refused(capsys, "--compare", str(old), str(new))
    assert "cannot be read" in refused(capsys, "--compare", str(old), str(tmp_path / "missing"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--settings", "off,17"],
        ["--settings", ""],
        ["--kinds", "song"],
        ["--contexts", "huge"],
        ["--minutes", "0"],
        ["--minutes", "nan"],
        ["--cool-down", "-1"],
        ["--compare", "one.json"],
        ["--chats", "--prompts", "x"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", *arguments])
    assert ended.value.code == 2


def planned(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> BenchJob:
    jobs: list[BenchJob] = []

    def record(job: BenchJob, engine: object) -> int:
        jobs.append(job)
        return 0

    monkeypatch.setattr(measuring, "measure", record)
    assert cli.main(["bench", *arguments]) == 0
    return jobs[0]


def test_what_is_typed_becomes_the_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = planned(monkeypatch).plan
    assert usual.settings == ("off", "2", "4", "8", "16", "auto")
    assert {case.context for case in usual.cases} == {"short", "medium", "long"}
    assert {case.mode for case in usual.cases} == {"greedy"}
    assert len(usual.cases) == 18 + 6 + 6
    quick = planned(monkeypatch, "--quick").plan
    assert (len(quick.cases), quick.passes, quick.limit_s < 60) == (6, 1, True)
    (tmp_path / "mine").write_text("one\ntwo\n")
    own = planned(monkeypatch, "--prompts", str(tmp_path / "mine"), "--sampled", "--greedy", "--draft", "3").plan
    assert own.settings == ("off", "3")
    assert [case.mode for case in own.cases] == ["greedy", "sampled", "greedy", "sampled"]
    hot = planned(monkeypatch, "--temp", "0.7", "--settings", "auto,4", "--minutes", "3", "--max-tokens", "9").plan
    assert {case.mode for case in hot.cases} == {"sampled"}
    assert (hot.settings, hot.limit_s, hot.max_tokens) == (("off", "auto", "4"), 180.0, 9)


def test_the_csv_has_every_row_and_the_picture_is_svg(results: Results) -> None:
    lines = list(csv.DictReader(io.StringIO(spreadsheet.as_csv(results))))
    assert len(lines) == len(results.rows)
    assert {line["draft"] for line in lines} == set(results.method.settings)
    assert float(next(line for line in lines if line["draft"] == "4")["speedup"]) == pytest.approx(2.5)
    hostile = msgspec.structs.replace(results, pair=msgspec.structs.replace(results.pair, title="<script>&"))
    root = ET.fromstring(picture.as_svg(hostile))
    assert root.tag.endswith("svg")
    assert not [*root.iter("{http://www.w3.org/2000/svg}script")]
    assert ET.fromstring(picture.as_svg(msgspec.structs.replace(results, replies=(), rows=()))) is not None


@pytest.mark.parametrize("format", WRITERS)
def test_no_name_in_a_result_steers_the_terminal_that_prints_it(results: Results, format: str) -> None:
    evil = "e2b\x1b]52;c;eA==\x07\x9b2J\u202e"
    hostile = msgspec.structs.replace(
        results,
        pair=msgspec.structs.replace(results.pair, title=evil),
        rows=tuple(msgspec.structs.replace(row, kind=f"{row.kind}{evil}") for row in results.rows),
        notes=(evil,),
    )
    text = WRITERS[format](hostile)
    assert "]52;c;eA==" in text
    assert ascii(set(text) & set(map(chr, UNSAFE_CODES))) == "set()"


def test_the_markdown_has_a_table_with_a_cell_for_every_column(results: Results) -> None:
    text = report.as_markdown(results)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert "| 4 | 20.00 | 50.0 | 75% | 4.0 | 2.50× (2.50–2.50) | yes | — | 5 MB |" in rows
    assert "3% faster" not in text


def slowed(results: Results, setting: str, factor: float) -> Results:
    replies = tuple(
        msgspec.structs.replace(reply, decode_s=reply.decode_s * factor) if reply.setting == setting else reply
        for reply in results.replies
    )
    return msgspec.structs.replace(results, replies=replies, rows=make_rows(replies, results.method.settings))


def test_what_is_recommended(results: Results) -> None:
    words = advise(results)
    assert words.startswith("Use --draft auto: 2.50×")
    assert "as good as the best fixed length (4: 2.50×)" in words
    assert "the rule of thumb is to draft less under 60% and try more over 90%" in words
    assert advise(slowed(results, "auto", 2)).startswith("Use --draft 4: 2.50×")
    assert advise(slowed(results, "off", 0.3)).startswith("Turn drafting off on this machine")
    assert advise(msgspec.structs.replace(results, rows=())).startswith("Too little was measured")
    assert "\n" not in words


def test_two_runs_compared(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, each in zip(files, (results, slowed(results, "4", 1.25))):
        file.write_bytes(encode(each))
    assert cli.main(["bench", "--compare", *map(str, files)]) == 0
    said = capsys.readouterr().out
    assert "Speedups that changed by more than noise: draft 4 -20.0%." in said
    assert cli.main(["bench", "--compare", *map(str, files), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)["changes"]
    real = [change for change in changes if change["is_real"] and change["figure"] == "speedup"]
    assert [(change["kind"], change["setting"]) for change in real] == [("chat", "4"), ("all", "4")]


def test_noise_is_no_change_and_few_blocks_are_too_little(results: Results) -> None:
    noisy = [Bench(plan(limit_s=300.0)) for _ in range(2)]
    for number, bench in enumerate(noisy):
        paces = iter([1.0, 1.4, 0.7, 1.2, 0.8][number:] * 10_000)
        bench.engine.slowness = lambda time_s, paces=paces: next(paces)  # type: ignore[misc]
    first, second = (bench.results() for bench in noisy)
    found = comparison.compare(first, second)
    assert not [change for change in found.changes if change.is_real and change.figure == "speedup"]
    few = Bench(plan(passes=1)).results()
    assert {change.is_real for change in comparison.compare(few, few).changes} == {None}
    assert "Too little was measured" in comparison.as_text(comparison.compare(few, few), ("a", "b"))
    other = msgspec.structs.replace(results, machine=msgspec.structs.replace(results.machine, chip="Apple M1"))
    assert comparison.compare(results, other).differences[0].startswith("the machine (Apple M9")


def test_the_live_table_draws_over_itself(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    screen = io.StringIO()
    live = LiveTable(screen, results.method.settings)
    bench = Bench(plan(passes=1))
    measured = bench.run()
    for done in (1, 2):
        live.draw(BenchProgress("chat-1: draft 4", 0, done, 3, 10.0, 20.0), measured)
    live.clear()
    drawn = screen.getvalue()
    assert "pass 1, block 2 of 3, at most 20 s left" in drawn
    assert drawn.count("\x1b[J") == 3
    assert "\x1b[14A" in drawn
    quiet = LiveTable(None, results.method.settings)
    quiet.draw(BenchProgress("", 0, 0, 3, 0.0, 1.0), measured)
    assert table.bar(0.5, 4) == "██  "


@pytest.mark.slow
def test_quick_on_the_pocket_pair(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "bench", "--quick", "--settings", "4", "--kinds", "json", "--json"]
    command += ["--max-tokens", "8", "--minutes", "0.5"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PROGRAM_PATIENCE_S, check=False)
    assert run.returncode == 0, run.stderr.decode()
    found: dict[str, Any] = json.loads(run.stdout)
    assert found["pair"]["is_pocket"]
    assert {reply["setting"] for reply in found["replies"]} == {"off", "4"}
    assert all(reply["is_same"] is not False for reply in found["replies"])
    assert found["ended"] == "passes"
    assert found["rows"][0]["ms_per_token"]["median"] > 0
