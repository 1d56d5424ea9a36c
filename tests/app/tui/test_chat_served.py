"""Stories of a chat whose replies a server makes: its name, its gauges, its models."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from textual.widgets import OptionList

from app.remote.address import parse_address
from app.tui.bars.gauge_panel import caption
from app.tui.bars.gauge_strip import strip_line
from app.tui.screens.served_models import ServedModelsScreen
from mlx_engine.protocol.events import Finished, Load, Part, Ready, ServerFacts, ServerFigures
from tests.app.tui import pilot
from tests.app.tui.pilot import Story, chat
from tests.fakes.engine import FakeEngine

SERVER = ServerFacts("llama.cpp", ("small", "large", "other"), "A request to llama.cpp cannot switch drafting.")
FIGURES = ServerFigures("llama.cpp", prompt_tokens=30, generated_tokens=6, drafted=4, accepted=3, rounds=2,
                        tokens_per_round=2.5)  # fmt: skip


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in place of the engine of this machine."""
    ready_here = FakeEngine.ready

    def ready(engine: FakeEngine) -> Ready:
        return msgspec.structs.replace(
            ready_here(engine),
            target=engine.loads[-1].target if engine.loads else "small",
            drafters={},
            context_tokens=100,
            memory_bytes=None,
            server=SERVER,
        )

    monkeypatch.setattr(FakeEngine, "ready", ready)
    monkeypatch.setattr(
        pilot, "PAIR", replace(pilot.PAIR, load=Load(""), title="studio:8080", server=parse_address("studio:8080"))
    )
    monkeypatch.setattr(
        pilot,
        "choose",
        lambda name, is_oversized=False: replace(pilot.PAIR, load=Load(name), title="studio:8080"),
    )


async def answer(story: Story) -> None:
    await story.send("Count")
    id = story.engine.running
    story.engine.emit(
        Part(id, "One", "", 0.5),
        Part(id, " two", "", 1.5),
        Finished(id, "stop", "", "", None, None, None, reported=FIGURES),
    )
    await story.until(lambda: story.state == "ready")


async def test_figures_are_the_servers_and_the_rest_is_blank() -> None:
    async with chat(size=(160, 40)) as story:
        assert story.view.top_line.model == "small at studio:8080"
        assert story.view.top_line.drafter == "llama.cpp"
        assert str(caption(story.gauges.reading(), "ctrl+t")) == "not measured yet"
        await answer(story)
        assert str(caption(story.gauges.reading(), "ctrl+t")) == "this server does not report it"
        last = story.conversation.last
        assert last is not None
        assert last.text == "One two"
        line = str(strip_line(story.gauges.reading(), 160))
        assert line.startswith("draft —")
        for figure in (
            "acc  75%",
            "2.5 tok/rd",
            " 5.0 tok/s",
            "TTFT 0.50 s",
            "ctx 36%",
            "without    — tok/s",
            "— GB",
        ):
            assert figure in line


async def test_f2_lists_the_servers_models_and_switches_between_them() -> None:
    async with chat() as story:
        await story.pilot.press("f2")
        await story.until(lambda: isinstance(story.app.screen, ServedModelsScreen))
        rows = story.app.screen.query_one(OptionList)
        assert [str(option.prompt) for option in rows.options] == ["● small", "  large", "  other"]
        await story.pilot.press(*"lar", "enter")
        await story.until(lambda: story.engine.loads)
        assert [load.target for load in story.engine.loads] == ["large"]
        story.engine.start()
        await story.until(lambda: story.view.top_line.model == "large at studio:8080")


async def test_what_a_server_cannot_do_is_said() -> None:
    async with chat() as story:
        await answer(story)
        await story.run("ab")
        await story.until_told("There is nothing to compare")
        await story.run("report")
        await story.until_told("The report measures this machine")
