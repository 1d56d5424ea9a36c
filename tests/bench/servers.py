"""The servers that are compared, each a process of its own, and one request to one of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2

from tests.bench.agent_session import Body
from tests.bench.environment import child_environment
from tests.bench.pairs import PairFolders
from tests.bench.served_pair import THIN
from tests.bench.sides import SideError

PATIENCE_S, LOADING_S, LOOK_S = 600.0, 180.0, 0.2
SAID = ("content", "reasoning_content", "reasoning", "tool_calls")
OURS, MLX_LM, MLX_VLM, AS_SHIPPED = "slipstream", "mlx-lm", "mlx-vlm", "mlx-vlm as shipped"


@dataclass(frozen=True, slots=True)
class Streamed:
    """One answer, as its client saw it."""

    text: str
    first_s: float
    """From the request to the first text, thought or call."""
    last_s: float
    total_s: float
    prompt_tokens: int
    cached_tokens: int
    tokens: int
    facts: dict[str, Any]
    """Our own server's `slipstream` object."""

    @property
    def read_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens


class BenchServer:
    """A running server."""

    def __init__(
        self, name: str, command: Sequence[str | Path], model: str, home: Path, openblas: Path | None = None
    ) -> None:
        """command: without the port. model: as requests name it. home: for its log and files."""
        self.name = name
        self._model = model
        self._port = _free_port()
        self._log: IO[bytes] = (home / f"{name}.log").open("wb")
        environment = child_environment(openblas) | {"SLIPSTREAM_HOME": str(home)}
        if name == MLX_VLM:  # its cache of prefixes, off as shipped; in memory alone, as with the others
            environment |= {"APC_ENABLED": "1", "APC_DISK_ENABLED": "0"}
        self._process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self._port)],
            env=environment,
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
        )
        self.url = f"http://127.0.0.1:{self._port}"
        self._client = httpx2.Client(base_url=self.url, timeout=PATIENCE_S, trust_env=False)

    def wait_until_ready(self) -> None:
        """Until it has answered something, its model loaded. Raises SideError."""
        ends_at_s = time.monotonic() + LOADING_S
        hello = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "stream": True}
        while True:
            if self._process.poll() is not None or time.monotonic() > ends_at_s:
                raise SideError(f"{self.name} did not start; see {self._log.name}")
            try:
                self.ask(hello)
                return
            except (httpx2.TransportError, SideError):
                time.sleep(LOOK_S)

    def body(self, request: Body) -> Body:
        """The request as this server gets it."""
        return request | {"model": self._model}

    def ask(self, request: Body) -> Streamed:
        """One streamed answer. Raises SideError if it broke off or was refused."""
        text: list[str] = []
        usage: dict[str, Any] = {}
        facts: dict[str, Any] = {}
        first_s = last_s = 0.0
        is_whole = False
        begun_at_s = time.perf_counter()
        with self._client.stream("POST", "/v1/chat/completions", json=self.body(request)) as response:
            if response.status_code != 200:
                raise SideError(f"{self.name}: {response.status_code} {response.read().decode()[:300]}")
            for line in response.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                now_s = time.perf_counter() - begun_at_s
                for choice in chunk.get("choices") or ():
                    delta = choice.get("delta") or {}
                    if any(delta.get(field) for field in SAID):
                        first_s, last_s = first_s or now_s, now_s
                        text.append(delta.get("content") or "")
                    is_whole = is_whole or bool(choice.get("finish_reason"))
                usage = chunk.get("usage") or usage
                facts = chunk.get("slipstream") or facts
        total_s = time.perf_counter() - begun_at_s
        if not is_whole:
            raise SideError(f"{self.name}: the answer broke off; see {self._log.name}")
        details = usage.get("prompt_tokens_details") or {}
        return Streamed(
            "".join(text),
            first_s or total_s,
            last_s or total_s,
            total_s,
            usage.get("prompt_tokens") or 0,
            details.get("cached_tokens") or 0,
            usage.get("completion_tokens") or 0,
            facts,
        )

    def processor_s(self) -> float:
        """Processor time of its processes so far; 0 where the system does not show it."""
        return _tree_processor_s(self._process.pid)

    def close(self) -> None:
        """End it."""
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def our_command(pair: PairFolders, options: Sequence[str] = ()) -> list[str | Path]:
    """Of `slipstream serve`."""
    model: list[str | Path] = ["--model", pair.target, "--drafter", pair.drafter]
    return [sys.executable, "-m", "app.cli", "serve", *model, *options]


def mlx_lm_command(python: Path, pair: PairFolders) -> list[str | Path]:
    """Without drafting: it knows no assistants."""
    return [python, "-m", "mlx_lm", "server", "--model", pair.target]


def mlx_vlm_command(python: Path, pair: PairFolders) -> list[str | Path]:
    """With the pair's assistant unless that is never right."""
    drafter: list[str | Path] = [] if pair.name == THIN else ["--draft-model", pair.drafter, "--draft-kind", "mtp"]
    return [python, "-m", "mlx_vlm.server", "--model", pair.target, *drafter]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _tree_processor_s(root: int) -> float:
    """From Linux's /proc."""
    spent_s: dict[int, float] = {}
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        parents[int(folder.name)] = int(fields[1])
        spent_s[int(folder.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    tree = {root}
    while more := {process for process, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return sum(spent_s.get(process, 0.0) for process in tree)
