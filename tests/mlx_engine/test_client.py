"""The engine's process, for real: it answers, is stopped, dies, and is started again."""

from __future__ import annotations

import os
import queue
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from mlx_engine import client
from mlx_engine.client import EngineClient
from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Load, Message
from mlx_engine.protocol.pulse import Patience
from tests.cases import cases
from tests.fakes.folders import write_pair
from tests.patience import PATIENCE_S

HELLO = (Message("user", "Hello there, how are you?"),)


class ClientRig:
    """A client and what it has heard."""

    def __init__(self, load: Load, log: Path) -> None:
        self.client = EngineClient(load, log)
        self._heard: queue.SimpleQueue[events.Event] = queue.SimpleQueue()

    def listen(self) -> None:
        self.client.on_event = self._heard.put

    def until_any(self, *kinds: type) -> list[events.Event]:
        """Everything up to the first event of one of the kinds."""
        heard: list[events.Event] = []
        while not heard or not isinstance(heard[-1], kinds):
            heard.append(self._heard.get(timeout=PATIENCE_S))
        self._last = heard[-1]
        return heard

    def until_died(self) -> None:
        """The process is gone, and that was told."""
        if not isinstance(self._last, events.Died):
            self.until(events.Died)

    def until(self, kind: type) -> list[events.Event]:
        """Everything up to the first event of a kind."""
        heard: list[events.Event] = []
        while not heard or not isinstance(heard[-1], kind):
            heard.append(self._heard.get(timeout=PATIENCE_S))
        return heard


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"), context_tokens=100_000)


@pytest.fixture
def rig(pair: tuple[Path, Path], tmp_path: Path) -> Iterator[ClientRig]:
    rig = ClientRig(Load(str(pair[0]), (str(pair[1]),)), tmp_path / "logs" / "engine.log")
    rig.client.start()
    rig.listen()
    yield rig
    rig.client.close()
    assert not rig.client.is_alive


