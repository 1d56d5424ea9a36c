"""The chat's own figures: `python -m tests.bench.chat`. What they should hold stands beside each.

The engine's pace and the echo of a key are measured in the real program under a terminal of its own, on the
pocket pair; appends, gauges and the list of chats in a chat of 300 messages with a scripted engine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import msgspec

from app.bench.asking import BlockingEngine
from app.bench.energy import RaplMeter
from app.cli import GARBAGE_THRESHOLDS
from app.core.pair_choice import PairOptions, choose_pair
from app.store.chat_store import ChatStore
from app.store.records import NewChat, NewMessage
from app.system.interrupts import Stop
from app.tui.screens.chats import ChatsScreen
from mlx_engine.client import EngineClient
from mlx_engine.protocol.events import Message, SamplingOptions
from tests.app.tui.pilot import chat
from tests.app.tui.terminal import Terminal
from tests.paths import ROOT

QUESTION = "What is speculative decoding?"


@dataclass(frozen=True)
class Reply:
    """A kind of reply to the question."""

    what: str
    asked: int
    """In a run; the first one of them does not count."""
    temperature: float
    seed: int

    @property
    def flags(self) -> tuple[str, ...]:
        """For the program."""
        drawn = ("--temp", str(self.temperature), "--top-k", "0", "--top-p", "1", "--seed", str(self.seed))
        return (*drawn, "--draft", str(DRAFT_LENGTH))

    @property
    def sampling(self) -> SamplingOptions:
        """For the engine."""
        return SamplingOptions(temperature=self.temperature, top_k=0, top_p=1.0, seed=self.seed)


DRAFT_LENGTH = 4
REPLIES = (
    Reply("45 tokens in a quarter of a second", 10, 0.0, 3),
    Reply("196 tokens in three seconds", 4, 2.0, 3),
)
"""The second rambles: nothing that the pair says with a cool head takes as long as a real model's reply."""
PROSE = "The drafter proposes a few tokens, and the target checks them all in **one** pass. `K` may vary.\n\n"
FENCE = "```python\n" + "for token in draft:\n    accept(token)\n" * 6 + "```\n\n"


def replies(home: Path) -> list[tuple[int, float]]:
    """Tokens and seconds of decoding of every reply that the chat has kept."""
    database = next(home.rglob("chats.db"))
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT generated_tokens, decode_s FROM turn_stats").fetchall()


@contextmanager
def program(*options: str) -> Iterator[tuple[Terminal, Path]]:
    """The chat on a terminal of its own, from its first moment on."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "app.cli", "chat", *options]
        own = {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "SLIPSTREAM_HOME": folder}
        terminal = Terminal(command, (120, 36), {**os.environ, **own})
        try:
            yield terminal, Path(folder)
            terminal.type("\x11")
            terminal.wait()
        finally:
            terminal.close()


def pace_in_front(reply: Reply) -> float:
    """Tokens per second that the engine decodes while the chat shows them."""
    with program(*reply.flags) as (terminal, home):
        terminal.until("ready")
        for number in range(1, reply.asked + 1):
            ask(terminal)
            terminal.until(partial(has_kept, home, number))
            terminal.type("\x0e")
        kept = replies(home)
    return sum(tokens for tokens, _ in kept[1:]) / sum(seconds for _, seconds in kept[1:])


def pace_alone(reply: Reply) -> float:
    """The same with nobody looking: the engine's client, and no screen."""
    with TemporaryDirectory() as folder:
        load = choose_pair("pocket", PairOptions()).load
        load = msgspec.structs.replace(load, estimates_folder=folder)
        engine = EngineClient(load, Path(folder) / "engine.log")
        try:
            blocking = BlockingEngine(engine, Stop(), RaplMeter())
            blocking.load()
            asked = (Message("user", QUESTION),), reply.sampling, DRAFT_LENGTH, 1 << 20
            kept = [blocking.ask(*asked) for _ in range(reply.asked)][1:]
        finally:
            engine.close()
    return sum(each.timed_tokens for each in kept) / sum(each.facts.stats.decode_s for each in kept)


def engine_share(reply: Reply, repeats: int) -> tuple[float, float]:
    """Pace with the chat in front over pace alone, run A B B A; median and spread of the ratios."""
    ratios = []
    for _ in range(repeats):
        first, alone, again, last = (
            measure(reply) for measure in (pace_in_front, pace_alone, pace_alone, pace_in_front)
        )
        ratios.append((first + last) / (alone + again))
    return median(ratios), max(ratios) - min(ratios)


def has_kept(home: Path, number: int) -> bool:
    """Whether the chat has kept so many replies."""
    return len(replies(home)) == number


def ask(terminal: Terminal) -> None:
    """Type the question and send it."""
    terminal.written.clear()
    terminal.type(QUESTION)
    terminal.until(QUESTION[-10:])
    terminal.type("\r")


