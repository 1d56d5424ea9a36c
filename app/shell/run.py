"""`slipstream run`: prints one reply on standard output, as text while it arrives or as one JSON object."""

from __future__ import annotations

import json
import queue
import signal
from types import FrameType
from typing import Any

from app.core.chat_options import ChatOptions
from app.core.incoming import Incoming
from app.system.console import say, say_json
from app.system.exit_codes import INTERRUPTED, OK
from mlx_engine.client import EngineHandle
from mlx_engine.protocol import events


def run_once(engine: EngineHandle, prompt: str, options: ChatOptions, is_json: bool) -> int:
    """Ask once and print the reply. Returns the exit code. Raises SlipstreamError if there is no reply."""
    inbox: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
    engine.on_event = inbox.put
    reply = Incoming()
    previous_handler = signal.signal(signal.SIGINT, _cancel_then_die(engine))
    try:
        engine.start()
        engine.generate(_request(prompt, options))
        while reply.finished is None:
            piece = reply.take(inbox.get())
            if not is_json:
                say(piece, end="")
    finally:
        signal.signal(signal.SIGINT, previous_handler)
        engine.close()
    if is_json:
        say_json(json.dumps(_as_json(reply, options), ensure_ascii=False))
    else:
        say()
    return INTERRUPTED if reply.finished.reason == "cancelled" else OK


def _request(prompt: str, options: ChatOptions) -> events.Generate:
    messages = [events.Message("user", prompt)]
    if options.system:
        messages.insert(0, events.Message("system", options.system))
    return events.Generate(
        1, tuple(messages), options.sampling, options.draft_length, options.max_tokens, options.is_thinking
    )


def _as_json(reply: Incoming, options: ChatOptions) -> dict[str, Any]:
    stats, ready, started, finished = reply.stats, reply.ready, reply.started, reply.finished
    assert ready
    assert started
    assert finished
    drafts = max((n for n, count in enumerate(stats.drafted_by_position, 1) if count), default=0)
    return {
        "text": reply.text,
        "thinking": reply.thinking,
        "token_ids": reply.token_ids,
        "finish_reason": finished.reason,
        "prompt_tokens": started.prompt_tokens,
        "cached_tokens": started.cached_tokens,
        "stats": {
            "rounds": stats.rounds,
            "target_passes": finished.target_passes,
            "drafted": stats.drafted,
            "accepted": stats.accepted,
            "acceptance": stats.acceptance,
            "tokens_per_round": stats.tokens_per_round,
            "drafted_by_position": stats.drafted_by_position[:drafts],
            "accepted_by_position": stats.accepted_by_position[:drafts],
            "generated_tokens": stats.generated_tokens,
            "decode_s": stats.decode_s,
            "tokens_per_s": stats.tokens_per_s,
            "ms_per_token": 1000 / stats.tokens_per_s if stats.tokens_per_s else None,
            "ttft_s": stats.ttft_s,
            "plain_tokens_per_s": stats.plain_tokens_per_s,
            "speedup": stats.speedup,
            "host_syncs": finished.host_syncs,
            "peak_memory_bytes": finished.peak_memory_bytes,
        },
        "model": {"target": ready.target, "drafter": ready.drafter, "draft": options.draft_length or "off"},
    }


def _cancel_then_die(engine: EngineHandle) -> Any:
    """A handler: the first ctrl+c stops after the current round and keeps the text, the second ends at once."""
    presses = 0

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            raise KeyboardInterrupt
        engine.cancel()

    return handle
