"""Makes the answers, one after the other: from a job's request to its pieces and its outcome."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager

import msgspec

from app.core.reply_facts import ReplyFacts
from app.core.reply_options import ReplyOptions
from app.serve.answer import Answer, AnswerPiece, Drafting, EndReason, Usage
from app.serve.engine_line import EngineLine
from app.serve.errors import BadRequestError, BrokenServerError, ServeError, ServerEndedError, TooLongError
from app.serve.job import Job
from app.serve.queue import JobQueue
from app.serve.request import AnswerRequest
from app.serve.stop_strings import StopStrings
from app.system.console import tell
from mlx_engine.protocol.events import (
    Checked,
    Finished,
    Generate,
    Prefilled,
    Ready,
    Round,
    SamplingOptions,
    Started,
    Tool,
)
from mlx_engine.protocol.log_file import trace

OnChange = Callable[[Job], None]


class AnswerMaker:
    """Takes requests in and answers them. Belongs to the event loop."""

    def __init__(
        self, line: EngineLine, usual: ReplyOptions | None = None, on_change: OnChange = lambda job: None
    ) -> None:
        """usual: for what requests leave open. on_change: told of a job whenever something about it is new."""
        self._line, self._on_change = line, on_change
        self._usual = usual or ReplyOptions()
        self._queue = JobQueue()
        self._running: Job | None = None
        self._ids = itertools.count(1)

    async def check(self, request: AnswerRequest) -> tuple[Generate, Checked]:
        """The engine's request, and how long its prompt is, which may be too long. Raises ServeError."""
        generate = _generate(next(self._ids), request, self._usual)
        with _in_words_of(request):
            return generate, await self._line.check(generate)

    async def accept(self, request: AnswerRequest, client: str) -> Job:
        """A job that waits for its turn. Raises ServeError if the request cannot be answered."""
        arrived_s = time.monotonic()
        generate, checked = await self.check(request)
        if checked.prompt_tokens >= checked.context_tokens:
            raise TooLongError(checked.prompt_tokens, checked.context_tokens)
        job = Job(secrets.token_hex(12), request, generate, checked, client, arrived_s)
        self._queue.add(job)
        self._on_change(job)
        return job

    def leave(self, job: Job) -> None:
        """Nobody reads the answer any more."""
        job.has_left = True
        self._end(job)

    def stop(self, job: Job) -> None:
        """A person stops it: the answer ends with what it has."""
        job.is_stopped = True
        self._end(job)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._queue)

    async def answer_all(self) -> None:
        """Answer until cancelled."""
        while True:
            job = await self._queue.take()
            self._running = job
            try:
                job.facts = ReplyFacts(self._line.baseline)
                with _in_words_of(job.request):
                    outcome: Answer | ServeError = await self._answer(job)
            except ServeError as error:
                outcome = error
            except asyncio.CancelledError:
                job.finish(ServerEndedError())
                raise
            except Exception as error:
                tell(trace(error))
                outcome = BrokenServerError("The server failed at this request. Send it again.")
            self._running = None
            job.finish(outcome)
            self._on_change(job)

    def _end(self, job: Job) -> None:
        if self._queue.remove(job):
            job.finish(_answer_of(job, None, None, self._line.ready))
            self._on_change(job)
        elif job is self._running:
            self._line.cancel()

    async def _answer(self, job: Job) -> Answer:
        stops = StopStrings(job.request.stop)
        job.started_s, job.state = time.monotonic(), "reading"
        self._on_change(job)
        finished: Finished | None = None
        async with aclosing(self._line.reply(job.generate)) as reply:
            async for event in reply:
                match event:
                    case Started():
                        job.facts.add(event)
                        if job.is_unwanted:  # known before the engine had begun
                            self._line.cancel()
                    case Prefilled(done_tokens=done_tokens):
                        job.read_tokens = done_tokens
                    case Round() | Finished():
                        finished = event if isinstance(event, Finished) else None
                        self._take(job, event, stops)
                self._on_change(job)
        return _answer_of(job, finished, stops.found, self._line.ready)

    def _take(self, job: Job, event: Round | Finished, stops: StopStrings) -> None:
        """Pass on what a round adds. After a stop string, or the only call, nothing is."""
        job.facts.add(event)
        if stops.found is not None or job.has_its_call:
            return
        text, calls = stops.add(event.text), event.calls
        if stops.found is not None:
            calls = ()
        elif isinstance(event, Finished) or calls:  # the text before a call is complete
            text += stops.finish()
        if calls and job.request.is_single_call:
            calls, job.has_its_call = calls[:1], True
        if (stops.found is not None or job.has_its_call) and isinstance(event, Round):
            self._line.cancel()
        if isinstance(event, Round):
            job.state = "writing"
        job.refused_calls += event.refused_calls
        if text or event.thinking or calls:
            job.add(AnswerPiece(text, event.thinking, calls))


