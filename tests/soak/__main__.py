"""A long evening, without a screen: turns on the pocket pair through the engine's process and the chat's store.

    python -m tests.soak --turns 1000

Replies are stopped, regenerated and gone on with, drafting changes in the middle, chats are begun and opened
again, as people do. Now and then the engine stands still, the disk is full for some turns, and a second process
opens the chat in the middle of a reply. Ends with 0 if memory, threads and files of both processes stay flat,
nothing is missing from the store or mixed up in it, and no log holds a word of what was said.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import queue
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic

from app.core.conversation import Conversation
from app.store.chat_store import RUNNING_ELSEWHERE, ChatStore
from app.store.database import RETURN_INTERVAL_S
from mlx_engine.client import EngineClient
from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Load
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.soak.strain import Disk, look_in, standing_still, try_to_go_on
from tests.soak.vitals import MB, Vitals, faults, give_back, growth_bytes, look_at

CANARY = "quetzalcoatlus"
"""In every message, and so in every prompt."""
TURNS_A_CHAT = 12
PATIENCE_S = 600
QUESTIONS = (
    "How do I turn drafting off?", "What is speculative decoding?", "Which key stops a reply?", "Who are you?",
    "What does acceptance mean?", "How do I start a new chat?", "Where are my chats kept?", "Tell me a joke.",
)  # fmt: skip


CONVERSATION_BYTES = 4 << 20
"""Full after a few chats, so that memory has to stay flat from then on."""


class Evening:
    """One person, one engine, one store."""

    def __init__(self, folder: Path, seed: int, max_tokens: int) -> None:
        load = Load(str(TARGET_FOLDER), (str(DRAFTER_FOLDER),), conversation_bytes=CONVERSATION_BYTES)
        self.engine = EngineClient(load, folder / "engine.log")
        self._home = folder
        self._path = database_in(folder)
        # At every look at the clock it is time to try the disk again.
        self.store = ChatStore.open(self._path, clock=itertools.count(0.0, RETURN_INTERVAL_S).__next__)
        self.said: list[bytes] = []
        """Digests of all messages, the turns' numbers among their words. Digests, so that what the evening itself
        remembers does not pass for a leak of the chat's."""
        self.replied: dict[int, bytes] = {}
        """Digests of all replies with their messages, by a reply's id."""
        self.disk = Disk()
        self.strains: Counter[str] = Counter()
        self._conversation = Conversation(self.store)
        self._heard: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
        self._draw = random.Random(seed)
        self._max_tokens = max_tokens
        self._turns = 0
        self.engine.start()
        self.engine.on_event = self._heard.put

    def turn(self) -> None:
        """Ask something, or something again."""
        if self._turns % TURNS_A_CHAT == 0:
            self._conversation.clear()
        self._turns += 1
        self._change_disk()
        kind = self._draw.random()
        if kind < 0.1 and self._conversation.regenerate():
            return self._reply()
        if kind < 0.15 and self._conversation.can_go_on and self._conversation.go_on():
            return self._reply()
        if kind < 0.2 and self._conversation.chat:
            self._conversation.open(self._conversation.chat.id)
        text = f"{self._draw.choice(QUESTIONS)} ({CANARY} {self._turns})"
        self.said.append(digest(text))
        self._conversation.ask(text)
        return self._reply()

    def _change_disk(self) -> None:
        if self.disk.is_full and self._draw.random() < 0.4:
            self.disk.free()
        elif self._draw.random() < 0.03:
            self.strains["full disk"] += 1
            self.disk.fill()

    def _strain(self) -> None:
        """In the middle of a reply."""
        kind, chat = self._draw.random(), self._conversation.chat
        if kind < 0.1:
            self.strains["engine stopped"] += 1
            with standing_still(self.engine.process_id):
                self.engine.set_draft_length(self._draw.choice((0, 2, "auto")))
                self._conversation.flush()
        elif kind < 0.13 and self.store.is_saving and chat is not None:
            self.strains["second process"] += 1
            self._conversation.flush()
            with standing_still(self.engine.process_id):
                look_in(self._home)
            if (said := try_to_go_on(self._path, chat.id)) != f"RunningElsewhereError: {RUNNING_ELSEWHERE}":
                raise SystemExit(f"turn {self._turns}: a second window went on with a running reply: {said}")

    def _note(self) -> None:
        last = self._conversation.last
        assert last
        assert last.reply
        self.replied[last.reply.id] = digest(last.prompt.text, last.text)

    def _reply(self) -> None:
        rounds = 0
        stop_after = self._draw.randrange(20) if self._draw.random() < 0.2 else None
        stands_still = self._draw.random() < 0.05
        if stands_still:
            self._signal_engine(signal.SIGSTOP)
        self.engine.generate(
            Generate(
                self._turns,
                self._conversation.to_send(),
                draft_length=self._draw.choice(("auto", 0, 4, 8)),
                max_tokens=self._max_tokens,
            )
        )
        if stands_still:
            self._signal_engine(signal.SIGCONT)
        while True:
            match self._heard.get(timeout=PATIENCE_S):
                case events.Round() as done:
                    self._conversation.append(done.text, done.thinking)
                    rounds += 1
                    if rounds == 3:
                        self._strain()
                    if rounds == stop_after:
                        self.engine.cancel()
                    if rounds == 5:
                        self.engine.set_draft_length(self._draw.choice((0, 2, "auto")))
                case events.Finished() as finished:
                    self._conversation.append(finished.text, finished.thinking)
                    self._conversation.end("complete" if finished.reason == "stop" else "stopped")
                    self._note()
                    return
                case events.Failed(message=message) | events.Died(message=message):
                    raise SystemExit(f"turn {self._turns}: {message}")

    def _signal_engine(self, number: signal.Signals) -> None:
        if self.engine.process_id:
            os.kill(self.engine.process_id, number)


