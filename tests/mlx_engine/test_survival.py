"""Numbers that break, drafters that fail, errors nobody expected: the turn says why, the next one works."""

from __future__ import annotations

import queue
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_engine import worker
from mlx_engine.decode import DecodeOptions, generate
from mlx_engine.engine import Engine
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.protocol import events, wire
from mlx_engine.protocol.errors import BrokenNumbersError, ModelFolderError
from mlx_engine.protocol.events import Generate, Load, Message, RoundFacts
from mlx_engine.protocol.log_file import KEPT, MAX_LOG_BYTES, Log, trace
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.guarded import GuardedDrafter
from mlx_engine.speculation.sampling import Distribution, RandomStream, Sampler
from mlx_engine.speculation.steering import ReplyControl
from tests.fakes.folders import write_pair
from tests.fakes.markov import MarkovTarget, PointDrafter, StatelessDrafter
from tests.mlx_engine.helpers import GREEDY, ScriptedControl, rounds, session_for, tokens
from tests.mlx_engine.rig import Rig, only, token_ids

PROMPT = (3, 4)
VOCAB = 16
RUN = (5, 6, 7, 8, 9, 10, 11)
HELLO = (Message("user", "Hello there, how are you?"),)


def chain(broken: int | None = None, value: float = np.nan) -> MarkovTarget:
    """After 4 come 5, 6, 7 and so on; what follows `broken` is no number."""
    table = np.zeros((VOCAB, VOCAB))
    for before, after in zip((4, *RUN), RUN):
        table[before, after] = 10
    if broken is not None:
        table[broken, 0] = value
    return MarkovTarget(table)


KNOWS_ALL = PointDrafter(np.minimum(np.arange(VOCAB) + 1, VOCAB - 1))


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(temperature=0.1), Sampler(temperature=0.1, is_coupled=True)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("length", "broken", "said"),
    [
        (0, 8, [5, 6, 7, 8]),
        (1, 8, [5, 6, 7, 8]),
        (3, 8, [5, 6, 7, 8]),
        (3, 7, []),  # in the last row of the first round, after three drafts that all stand
        (3, 6, []),
        (0, 4, []),
    ],
)
def test_scores_that_are_no_numbers_end_the_reply_with_what_there_was(
    length: int, broken: int, said: list[int], value: float, sampler: Sampler
) -> None:
    session = session_for(chain(broken, value), KNOWS_ALL, PROMPT)
    committed: list[RoundFacts] = []
    with pytest.raises(BrokenNumbersError, match="not numbers"):
        committed.extend(generate(session, DecodeOptions(sampler, frozenset(), 7, ScriptedControl([length]))))
    assert tokens(committed) == said
    assert session.host_syncs == len(committed) + 1, "nothing more to wait for than the rounds themselves"


class FailingDrafter(StatelessDrafter):
    """Right, until it fails at one of its calls."""

    def __init__(self, failing: str, after: int) -> None:
        self._failing, self._left = failing, after

    def _call(self, name: str) -> None:
        if name == self._failing:
            self._left -= 1
            if self._left < 0:
                raise RuntimeError("[matmul] no such shape")

    def prefill(self, prompt: Sequence[int], branch_points: Collection[int]) -> Iterator[int]:
        self._call("prefill")
        return iter(())

    def available_tokens(self, committed: Sequence[int], limit: int) -> int:
        self._call("available_tokens")
        return limit

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        self._call("propose")
        return KNOWS_ALL.propose(committed, frontier, cache, length, sampler)

    def rollback(self, rejected: int) -> None:
        self._call("rollback")


@pytest.mark.parametrize("failing", ["prefill", "available_tokens", "propose", "rollback"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_drafter_that_fails_is_left_out_and_changes_no_word(failing: str, after: int) -> None:
    told: list[Exception] = []
    drafter = GuardedDrafter(FailingDrafter(failing, after), told.append)
    behind: list[int] = []
    done = rounds(
        chain(), drafter, PROMPT, 7, 1,
        on_round=lambda _, s: behind.append(len(s.prefix.tokens) - s.prefix.cache.frontier),
    )  # fmt: skip
    assert set(behind[:-1]) <= {0, 1}, "one token is unread, or the next round has begun to read it"
    said = tokens(done)
    assert said == tokens(rounds(chain(), None, PROMPT, 7, 0)) == list(RUN)
    assert len(told) == (0 if failing == "prefill" and after else 1)


class NumberlessDrafter(StatelessDrafter):
    """Scores that are no numbers: nothing can be said of how its tokens were drawn."""

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        nothing = mx.full((length, VOCAB), mx.nan)
        return sampler.draw(nothing, cache.frontier + 1, RandomStream.DRAFT)


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(temperature=0.1), Sampler(temperature=0.1, is_coupled=True)])
def test_a_drafter_whose_scores_are_no_numbers_changes_no_word(sampler: Sampler) -> None:
    said = tokens(rounds(chain(), NumberlessDrafter(), PROMPT, 7, 3, sampler=sampler))
    assert said == list(RUN)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


