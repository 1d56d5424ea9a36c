"""Another window of the chat: a real process with a store and a conversation, which runs what it is sent.

    python -m tests.app.core.window STORE

Each line of its input is a Python expression, over the names in `main`; it prints what comes of it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.conversation import Conversation
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.system.open_chat import OpenChatMark
from tests.paths import ROOT


class Window:
    """The process, for a test."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-m", "tests.app.core.window", str(path)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._answer() == "ready"

    def run(self, expression: str) -> str:
        """What the expression gives, or the error that the store raises."""
        assert self.process.stdin
        self.process.stdin.write(f"{expression}\n")
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")


@contextmanager
def window(path: Path) -> Iterator[Window]:
    """Ended afterwards."""
    opened = Window(path)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.communicate()


def main(path: Path) -> None:
    """Serve until the input ends."""
    store = ChatStore.open(path)
    names = {"store": store, "conversation": Conversation(store), "OpenChatMark": OpenChatMark, "Path": Path}
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            answer = str(eval(line, names))
        except StoreError as error:
            answer = f"{type(error).__name__}: {error}"
        print(answer.replace("\n", " "), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
