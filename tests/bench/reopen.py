"""A chat reopened after a restart: its first token beside that of a cold engine, and what chats take.

    python -m tests.bench.reopen --pairs pocket e2b --tokens 4000

Both sides read the same prompt: the chat and a new message. Counts come first: they do not depend on the machine.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import mlx.core as mx

from mlx_engine.files.chat_cache_file import NewTensor
from mlx_engine.network.disk_cache import DiskCache
from mlx_engine.network.prefix import PrefixCache
from mlx_engine.network.stored_rows import rows_to_store
from mlx_engine.network.target import Gemma4Target, load_target
from tests.bench.pairs import NAMES, find_pair

CHAT, PATIENCE_S = 1, 600.0
MESSAGE_TOKENS, TURN_TOKENS = 40, 500
CONVERSATIONS, CONVERSATION_TOKENS = 4, 2000
AIM, BYTES_AIM, MEMORY_AIM = 0.05, 1.1, 1.15


def first_token(
    target: Gemma4Target, disk: DiskCache | None, prompt: Sequence[int], marks: Sequence[int] = ()
) -> tuple[float, int, PrefixCache]:
    """Seconds to the first token, and how many tokens were read for it."""
    prefix = PrefixCache(target)
    begun_at_s = time.perf_counter()
    if disk:
        disk.recall(disk.find(CHAT), prefix, prompt)
    kept = prefix.resume(prompt)
    for _ in prefix.prefill(marks):
        pass
    token = mx.argmax(target.logits(target.forward(mx.array([prompt[-1:]]), prefix.cache)))
    mx.eval(token)
    return time.perf_counter() - begun_at_s, len(prompt) - kept, prefix


def turns(tokens: int) -> list[int]:
    """Where messages of MESSAGE_TOKENS begin and end, in turns of TURN_TOKENS."""
    begins = range(0, tokens, TURN_TOKENS)
    return [at for begin in begins for at in (begin, begin + MESSAGE_TOKENS) if 0 < at < tokens]


def bytes_of(tensors: Sequence[NewTensor]) -> int:
    """Of their rows."""
    return sum(tensor.size_bytes for tensor in tensors)


def memory_share(target: Gemma4Target, draw: random.Random) -> float:
    """Bytes that several chats take between their turns, beside their full layers' rows and one window each."""
    prefix, most = PrefixCache(target), min(2000, target.facts.vocab_size)
    limit_bytes = mx.set_cache_limit(0)  # a buffer that is used again may be a little larger than was asked for
    before_bytes, rows_bytes = mx.get_active_memory(), 0
    for _ in range(CONVERSATIONS):
        prefix.resume(draw.choices(range(10, most), k=CONVERSATION_TOKENS))
        for _ in prefix.prefill((CONVERSATION_TOKENS - 2 * MESSAGE_TOKENS, CONVERSATION_TOKENS - 10)):
            pass
        rows_bytes += sum(part.nbytes for layer in prefix.cache.layers for part in layer.view())
    mx.set_cache_limit(limit_bytes)
    return (mx.get_active_memory() - before_bytes) / rows_bytes


def measure(name: str, tokens: int, repeats: int) -> None:
    """Print one pair's figures."""
    folder = find_pair(name).target
    target = load_target(folder, is_compiled=mx.metal.is_available())
    draw = random.Random(tokens)
    prompt = draw.choices(range(10, min(2000, target.facts.vocab_size)), k=tokens + MESSAGE_TOKENS)
    with tempfile.TemporaryDirectory() as place:
        disk = DiskCache(Path(place), None, target, folder)
        disk.begin(CHAT)
        _, _, prefix = first_token(target, None, prompt[:tokens], turns(tokens))
        begun_at_s = time.perf_counter()
        rows = rows_to_store(prefix.conversation)
        gathered_s = time.perf_counter() - begun_at_s
        disk.keep(CHAT, prefix, {})
        disk.finish(PATIENCE_S)
        written_s = time.perf_counter() - begun_at_s - gathered_s
        cold, reopened = [], []
        for _ in range(repeats):
            cold.append(first_token(target, None, prompt))
            reopened.append(first_token(target, disk, prompt))
        disk_bytes = sum(path.stat().st_size for path in Path(place).rglob("*.safetensors"))
    cold_s, reopened_s = (median(seconds for seconds, _, _ in side) for side in (cold, reopened))
    full_bytes, sliding_bytes = bytes_of(rows.full), bytes_of(rows.sliding)
    share = disk_bytes / full_bytes
    print(f"{name}, {tokens:,} tokens")
    print(f"  tokens read: reopened / cold      {reopened[0][1]:,} / {cold[0][1]:,}")
    times = f"{reopened_s:.3f} s / {cold_s:.3f} s"
    print(f"  first token: reopened / cold      {reopened_s / cold_s:.3f} (aim {AIM}; {times})")
    print(f"  bytes on disk per token           {disk_bytes / tokens:,.0f}")
    print(
        f"  beside the full layers' own rows  {share:.2f} (aim {BYTES_AIM}; snapshots: {len(rows.frontiers) - 1})"
    )
    rest_bytes = disk_bytes - full_bytes - sliding_bytes
    print(f"  of them sliding rows, the rest    {sliding_bytes / full_bytes:.3f}, {rest_bytes / full_bytes:.4f}")
    share = memory_share(target, draw)
    print(f"  memory of {CONVERSATIONS} chats / their rows    {share:.2f} (aim {MEMORY_AIM})")
    print(f"  gathered after the reply, written {gathered_s * 1e3:.0f} ms, {written_s * 1e3:.0f} ms beside it")


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", choices=NAMES, default=["pocket"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[4000], help="of the chat")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for name in options.pairs:
        for tokens in options.tokens:
            measure(name, tokens, options.repeats)


if __name__ == "__main__":
    main()