def main() -> int:
    """Run, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit-mb", type=float, default=1.0, help="growth allowed per 1,000 turns")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return soak(Path(folder), options)


def soak(folder: Path, options: argparse.Namespace) -> int:
    """Exit code 0 if all is well."""
    evening = Evening(folder, options.seed, options.max_tokens)
    samples: dict[str, list[tuple[int, Vitals]]] = {"chat": [], "engine": []}
    every = max(1, options.turns // 60)
    began_s = monotonic()
    for turn in range(1, options.turns + 1):
        evening.turn()
        if turn % every == 0:
            evening.disk.free()
        if turn % every == 0:
            give_back()
            for name, process_id in (("chat", os.getpid()), ("engine", evening.engine.process_id)):
                assert process_id
                samples[name].append((turn, look_at(process_id)))
            print(
                f"{turn:6} turns  " + "   ".join(f"{name} {_line(each[-1][1])}" for name, each in samples.items())
            )
            sys.stdout.flush()
    evening.disk.free()
    evening.engine.close()
    evening.store.close()
    found = [fault for name, each in samples.items() for fault in faults(name, each, options.limit_mb * MB)]
    found += _lost(database_in(folder), evening) + _leaked(folder)
    for name, each in samples.items():
        print(f"{name}: {growth_bytes(each) / MB:+.2f} MB per 1,000 turns; {_line(each[-1][1])}")
    print(f"{options.turns} turns in {monotonic() - began_s:.0f} s; {len(evening.said)} messages")
    print("   ".join(f"{name}: {count}" for name, count in evening.strains.items()))
    for fault in found:
        print(f"FAULT {fault}")
    return 1 if found else 0


def _line(vitals: Vitals) -> str:
    return f"{vitals.memory_bytes / MB:.1f} MB, {vitals.threads} threads, {vitals.files} files"


def database_in(folder: Path) -> Path:
    """Where the program has its chats if this is its home."""
    return folder / "data" / "chats.db"


def digest(*texts: str) -> bytes:
    """16 bytes that tell these texts from others."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).digest()


def _lost(path: Path, evening: Evening) -> list[str]:
    """What is missing from the store, and what should not be there: the mixture of two replies, for instance."""
    store = ChatStore.open(path)
    messages = {message.id: message for chat in store.list_chats(limit=-1) for message in store.messages(chat.id)}
    store.close()
    asked = {digest(message.text) for message in messages.values() if message.role == "user"}
    replied = {
        message.id: digest(messages[message.parent_id].text, message.text)
        for message in messages.values()
        if message.role == "assistant" and message.parent_id is not None
    }
    found = [f"lost: message {number}" for number, said in enumerate(evening.said, 1) if said not in asked]
    found += [f"lost: reply {id}" for id in evening.replied.keys() - replied.keys()]
    return found + [f"mixed up: reply {id}" for id, made in replied.items() if evening.replied.get(id) != made]


def _leaked(folder: Path) -> list[str]:
    logs = [path for path in folder.rglob("*") if ".log" in path.name]
    return [f"{path.name} holds what was said" for path in logs if CANARY in path.read_text(errors="replace")]


if __name__ == "__main__":
    sys.exit(main())
