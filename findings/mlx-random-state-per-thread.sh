#!/usr/bin/env bash
# mlx 0.32.4: the state behind `mx.random` belongs to a thread, and each new thread begins with the same one. A server that
# answers every request in a thread of its own samples the same reply again and again, and no seed set at its start helps.
#
# Expected: one state for all threads, as `mx.random.seed` says ("Seed the global PRNG"), or another one in each thread.
# Seen: three threads, one after the other, draw the same numbers: those that the main thread drew first of all. After
# `mx.random.seed(7)` in the main thread a new thread still draws those, not the numbers of seed 7.
# Fails if two threads draw different numbers, or a new thread draws those of the main thread's seed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'mlx[cpu]==0.32.4'
"$folder/venv/bin/python" - <<'PYTHON'
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx


def draw():
    return mx.random.randint(0, 1_000_000, (3,)).tolist()


def draw_and_end():
    numbers = draw()
    mx.clear_streams()  # as a thread that ends should
    return numbers


def draw_in_new_thread():
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(draw_and_end).result()


first, second = draw(), draw()
threads = [draw_in_new_thread() for _ in range(3)]
mx.random.seed(7)
seeded, thread_after_seed = draw(), draw_in_new_thread()
print(f"main thread: {first}, then {second}")
print(f"new threads: {threads}")
print(f"after seed 7 in the main thread: {seeded}, in a new thread: {thread_after_seed}")
assert second != first != seeded
assert threads == [first] * 3, "new threads draw other numbers now"
assert thread_after_seed == first, "a new thread knows of the seed now"
PYTHON