@contextmanager
def _in_words_of(request: AnswerRequest) -> Iterator[None]:
    """What the engine refuses is named as the client named it."""
    try:
        yield
    except BadRequestError as error:
        error.param = request.places.get(error.param or "", error.param)
        raise


def _generate(id: int, request: AnswerRequest, usual: ReplyOptions) -> Generate:
    choice, tools = request.tool_choice, request.tools
    chosen = choice.name if isinstance(choice, Tool) else None
    if chosen is not None and chosen not in {tool.name for tool in tools}:
        raise BadRequestError(f"tool_choice names {chosen[:100]}, which is not among the tools.", "tool_choice")
    return Generate(
        id,
        request.messages,
        _sampling(request.sampling, usual.sampling),
        usual.draft_length if request.draft_length == "auto" else request.draft_length,
        request.max_tokens or usual.max_tokens,
        request.is_thinking,
        tools=tools,
        schema=request.schema,
        tool_choice="required" if isinstance(choice, Tool) else choice,
        chosen_tool=chosen,
        strict_tools=tuple(sorted(request.strict_tools)),
        prompt=request.prompt,
    )


def _sampling(asked: SamplingOptions, usual: SamplingOptions) -> SamplingOptions:
    """What is not asked for is as usual; how tokens are drawn is no client's business."""
    nothing = SamplingOptions()
    open_fields = [name for name in nothing.__struct_fields__ if getattr(asked, name) == getattr(nothing, name)]
    return msgspec.structs.replace(asked, **{name: getattr(usual, name) for name in open_fields})


def _answer_of(job: Job, finished: Finished | None, stop_string: str | None, ready: Ready | None) -> Answer:
    """finished: None if the engine never saw the job."""
    whole = job.made
    return Answer(
        whole.text,
        whole.thinking,
        whole.calls,
        _end_reason(job, finished, stop_string),
        stop_string,
        usage_of(job, finished),
        drafting_of(job, ready),
    )


def _end_reason(job: Job, finished: Finished | None, stop_string: str | None) -> EndReason:
    if stop_string is not None:
        return "stop_string"
    if job.has_its_call:
        return "tool_calls"
    if finished is None or finished.reason == "cancelled":
        return "cancelled"
    if finished.reason == "length":
        used = job.checked.prompt_tokens + job.facts.rounds.generated_tokens
        return "context" if used >= job.checked.context_tokens else "length"
    if job.made.calls:
        return "tool_calls"
    return "cut_call" if job.refused_calls else "stop"


def usage_of(job: Job, finished: Finished | None) -> Usage:
    """The tokens of an answer."""
    started = job.facts.started
    return Usage(
        prompt_tokens=started.prompt_tokens if started else job.checked.prompt_tokens,
        cached_tokens=started.cached_tokens if started else 0,
        disk_tokens=started.disk_tokens if started else 0,
        completion_tokens=job.facts.rounds.generated_tokens,
        thinking_tokens=finished.thinking_tokens if finished else 0,
    )


def drafting_of(job: Job, ready: Ready | None) -> Drafting:
    """What drafting has done for it so far."""
    stats, started = job.facts.rounds, job.facts.started
    most = max(stats.by_drafter, key=lambda kind: stats.by_drafter[kind].drafted, default=None)
    queued_s = (job.started_s or time.monotonic()) - job.arrived_s
    return Drafting(
        drafter=most if most is None or ready is None else ready.drafters.get(most, most),
        drafted_tokens=stats.drafted,
        accepted_tokens=stats.accepted,
        rounds=stats.rounds,
        tokens_per_round=stats.tokens_per_round,
        speedup=stats.speedup,
        tokens_per_s=stats.tokens_per_s,
        ttft_s=None if stats.ttft_s is None else queued_s + stats.ttft_s,
        cached_tokens=started.cached_tokens if started else 0,
        disk_tokens=started.disk_tokens if started else 0,
        read_tokens=started.read_tokens if started else 0,
        queued_s=queued_s,
    )
