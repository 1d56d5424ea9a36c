"""Stories of switching and pulling models without leaving the chat."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import OptionList

from app.core import downloads
from app.core.models_list import own_and_bundled
from app.tui.screens.models import MODEL, ModelsScreen, fitting_columns
from mlx_engine.protocol.events import Failed, Loading, Message
from models.hub_cache import cache_folder, repo_folder
from models.memory_fit import Machine
from models.pull import PullEvent, PullFailed, PullFinished, PullJob, PullProgress, RepoPulled, Waiting
from tests.app.tui.pilot import Story, chat

pytestmark = pytest.mark.sampled(2)


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
    monkeypatch.setattr(downloads, "Pull", FakePull)
    return FakePull


async def open_list(story: Story) -> None:
    await story.pilot.press("f2")
    await story.until(lambda: isinstance(story.app.screen, ModelsScreen) and story.app.screen._rows)


async def choose(story: Story, name: str) -> None:
    screen = story.app.screen
    names = [row["name"] for row in screen._shown]  # type: ignore[attr-defined]
    screen.query_one("#models-list").highlighted = names.index(name)  # type: ignore[attr-defined]
    await story.pilot.pause()
    await story.pilot.press("enter")


async def test_the_list_shows_the_memory_of_each_model_and_which_are_here() -> None:
    async with chat(size=(100, 50)) as story:
        await open_list(story)
        await story.until_seen("Model", "Download", "Memory", "Fits", "Here")
        await story.until_seen("e2b-4bit", "12b-8bit", "31b-bf16", "yes", "no", "E4B 4-bit QAT")
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
        await story.until_seen("50%", "1 MB/s", "30 s", "esc: close, the pull goes on")
        pull.running.tell(RepoPulled("r", "c", "/f"))
        pull.running.tell(PullFinished())
        await story.until(lambda: story.engine.loads)
        assert story.engine.loads[-1].target == "/models/e2b-4bit"


async def test_a_pull_is_stopped_and_the_list_stays(pull: type[FakePull]) -> None:
    async with chat() as story:
        await begin_pull(story, pull)
        await story.pilot.press("ctrl+x")
        await story.until_seen("Stopped. Enter on e2b-4bit resumes; what has arrived is kept.")
        await story.until(lambda: pull.running.is_cancelled)
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        assert "pulling" not in story.screen()


async def test_a_pull_goes_on_while_one_chats(pull: type[FakePull]) -> None:
    async with chat() as story:
        await begin_pull(story, pull)
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        pull.running.tell(PullProgress("r", "model.safetensors", 5, 10, 40, 100, 1e6, 30.0, is_checking=False))
        await story.until_seen("pulling e2b-4bit 40%")
        await story.exchange("Hello", "Hi there.")
        pull.running.tell(Waiting("r", "model.safetensors", "the connection was lost", 4.0))
        await story.until_seen("retrying e2b-4bit")
        await open_list(story)
        await story.until_seen("Nothing arrives: the connection was lost. Trying again in 4 s.")
        await story.pilot.press("escape")
        pull.running.tell(PullProgress("r", "model.safetensors", 6, 10, 60, 100, 1e6, 30.0, is_checking=False))
        await story.until_seen("pulling e2b-4bit 60%")
        pull.running.tell(PullFinished())
        await story.until_told("e2b-4bit is here. Press f2 to switch to it.")
        assert "pulling" not in story.screen()
        assert not story.engine.loads, "nobody asked for the switch any more"


async def test_a_pull_that_fails_in_the_background_says_why(pull: type[FakePull]) -> None:
    async with chat() as story:
        await begin_pull(story, pull)
        await story.pilot.press("escape")
        pull.running.tell(PullFailed("network", "The hub cannot be reached."))
        await story.until_told("e2b-4bit was not pulled. The hub cannot be reached.")


async def test_one_pull_at_a_time(pull: type[FakePull]) -> None:
    async with chat() as story:
        await begin_pull(story, pull)
        await choose(story, "e4b-4bit")
        await story.until_seen("e2b-4bit is being pulled; one pull runs at a time.")
        assert len(pull.jobs) == 1


async def test_typing_filters_the_models() -> None:
    async with chat() as story:
        await open_list(story)
        await story.pilot.press(*"e4b 8")
        await story.until(lambda: shown_names(story) == ["e4b-8bit"])
        await story.pilot.press("enter")
        await story.until_seen("Press enter again to pull it")
        await story.pilot.press(*"zzz")
        await story.until_seen("No model matches.")
        await story.pilot.press("enter", "ctrl+d", "escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)


def shown_names(story: Story) -> list[str]:
    screen = story.app.screen
    assert isinstance(screen, ModelsScreen)
    return [row["name"] for row in screen._shown]


async def test_one_model_is_recommended_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    mac = Machine("Apple M2 Max", 64 << 30, 48 << 30, is_measured=True, free_bytes=60 << 30)
    monkeypatch.setattr("app.tui.actions.read_machine", lambda working_set_bytes: mac)
    async with chat(size=(100, 50)) as story:
        await open_list(story)
        await story.until_seen("★ 31b-4bit")
        story.app.screen.query_one("#models-list").highlighted = shown_names(story).index("31b-4bit")  # type: ignore[attr-defined]
        await story.until_seen("★ recommended: Gemma 4 31B, 4-bit is the largest variant that runs well")


async def test_a_model_is_deleted_after_a_confirmation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat() as story:
        entry = own_and_bundled().entries["e2b-4bit"]
        assert entry.target.repo
        folder = repo_folder(cache_folder(), entry.target.repo)
        (folder / "blobs").mkdir(parents=True)
        (folder / "blobs" / "a").write_bytes(b"x" * 1000)
        await open_list(story)
        await story.pilot.press(*"e2b-4bit")
        await story.until(lambda: shown_names(story) == ["e2b-4bit"])
        await story.pilot.press("ctrl+d")
        await story.until_seen("Delete e2b-4bit from this machine", "Press ctrl+d again.")
        assert folder.exists()
        await story.pilot.press("ctrl+d")
        await story.until_seen("Deleted e2b-4bit;")
        assert not folder.exists()
        await story.pilot.press("ctrl+d")
        await story.until_seen("there is nothing to remove")


async def test_the_model_in_use_is_not_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat() as story:
        story.dialogue.pair.choice = replace(story.dialogue.pair.choice, title="e2b-4bit")
        repo = own_and_bundled().entries["e2b-4bit"].target.repo
        assert repo
        repo_folder(cache_folder(), repo).mkdir(parents=True)
        await open_list(story)
        await story.pilot.press("ctrl+d", "ctrl+d")
        await story.until_seen("e2b-4bit is in use. Switch to another model first.")
        assert repo_folder(cache_folder(), repo).exists()


@pytest.mark.parametrize("size", [(44, 12), (44, 30), (62, 20), (80, 24), (120, 36)])
async def test_each_model_is_one_line_with_its_whole_name(size: tuple[int, int]) -> None:
    async with chat(size=size) as story:
        await open_list(story)
        await story.pilot.pause()
        models = story.app.screen.query_one("#models-list", OptionList)
        names = shown_names(story)
        assert models.virtual_size.height == len(names)
        lines = [str(option.prompt) for option in models.options]
        assert all(name in line for name, line in zip(names, lines, strict=True))
        assert max(map(len, lines)) <= models.scrollable_content_region.width


@pytest.mark.parametrize("width", range(1, 90))
def test_columns_never_need_more_than_there_is(width: int) -> None:
    columns = fitting_columns(width)
    assert columns[0] is MODEL
    assert width < 14 or 2 + sum(column.width + 1 for column in columns) - 1 <= width


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
        assert "— GB" not in story.screen()


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
