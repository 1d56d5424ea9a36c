"""`/report`: a report about this machine, shown before it is written."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.core.chat_options import ChatOptions
from app.report.contents import read_report
from app.settings.table import Settings
from app.tui.screens.report import ReportScreen
from mlx_engine.protocol.events import Died, Failed, Measured
from tests.app.report.public_reports import PUBLISHED
from tests.app.tui.pilot import Story, chat
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.sampled(2)

FIGURES = PUBLISHED[-1].report().figures
OPTIONS = ChatOptions(
    Settings(draft=4), examine=lambda: ({"name": "Apple M9"}, [{"what": "disk", "value": "full"}])
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def asked(story: Story, text: str = "/report") -> int:
    """Ask for a report; the number of the measurements that are asked for."""
    before = len(story.engine.measures)
    await story.type(text)
    await story.pilot.press("enter")
    await story.until(lambda: len(story.engine.measures) > before)
    await story.until_seen("which takes half a minute")
    return story.engine.measures[-1]


def is_closed(story: Story) -> bool:
    return not isinstance(story.app.screen, ReportScreen)


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 36)])
async def test_a_report_is_shown_and_then_written(here: Path, size: tuple[int, int]) -> None:
    async with chat(OPTIONS, size=size) as story:
        number = await asked(story)
        assert FIGURES
        story.engine.emit(Measured(number, FIGURES))
        await story.until_seen("enter writes it to")
        assert [*here.iterdir()] == [], "nothing is written before it was shown"
        await story.pilot.press("enter")
        await story.until(lambda: is_closed(story))
        report = read_report((here / "slipstream-report.json").read_text())
        assert report.figures
        assert report.figures.verify_s.keys() == FIGURES.verify_s.keys()
        assert report.device == {"name": "Apple M9"}
        assert report.checks[0]["value"] == "full"
        assert report.terminal.size == f"{size[0]} x {size[1]}"
        await story.exchange("Hello", "Fine.")


async def test_a_file_that_exists_stays(here: Path) -> None:
    (here / "mine.json").write_text("mine")
    async with chat(OPTIONS) as story:
        number = await asked(story, "/report mine.json ")
        assert FIGURES
        story.engine.emit(Measured(number, FIGURES))
        await story.until_seen("enter writes it to")
        await story.pilot.press("enter")
        await story.until_seen("already exists. Use /report with another name.")
        await story.pilot.press("escape")
        await story.until(lambda: is_closed(story))
    assert (here / "mine.json").read_text() == "mine"


async def test_a_path_that_cannot_be_one_is_refused_in_a_sentence() -> None:
    async with chat(OPTIONS) as story:
        await story.type("/report ~nobody-of-that-name/x ")
        await story.pilot.press("enter")
        await story.until_told("home folder")
        assert story.engine.measures == []


async def test_leaving_stops_the_measurements_and_their_end_is_not_taken_for_that_of_others(here: Path) -> None:
    async with chat(OPTIONS) as story:
        number = await asked(story)
        await story.pilot.press("escape")
        await story.until(lambda: is_closed(story))
        assert story.engine.cancels == 1
        await asked(story)
        story.engine.emit(Failed(number, "The measurements were stopped."))
        await story.pilot.pause()
        await story.pilot.press("enter")
        assert not is_closed(story)
        assert story.shows("which takes half a minute")


@pytest.mark.parametrize("is_dead", [False, True])
async def test_a_failure_is_in_the_report(here: Path, is_dead: bool) -> None:
    async with chat(OPTIONS) as story:
        number = await asked(story)
        story.engine.emit(Died("Out of memory.") if is_dead else Failed(number, "Out of memory."))
        await story.until_seen("enter writes it to")
        await story.pilot.press("enter")
        await story.until(lambda: is_closed(story))
        report = read_report((here / "slipstream-report.json").read_text())
        assert (report.figures, report.notes) == (None, ("Out of memory.",))


async def test_it_waits_for_a_reply_and_for_the_model() -> None:
    async with chat(OPTIONS) as story:
        await story.send("Hello")
        await story.run("report")
        await story.until_told("A reply is running")
        assert story.engine.measures == []
    async with chat(OPTIONS, is_loaded=False) as story:
        await story.run("report")
        await story.until_told("not loaded yet")
        assert story.engine.measures == []


async def test_the_screen_stays_alive_while_the_machine_is_checked(here: Path) -> None:
    is_checked = threading.Event()

    def examine() -> tuple[None, tuple[()]]:
        assert is_checked.wait(PATIENCE_S)
        return None, ()

    options = ChatOptions(Settings(draft=4), examine=examine)
    async with chat(options) as story:
        number = await asked(story)
        assert FIGURES
        story.engine.emit(Measured(number, FIGURES))
        await story.until_seen("Checking this machine.")
        await story.pilot.press("escape")
        await story.until(lambda: is_closed(story))
        is_checked.set()
        await story.exchange("Hello", "Fine.")
