"""`slipstream doctor --report FILE`: what it contains, shows and writes, and that it names nobody."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.core.pair_choice import PairChoice
from app.report.contents import Report, TerminalFacts, as_text, read_report
from app.report.making import advice
from app.shell import doctor, report
from app.system.exit_codes import FAILED, OK
from mlx_engine.protocol.events import Load
from mlx_engine.protocol.micro_figures import MicroFigures
from tests.app.report.public_reports import PUBLISHED
from tests.fakes.clockwork import ClockworkEngine, FakeClock

PERSON, HOST = "zaphod", "heart-of-gold"
PAIR = PairChoice(Load("/models/e4b"), "e4b", "", is_pocket=False)
DEVICE = {"device": "Device(gpu, 0)", "name": "Apple M9", "versions": {"mlx": "0.32.4"}}


@pytest.fixture
def engine() -> ClockworkEngine:
    made = ClockworkEngine(FakeClock())
    made.figures = PUBLISHED[-1].report().figures
    return made


@pytest.fixture
def command(engine: ClockworkEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The command runs with this engine; returns a path for the report."""
    monkeypatch.setattr(report, "EngineClient", lambda load, log: engine)
    monkeypatch.setattr(doctor, "ask_device", lambda: DEVICE)
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path / "own"))
    return tmp_path / "report.json"


def made(engine: ClockworkEngine, **parts: Any) -> Report:
    given = {"checks": (), "terminal": TerminalFacts(), **parts}
    return report.measured_report(PAIR, engine, DEVICE, given["checks"], given["terminal"], given.get("notes", ()))


def test_it_is_shown_and_then_written(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--report", str(command)]) == OK
    shown = capsys.readouterr()
    assert shown.out == command.read_text()
    assert "Written to" in shown.err
    read = read_report(command.read_text())
    assert read.figures is not None
    assert read.figures.verify_s
    assert read.pair is not None
    assert read.device == DEVICE
    assert any(check["what"] == "TERM" for check in read.checks)
    assert read.chosen is not None
    assert (read.chosen.start_length, read.chosen.drafter_bits) == (3, 8)
    assert json.loads(shown.out)["row_steps"]["verify"]


def test_a_dash_only_shows_it(command: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--report", "-"]) == OK
    assert read_report(capsys.readouterr().out).figures is not None
    assert not Path("-").exists()


def test_a_file_that_exists_is_refused_before_anything_is_measured(
    command: Path, engine: ClockworkEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    command.write_text("mine")
    assert main(["doctor", "--report", str(command)]) == FAILED
    assert "--force" in capsys.readouterr().err
    assert (command.read_text(), engine.measures) == ("mine", [])
    assert main(["doctor", "--report", str(command), "--force"]) == OK
    assert read_report(command.read_text()).figures is not None


def test_a_person_at_the_terminal_is_asked_after_they_have_seen_it(
    engine: ClockworkEngine,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, seen = tmp_path / "report.json", []

    def refuse(question: str) -> bool:
        seen.append(capsys.readouterr().out)
        return False

    monkeypatch.setattr(report, "is_terminal", lambda stream: True)
    monkeypatch.setattr(report, "ask", refuse)
    report.publish(made(engine), str(path), may_replace=False)
    assert '"figures"' in seen[0]
    assert not path.exists()
    monkeypatch.setattr(report, "ask", lambda question: True)
    report.publish(made(engine), str(path), may_replace=False)
    assert path.exists()


def test_it_names_neither_person_nor_home_nor_machine(
    engine: ClockworkEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", f"/home/{PERSON}")
    monkeypatch.setenv("LOGNAME", PERSON)
    monkeypatch.setattr(socket, "gethostname", lambda: f"{HOST}.local")
    engine.refusal = f"/mnt/{PERSON}/x is no drafter of {PERSON}'s."
    text = as_text(
        made(
            engine,
            checks=[{"what": "hub cache", "value": f"/home/{PERSON}/hub on {HOST}.local"}],
            terminal=TerminalFacts(variables={"TERM_PROGRAM": f"x@{HOST.upper()}"}, answers={"name": PERSON}),
            notes=[f"{PERSON}@{HOST} has no model at /home/{PERSON}."],
        )
    )
    assert PERSON not in text.lower()
    assert HOST not in text.lower()
    assert "~/hub on HOST" in text
    assert "Apple M9" in text


def test_a_person_with_the_name_of_a_maker_changes_no_chip(
    engine: ClockworkEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "apple")
    assert made(engine).device["name"] == "Apple M9"


def test_what_fails_is_told_in_the_report(
    engine: ClockworkEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.figures = None
    failed = made(engine)
    assert failed.figures is None
    assert failed.pair is not None
    assert failed.notes == ("no room",)
    assert engine.is_closed
    assert report.publish(failed, str(tmp_path / "report.json"), may_replace=False) == FAILED
    assert "no room" in capsys.readouterr().err
    assert (tmp_path / "report.json").exists(), "a report of a failure helps most"


def test_a_model_that_is_not_there_is_told_in_the_report(
    command: Path, engine: ClockworkEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--report", str(command), "--model", "/no/such/folder"]) == FAILED
    read = read_report(command.read_text())
    assert read.pair is None
    assert "/no/such/folder" in read.notes[0]
    assert engine.measures == []


def test_every_thing_has_a_line_and_comes_back(engine: ClockworkEngine) -> None:
    report = made(engine)
    text = as_text(report)
    assert as_text(read_report(text)) == text
    assert max(map(len, text.splitlines())) < 400
    assert text.isascii()


def test_bits_that_the_engine_chose_by_itself_are_in_the_report(engine: ClockworkEngine) -> None:
    """Else what 8 bits gain would be counted twice, and recommended where it applies already."""
    engine.drafter_bits = 8
    report = made(engine)
    assert report.pair is not None
    assert report.pair.drafter_bits == 8
    assert "--drafter-bits" not in advice(report)


def test_the_advice_names_only_what_differs() -> None:
    report = PUBLISHED[-1].report()
    assert advice(report) == ""
    from app.report.making import make_report

    both = make_report(checks=(), device=None, pair=report.pair, figures=report.figures, terminal=TerminalFacts())
    assert "--draft-start 3 --drafter-bits 8." in advice(both)
    assert "--prefill-chunk" not in advice(both)
    nothing = make_report(
        checks=(), device=None, pair=report.pair, figures=MicroFigures(), terminal=TerminalFacts()
    )
    assert "defaults are right" not in advice(nothing)
