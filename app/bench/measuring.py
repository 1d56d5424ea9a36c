"""One bench run from start to finish: load, measure, save, show."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec

from app import __version__
from app.bench import report
from app.bench.asking import BlockingEngine, Clock, SystemClock
from app.bench.energy import NoMeter, RaplMeter
from app.bench.history import ResultsFile
from app.bench.live import LiveTable
from app.bench.machine_state import machine_facts, machine_state
from app.bench.outputs import Outputs
from app.bench.plan import BenchPlan
from app.bench.results import AS_IS, AUTO, FORMAT, OFF, VERSION, Method, PairFacts, Results
from app.bench.rows import make_rows
from app.bench.runner import BenchProgress, Measured, Runner
from app.core.pair_choice import PairChoice
from app.system.console import is_terminal, say, warn
from app.system.exit_codes import FAILED, INTERRUPTED, OK
from app.system.interrupts import Stop, stopping
from app.text.sanitise import sanitise_line
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import LOOKUP, Load, Ready
from mlx_engine.protocol.micro_figures import MicroFigures
from models.awake import staying_awake

COMPLETE = ("tight", "passes", "time")
"""How runs end that are followed by the micro-benchmark."""
SERVED_NOTE = (
    "a server made the replies: times are those seen from this machine, its counts are its own, what it does not "
    "report is blank, and its machine is not known"
)
EXIT_CODES = {"interrupted": INTERRUPTED, "failed": FAILED}


@dataclass(frozen=True, slots=True)
class BenchJob:
    """Everything that a run needs to know before it starts."""

    pair: PairChoice
    plan: BenchPlan
    method: Method
    outputs: Outputs
    folder: Path
    """Where results are saved."""


def load_of(pair: PairChoice) -> Load:
    """How the bench loads a pair: with lookup if it has no drafter, and without earlier estimates."""
    if pair.is_served:
        return pair.load
    # Nothing learned in one run may help the next one, or change what the chat has learned.
    return msgspec.structs.replace(
        pair.load,
        drafters=pair.load.drafters or (LOOKUP,),
        estimates_folder=None,
        chat_cache_folder=None,
    )


def measure(job: BenchJob, engine: EngineHandle, clock: Clock | None = None) -> int:
    """Carry out a job. Returns the exit code. Raises SlipstreamError if there is nothing to show."""
    clock = clock or SystemClock()
    stop = Stop()
    # What this machine uses says nothing of a server's.
    blocking = BlockingEngine(engine, stop, NoMeter() if job.pair.is_served else RaplMeter())
    try:
        ready = blocking.load()
        job = replace(job, plan=plan_for(job.plan, ready))
        run = _RunInProgress(job, ready, clock, blocking)
        with stopping(stop), staying_awake(os.getpid()):
            run.measure(Runner(blocking, ready, job.plan, clock, stop))
    finally:
        engine.close()
    return run.finish()


def plan_for(plan: BenchPlan, ready: Ready) -> BenchPlan:
    """The part of a plan that a server can follow: not all can be told how to draft."""
    if ready.server is None:
        return plan
    if not ready.can_draft:
        return replace(plan, settings=(AS_IS,))
    if ready.server.has_draft_lengths:
        return plan
    return replace(plan, settings=(OFF, AUTO))


class _RunInProgress:
    """The results of a run while they grow, on disk and on the screen."""

    def __init__(self, job: BenchJob, ready: Ready, clock: Clock, engine: BlockingEngine) -> None:
        self._job, self._clock, self._engine = job, clock, engine
        self._started_at_s = clock.now_s()
        self._results = _empty(job, ready)
        self._micro: MicroFigures | None = None
        self._file = ResultsFile.create(job.folder, self._results)
        wants_live = is_terminal(sys.stdout) and not job.outputs.takes_standard_output
        self._live = LiveTable(sys.stdout if wants_live else None, job.plan.settings)

    def measure(self, runner: Runner) -> None:
        """Measure, saving after every block."""
        try:
            runner.run(self._show, self._keep)
            if (
                runner.measured.ended in COMPLETE
                and self._job.outputs.has("json")
                and not self._job.method.is_quick
                and not self._job.pair.is_served
            ):
                self._measure_micro(runner.measured)
        except KeyboardInterrupt:  # the second ctrl+c, in the middle of a round
            runner.measured.ended = "interrupted"
            self._keep(runner.measured)
        finally:
            self._live.clear()

    def _measure_micro(self, measured: Measured) -> None:
        """If it fails, or is stopped, the run keeps what it has."""
        _say("measuring kernels and prefill chunks, half a minute more; ctrl+c leaves that out.")
        try:
            self._micro = self._engine.measure()
        except SlipstreamError as error:
            measured.notes.append(f"without micro-figures: {error}")
        self._keep(measured)

    def finish(self) -> int:
        """Show and write the results. Returns the exit code. Raises SlipstreamError if nothing was measured."""
        results, file = self._results, self._file
        if not results.replies:
            file.delete()
            if results.ended == "interrupted":
                _say("interrupted before anything was measured.")
                return INTERRUPTED
            if results.ended == "time":
                raise SlipstreamError("Time ran out before one reply was measured. Allow more with --minutes.")
            raise SlipstreamError(" ".join(["Nothing could be measured.", *results.notes]))
        if not self._job.outputs.takes_standard_output:
            say(report.wrapped(report.as_text(results)))
        written = self._job.outputs.write(results)
        _say(f"{report.ENDINGS[results.ended]}. Saved to {', '.join([*written, str(file.path)])}")
        previous = file.previous()
        if previous:
            _say(f"compare with the previous run: slipstream bench --compare {previous} {file.path}")
        return EXIT_CODES.get(results.ended, OK)

    def _show(self, progress: BenchProgress, measured: Measured) -> None:
        self._live.draw(progress, measured)

    def _keep(self, measured: Measured) -> None:
        plan = measured.plan or self._job.plan
        method = msgspec.structs.replace(self._job.method, settings=plan.settings, max_tokens=plan.max_tokens)
        self._results = msgspec.structs.replace(
            self._results,
            method=method,
            took_s=self._clock.now_s() - self._started_at_s,
            ended=measured.ended,
            after=machine_state(),
            first_tokens=tuple(measured.first_tokens),
            replies=tuple(measured.replies),
            rows=make_rows(measured.replies, plan.settings),
            notes=(*_notes(self._job), *map(sanitise_line, self._engine.notices), *measured.notes),
            micro=self._micro,
        )
        try:
            self._file.write(self._results)
        except SlipstreamError as error:
            if str(error) not in measured.notes:
                measured.notes.append(str(error))


def _empty(job: BenchJob, ready: Ready) -> Results:
    return Results(
        format=FORMAT,
        version=VERSION,
        app_version=__version__,
        begun_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        took_s=0.0,
        ended="running",
        pair=PairFacts(
            title=job.pair.title,
            target=ready.target,
            drafter=ready.drafter,
            drafter_bits=ready.drafter_bits,
            drafter_vocabulary=ready.drafter_vocabulary,
            precision=ready.precision,
            is_compiled=ready.is_compiled,
            is_wired=job.pair.load.is_wired,
            context_tokens=ready.context_tokens,
            is_pocket=job.pair.is_pocket,
            server=ready.server.name if ready.server else None,
        ),
        machine=machine_facts(),
        before=machine_state(),
        after=None,
        method=job.method,
        first_tokens=(),
        replies=(),
        rows=(),
        notes=_notes(job),
    )


def _notes(job: BenchJob) -> tuple[str, ...]:
    if job.pair.is_served:
        return (SERVED_NOTE,)
    notes = [job.pair.notice] if job.pair.notice else []
    if set(job.pair.load.drafters) <= {LOOKUP}:
        notes.append("without a drafter model: measures off and prompt lookup, which drafts from the text itself")
    return tuple(map(sanitise_line, notes))


def _say(message: str) -> None:
    warn(sanitise_line(message))
