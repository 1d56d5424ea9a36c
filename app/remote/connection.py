"""Finding out what a server is: which program, which models, how long their context is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.remote import kinds
from app.remote.address import ServerAddress, ServerError
from app.remote.failures import status_error
from app.remote.http import ask
from app.remote.kinds import ServerKind
from app.text.sanitise import sanitise_line
from mlx_engine.protocol.events import Ready, ServerFacts

if TYPE_CHECKING:
    import httpx2

CONTEXT_NAMES = ("max_model_len", "context_window", "context_length", "loaded_context_length")
"""Not LM Studio's max_context_length: that is the most that it could load, and it loads far less by itself."""
OLLAMAS_GREETING = "Ollama is running"
LISTED_MODELS = 8


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of a server."""

    id: str
    context_tokens: int | None = None
    """The most tokens of prompt and reply together; None: it does not say."""
    is_loaded: bool = False
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says about itself."""

    kind: ServerKind
    models: tuple[ServedModel, ...]
    has_metrics: bool = False

    def model(self, name: str | None, address: ServerAddress) -> ServedModel:
        """The model of this name; None: the one that is loaded, or the first. Raises ServerError.

        A name that a server does not list is never sent: some would download it.
        """
        if name is None and self.kind.default_model is not None:
            return ServedModel(self.kind.default_model)
        if name is None and self.models:
            return next((model for model in self.models if model.is_loaded), self.models[0])
        if name is None:
            raise ServerError(f"{address.shown} does not list its models. Name one with --model.")
        if not self.models or name == self.kind.default_model:
            return ServedModel(name)
        for model in self.models:
            if name in (model.id, model.id.removesuffix(":latest"), *model.aliases):
                return model
        names = [sanitise_line(model.id) for model in self.models[:LISTED_MODELS]]
        more = f" and {len(self.models) - LISTED_MODELS} more" if len(self.models) > LISTED_MODELS else ""
        raise ServerError(
            f"{address.shown} has no model {sanitise_line(name)!r}. It has: {', '.join(names)}{more}."
        )

    def ready(self, model: ServedModel, load_s: float) -> Ready:
        """The server as an engine that is loaded."""
        server = ServerFacts(
            name=self.kind.name,
            models=tuple(each.id for each in self.models),
            why_drafting_stays=self.kind.why_fixed,
            has_draft_lengths=self.kind.has_draft_lengths,
        )
        return Ready(
            target=model.id,
            drafters={},
            start_length=None,
            precision=None,
            context_tokens=model.context_tokens,
            memory_bytes=None,
            working_set_bytes=None,
            load_s=load_s,
            server=server,
        )


async def look(http: httpx2.AsyncClient, address: ServerAddress, key: str | None) -> Served:
    """Ask a server what it is. Raises ServerError if it does not answer, or refuses."""
    answered = await ask(http, address, f"{address.url}/models")
    body = _json(answered.text)
    if answered.status not in (200, 404, 405):
        raise status_error(address, answered.status, answered.headers, body or answered.text, key=key)
    entries = _entries(body)
    kind = kinds.recognised(address.host, answered.headers, entries)
    if answered.status != 200 and kind is kinds.OTHER:
        raise status_error(address, answered.status, answered.headers, body or answered.text, key=key)
    if answered.status == 200 and not entries and "json" not in answered.headers.get("content-type", ""):
        raise ServerError(
            f"{address.shown} answers, but not as a server of models: it sent no list at {address.path}/models. "
            "Check the address."
        )
    if kind is kinds.OTHER and await _greets_as_ollama(http, address):
        kind = kinds.OLLAMA
    models = tuple(model for entry in entries if (model := _model(entry)) is not None)
    if kind is kinds.LM_STUDIO:
        models = await _with_contexts(http, address, models)
    if kind is kinds.OLLAMA:
        models = await _with_ollamas_contexts(http, address, models)
    has_metrics = False
    if kind.counters is not None:
        metrics = await ask(http, address, f"{address.root}/metrics")
        has_metrics = metrics.status == 200
    return Served(kind, models, has_metrics)


async def _with_contexts(
    http: httpx2.AsyncClient, address: ServerAddress, models: tuple[ServedModel, ...]
) -> tuple[ServedModel, ...]:
    """LM Studio's own list says which models are loaded, and how long their context is."""
    own = _entries(_json((await ask(http, address, f"{address.root}/api/v0/models")).text))
    known = {model.id: model for entry in own if (model := _model(entry)) is not None}
    return tuple(known.get(model.id, model) for model in models)


async def _greets_as_ollama(http: httpx2.AsyncClient, address: ServerAddress) -> bool:
    """Its list names the makers of its models, so one without any of Ollama's own is known by its first page."""
    try:
        return (await ask(http, address, address.root)).text == OLLAMAS_GREETING
    except ServerError:
        return False


async def _with_ollamas_contexts(
    http: httpx2.AsyncClient, address: ServerAddress, models: tuple[ServedModel, ...]
) -> tuple[ServedModel, ...]:
    """Which models are in memory, and how long their context is there."""
    running = _entries(_json((await ask(http, address, f"{address.root}/api/ps")).text), "models")
    loaded = {str(entry.get("model")): _context(entry) for entry in running}
    return tuple(
        replace(model, context_tokens=loaded[model.id], is_loaded=True) if model.id in loaded else model
        for model in models
    )


def _model(entry: Mapping[str, Any]) -> ServedModel | None:
    id = entry.get("id")
    if not isinstance(id, str) or not id:
        return None
    status, aliases = entry.get("status"), entry.get("aliases")
    state = entry.get("state", status.get("value") if isinstance(status, Mapping) else None)
    return ServedModel(
        id,
        _context(entry),
        entry.get("loaded") is True or state == "loaded",
        tuple(filter(lambda each: isinstance(each, str), aliases)) if isinstance(aliases, list) else (),
    )


def _context(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    contexts = [entry.get(name) for name in CONTEXT_NAMES]
    contexts.append(meta.get("n_ctx") if isinstance(meta, Mapping) else None)
    return next((each for each in contexts if isinstance(each, int) and each > 0), None)


def _entries(body: Any, name: str = "data") -> tuple[Mapping[str, Any], ...]:
    entries = body.get(name) if isinstance(body, Mapping) else None
    return tuple(entry for entry in entries if isinstance(entry, Mapping)) if isinstance(entries, list) else ()


def _json(text: str) -> Any:
    """None for a text that is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
