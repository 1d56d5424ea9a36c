"""The rows of `tests.bench.serving`."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from statistics import median
from typing import Literal

import httpx2

from app.bench.prompts import bundled_prompts
from tests.bench.agent_session import TURNS, Body, agent_session, schema_of, two_callers
from tests.bench.environment import child_environment
from tests.bench.pairs import PairFolders
from tests.bench.servers import OURS, PATIENCE_S, BenchServer, Streamed, our_command
from tests.bench.sides import SideError
from tests.bench.table import Figure

SESSION_AIM, FIRST_AIM, CALLERS_AIM, RUN_AIM, SCHEMA_AIM = 0.5, 0.3, 0.5, 0.97, 0.9
CALLERS_CHARACTERS, CALLERS_TURNS = 5000, 4
"""About 2,000 tokens of a shared system text."""
FIELDS, SCHEMA_TOKENS = 20, 400
PROMPTS, REPLY_TOKENS, DRAFT_LENGTH = 8, 128, 4
CONNECTIONS = 64


class _Measured:
    """What each server took, step by step."""

    def __init__(self, servers: Sequence[BenchServer]) -> None:
        self._servers = list(servers)
        self.answers: dict[str, list[Streamed]] = defaultdict(list)
        self.total_s: dict[str, list[float]] = defaultdict(list)
        self.processor_s: dict[str, list[float]] = defaultdict(list)

    def step(self, request: Body, beside: Body | None = None) -> None:
        """One request to every server in turn, another one beside it; the next time another server begins."""
        for server in self._servers:
            before_s, begun_at_s = server.processor_s(), time.perf_counter()
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(server.ask, beside) if beside else None
                self.answers[server.name].append(server.ask(request))
                if other:
                    other.result()
            self.total_s[server.name].append(time.perf_counter() - begun_at_s)
            self.processor_s[server.name].append(server.processor_s() - before_s)
        self._servers.append(self._servers.pop(0))


def session(servers: list[BenchServer], options: argparse.Namespace, pair: PairFolders) -> Iterator[Figure]:
    """An agent's ten turns, a title beside the first."""
    runs = []
    for repeat in range(options.repeats):
        requests = agent_session(repeat, options.system, options.tokens)
        runs.append(measured := _Measured(servers))
        for turn, request in enumerate(requests.turns):
            measured.step(request, requests.title if turn == 0 else None)
    for server in servers:
        answers = runs[0].answers[server.name]
        read = ", ".join(f"{answer.read_tokens:,}" for answer in answers)
        tokens = sum(answer.tokens for answer in answers)
        detail = f"read per turn: {read}; {tokens} tokens answered; last prompt: {answers[-1].prompt_tokens:,}"
        seconds = [sum(run.total_s[server.name]) for run in runs]
        yield _figure("session", pair, f"session, seconds, {server.name}", seconds, detail=detail)
    yield from _beside_better(
        "session",
        pair,
        "session, total time",
        {server.name: [sum(run.total_s[server.name]) for run in runs] for server in servers},
        SESSION_AIM,
    )
    yield from _beside_better(
        "session",
        pair,
        "session, processor time",
        {server.name: [sum(run.processor_s[server.name]) for run in runs] for server in servers},
        SESSION_AIM,
    )
    later = slice(1, TURNS)
    yield from _beside_better(
        "session",
        pair,
        "first token of turns 2 to 10",
        {server.name: [_first_s(run.answers[server.name][later]) for run in runs] for server in servers},
        FIRST_AIM,
    )
    yield from _beside_better(
        "session",
        pair,
        "turns 2 to 10, processor time",
        {server.name: [median(run.processor_s[server.name][later]) for run in runs] for server in servers},
        FIRST_AIM,
    )


