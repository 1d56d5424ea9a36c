"""`/report` in the chat line by line."""

from __future__ import annotations

import signal
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path

import pytest

from app.core.chat_options import ChatOptions
from app.plain.chat import PlainChat
from app.plain.lines import Lines
from app.report.contents import read_report
from app.settings.table import Settings
from app.store.chat_store import ChatStore
from mlx_engine.protocol.events import Died, Event, Failed, Measured
from tests.app.report.public_reports import PUBLISHED
from tests.app.tui.pilot import PAIR
from tests.fakes.engine import FakeEngine

FIGURES = PUBLISHED[-1].report().figures
OPTIONS = ChatOptions(
    Settings(draft=4), examine=lambda: ({"name": "Apple M9"}, [{"what": "disk", "value": "full"}])
)


class MeasuringEngine(FakeEngine):
    """Answers each request for measurements."""

    def __init__(self, answer: Callable[[int], Event | None]) -> None:
        super().__init__()
        self._answer = answer

    def measure(self, id: int) -> None:
        super().measure(id)
        if (event := self._answer(id)) is not None:
            self.emit(event)


def measured(id: int) -> Event:
    assert FIGURES
    return Measured(id, FIGURES)


def talk(tmp_path: Path, engine: FakeEngine, *typed: str, is_prompting: bool = True) -> str:
    out, store = StringIO(), ChatStore.open(tmp_path / "chats.db")
    engine.start()
    lines = Lines(BytesIO("".join(f"{line}\n" for line in typed).encode()), out, is_prompting=is_prompting)
    PlainChat(engine, PAIR, OPTIONS, store, lines).run()
    store.close()
    return out.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize(("answer", "is_written"), [("yes", True), ("Y", True), ("no", False), ("", False)])
def test_it_is_said_and_then_written_if_the_person_says_so(
    tmp_path: Path, here: Path, answer: str, *, is_written: bool
) -> None:
    said = talk(tmp_path, MeasuringEngine(measured), "/report mine.json", answer, "/quit")
    assert "Measuring this machine, which takes half a minute. Control c stops that." in said
    assert said.index('"figures"') < said.index("type yes: ")
    assert ("Nothing was written." in said) is not is_written
    assert [path.name for path in here.iterdir()] == ["mine.json"] * is_written
    if is_written:
        report = read_report((here / "mine.json").read_text())
        assert (report.device, report.checks[0]["value"]) == ({"name": "Apple M9"}, "full")
        assert report.figures is not None
    assert said.endswith("Goodbye.\n")


def test_where_nobody_can_be_asked_it_is_written(tmp_path: Path, here: Path) -> None:
    talk(tmp_path, MeasuringEngine(measured), "/report", is_prompting=False)
    assert read_report((here / "slipstream-report.json").read_text()).figures


@pytest.mark.parametrize("is_dead", [False, True])
def test_a_failure_is_in_the_report(tmp_path: Path, here: Path, *, is_dead: bool) -> None:
    def failed(id: int) -> Event:
        return Died("Out of memory.") if is_dead else Failed(id, "Out of memory.")

    said = talk(tmp_path, MeasuringEngine(failed), "/report", "yes", "/quit")
    assert "Out of memory." in said
    report = read_report((here / "slipstream-report.json").read_text())
    assert (report.figures, report.notes) == (None, ("Out of memory.",))


def test_a_file_that_exists_stays_and_a_path_that_cannot_be_one_is_refused(tmp_path: Path, here: Path) -> None:
    (here / "mine.json").write_text("mine")
    typed = ("/report mine.json", "yes", "/report ~nobody-of-that-name/x", "/quit")
    said = " ".join(talk(tmp_path, MeasuringEngine(measured), *typed).split())
    assert "already exists. Use /report with another name." in said
    assert "home folder" in said
    assert said.endswith("Goodbye.")
    assert (here / "mine.json").read_text() == "mine"


def test_control_c_stops_the_measurements_and_the_chat_goes_on(tmp_path: Path, here: Path) -> None:
    def interrupt(id: int) -> None:
        signal.raise_signal(signal.SIGINT)

    engine = MeasuringEngine(interrupt)
    said = talk(tmp_path, engine, "/report", "/quit")
    assert "The measurements were stopped." in said
    assert said.endswith("Goodbye.\n")
    assert engine.cancels == 1
    assert [*here.iterdir()] == []
