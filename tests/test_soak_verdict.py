"""The soak itself is no part of the test run; that it would notice a leak is."""

from __future__ import annotations

import os
import random

from tests.soak.vitals import MB, Vitals, faults, growth_bytes, look_at


def evening(growth_bytes_a_turn: float = 0, threads: int = 0, files: int = 0) -> list[tuple[int, Vitals]]:
    """Sixty looks at a process that first fills its caches, wobbles, and has one spike."""
    draw = random.Random(1)
    return [
        (
            turn,
            Vitals(
                int(200 * MB + min(turn, 300) * MB + draw.uniform(-1, 1) * MB / 4 + growth_bytes_a_turn * turn)
                + (50 * MB if turn == 900 else 0),
                5 + threads * turn // 1000,
                20 + files * turn // 1000,
            ),
        )
        for turn in range(16, 1001, 16)
    ]


def test_what_is_flat_is_let_pass() -> None:
    assert faults("chat", evening(), MB) == []
    assert abs(growth_bytes(evening())) < MB / 2


def test_every_leak_is_named() -> None:
    assert "memory grows by" in faults("chat", evening(growth_bytes_a_turn=2000), MB)[0]
    assert faults("chat", evening(threads=3), MB)[0].startswith("chat: threads go from")
    assert faults("chat", evening(files=3), MB)[0].startswith("chat: files go from")


def test_a_process_is_looked_at() -> None:
    before = look_at(os.getpid())
    assert before.memory_bytes > MB
    held = [open(os.devnull) for _ in range(3)]  # noqa: SIM115
    after = look_at(os.getpid())
    assert before.files is None or after.files == before.files + 3
    for file in held:
        file.close()