def callers(servers: list[BenchServer], options: argparse.Namespace, pair: PairFolders) -> Iterator[Figure]:
    """Two callers in turn, who share a system text."""
    runs = []
    for repeat in range(options.repeats):
        runs.append(measured := _Measured(servers))
        for request in two_callers(100 + repeat, CALLERS_CHARACTERS, CALLERS_TURNS, options.tokens):
            measured.step(request)
    for server in servers:
        read = ", ".join(f"{answer.read_tokens:,}" for answer in runs[0].answers[server.name])
        seconds = [_first_s(run.answers[server.name][1:]) for run in runs]
        yield _figure("callers", pair, f"two callers, first token, {server.name}", seconds, detail=f"read: {read}")
    yield from _beside_better(
        "callers",
        pair,
        "two callers, first token",
        {server.name: [_first_s(run.answers[server.name][1:]) for run in runs] for server in servers},
        CALLERS_AIM,
    )
    yield from _beside_better(
        "callers",
        pair,
        "two callers, processor time",
        {server.name: [sum(run.processor_s[server.name][1:]) for run in runs] for server in servers},
        CALLERS_AIM,
    )


def beside_run(servers: list[BenchServer], options: argparse.Namespace, pair: PairFolders) -> Iterator[Figure]:
    """From the first text to the last, the same replies by `slipstream run` and by a server, at one draft length:
    what auto has learned differs between the two."""
    home = pair.target.parent / "run"
    home.mkdir(exist_ok=True)
    compiled = ("--compile", "on") if options.compile else ()
    fixed = (*compiled, "--draft", str(DRAFT_LENGTH))
    prompts = [prompt.messages[-1].text for prompt in bundled_prompts(is_pocket=True)][:PROMPTS]
    ratios = []
    with closing(BenchServer(OURS, our_command(pair, fixed), pair.target.name, home, options.openblas)) as ours:
        ours.wait_until_ready()
        for _ in range(options.repeats):
            run_s = served_s = 0.0
            for prompt in prompts:
                answer = ours.ask(_asking(prompt, REPLY_TOKENS))
                text, took_s = _run(prompt, pair, options, fixed)
                if text.strip() == answer.text.strip():
                    run_s += took_s
                    served_s += answer.last_s - answer.first_s
            if not served_s:
                raise SideError("run and serve gave different replies to every prompt")
            ratios.append(run_s / served_s)
    yield _figure("run", pair, "tokens/s, serving / run", ratios, RUN_AIM)


def schema(servers: list[BenchServer], options: argparse.Namespace, pair: PairFolders) -> Iterator[Figure]:
    """A form of twenty fields beside free text of about the same length, in one session."""
    ours = _ours(servers)
    form = {"type": "json_schema", "json_schema": {"name": "form", "strict": True, "schema": schema_of(FIELDS)}}
    prompts = [prompt.messages[-1].text for prompt in bundled_prompts(is_pocket=True)][:PROMPTS]
    ratios, detail = [], ""
    for _ in range(options.repeats):
        free = [ours.ask(_asking(prompt, SCHEMA_TOKENS)) for prompt in prompts]
        formed = [ours.ask(_asking(prompt, SCHEMA_TOKENS) | {"response_format": form}) for prompt in prompts]
        ratios.append(_tokens_per_s(formed) / _tokens_per_s(free))
        detail = f"{_per_round(formed):.2f} tokens per round, free text {_per_round(free):.2f}"
    yield _figure("schema", pair, "tokens/s, a schema of 20 fields / none", ratios, SCHEMA_AIM, detail)


def many(servers: list[BenchServer], options: argparse.Namespace, pair: PairFolders) -> Iterator[Figure]:
    """Many connections at once: what is not answered in full."""
    ours = _ours(servers)
    begun_at_s = time.perf_counter()
    outcomes = asyncio.run(_ask_at_once(ours, options.requests))
    took_s = time.perf_counter() - begun_at_s
    broken = Counter(outcome for outcome in outcomes if outcome != "whole")
    detail = f"{options.requests} requests, {took_s:.0f} s{', ' if broken else ''}{dict(broken) or ''}"
    name = f"{CONNECTIONS} connections at once: refused or broken"
    yield Figure("many", pair.name, "", name, broken.total(), 0, "at most", detail=detail)


