"""What the tests of durability run in processes of their own, to be killed, starved or set against each other.

    python -m tests.app.store.children ROLE STORE [NUMBER ...]

Each prints what the store has acknowledged, a line at once for each, and nothing that it has not.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.store.chat_store import ChatStore


def write_turns(path: Path, seed: int) -> None:
    """Turns of all kinds until somebody ends the process."""
    random_ = random.Random(seed)
    store = ChatStore.open(path)
    chat_id = store.create_chat(f"writer {seed}").id
    number = 0
    while True:
        _one_turn(store, chat_id, f"{seed}.{number}", random_)
        number += 1


def write_some_turns(path: Path, seed: int, count: int) -> None:
    """So many turns, in the chats of whoever else is writing too."""
    random_ = random.Random(seed)
    store = ChatStore.open(path)
    chat_id = store.create_chat(f"writer {seed}").id
    for number in range(count):
        _one_turn(store, chat_id, f"{seed}.{number}", random_)
        if number % 10 == 9:
            store.append_user(store.list_chats()[random_.randrange(2) - 1].id, None, f"visit {seed}.{number}")
            print(f"visit {seed}.{number}", flush=True)
    assert store.is_saving, store.notice
    store.close()


def _one_turn(store: ChatStore, chat_id: int, name: str, random_: random.Random) -> None:
    path = store.path(chat_id)[-1:]
    text = f"question {name}"
    user = store.append_user(chat_id, path[0].id if path else None, text)
    print(text, flush=True)
    reply = store.begin_reply(user.id)
    for _ in range(random_.randrange(4)):
        store.grow_reply(reply.id, "word " * random_.randrange(2000))
    store.finish_reply(reply.id, "complete", text=f"answer {name}")
    print(f"answer {name}", flush=True)
    if random_.random() < 0.1:
        store.select_sibling(reply.id, -1)
    if random_.random() < 0.05:
        store.search(name)


def die_at_each_step(path: Path, first: int, last: int, stride: int) -> None:
    """For every number of SQLite's own steps a process that is killed after so many, whatever it is doing.

    Prints for each, on one line, where its store is and what it had acknowledged.
    """
    for steps in range(first, last, stride):
        folder = Path(tempfile.mkdtemp(dir=path))
        _in_fork(lambda steps=steps, folder=folder: _short_life(folder, lambda: _die_after(steps)))  # type: ignore[misc]
        print(folder, *(folder / "said").read_text().splitlines(), sep="\t", flush=True)


def starve_at_each_size(path: Path, first: int, last: int, stride: int) -> None:
    """For every size: a process that can write no file beyond it. Prints the same."""
    for size in range(first, last, stride):
        folder = Path(tempfile.mkdtemp(dir=path))
        status = _in_fork(lambda size=size, folder=folder: _short_life(folder, lambda: _starve(size)))  # type: ignore[misc]
        assert status == 0, f"with {size} bytes: {(folder / 'said').read_text()}"
        print(folder, *(folder / "said").read_text().splitlines(), sep="\t", flush=True)


def _short_life(folder: Path, prepare: Callable[[], None]) -> None:
    """Make a store, use it, use it again; write down what was acknowledged."""
    said = os.open(folder / "said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    # Its own output must not be starved: a pipe has no size, but a regular file would.
    prepare()
    for visit in range(2):
        store = ChatStore.open(folder / "chats.db", lambda: 0.0)
        chat = store.create_chat(f"visit {visit}")
        parent: int | None = None
        for number in range(6):
            text = f"{visit}.{number} " + "x" * 1500
            user = store.append_user(chat.id, parent, text)
            _acknowledge(said, store, text)
            reply = store.begin_reply(user.id)
            store.grow_reply(reply.id, "y" * 900)
            parent = store.finish_reply(reply.id, "complete", text=f"answer to {visit}.{number}").id
            _acknowledge(said, store, f"answer to {visit}.{number}")
            # Whatever has happened to the disk, the chat of this process is whole.
            assert len(store.path(chat.id)) == 2 * (number + 1)
        assert store.is_saving or store.notice
        store.close()


def _acknowledge(said: int, store: ChatStore, text: str) -> None:
    if store.is_saving:
        os.write(said, f"{text.split(' x')[0]}\n".encode())


def _die_after(steps: int) -> None:
    """Count the steps of every connection there will be."""
    left = steps
    connect = sqlite3.connect

    def count() -> int:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def connect_counted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_progress_handler(count, 1)
        return connection

    sqlite3.connect = connect_counted  # type: ignore[assignment]


def _starve(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _in_fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    role, store_path, *numbers = sys.argv[1:]
    globals()[role](Path(store_path), *map(int, numbers))