def test_the_turn_after_broken_numbers_is_a_clean_one(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(*pair)
    clean = token_ids(rig.ask(Generate(1, HELLO, max_tokens=8, draft_length=3)))
    target = rig.engine._target
    logits, passes = target.logits, 0

    def breaking(hidden: mx.array) -> mx.array:
        nonlocal passes
        passes += 1
        scores = logits(hidden)
        return (
            mx.where(mx.arange(scores.shape[0])[:, None] == scores.shape[0] - 1, mx.nan, scores)
            if (passes == 3)
            else scores
        )

    monkeypatch.setattr(target, "logits", breaking)
    with pytest.raises(BrokenNumbersError):
        rig.ask(Generate(2, HELLO, max_tokens=8, draft_length=3))
    assert clean[: len(token_ids(rig.emitted))] == token_ids(rig.emitted) != []
    again = rig.ask(Generate(3, HELLO, max_tokens=8, draft_length=3))
    assert only(events.Started, again)[0].cached_tokens == 0
    assert token_ids(again) == clean

    # The drafter fails as well: told once, and the words stay.
    def failing(*arguments: object) -> Distribution:
        raise ValueError("[rope] no such position")

    monkeypatch.setattr(rig.engine._drafter._drafter, "propose", failing)
    told = rig.ask(Generate(4, HELLO, max_tokens=8, draft_length=3))
    (notice,) = only(events.Notice, told)
    assert "no such position" in notice.message
    assert token_ids(told) == clean
    assert not only(events.Notice, rig.ask(Generate(5, HELLO, max_tokens=8, draft_length=3)))


def test_a_network_that_does_not_compute_is_refused_in_words(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Engine, folder: Path) -> None:
        raise RuntimeError("[malloc] Unable to allocate")

    monkeypatch.setattr(Engine, "_check_target", failing)
    with pytest.raises(ModelFolderError, match=r"cannot be run .*Unable to allocate"):
        Rig(pair[0], None)


CANARY = "what nobody else may read"


class FailingEngine:
    """Loads, and then fails at whatever it is asked."""

    def __init__(self, load: Load, emit: Any) -> None:
        if load.target == "huge":
            raise MemoryError("no room")

    def generate(self, request: Generate, control: ReplyControl) -> None:
        try:
            raise ValueError(f"cannot read {CANARY}")
        except ValueError as error:
            raise RuntimeError(f"[metal::malloc] Attempting to allocate 99 bytes for {CANARY}") from error


@pytest.mark.parametrize(("target", "words"), [("fits", "metal::malloc"), ("huge", "no room")])
def test_an_error_nobody_expected_is_said_and_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], target: str, words: str
) -> None:
    monkeypatch.setattr(worker, "Engine", FailingEngine)
    emitted: list[events.Event] = []
    commands = worker.Commands(None)  # type: ignore[arg-type]
    commands.tasks = queue.SimpleQueue()
    commands.tasks.put(Load(target, None))
    commands.tasks.put((Generate(7, HELLO), ReplyControl(0)))
    with pytest.raises(SystemExit) as caught:
        worker.serve(commands, emitted.append)
    assert caught.value.code == wire.STATUS_REPORTED
    (failed,) = only(events.Failed, emitted)
    assert words in failed.message
    assert failed.id == (7 if target == "fits" else None)
    logged = capfd.readouterr().err
    assert "Traceback" in logged
    assert CANARY not in logged


def test_logs_are_put_aside_when_they_are_full(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "engine.log"
    log = Log(path)
    for number in range(KEPT + 3):
        if number == KEPT:  # opened again, or in the middle of one run
            log.close()
            log = Log(path)
        log.write(b"%d" % number + b"x" * MAX_LOG_BYTES)
    log.close()
    names = sorted(each.name for each in path.parent.iterdir())
    assert names == ["engine.log", *(f"engine.log.{number}" for number in range(1, KEPT + 1))]
    firsts = [path.parent.joinpath(name).read_bytes()[:1] for name in names]
    assert firsts == [b"5", b"4", b"3", b"2"]
    assert all(each.stat().st_mode & 0o077 == 0 for each in path.parent.iterdir())


def test_a_log_cannot_steer_the_terminal_that_prints_it(tmp_path: Path) -> None:
    evil = "\x1b]52;c;eA==\x07 \x9b2J \u202egpj \U000e0041 nul\0 cr\r ü 你\tend\n"
    for size in (1, 3, 1000):
        log = Log(tmp_path / "log")
        data = evil.encode() + b"\xff\n"
        for at in range(0, len(data), size):
            log.write(data[at : at + size])
        log.close()
    (line,) = {*(tmp_path / "log").read_text().splitlines()} - {"\\xff"}
    assert line == r"\x1b]52;c;eA==\x07 \x9b2J \u202egpj \U000e0041 nul\x00 cr\r ü 你" + "\tend"


def test_what_a_log_says_of_an_error_quotes_nobody() -> None:
    try:
        try:
            Path(f"/nowhere/{CANARY}").read_bytes()
        except OSError:
            raise KeyError(CANARY)  # noqa: B904
    except KeyError as error:
        said = trace(error)
    assert CANARY not in said.replace("{CANARY}", "")
    assert "FileNotFoundError: No such file or directory\n\nwhich led to\n\nTraceback" in said
    assert said.endswith("KeyError\n")
    assert "in test_what_a_log_says_of_an_error_quotes_nobody" in said
