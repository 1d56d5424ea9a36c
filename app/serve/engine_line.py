"""The engine for tasks of an event loop: one reply at a time, checks at any time, restarted when it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from app.serve.errors import BadRequestError, EngineFailedError, ServeError, TooLongError
from mlx_engine.client import EngineHandle
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.stats import BaselineSpeed

MOST_CHECKS = 16
"""How many requests are on their way to the engine at once; more of them would fill its pipe."""
AGAIN = "Send the request again."

ReplyEvent = events.Started | events.Prefilled | events.Round | events.Finished


class EngineLine:
    """Belongs to one event loop."""

    def __init__(
        self,
        engine: EngineHandle,
        load: events.Load,
        on_loaded: Callable[[events.Ready], None] = lambda ready: None,
    ) -> None:
        """load: what the engine was made with, to load it again. on_loaded: told each time."""
        self._engine, self._load, self._on_loaded = engine, load, on_loaded
        self.ready: events.Ready | None = None
        """None while no pair is loaded."""
        self.baseline = BaselineSpeed()
        """Of the loaded pair."""
        self._checks: dict[int, asyncio.Future[events.Checked]] = {}
        self._reply: asyncio.Queue[ReplyEvent | ServeError] | None = None
        self._reply_id: int | None = None
        self._room = asyncio.Semaphore(MOST_CHECKS)
        self._has_to_load = False
        """The process runs, but without a pair, or it hangs."""
        self._restarting = asyncio.Lock()

    async def start(self) -> None:
        """Load. Raises EngineDiedError if no process can be started."""
        loop = asyncio.get_running_loop()

        def pass_on(event: events.Event) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._hear, event)

        self._engine.on_event = pass_on
        await asyncio.to_thread(self._engine.start)

    async def close(self) -> None:
        """End the engine."""
        await asyncio.to_thread(self._engine.close)

    async def check(self, request: events.Generate) -> events.Checked:
        """How long the prompt is. Raises ServeError if the request cannot be answered; one that is too long is no
        error yet. Waits until the pair is loaded."""
        async with self._room:
            await self._load_again()
            future: asyncio.Future[events.Checked] = asyncio.get_running_loop().create_future()
            self._checks[request.id] = future
            try:
                await asyncio.to_thread(self._engine.check, request)
                return await future
            except SlipstreamError as error:
                raise _as_served(error) from None
            finally:
                self._checks.pop(request.id, None)

    async def reply(self, request: events.Generate) -> AsyncGenerator[ReplyEvent, None]:
        """The events of one reply; Finished is the last. Raises ServeError.

        The next reply must not begin before this one has ended, or was closed.
        """
        await self._load_again()
        arriving: asyncio.Queue[ReplyEvent | ServeError] = asyncio.Queue()
        self._reply, self._reply_id = arriving, request.id
        is_over = False
        try:
            await asyncio.to_thread(self._engine.generate, request)
            while not is_over:
                event = await arriving.get()
                is_over = isinstance(event, events.Finished | ServeError)
                if isinstance(event, ServeError):
                    raise event
                yield event
        except SlipstreamError as error:
            raise _as_served(error) from None
        except GeneratorExit:  # nobody follows the reply any more, but the engine is still at it
            self.cancel()
            while not is_over:
                is_over = isinstance(await arriving.get(), events.Finished | ServeError)
            raise
        finally:
            self._reply = self._reply_id = None

    def cancel(self) -> None:
        """End the running reply after its round, or its chunk."""
        if self._reply is not None:
            self._engine.cancel()

    async def _load_again(self) -> None:
        async with self._restarting:
            if self._has_to_load:
                self._has_to_load = False
                await asyncio.to_thread(self._engine.switch, self._load)

    def _hear(self, event: events.Event) -> None:
        match event:
            case events.Ready():
                self.ready, self.baseline = event, BaselineSpeed()
                self._on_loaded(event)
            case events.Checked(id=id):
                if (future := self._checks.get(id)) and not future.done():
                    future.set_result(event)
            case events.Started() | events.Prefilled() | events.Round() | events.Finished():
                if self._reply is not None and event.id == self._reply_id:
                    self._reply.put_nowait(event)
            case events.Failed(id=None, message=message):
                self._has_to_load = True
                self._fail_all(EngineFailedError(message))
            case events.Failed(id=int(id)):
                self._fail(id, _refusal(event))
            case events.Died(message=message):
                self._fail_all(EngineFailedError(_for_clients(message)))
            case events.Silent(message=message):
                self._has_to_load = True
                self._fail_all(EngineFailedError(f"{message} It is started again. {AGAIN}"))

    def _fail(self, id: int, error: ServeError) -> None:
        if (future := self._checks.get(id)) and not future.done():
            future.set_exception(error)
        elif self._reply is not None and id == self._reply_id:
            self._reply.put_nowait(error)

    def _fail_all(self, error: ServeError) -> None:
        self.ready = None
        for id in list(self._checks):
            self._fail(id, error)
        if self._reply_id is not None:
            self._fail(self._reply_id, error)


def _refusal(failed: events.Failed) -> ServeError:
    """With the engine's word for what is at fault. A prompt that is too long is found before; if a reply made it
    longer since, the numbers are not known."""
    match failed.reason:
        case "too_long":
            error: ServeError = BadRequestError(failed.message, failed.about or "messages")
            error.code = TooLongError.code
            return error
        case "refused":
            return BadRequestError(failed.message, failed.about)
        case "failed":
            return EngineFailedError(_for_clients(failed.message))


def _for_clients(message: str) -> str:
    return message.replace("Your next message restarts it", "The next request restarts it")


def _as_served(error: SlipstreamError) -> ServeError:
    return error if isinstance(error, ServeError) else EngineFailedError(_for_clients(str(error)))
