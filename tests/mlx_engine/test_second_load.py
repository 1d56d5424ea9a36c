"""A pair is freed when the next one is loaded, without waiting for Python's garbage collector."""

from __future__ import annotations

import gc
import queue
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_engine import worker
from mlx_engine.engine import Engine
from mlx_engine.protocol import events
from mlx_engine.protocol.events import LOOKUP, Generate, Load, Message
from mlx_engine.speculation.steering import ReplyControl
from tests.fakes.folders import write_pair
from tests.mlx_engine.rig import only

pytestmark = pytest.mark.slow

HELLO = (Message("user", "Hello there, how are you?"),)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("kind", ["assistant", "model", LOOKUP, "none", "refused"])
@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.sampled(2)
def test_the_second_load_of_a_process_frees_the_first(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, kind: str, is_compiled: bool
) -> None:
    drafters = {"assistant": str(pair[1]), "model": str(pair[0]), LOOKUP: LOOKUP, "none": None, "refused": "/gone"}
    targets: list[weakref.ref[Any]] = []
    living: list[int] = []

    class WatchedEngine(Engine):
        def __init__(self, load: Load, emit: Any) -> None:
            living.append(sum(target() is not None for target in targets))
            super().__init__(load, emit)
            targets.append(weakref.ref(self._target))

    monkeypatch.setattr(worker, "Engine", WatchedEngine)
    emitted: list[events.Event] = []
    before = mx.get_active_memory()
    commands = worker.Commands(None, emitted.append)  # type: ignore[arg-type]
    commands.tasks = queue.SimpleQueue()
    drafter = drafters[kind]
    load = Load(str(pair[0]), (drafter,) if drafter else (), is_compiled=is_compiled)
    for _ in range(2):
        commands.tasks.put(load)
        commands.tasks.put((Generate(7, HELLO, max_tokens=6), ReplyControl(2)))
    commands.tasks.put(None)
    worker.serve(commands, emitted.append)
    assert len(only(events.Finished, emitted)) == 2
    assert living == [0, 0]
    assert targets[-1]() is None, "nor does anything else hold a pair once its engine is gone"
    assert mx.get_active_memory() - before < 100_000
