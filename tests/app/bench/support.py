"""A bench with a fake clock and a fake engine."""

from __future__ import annotations

from dataclasses import replace

from app.bench.asking import BlockingEngine
from app.bench.plan import BenchPlan, make_cases
from app.bench.prompts import BenchPrompt
from app.bench.results import FORMAT, VERSION, MachineFacts, MachineState, Method, PairFacts, Results
from app.bench.rows import make_rows
from app.bench.runner import Measured, Runner
from app.system.interrupts import Stop
from mlx_engine.protocol.events import Message
from tests.fakes.clockwork import ClockworkEngine, FakeClock

SETTINGS = ("off", "2", "4", "8", "16", "auto")


class NoMeter:
    """A machine without energy counters."""

    def read_j(self) -> tuple[float, ...] | None:
        return None

    def used_j(self, before: tuple[float, ...] | None) -> float | None:
        return None


def prompt(name: str, kind: str = "chat", text: str = "") -> BenchPrompt:
    return BenchPrompt(name, kind, (Message("user", text or f"Please tell me all about {name}, at length."),))  # type: ignore[arg-type]


def plan(prompts: int = 3, **changes: object) -> BenchPlan:
    cases = make_cases([prompt(f"chat-{number + 1}") for number in range(prompts)], ["short"], ["greedy"])
    return replace(BenchPlan(cases, SETTINGS, max_tokens=40), **changes)  # type: ignore[arg-type]


class Bench:
    """All parts of a run."""

    def __init__(self, plan: BenchPlan) -> None:
        self.plan = plan
        self.clock = FakeClock()
        self.engine = ClockworkEngine(self.clock)
        self.stop = Stop()
        self.blocks_kept: list[int] = []
        self.runner: Runner | None = None

    def run(self) -> Measured:
        blocking = BlockingEngine(self.engine, self.stop, NoMeter())
        ready = blocking.load()
        self.runner = Runner(blocking, ready, self.plan, self.clock, self.stop)
        return self.runner.run(
            lambda progress, measured: None, lambda measured: self.blocks_kept.append(len(measured.replies))
        )

    def results(self) -> Results:
        return as_results(self.run(), self.plan)


def as_results(measured: Measured, plan: BenchPlan) -> Results:
    state = MachineState(load=0.5, free_bytes=8_000_000_000, memory_pressure=None, power="mains", thermal=None)
    return Results(
        format=FORMAT,
        version=VERSION,
        app_version="0.1.0",
        begun_at="2026-11-25T12:00:00+00:00",
        took_s=60.0,
        ended=measured.ended,
        pair=PairFacts(
            title="e4b",
            target="fake",
            drafter="fake-assistant",
            drafter_bits=None,
            precision="4-bit",
            is_wired=False,
            context_tokens=4096,
            is_pocket=False,
        ),
        machine=MachineFacts(
            chip="Apple M9",
            memory_bytes=16_000_000_000,
            system="Darwin arm64",
            cores=8,
            versions={"mlx": "0.32.4"},
            preloaded=None,
        ),
        before=state,
        after=state,
        method=Method(
            settings=plan.settings,
            rule="rejection",
            max_tokens=plan.max_tokens,
            minutes=10.0,
            cool_down_s=0.0,
            is_quick=False,
            is_thinking=False,
            prompts="in the box",
        ),
        first_tokens=tuple(measured.first_tokens),
        replies=tuple(measured.replies),
        rows=make_rows(measured.replies, plan.settings),
        notes=tuple(measured.notes),
    )