@pytest.mark.slow
def test_where_no_log_can_be_kept_it_answers_all_the_same(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file in the way")
    rig = ClientRig(Load(str(pair[0])), tmp_path / "home" / "engine.log")
    rig.client.start()
    rig.listen()
    heard = rig.until(events.Ready)
    (notice,) = [event for event in heard if isinstance(event, events.Notice)]
    assert "engine.log cannot be written (File exists)" in notice.message
    rig.client.generate(Generate(1, HELLO, max_tokens=5))
    assert ids_of(rig.until(events.Finished))
    assert rig.client.process_id is not None
    os.kill(rig.client.process_id, signal.SIGTERM)
    died = rig.until(events.Died)[-1]
    assert isinstance(died, events.Died)
    assert died.message.endswith("Your next message restarts it.")
    rig.client.close()


def test_what_cannot_be_said_is_not_taken_for_the_end_of_the_engine(rig: ClientRig) -> None:
    with pytest.raises(UnicodeEncodeError):
        rig.client.generate(Generate(1, (Message("user", "\udcff"),)))
    rig.client.generate(Generate(2, HELLO, max_tokens=5))
    assert ids_of(rig.until(events.Finished))


@pytest.mark.slow
def test_a_request_is_checked_beside_a_reply_and_by_an_engine_that_starts_again(rig: ClientRig) -> None:
    rig.client.check(Generate(1, HELLO))  # while the pair is being loaded
    *loading, checked = rig.until(events.Checked)
    assert any(isinstance(event, events.Ready) for event in loading)
    assert isinstance(checked, events.Checked)
    rig.client.generate(Generate(2, HELLO, max_tokens=5000))
    rig.until(events.Round)
    rig.client.check(Generate(3, HELLO))
    rig.client.check(Generate(4, HELLO, max_tokens=0))
    *beside, refused = rig.until(events.Failed)
    assert not any(isinstance(event, events.Finished) for event in beside)
    assert replace(checked, id=3) in beside
    assert refused == events.Failed(4, "A limit of 0 tokens is out of range: use 1 or more.", "refused")
    rig.client.cancel()
    rig.until(events.Finished)
    os.kill(rig.client.process_id or 0, signal.SIGKILL)
    rig.until(events.Died)
    rig.client.check(Generate(5, HELLO))
    assert rig.until(events.Checked)[-1] == replace(checked, id=5)


def ids_of(heard: list[events.Event]) -> list[int]:
    return [id for event in heard if isinstance(event, events.Round) for id in event.token_ids]


@pytest.mark.slow
def test_a_conversation_with_the_process(rig: ClientRig) -> None:
    rig.until(events.Ready)
    rig.client.generate(Generate(1, HELLO, max_tokens=20))
    first = rig.until(events.Finished)
    rig.client.generate(Generate(2, HELLO, max_tokens=20, draft_length=0))
    assert ids_of(first) == ids_of(rig.until(events.Finished))

    # The tokens of a text, whatever it spells.
    rig.client.count(7, "key <turn|> key")
    counted = rig.until(events.Counted)[-1]
    assert isinstance(counted, events.Counted)
    assert counted.id == 7
    assert counted.tokens > 3

    # A request that cannot be served is answered in words, and the process goes on.
    rig.client.generate(Generate(3, (Message("user", " "),)))
    (failed,) = (event for event in rig.until(events.Failed) if isinstance(event, events.Failed))
    assert failed.id == 3

    # Stopped in the middle, with what there was; drafting switched off on the way.
    rig.client.generate(Generate(4, (Message("user", "key " * 3_000),), draft_length=4))
    rig.until(events.Started)
    rig.client.set_draft_length(0)
    rig.client.cancel()
    finished = rig.until(events.Finished)[-1]
    assert isinstance(finished, events.Finished)
    assert finished.reason == "cancelled"

    # Killed: said in words; the next message starts a new one.
    pid = rig.client.process_id
    assert pid
    os.kill(pid, signal.SIGKILL)
    died = rig.until(events.Died)[-1]
    assert isinstance(died, events.Died)
    assert "SIGKILL" in died.message
    rig.client.generate(Generate(5, HELLO, max_tokens=20))
    assert ids_of(rig.until(events.Finished)) == ids_of(first)
    assert rig.client.process_id != pid


@pytest.mark.slow
def test_the_process_is_stopped_and_goes_on(pair: tuple[Path, Path], tmp_path: Path) -> None:
    rig = ClientRig(Load(str(pair[0]), (str(pair[1]),)), tmp_path / "engine.log")
    rig.client = EngineClient(rig.client._load, tmp_path / "engine.log", Patience(0.05, 10_000, 20, 10_000))
    rig.client.start()
    rig.listen()
    rig.until(events.Ready)
    rig.client.generate(Generate(1, HELLO, max_tokens=20))
    whole = ids_of(rig.until(events.Finished))
    assert rig.client.process_id
    os.kill(rig.client.process_id, signal.SIGSTOP)
    rig.client.generate(Generate(2, HELLO, max_tokens=20))
    rig.until(events.Silent)
    os.kill(rig.client.process_id, signal.SIGCONT)
    assert ids_of(rig.until(events.Finished)) == whole
    rig.client.close()


@pytest.mark.slow
def test_events_wait_for_a_listener(pair: tuple[Path, Path], tmp_path: Path) -> None:
    rig = ClientRig(Load(str(pair[0])), tmp_path / "engine.log")
    rig.client.start()
    rig.client.generate(Generate(1, HELLO, max_tokens=5))
    while not any(isinstance(event, events.Finished) for event in list(rig.client._delivery._waiting)):
        assert rig.client.is_alive
        os.sched_yield()
    rig.listen()
    assert len(ids_of(rig.until(events.Finished))) == 5
    rig.client.close()


@pytest.mark.slow
def test_a_folder_that_cannot_be_loaded_is_said_and_the_process_goes_on(tmp_path: Path) -> None:
    rig = ClientRig(Load(str(tmp_path / "nowhere")), tmp_path / "engine.log")
    rig.client.start()
    rig.listen()
    failed = rig.until(events.Failed)[-1]
    assert isinstance(failed, events.Failed)
    assert failed.id is None
    assert "not a folder" in failed.message
    rig.client.generate(Generate(1, HELLO))
    failed = rig.until(events.Failed)[-1]
    assert isinstance(failed, events.Failed)
    assert failed.id == 1
    rig.client.close()
    rig.client.close()
    assert (tmp_path / "engine.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_what_a_library_prints_breaks_neither_pipe_nor_log(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(r"import os; os.write(2, b'\x1b]52;c;eA==\x07 printed\n')")
    rig = ClientRig(Load(str(pair[0])), tmp_path / "engine.log")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONVERBOSE", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        rig.client.start()
    rig.listen()
    rig.until(events.Ready)
    rig.client.close()
    logged = (tmp_path / "engine.log").read_text()
    assert r"\x1b]52;c;eA==\x07 printed" in logged
    assert ascii({letter for letter in logged if not letter.isprintable()} - {"\n", "\t"}) == "set()"


@pytest.mark.parametrize(("death", "advice"), [("SIGKILL", "smaller"), ("SIGABRT", "smaller"), ("SIGSEGV", "log")])
def test_what_memory_may_have_ended_is_said_to_be_so(death: str, advice: str) -> None:
    assert advice in client._advice(-signal.Signals[death], Path("engine.log"))


READY_AND_DEAF = """
import sys, time
from mlx_engine.protocol import events, wire
wire.write(sys.stdout.buffer, events.Ready("t", {}, 4, "float32", 512, 0, None, 0.0))
time.sleep(600)
"""


class Leaving:
    """A child that ends when it is waited for."""

    def __init__(self) -> None:
        self.did: list[str | float] = []

    def kill(self) -> None:
        self.did.append("killed")

    def wait(self, timeout_s: float | None = None) -> int:
        self.did.append(timeout_s or 0)
        return 0


@pytest.mark.parametrize(("is_wired", "did"), [(False, ["killed", 2.0]), (True, [20.0])])
def test_an_engine_with_wired_memory_gets_time_to_leave_by_itself(
    tmp_path: Path, is_wired: bool, did: list[object]
) -> None:
    engine, child = EngineClient(Load("", is_wired=is_wired), tmp_path / "log"), Leaving()
    engine._child = child  # type: ignore[assignment]
    engine.close()  # while it loads
    assert child.did == did


def test_a_child_that_does_not_end_within_the_timeout_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = subprocess.Popen
    monkeypatch.setattr(client, "CLOSE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **pipes: popen([sys.executable, "-c", READY_AND_DEAF], **pipes)
    )
    rig = ClientRig(Load("nowhere"), tmp_path / "engine.log")
    rig.client.start()
    rig.listen()
    rig.until(events.Ready)
    child = rig.client._child
    assert child
    closing = threading.Thread(target=rig.client.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_S / 4)
    try:
        assert child.poll() == -signal.SIGKILL
        assert not closing.is_alive()
    finally:
        child.kill()
        closing.join()


MOMENTS = {"load": events.Loading, "prefill": events.Started, "stream": events.Round, "idle": events.Finished}
DEATHS = [
    (moment, each)
    for each in (signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGTERM)
    for moment in MOMENTS
]
"""SIGSEGV of a bad pointer, SIGABRT of Metal or of C++, SIGKILL of a system without memory."""


@pytest.mark.slow
def test_it_dies_at_any_moment_and_the_next_message_is_answered(pair: tuple[Path, Path], tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    rig = ClientRig(Load(str(pair[0]), (str(pair[1]),)), log)
    rig.client.start()
    rig.listen()
    canary = "a word that nobody else may read"
    request = Generate(1, (Message("user", f"{canary} " * 20),), max_tokens=40, draft_length=2)
    rig.client.generate(request)
    whole = ids_of(rig.until(events.Finished))
    for moment, death in random.Random(3).sample(DEATHS, cases(3, len(DEATHS))):
        if moment == "load":
            rig.client.switch(Load(str(pair[0]), (str(pair[1]),)))
        rig.client.generate(request)
        heard = rig.until(MOMENTS[moment])
        os.kill(rig.client.process_id or 0, death)
        said = ids_of(heard)
        if moment == "idle":
            rig.until(events.Died)
        else:
            said += ids_of(rig.until_any(events.Died, events.Finished))
            rig.until_died()
        assert said == whole[: len(said)]
        rig.client.generate(request)
        assert ids_of(rig.until(events.Finished)) == whole, (moment, death)
    rig.client.close()
    assert canary not in log.read_text(errors="replace")


@pytest.mark.slow
def test_it_ends_cleanly_every_time(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CLOSE_TIMEOUT_S", PATIENCE_S)  # a busy machine is no hang
    rig = ClientRig(Load(str(pair[0])), tmp_path / "engine.log")
    rig.listen()
    for _ in range(cases(2, 200)):
        rig.client.start()
        rig.client.generate(Generate(1, HELLO, max_tokens=3))
        rig.until(events.Finished)
        child = rig.client._child
        assert child
        rig.client.close()
        assert child.returncode == 0, (tmp_path / "engine.log").read_text()


@pytest.mark.slow
def test_a_load_is_cancelled_by_the_next_one_and_says_how_far_it_is(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CLOSE_TIMEOUT_S", PATIENCE_S)  # waited for, it would end by itself
    rig = ClientRig(Load(str(pair[0])), tmp_path / "engine.log")
    rig.client.start()
    first = rig.client._child
    assert first
    rig.client.switch(Load(str(pair[0]), (str(pair[1]),)))
    assert first.returncode == -signal.SIGKILL, "it was loading, and would have gone on with that"
    rig.listen()
    heard = rig.until(events.Ready)
    assert [event for event in heard if isinstance(event, events.Died | events.Failed)] == []
    ready = heard[-1]
    assert isinstance(ready, events.Ready)
    assert ready.drafter == "target-assistant"
    done = [event.done_bytes for event in heard if isinstance(event, events.Loading) and event.total_bytes]
    total = max(event.total_bytes for event in heard if isinstance(event, events.Loading))
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)
    assert total > 100_000
    rig.client.close()
