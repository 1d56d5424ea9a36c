"""Slipstream's own engine as a side: the loop, the caches and the policies that the chat uses, without text.

Freed buffers are given back and rounds observed as `mlx_engine.engine` does it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_engine.decode import DecodeOptions, Session, generate
from mlx_engine.engine import CACHED_BUFFER_BYTES, CLEAR_EVERY_ROUNDS
from mlx_engine.network.assistant import load_assistant
from mlx_engine.network.chunk_length import ChunkLength
from mlx_engine.network.kv_cache import TargetCache
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.target import load_target
from mlx_engine.protocol.events import LOOKUP, Message
from mlx_engine.protocol.prefill_chunk import chunk_range
from mlx_engine.speculation.assistant_drafter import AssistantDrafter, check_pair
from mlx_engine.speculation.drafter import Drafter, Frontier
from mlx_engine.speculation.lookup import LookupDrafter
from mlx_engine.speculation.sampling import Distribution, Sampler
from mlx_engine.speculation.steering import DraftPolicies, ReplyControl, Steering, start_length
from mlx_engine.text.prompt import ChatFormat
from tests.bench.serve import Reply, Request, Timeline, serve


class ScriptedDrafter:
    """Drafts as ever, at full cost, and puts the script's tokens in place of what was drafted."""

    def __init__(self, drafter: Drafter, prompt_tokens: int, script: Sequence[int]) -> None:
        self._drafter = drafter
        self._prompt_tokens = prompt_tokens
        self._script = script
        self.prefill = drafter.prefill
        self.name = drafter.name
        self.offer = drafter.offer
        self.rollback = drafter.rollback

    def propose(
        self, committed: Sequence[int], frontier: Frontier, cache: TargetCache, length: int, sampler: Sampler
    ) -> Distribution:
        """See Drafter."""
        drafted = self._drafter.propose(committed, frontier, cache, length, sampler)
        at = len(committed) - self._prompt_tokens
        said = mx.array([*self._script[at : at + length]], dtype=mx.int32)
        return Distribution(drafted.tokens * 0 + said, None)


