"""An engine in this process, with everything it says."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TypeVar

from mlx_engine.engine import Engine
from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Load
from mlx_engine.speculation.steering import ReplyControl

E = TypeVar("E")


class Rig:
    """An engine, everything it emitted, and a clock that goes on by a second a look."""

    def __init__(self, target: Path, drafter: Path | str | None, **load: object) -> None:
        self.emitted: list[events.Event] = []
        ticks = count()
        self.engine = Engine(
            Load(str(target), (str(drafter),) if drafter else (), **load),  # type: ignore[arg-type]
            self.emitted.append,
            clock=lambda: float(next(ticks)),
        )

    def ask(self, request: Generate, control: ReplyControl | None = None) -> list[events.Event]:
        self.emitted.clear()
        self.engine.generate(request, control or ReplyControl(request.draft_length))
        return list(self.emitted)


def only(kind: type[E], emitted: list[events.Event]) -> list[E]:
    return [event for event in emitted if isinstance(event, kind)]


def token_ids(emitted: list[events.Event]) -> list[int]:
    return [id for done in only(events.Round, emitted) for id in done.token_ids]