async def _ask_at_once(server: BenchServer, requests: int) -> list[str]:
    left = iter(range(requests))
    outcomes: list[str] = []
    limits = httpx2.Limits(max_connections=CONNECTIONS)

    async def ask_on(client: httpx2.AsyncClient) -> None:
        for index in left:
            body = server.body(_asking(f"What is acceptance? ({index})", 4))
            try:
                answer = await client.post("/v1/chat/completions", json=body)
            except httpx2.TransportError as error:
                outcomes.append(type(error).__name__)
                continue
            is_whole = answer.status_code == 200 and answer.text.rstrip().endswith("data: [DONE]")
            outcomes.append("whole" if is_whole else f"status {answer.status_code}")

    async with httpx2.AsyncClient(
        base_url=server.url, timeout=PATIENCE_S, limits=limits, trust_env=False
    ) as client:
        await asyncio.gather(*(ask_on(client) for _ in range(CONNECTIONS)))
    return outcomes


def _run(prompt: str, pair: PairFolders, options: argparse.Namespace, fixed: Sequence[str]) -> tuple[str, float]:
    """The reply of `slipstream run`, and the seconds from its first text to its last."""
    model = ["--model", str(pair.target), "--drafter", str(pair.drafter)]
    command = [sys.executable, "-m", "app.cli", "run", *model, *fixed, "--temp", "0"]
    # A folder of its own: in the server's, run would find that server.
    home = pair.target.parent / "run" / "home"
    environment = child_environment(options.openblas) | {"SLIPSTREAM_HOME": str(home)}
    text, times = b"", []
    with subprocess.Popen(
        [*command, "--max-tokens", str(REPLY_TOKENS), prompt], stdout=subprocess.PIPE, env=environment
    ) as run:
        assert run.stdout
        while part := os.read(run.stdout.fileno(), 1 << 16):
            if part.strip():
                times.append(time.perf_counter())
            text += part
    if run.returncode or not times:
        raise SideError(f"run ended with exit status {run.returncode}")
    return text.decode(), times[-1] - times[0]


def _asking(prompt: str, max_tokens: int) -> Body:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    return {
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": max_tokens,
    } | usage


def _ours(servers: Sequence[BenchServer]) -> BenchServer:
    return next(server for server in servers if server.name == OURS)


def _first_s(answers: Sequence[Streamed]) -> float:
    return median(answer.first_s for answer in answers)


def _tokens_per_s(answers: Sequence[Streamed]) -> float:
    return sum(answer.tokens for answer in answers) / sum(answer.last_s - answer.first_s for answer in answers)


def _per_round(answers: Sequence[Streamed]) -> float:
    rounds: int = sum(answer.facts["rounds"] for answer in answers)
    return sum(answer.tokens for answer in answers) / rounds


def _beside_better(
    row: str, pair: PairFolders, name: str, values: dict[str, list[float]], bar: float
) -> Iterator[Figure]:
    """Beside each peer; the bar is for the better one."""
    peers = {peer: median(its) for peer, its in values.items() if peer != OURS}
    if not all(peers.values()):
        return  # processor time is not shown on this system
    for peer, middle in peers.items():
        ratios = [own / its for own, its in zip(values[OURS], values[peer])]
        is_better = middle == min(peers.values())
        detail = f"{median(values[OURS]):.3g} s / {middle:.3g} s"
        yield _figure(row, pair, f"{name} / {peer}", ratios, bar if is_better else None, detail, "at most")


def _figure(
    row: str,
    pair: PairFolders,
    name: str,
    values: list[float],
    bar: float | None = None,
    detail: str = "",
    side: Literal["at least", "at most"] = "at least",
) -> Figure:
    return Figure(row, pair.name, "", name, median(values), bar, side, min(values), max(values), detail)
