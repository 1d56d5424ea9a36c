"""The server: its routes, and how it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from app import __version__
from app.core.reply_options import ReplyOptions
from app.serve import metrics
from app.serve.answering import AnswerMaker
from app.serve.dialect import Dialect
from app.serve.dialects import MESSAGES_ROUTE
from app.serve.engine_line import EngineLine
from app.serve.errors import ServeError, UnknownRouteError, WrongMethodError
from app.serve.guard import Bodies, Guard, Policy
from app.serve.job import Job
from app.serve.live import LiveRequests, client_name
from app.serve.sending import STREAM_HEADERS, AnswerResponse, error_response, json_response
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.events import Load, Ready

Endpoint = Callable[[Request], Awaitable[Response]]


class Server:
    """The engine as an endpoint. `app` is an ASGI application."""

    def __init__(
        self,
        engine: EngineHandle,
        load: Load,
        dialects: Mapping[str, Dialect],
        policy: Policy,
        usual: ReplyOptions | None = None,
        on_loaded: Callable[[Ready], None] = lambda ready: None,
    ) -> None:
        """dialects: by route. load: what the engine loads. usual: for what requests leave open. on_loaded: told
        each time."""
        self._load, self._dialects = load, dialects
        self._created_s = int(time.time())
        self.line = EngineLine(engine, load, on_loaded)
        self._bodies = Bodies()
        self._live, self._metrics = LiveRequests(), metrics.Metrics()
        self._answering = AnswerMaker(self.line, usual, self._note)
        routes = [self._route("POST", path, self._answers(dialect)) for path, dialect in dialects.items()]
        if counting := dialects.get(MESSAGES_ROUTE):
            routes.append(self._route("POST", f"{MESSAGES_ROUTE}/count_tokens", self._counts(counting)))
        routes += [
            self._route("GET", "/v1/models", self._models),
            self._route("GET", "/v1/models/{id:path}", self._model),
            self._route("GET", "/metrics", self._show_metrics),
            self._route("GET", "/slipstream/requests", self._show_requests),
            self._route("POST", "/slipstream/requests/{id}/stop", self._stop),
        ]
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(Guard, policy=policy)],
            lifespan=self._lifespan,
            exception_handlers={404: self._unknown, 405: self._wrong_method},
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        await self.line.start()
        answering = asyncio.create_task(self._answering.answer_all())
        try:
            yield
        finally:
            answering.cancel()
            with suppress(asyncio.CancelledError):
                await answering
            await self.line.close()

    def _route(self, method: str, path: str, endpoint: Endpoint) -> Route:
        async def answered(request: Request) -> Response:
            try:
                return await endpoint(request)
            except ServeError as error:
                return self._refusal(request, error)

        return Route(path, answered, methods=[method])

    def _refusal(self, request: Request, error: ServeError) -> Response:
        """In the form of the dialect that the client speaks."""
        path = request.url.path
        dialect = self._dialects.get(MESSAGES_ROUTE if path.startswith(MESSAGES_ROUTE) else path)
        return error_response(error, dialect.error(error) if dialect else None)

    def _answers(self, dialect: Dialect) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            client = client_name(request.headers.get("user-agent", ""))
            async with self._bodies.read(request, dialect.read) as asked:
                # A request that names no model gets the name of the one that answers it.
                named = asked if asked.model else replace(asked, model=self._load.name)
                job = await self._answering.accept(named, client)
            return AnswerResponse(self._answering, job, dialect)

        return endpoint

    def _counts(self, dialect: Dialect) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            async with self._bodies.read(request, dialect.read) as asked:
                _, checked = await self._answering.check(asked)
            return json_response({"input_tokens": checked.prompt_tokens})

        return endpoint

    async def _models(self, request: Request) -> Response:
        model = self._described()
        ends = {"first_id": model["id"], "last_id": model["id"]}
        return json_response({"object": "list", "data": [model], "has_more": False, **ends})

    async def _model(self, request: Request) -> Response:
        """Any name gets the loaded model, so any name has one."""
        return json_response(self._described() | {"id": request.path_params["id"]})

    def _described(self) -> dict[str, Any]:
        """In both forms at once, which every client reads."""
        ready = self.line.ready
        created_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._created_s))
        return {
            "id": self._load.name,
            "object": "model",
            "type": "model",
            "created": self._created_s,
            "created_at": created_at,
            "owned_by": "slipstream",
            "display_name": self._load.name,
            **({"max_model_len": ready.context_tokens, "max_input_tokens": ready.context_tokens} if ready else {}),
        }

    async def _show_metrics(self, request: Request) -> Response:
        text = self._metrics.text(self._live.running, self._answering.waiting)
        return Response(text, media_type=None, headers={"content-type": metrics.CONTENT_TYPE})

    async def _show_requests(self, request: Request) -> Response:
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(self._live.changes(), headers=STREAM_HEADERS)
        return json_response({"requests": self._live.states, "version": __version__})

    async def _stop(self, request: Request) -> Response:
        job = self._live.find(request.path_params["id"])
        if job is None:
            raise UnknownRouteError("There is no such request any more.")
        self._answering.stop(job)
        return json_response({"stopped": job.id})

    def _note(self, job: Job) -> None:
        self._live.note(job)
        if job.outcome is not None:
            self._metrics.note(job)

    async def _unknown(self, request: Request, error: Exception) -> Response:
        routes = ", ".join(sorted([*self._dialects, "/v1/models"]))
        return self._refusal(request, UnknownRouteError(f"There is nothing at this address. There is: {routes}."))

    async def _wrong_method(self, request: Request, error: Exception) -> Response:
        return self._refusal(request, WrongMethodError("This address is for another method: GET or POST."))
