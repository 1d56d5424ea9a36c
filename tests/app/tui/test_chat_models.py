"""Stories of switching and pulling models without leaving the chat."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.tui.screens import models as models_screen
from mlx_engine.protocol.events import Failed, Loading, Message
from models.pull import PullEvent, PullFailed, PullFinished, PullJob, PullProgress, RepoPulled
from tests.app.tui.pilot import Story, chat


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SLIPSTREAM_HOME", str(tmp_path / "home"))


class FakePull:
    """Reports only the events that a test passes to `tell`."""

    jobs: list[PullJob]
    running: FakePull

    def __init__(self, job: PullJob, on_event: Callable[[PullEvent], None]) -> None:
        self.tell, self.is_cancelled = on_event, False
        FakePull.jobs.append(job)
        FakePull.running = self

    def start(self) -> None:
        pass

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.fixture
def pull(monkeypatch: pytest.MonkeyPatch) -> type[FakePull]:
    FakePull.jobs = []
    monkeypatch.setattr(models_screen, "Pull", FakePull)
    monkeypatch.setattr(models_screen, "partial", lambda call, hear, name: lambda event: hear(name, event))
    return FakePull


async def open_list(story: Story) -> None:
    await story.pilot.press("f2")
    await story.until_seen("enter: switch to it, or pull")


async def choose(story: Story, name: str) -> None:
    screen = story.app.screen
    names = [row["name"] for row in screen._rows]  # type: ignore[attr-defined]
    screen.query_one("#models-list").highlighted = names.index(name)  # type: ignore[attr-defined]
    await story.pilot.pause()
    await story.pilot.press("enter")


async def test_the_list_shows_the_memory_of_each_model_and_which_are_here() -> None:
    async with chat(size=(100, 50)) as story:
        await open_list(story)
        await story.until_seen("e2b-4bit", "12b-8bit", "31b-bf16", "fits", "does not fit", "here", "E4B 4-bit QAT")
        await story.until_seen("of 38.0 GB")


async def test_the_chat_continues_with_another_model() -> None:
    async with chat() as story:
        await story.exchange("Hello", "Hi there.")
        await open_list(story)
        await choose(story, "pocket")
        await story.until(lambda: story.engine.loads)
        assert story.engine.loads[-1].target == "/models/pocket"
        story.engine.emit(Loading("reading pocket"), story.engine.ready())
        await story.until(lambda: story.state == "ready")
        await story.until_seen("pocket · fake-assistant", "Hi there.")
        await story.send("And?")
        assert story.engine.requests[-1].messages[:2] == (
            Message("user", "Hello"),
            Message("assistant", "Hi there."),
        )


async def test_a_model_that_fails_to_load_is_replaced_by_the_previous_one() -> None:
    async with chat() as story:
        await open_list(story)
        await choose(story, "pocket")
        await story.until(lambda: story.engine.loads)
        story.engine.emit(Failed(None, "It is damaged."))
        await story.until_told("Going back to gemma-4-e2b")
        await story.until(lambda: len(story.engine.loads) == 2)
        assert story.engine.loads[-1].target == "/models/e2b"
        story.engine.emit(story.engine.ready())
        await story.until(lambda: story.state == "ready")
        await story.until_seen("gemma-4-e2b", "It is damaged.")


async def test_a_refused_drafter_is_reported_once_and_the_chat_continues() -> None:
    why = "The drafter /models/x was made for a target with a hidden size of 96; /models/pocket has 64."
    async with chat(size=(120, 36)) as story:
        await open_list(story)
        await choose(story, "pocket")
        await story.until(lambda: story.engine.loads)
        story.engine.refusal = why
        story.engine.emit(story.engine.ready())
        await story.until_told(f"Replies are made without a drafter. {why}")
        await story.until_seen("pocket · no drafter", "drafter refused · ctrl+t: why")
        assert len(story.engine.loads) == 1, "it does not go back"

        # The engine restarts with the same refusal: it is not reported again.
        story.app.clear_notifications()
        story.engine.die()
        story.engine.emit(story.engine.ready())
        await story.exchange("Hello", "Hi there.")
        assert not any("drafter" in each.message for each in story.app._notifications)
        assert story.engine.requests[-1].messages[-1] == Message("user", "Hello")

        await story.pilot.press("ctrl+t")
        await story.until_told(f"Drafting is off, so there is nothing to switch on. {why}")
        await story.pilot.press("f3")
        await story.until_seen("draft OFF")


async def test_loading_shows_progress_and_can_be_stopped() -> None:
    async with chat() as story:
        await open_list(story)
        await choose(story, "pocket")
        await story.until(lambda: story.engine.loads)
        story.engine.emit(Loading("reading pocket", 6_400_000_000, 15_200_000_000))
        await story.until_seen("loading 6.4 GB of 15.2 GB")
        await story.pilot.press("escape")
        await story.until_told("Stopped loading pocket.")
        await story.until_told("Going back to gemma-4-e2b")
        await story.until(lambda: len(story.engine.loads) == 2)
        assert story.engine.loads[-1].target == "/models/e2b"
        story.engine.emit(story.engine.ready())
        await story.until(lambda: story.state == "ready")
        await story.exchange("Hello", "Hi there.")


async def test_after_the_first_load_is_stopped_the_next_message_restarts_it() -> None:
    async with chat(is_loaded=False) as story:
        story.engine.emit(Loading("reading e2b", 0, 15_200_000_000))
        await story.until_seen("loading 0 MB of 15.2 GB", "Stop")
        await story.pilot.press("escape")
        await story.until(lambda: story.engine.is_closed)
        story.engine.emit(Loading("reading e2b", 1, 15_200_000_000))
        await story.until_told("Your next message loads it again")
        await story.pilot.pause()
        assert story.state == "not loaded"
        await story.send("Hello")
        story.engine.emit(Loading("reading e2b", 5_000_000_000, 15_200_000_000))
        await story.until_seen("loading 5.0 GB of 15.2 GB")
        # The first escape takes the message back; a second one would stop the loading.
        await story.pilot.press("escape")
        await story.until(lambda: not story.dialogue.phase.is_busy)
        story.engine.emit(story.engine.ready())
        await story.until(lambda: story.state == "ready")
        await story.exchange("Hello again", "Hi there.")


async def test_when_the_engine_dies_while_loading_the_previous_pair_is_loaded() -> None:
    async with chat() as story:
        await open_list(story)
        await choose(story, "pocket")
        await story.until(lambda: story.engine.loads)
        story.engine.die()
        await story.until_told("Going back to gemma-4-e2b")
        await story.until(lambda: len(story.engine.loads) == 2)
        assert story.engine.loads[-1].target == "/models/e2b"
        # When that load dies too, it is not tried again.
        story.engine.die()
        await story.until(lambda: story.state == "engine ended")
        assert len(story.engine.loads) == 2


async def test_no_switch_in_the_middle_of_a_reply() -> None:
    async with chat() as story:
        await story.send("Hello")
        await story.pilot.press("f2")
        await story.until_told("A reply is running")


async def begin_pull(story: Story, pull: type[FakePull]) -> None:
    await open_list(story)
    await choose(story, "e2b-4bit")
    await story.pilot.press("enter")
    await story.until(lambda: pull.jobs)


async def test_a_model_that_is_not_here_is_pulled_after_a_confirmation(pull: type[FakePull]) -> None:
    async with chat() as story:
        await open_list(story)
        await choose(story, "e2b-4bit")
        await story.until_seen("Press enter again to pull it")
        assert not pull.jobs
        await story.pilot.press("enter")
        await story.until(lambda: pull.jobs)
        assert [wanted.repo for wanted in pull.jobs[0].repos][1:] == ["google/gemma-4-E2B-it-assistant"]
        pull.running.tell(PullProgress("r", "model.safetensors", 5, 10, 50, 100, 1e6, 30.0, is_checking=False))
        await story.until_seen("50%", "1 MB/s", "30 s", "esc: stop and keep")
        pull.running.tell(RepoPulled("r", "c", "/f"))
        pull.running.tell(PullFinished())
        await story.until(lambda: story.engine.loads)
        assert story.engine.loads[-1].target == "/models/e2b-4bit"


async def test_a_pull_is_stopped_and_the_list_stays(pull: type[FakePull]) -> None:
    async with chat() as story:
        await begin_pull(story, pull)
        await story.pilot.press("escape")
        await story.until_seen("Press enter to resume; the files pulled so far are kept.")
        await story.until(lambda: pull.running.is_cancelled)
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)


async def test_a_pull_ends_with_the_chat(pull: type[FakePull]) -> None:
    async with chat() as story:
        await begin_pull(story, pull)
        await story.pilot.press("ctrl+q")
    assert pull.running.is_cancelled


async def test_a_pull_that_fails_says_why(pull: type[FakePull]) -> None:
    async with chat() as story:
        await begin_pull(story, pull)
        pull.running.tell(PullFailed("network", "The hub cannot be reached. Check the connection."))
        await story.until_seen("The hub cannot be reached.")


async def test_a_pull_whose_process_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(*arguments: object, **options: object) -> None:
        raise OSError("Resource temporarily unavailable")

    async with chat() as story:
        await open_list(story)
        monkeypatch.setattr(subprocess, "Popen", no_process)
        await choose(story, "e2b-4bit")
        await story.pilot.press("enter")
        await story.until_seen("process could not be started: Resource")
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)


async def test_an_unreadable_cache_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / ("long" * 100)))
    async with chat() as story:
        await story.pilot.press("f2")
        await story.until_seen("cannot be read: File name too long")
        await story.pilot.press("escape")
        await story.exchange("Hello", "Hi there.")


async def test_an_unknown_size_is_written_out() -> None:
    async with chat() as story:
        await open_list(story)
        await choose(story, "e2b-qat")
        await story.until_seen("memory unknown until it is pulled", "Press enter again to pull it")
        assert "— GB" not in story.screen().splitlines()[-8:]


@pytest.mark.parametrize("size", [(80, 24), (44, 12), (100, 30)])
async def test_the_highlighted_model_is_in_view(size: tuple[int, int]) -> None:
    async with chat(size=size) as story:
        story.dialogue.pair.choice = replace(story.dialogue.pair.choice, title="pocket")
        await open_list(story)
        await story.until_seen("● pocket")
        await story.pilot.press("home", "end")
        await story.until_seen("● pocket")


async def test_a_broken_catalog_of_the_person_is_named(tmp_path: Path) -> None:
    own = tmp_path / "home" / "config" / "catalog.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("models: [")
    async with chat() as story:
        await story.pilot.press("f2")
        await story.until_told("catalog.yaml")