class Ours:
    """One pair, loaded once."""

    def load(self, request: Request) -> Reply:
        """`weights_bytes` is what the pair alone takes."""
        mx.set_cache_limit(CACHED_BUFFER_BYTES)
        is_compiled = request["is_compiled"]
        if is_compiled is None:
            is_compiled = mx.metal.is_available()
        target, drafter = Path(request["target"]), Path(request["drafter"])
        self._target = load_target(target, is_compiled=is_compiled)
        network = load_assistant(drafter, is_compiled=is_compiled)
        check_pair(network, self._target.facts, (str(drafter), str(target)))
        self._drafters: dict[str, Drafter] = {
            "assistant": AssistantDrafter(network, self._target),
            LOOKUP: LookupDrafter(),
        }
        self._format = ChatFormat(target) if (target / "tokenizer.json").exists() else None
        self._chunk = self._chunk_length(None)
        self._prefix = PrefixCache(self._target)
        self._start_length = start_length(str(mx.device_info().get("architecture")))
        self._policies: dict[str, DraftPolicies] = {}
        return {"weights_bytes": mx.get_active_memory(), "vocab_size": self._target.facts.vocab_size}

    def render(self, request: Request) -> Reply:
        """Token ids of messages, [[role, text], ...]."""
        assert self._format, "a random pair has no tokenizer"
        prompt = self._format.render([Message(role, text) for role, text in request["messages"]])
        return {"ids": prompt.ids, "stop": sorted(self._format.stop_tokens)}

    def encode(self, request: Request) -> Reply:
        """Token ids of plain text."""
        assert self._format
        return {"ids": self._format.encode(request["text"])}

    def generate(self, request: Request) -> Reply:
        """One reply to a prompt; `length` is a number or `auto`; `estimates` names what auto goes on with; `chunk`
        is the length of a prefill chunk, or None: as the engine chooses it. `drafters` are their names; without
        them auto has all, as in the chat, and a number or a script has the assistant."""
        self._chunk = self._chunk_length(request.get("chunk"))
        self._prefix = PrefixCache(self._target, self._chunk)
        return self._reply(request, ())

    def turn(self, request: Request) -> Reply:
        """One turn of a conversation, whose cache is kept."""
        if request["is_first"]:
            self._prefix = PrefixCache(self._target)
        return self._reply(request, request["marks"])

    def memory(self, request: Request) -> Reply:
        """A long reply, with what is in use beside weights and K/V along the way."""
        self._prefix = PrefixCache(self._target)
        samples: list[list[int]] = []

        def look(tokens: int) -> None:
            if tokens >= (len(samples) + 1) * request["every_tokens"]:
                mx.clear_cache()
                samples.append(
                    [
                        tokens,
                        mx.get_active_memory() - sum(c.nbytes for c in self._prefix.cache.layers),
                        _resident_bytes(),
                    ]
                )

        reply = self._reply(request, (), look)
        return {"samples": samples, "decode_s": reply["decode_s"], "tokens": reply["tokens"]}

    def _reply(self, request: Request, marks: Sequence[int], look: Any = lambda tokens: None) -> Reply:
        mx.reset_peak_memory()
        drafters = self._chosen(request)
        timeline = Timeline()
        cached_tokens = self._prefix.resume(request["prompt"])
        session = Session(self._target, drafters, self._prefix)
        policies = self._estimates(request.get("estimates"), [drafter.name for drafter in drafters])
        plan = self._plan(request, policies, marks)
        rounds = drafted = 0
        accepted = dict.fromkeys(self._drafters, 0)
        before_s = time.perf_counter()

        def on_prefill(done_tokens: int) -> None:
            nonlocal before_s
            now_s = time.perf_counter()
            self._chunk.observe(now_s - before_s)
            before_s = now_s

        for done in generate(session, plan, on_prefill):
            timeline.add(list(done.token_ids))
            now_s = time.perf_counter()
            if rounds:
                policies.observe(done, now_s - before_s)
            before_s = now_s
            if session.target_passes % CLEAR_EVERY_ROUNDS == 0:
                mx.clear_cache()
            rounds, drafted = rounds + 1, drafted + done.drafted
            if done.drafted:
                accepted[done.drafter] += done.accepted
            look(len(timeline.token_ids))
        reply = timeline.facts() | {"rounds": rounds, "drafted": drafted, "accepted": sum(accepted.values())}
        reply["copied"] = accepted[LOOKUP]
        reply["round_tokens"] = len(timeline.token_ids)
        reply |= {"passes": session.target_passes, "syncs": session.host_syncs, "cached_tokens": cached_tokens}
        reply |= {"peak_bytes": mx.get_peak_memory(), "kv_bytes": sum(c.nbytes for c in self._prefix.cache.layers)}
        mx.clear_cache()
        return reply

    def _chosen(self, request: Request) -> list[Drafter]:
        script = request.get("script")
        if script:
            return [ScriptedDrafter(self._drafters["assistant"], len(request["prompt"]), script)]
        usual = self._drafters if request["length"] == "auto" else ("assistant",)
        return [self._drafters[name] for name in request.get("drafters", usual)]

    def _chunk_length(self, setting: int | None) -> ChunkLength:
        facts = self._target.facts
        return ChunkLength(chunk_range(setting, is_moe=facts.is_moe, has_gpu=mx.metal.is_available()))

    def _plan(self, request: Request, policies: DraftPolicies, marks: Sequence[int]) -> DecodeOptions:
        sampler = Sampler(
            temperature=request["temperature"],
            seed=request.get("seed") or 0,
            is_coupled=request.get("rule") == "coupled",
        )
        steering = Steering(ReplyControl(request["length"]), policies, measures_baseline=False)
        return DecodeOptions(sampler, frozenset(request["stop"]), request["max_tokens"], steering, tuple(marks))

    def _estimates(self, name: str | None, drafters: Sequence[str]) -> DraftPolicies:
        fresh = DraftPolicies(None, self._start_length, drafters)
        return self._policies.setdefault(name, fresh) if name else fresh


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    return 0


if __name__ == "__main__":
    side = Ours()
    serve(
        {
            "load": side.load,
            "render": side.render,
            "encode": side.encode,
            "generate": side.generate,
            "turn": side.turn,
            "memory": side.memory,
        }
    )
