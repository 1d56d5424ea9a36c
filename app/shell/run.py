"""`slipstream run`: prints one reply on standard output, as text while it arrives or as one JSON object."""

from __future__ import annotations

import asyncio
import json
import queue
from dataclasses import asdict
from typing import Any

from app.core.conversation import Conversation
from app.core.current_pair import CurrentPair
from app.core.dialogue import Dialogue
from app.core.pair_choice import PairChoice
from app.core.reply_settings import ReplySettings
from app.core.reply_view import ReplyView, Severity
from app.core.schema_file import SchemaFile
from app.core.store_notices import StoreNotices
from app.settings.table import Settings
from app.store.chat_store import ChatStore
from app.system.console import say, say_json, warn
from app.system.exit_codes import FAILED, INTERRUPTED, OK
from app.system.interrupts import Stop, stopping
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Event, Finished, Notice, Part, Round, Silent


class PrintedReply(ReplyView):
    """Prints a reply while it is written."""

    def __init__(self, *, is_silent: bool) -> None:
        self.error = ""
        self._is_silent = is_silent

    def grow_reply(self, part: Round | Part | Finished) -> None:
        """See ReplyView."""
        if not self._is_silent:
            say(part.text, end="")

    async def show_error(self, message: str) -> None:
        """See ReplyView."""
        self.error = message


class StoppableReply:
    """A reply that a request to stop ends after its current round, keeping the text."""

    def __init__(self, dialogue: Dialogue, stop: Stop) -> None:
        self._dialogue, self._stop = dialogue, stop
        self._is_stopped = self._is_silent = False

    def obey(self) -> None:
        """Stop the reply if that is requested. Raises KeyboardInterrupt if there is nothing to wait for."""
        if not self._stop.is_requested or self._is_stopped:
            return
        self._is_stopped = True
        if self._is_silent:
            raise KeyboardInterrupt
        self._dialogue.stop()
        if not self._dialogue.phase.is_replying:
            raise KeyboardInterrupt

    async def hear(self, event: Event) -> None:
        """Handle one event. Raises KeyboardInterrupt if the reply is to stop, but the engine does not answer."""
        self._is_silent = isinstance(event, Silent) or (self._is_silent and isinstance(event, Notice))
        if not isinstance(event, Silent):
            await self._dialogue.hear(event)
        elif self._is_stopped:
            raise KeyboardInterrupt
        else:
            warn(f"{event.message} Wait for it, or press ctrl+c to quit.")


def run_once(
    engine: EngineHandle,
    pair: PairChoice,
    prompt: str,
    settings: Settings,
    is_json: bool,
    schema: SchemaFile | None = None,
) -> int:
    """Ask once and print the reply. Returns the exit code. Raises SlipstreamError if there is no reply.

    schema: what the reply has to match.
    """
    return asyncio.run(_run(engine, pair, prompt, settings, is_json, schema))


async def _run(
    engine: EngineHandle,
    choice: PairChoice,
    prompt: str,
    settings: Settings,
    is_json: bool,
    schema: SchemaFile | None,
) -> int:
    inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    """None only wakes the reader, to check for an interrupt."""
    engine.on_event = inbox.put
    view = PrintedReply(is_silent=is_json)
    store = ChatStore.in_memory()
    conversation = Conversation(store)
    dialogue = Dialogue(
        engine,
        conversation,
        CurrentPair(engine, choice, _tell),
        ReplySettings(settings, conversation, schema),
        view,
        _tell,
        StoreNotices(store, _tell),
    )
    stop = Stop()
    reply = StoppableReply(dialogue, stop)
    try:
        with stopping(stop, wake=lambda: inbox.put(None)):
            engine.start()
            await dialogue.ask(prompt)
            while dialogue.phase.is_replying:
                event = inbox.get()
                reply.obey()
                if event is not None:
                    await reply.hear(event)
    finally:
        engine.close()
        store.close()
    if view.error:
        raise SlipstreamError(view.error)
    finished = dialogue.facts.finished
    assert finished
    if is_json:
        say_json(json.dumps(_as_json(dialogue), ensure_ascii=False))
    else:
        say()
    if schema is not None and finished.reason == "length":
        advice = _room(dialogue.settings.options.max_tokens)
        warn(f"the reply was cut off, so it does not match the schema. {advice}")
        return FAILED
    return INTERRUPTED if finished.reason == "cancelled" else OK


def _room(max_tokens: int | None) -> str:
    """What to do for a longer reply. max_tokens: what was allowed; None: as many as fit."""
    if max_tokens is None:
        return "It filled what the context or the server allows: ask for less, or for shorter texts."
    return "Use a larger --max-tokens."


def _tell(message: str, *, severity: Severity = "information", timeout: float | None = None) -> None:
    warn(message)


def _as_json(dialogue: Dialogue) -> dict[str, Any]:
    facts, ready = dialogue.facts, dialogue.pair.ready
    stats, started, finished = facts.stats, facts.started, facts.finished
    assert ready
    assert finished
    drafts = max((n for n, count in enumerate(stats.drafted_by_position, 1) if count), default=0)
    return {
        "text": facts.text,
        "thinking": facts.thinking,
        "token_ids": facts.token_ids,
        "finish_reason": finished.reason,
        "prompt_tokens": facts.prompt_tokens,
        "cached_tokens": facts.cached_tokens,
        "tokens_from": started
        and {
            "memory": started.memory_tokens,
            "disk": started.disk_tokens,
            "read": started.read_tokens,
        },
        "stats": {
            "rounds": stats.rounds,
            "target_passes": finished.target_passes,
            "drafted": stats.drafted,
            "accepted": stats.accepted,
            "acceptance": stats.acceptance,
            "tokens_per_round": stats.tokens_per_round,
            "by_drafter": {name: asdict(counts) for name, counts in stats.by_drafter.items()},
            "drafted_by_position": stats.drafted_by_position[:drafts],
            "accepted_by_position": stats.accepted_by_position[:drafts],
            "generated_tokens": stats.generated_tokens,
            "decode_s": stats.decode_s,
            "tokens_per_s": stats.tokens_per_s,
            "ms_per_token": 1000 / stats.tokens_per_s if stats.tokens_per_s else None,
            "ttft_s": stats.ttft_s,
            "plain_tokens_per_s": stats.baseline_tokens_per_s,
            "speedup": stats.speedup,
            "host_syncs": finished.host_syncs,
            "peak_memory_bytes": finished.peak_memory_bytes,
        },
        "model": {
            "target": ready.target,
            "drafter": ready.drafter,
            "drafters": list(ready.drafters.values()),
            "draft": dialogue.settings.draft_length or "off",
            "server": ready.server.name if ready.server else None,
        },
    }
