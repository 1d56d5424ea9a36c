"""Memory that runs out: recognised in a load, a warm-up, a reply and a drafter, never taken for a bad folder."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest

from mlx_engine import worker
from mlx_engine.engine import Engine
from mlx_engine.network import checkpoint
from mlx_engine.protocol import events, wire
from mlx_engine.protocol.events import Generate, Load, Message
from mlx_engine.protocol.out_of_memory import is_from_device, is_out_of_memory
from mlx_engine.speculation import drafters
from mlx_engine.speculation.steering import ReplyControl
from mlx_engine.warm_up import WarmUp
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.mlx_engine.rig import Rig, only, token_ids

HELLO = (Message("user", "Hello there, how are you?"),)
# From MLX 0.32: mlx/backend/metal/device.cpp, mlx/backend/metal/allocator.cpp, mlx/allocator.cpp.
FAILURES = [
    "[METAL] Command buffer execution failed: Insufficient Memory "
    "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)",
    "[malloc] Unable to allocate 17179869184 bytes.",
    "[metal::malloc] Attempting to allocate 99 bytes which is greater than the maximum allowed buffer size of 9.",
    "[metal::malloc] Resource limit (499000) exceeded.",
]


@pytest.mark.parametrize("message", FAILURES)
def test_what_mlx_says_is_recognised(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("[matmul] Last dimension of first input does not match"))


def test_a_gpu_that_is_too_slow_is_no_matter_of_memory_and_none_of_the_folder() -> None:
    timeout = RuntimeError("[METAL] Command buffer execution failed: Caused GPU Timeout Error")
    assert not is_out_of_memory(timeout)
    assert is_from_device(timeout)
    assert not is_from_device(ValueError("[rope] no such position"))


def failing(message: str) -> Any:
    def fail(*arguments: object, **named: object) -> Any:
        raise RuntimeError(message)

    return fail


def served(*tasks: worker.Task) -> tuple[int, list[events.Event]]:
    emitted: list[events.Event] = []
    commands = worker.Commands(None, emitted.append)  # type: ignore[arg-type]
    commands.tasks = queue.SimpleQueue()
    for task in (*tasks, None):
        commands.tasks.put(task)
    return worker.serve(commands, emitted.append), emitted


LOAD = Load(str(TARGET_FOLDER), (str(DRAFTER_FOLDER),), target_name="big", smaller="12b-4bit")


@pytest.mark.parametrize("message", FAILURES)
@pytest.mark.parametrize("place", ["reading", "warming up"])
def test_a_load_without_memory_says_so_and_not_that_the_folder_is_bad(
    monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    if place == "reading":
        monkeypatch.setattr(checkpoint, "_read", failing(message))
    else:
        monkeypatch.setattr(WarmUp, "run_target", failing(message))
    status, emitted = served(LOAD)
    (failed,) = only(events.Failed, emitted)
    assert status == wire.STATUS_REPORTED, "a new process starts with all of the memory"
    assert failed.id is None
    assert "Memory ran out while big was being loaded" in failed.message
    assert "Pull the model again" not in failed.message
    assert "config.json" not in failed.message
    assert "big and its drafter" in failed.message
    assert "--model 12b-4bit" in failed.message


def test_a_reply_without_memory_says_what_is_loaded_and_what_is_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "_reply", failing(FAILURES[0]))
    status, emitted = served(LOAD, (Generate(7, HELLO), ReplyControl(0)))
    (failed,) = only(events.Failed, emitted)
    assert (status, failed.id) == (wire.STATUS_REPORTED, 7)
    assert "Memory ran out during the reply" in failed.message
    assert "shorter chat" in failed.message
    assert "--drafter none" in failed.message
    assert "GB" in failed.message


@pytest.mark.parametrize("place", ["reading", "warming up"])
def test_a_drafter_without_memory_is_left_out_with_that_reason(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "reading":
        monkeypatch.setattr(drafters, "load_drafter", failing(FAILURES[1]))
    else:
        monkeypatch.setattr(WarmUp, "run_drafter", failing(FAILURES[1]))
    rig = Rig(TARGET_FOLDER, DRAFTER_FOLDER)
    (ready,) = only(events.Ready, rig.emitted)
    assert ready.drafter is None
    assert "not enough memory for the drafter" in str(ready.refusal)
    assert "Pull it again" not in str(ready.refusal)
    assert token_ids(rig.ask(Generate(1, HELLO, max_tokens=4)))


def test_a_drafter_that_runs_out_in_a_reply_costs_no_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(TARGET_FOLDER, DRAFTER_FOLDER)
    (drafter,) = rig.engine._drafters.values()
    monkeypatch.setattr(drafter._drafter, "propose", failing(FAILURES[1]))  # type: ignore[attr-defined]
    emitted = rig.ask(Generate(1, HELLO, max_tokens=4, draft_length=2))
    (notice,) = only(events.Notice, emitted)
    assert "not enough memory for the drafter" in notice.message
    assert len(token_ids(emitted)) == 4


def test_a_folder_that_cannot_be_read_is_still_told_from_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkpoint, "_read", failing("[load] Unable to open file"))
    _, emitted = served(LOAD)
    (failed,) = only(events.Failed, emitted)
    assert "Pull the model again" in failed.message
