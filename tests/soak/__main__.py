"""A long evening, without a screen: turns on the pocket pair through the engine's process and the chat's store.

    python -m tests.soak --turns 1000

Replies are stopped, regenerated and gone on with, drafting changes in the middle, chats are begun and opened
again, as people do; now and then the engine stands still for a moment. Ends with 0 if memory, threads and files of
both processes stay flat, nothing is missing from the store, and no log holds a word of what was said.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import signal
import sys
import tempfile
from pathlib import Path
from time import monotonic

from app.core.conversation import Conversation
from app.store.chat_store import ChatStore
from mlx_engine.client import EngineClient
from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Load
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.soak.vitals import MB, Vitals, faults, growth_bytes, look_at

CANARY = "quetzalcoatlus"
"""In every message, and so in every prompt."""
TURNS_A_CHAT = 12
PATIENCE_S = 600
QUESTIONS = (
    "How do I turn drafting off?", "What is speculative decoding?", "Which key stops a reply?", "Who are you?",
    "What does acceptance mean?", "How do I start a new chat?", "Where are my chats kept?", "Tell me a joke.",
)  # fmt: skip


class Evening:
    """One person, one engine, one store."""

    def __init__(self, folder: Path, seed: int, max_tokens: int) -> None:
        self.engine = EngineClient(Load(str(TARGET_FOLDER), (str(DRAFTER_FOLDER),)), folder / "engine.log")
        self.store = ChatStore.open(folder / "chats.db")
        self.said: list[str] = []
        """Every message, in order."""
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
        kind = self._draw.random()
        if kind < 0.1 and self._conversation.regenerate():
            return self._reply()
        if kind < 0.15 and self._conversation.can_go_on and self._conversation.go_on():
            return self._reply()
        if kind < 0.2 and self._conversation.chat:
            self._conversation.open(self._conversation.chat.id)
        text = f"{self._draw.choice(QUESTIONS)} ({CANARY} {self._turns})"
        self.said.append(text)
        self._conversation.ask(text)
        return self._reply()

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
                    if rounds == stop_after:
                        self.engine.cancel()
                    if rounds == 5:
                        self.engine.set_draft_length(self._draw.choice((0, 2, "auto")))
                case events.Finished() as finished:
                    self._conversation.append(finished.text, finished.thinking)
                    self._conversation.end("complete" if finished.reason == "stop" else "stopped")
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
            for name, process_id in (("chat", os.getpid()), ("engine", evening.engine.process_id)):
                assert process_id
                samples[name].append((turn, look_at(process_id)))
            print(
                f"{turn:6} turns  " + "   ".join(f"{name} {_line(each[-1][1])}" for name, each in samples.items())
            )
            sys.stdout.flush()
    evening.engine.close()
    evening.store.close()
    found = [fault for name, each in samples.items() for fault in faults(name, each, options.limit_mb * MB)]
    found += _lost(folder / "chats.db", evening.said) + _leaked(folder)
    for name, each in samples.items():
        print(f"{name}: {growth_bytes(each) / MB:+.2f} MB per 1,000 turns; {_line(each[-1][1])}")
    print(f"{options.turns} turns in {monotonic() - began_s:.0f} s; {len(evening.said)} messages, all kept")
    for fault in found:
        print(f"FAULT {fault}")
    return 1 if found else 0


def _line(vitals: Vitals) -> str:
    return f"{vitals.memory_bytes / MB:.1f} MB, {vitals.threads} threads, {vitals.files} files"


def _lost(path: Path, said: list[str]) -> list[str]:
    store = ChatStore.open(path)
    kept = {message.text for chat in store.list_chats(limit=-1) for message in store.messages(chat.id)}
    store.close()
    return [f"lost: {text}" for text in said if text not in kept]


def _leaked(folder: Path) -> list[str]:
    logs = [path for path in folder.rglob("*") if ".log" in path.name]
    return [f"{path.name} holds what was said" for path in logs if CANARY in path.read_text(errors="replace")]


if __name__ == "__main__":
    sys.exit(main())