def first_paint() -> float:
    """Seconds from the start of the process to the first screen."""
    begun_s = perf_counter()
    with program() as (terminal, _):
        terminal.until("enter sends it")
        return perf_counter() - begun_s


def echo() -> list[float]:
    """Seconds from a key to its letter on the screen, while a reply streams in."""
    took = []
    with program("--temp", "1", "--max-tokens", "4000") as (terminal, home):
        terminal.until("ready")
        for number, letter in enumerate("абвгдежзиклмнопрстуфхцчшщъыьэюя", 1):
            ask(terminal)
            terminal.until(lambda: any(state in terminal.drawn for state in (b"waiting", b"generating")))
            terminal.written.clear()
            begun_s = perf_counter()
            terminal.type(letter)
            terminal.until(letter)
            took.append(perf_counter() - begun_s)
            # The letter goes, the reply ends.
            terminal.type("\x15\x1b")
            terminal.until(partial(has_kept, home, number))
    return took


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """As in the real program."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


async def in_a_long_chat(messages: int) -> tuple[list[float], list[float]]:
    """Processor seconds of an append and of a gauge update, drawing included."""
    async with chat(size=(120, 36)) as story:
        for number in range(messages // 2):
            story.conversation.ask(f"question {number}")
            story.conversation.append(PROSE * 3 + FENCE)
            story.conversation.end("complete")
        await story.app.chat_screen.reply_view.show_chat(story.conversation)
        await story.send("one more")
        story.engine.begin()
        appends, gauges = [], []
        for text in re.findall(r".{1,12}", (PROSE * 4 + FENCE) * 2, re.DOTALL):
            story.engine.say(text)
            await asyncio.sleep(0.01)
            for event in story.app.chat_screen._mail.fetch():
                await story.app.chat_screen._hear(event)
            reply = story.app.chat_screen.reply_view.reply
            assert reply is not None
            begun_s = process_time()
            await reply._flush()
            await drawn(story.app)
            appends.append(process_time() - begun_s)
            begun_s = process_time()
            story.view.has_news = True
            story.view.show_gauges()
            await drawn(story.app)
            gauges.append(process_time() - begun_s)
        return appends, gauges


async def drawn(app: object) -> None:
    """Let the app lay out and draw what has changed."""
    done = asyncio.Event()
    app.call_after_refresh(done.set)  # type: ignore[attr-defined]
    await done.wait()


async def list_of(chats: int) -> float:
    """Seconds to open the list of so many chats."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "chats.db"
        store = ChatStore.open(path)
        texts = [NewMessage(None, "user", f"question {n}", "", "complete", 0.0, True, None) for n in range(chats)]
        store.import_chats([NewChat(f"chat {n}", "m", None, {}, n, n, (text,)) for n, text in enumerate(texts)])
        store.close()
        async with chat(size=(120, 36), database=path) as story:
            # A start goes on behind the first screen; a person opens the list after it.
            await asyncio.sleep(0.5)
            await drawn(story.app)
            begun_s = perf_counter()
            story.app.chat_screen.action_chats()
            while not isinstance(story.app.screen, ChatsScreen) or not story.app.screen._chats:
                await asyncio.sleep(0)
            await drawn(story.app)
            return perf_counter() - begun_s


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.chat", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with collecting_seldom():
        appends, gauges = asyncio.run(in_a_long_chat(300))
    echoes = echo()
    paints = [first_paint() for _ in range(2 * repeats)]
    lists = [asyncio.run(list_of(5000)) for _ in range(repeats)]
    shares = [
        (f"pace with the chat in front / alone, {reply.what}", *engine_share(reply, repeats)) for reply in REPLIES
    ]
    rows = [
        *((what, f"{share:.3f} (spread {spread:.3f})", "at least 0.95") for what, share, spread in shares),
        ("first paint", f"{median(paints):.2f} s (best {min(paints):.2f})", "under 0.5 s"),
        ("append, 300 messages", f"{ms(median(appends))}, 95% {ms(quantile(appends))}", "at most 20 ms"),
        ("gauge update, 300 messages", f"{ms(median(gauges))}, 95% {ms(quantile(gauges))}", "at most 5 ms"),
        ("key to echo while streaming", f"{ms(median(echoes))}, 95% {ms(quantile(echoes))}", "under 50 ms"),
        ("list of 5,000 chats", f"{median(lists):.2f} s", "under 0.3 s"),
    ]
    for what, figure, bar in rows:
        print(f"{what:<76}{figure:<30}{bar}")


def ms(seconds: float) -> str:
    """In milliseconds."""
    return f"{seconds * 1000:.1f} ms"


def quantile(values: list[float], share: float = 0.95) -> float:
    """The value that this share of them stays below."""
    return sorted(values)[int(share * (len(values) - 1))]


if __name__ == "__main__":
    main()
