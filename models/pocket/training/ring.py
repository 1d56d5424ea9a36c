"""Runs a training stage in two local processes, which mlx.distributed joins in a ring."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx

PROCESSES = 2
"""MLX's CPU backend computes on one thread; two processes with half a batch each are twice as fast."""


def run_ring(module: str, arguments: list[str], work: Path) -> None:
    """Run `python -m module arguments` in all processes of a ring; SystemExit if one of them fails."""
    hosts = work / "ring.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in _free_ports(PROCESSES)]))
    workers = []
    for rank in range(PROCESSES):
        own = {"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank), "OPENBLAS_NUM_THREADS": "1"}
        workers.append(subprocess.Popen([sys.executable, "-m", module, *arguments], env=os.environ | own))
    exit_codes = [worker.wait() for worker in workers]
    if any(exit_codes):
        raise SystemExit(f"a process of {module} failed")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Ring:
    """This process's rank in the ring; a ring of one outside `run_ring`."""

    def __init__(self) -> None:
        self._group = mx.distributed.init(backend="ring" if "MLX_HOSTFILE" in os.environ else "any")
        self.rank, self.size = self._group.rank(), self._group.size()

    def sum(self, array: mx.array) -> mx.array:
        """The sum of all processes' arrays."""
        return mx.distributed.all_sum(array, group=self._group)

    def log(self, line: str) -> None:
        """Print a line with the time, in the first process only."""
        if self.rank == 0:
            print(time.strftime("%H:%M:%S"), line, flush=True)
