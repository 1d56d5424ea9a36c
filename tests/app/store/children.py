"""Child processes of the durability tests, which are killed, starved of space or run against each other.

    python -m tests.app.store.children ROLE STORE [NUMBER ...]

Each prints what the store has acknowledged, one line at a time and immediately, and nothing else.
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
from functools import partial, wraps
from itertools import count
from pathlib import Path
from typing import Any

from app.core.conversation import Conversation
from app.store import aside, chat_store, database, opening, transfer
from app.store.chat_store import ChatStore
from app.store.schema import MIGRATIONS, migrate
from mlx_engine.files.atomic import replace_file
from tests.app.store.support import Clock, chat_of_turns, damaged
from tests.patience import PATIENCE_S

NEXT_VERSION = (*MIGRATIONS, ("ALTER TABLE chat ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'",
                              "UPDATE chat SET colour = 'red' WHERE title = 'first'"))  # fmt: skip
FILE_CALLS = ("open", "replace", "rename", "unlink", "fsync")


def write_turns(path: Path, seed: int) -> None:
    """Turns of all kinds, until the process is killed."""
    random_ = random.Random(seed)
    store = ChatStore.open(path)
    chat_id = store.create_chat(f"writer {seed}").id
    number = 0
    while True:
        _one_turn(store, chat_id, f"{seed}.{number}", random_)
        number += 1


def write_some_turns(path: Path, seed: int, count: int) -> None:
    """This many turns, in chats that other processes are writing too."""
    vars(chat_store)["FLUSH_TIMEOUT_S"] = PATIENCE_S  # the chat would try again later
    random_ = random.Random(seed)
    store = ChatStore.open(path)
    chat_id = store.create_chat(f"writer {seed}").id
    for number in range(count):
        _one_turn(store, chat_id, f"{seed}.{number}", random_)
        if number % 10 == 9:
            visited = store.list_chats()[random_.randrange(2) - 1].id
            store.finish_reply(store.ask(visited, None, f"visit {seed}.{number}")[2].id, "stopped")
            print(f"visit {seed}.{number}", flush=True)
    assert store.is_saving, store.notice
    store.close()


def _one_turn(store: ChatStore, chat_id: int, name: str, random_: random.Random) -> None:
    # Another process may be writing the reply that is last.
    path = [message for message in store.path(chat_id) if message.state == "complete"][-1:]
    text = f"question {name}"
    _, _, reply = store.ask(chat_id, path[0].id if path else None, text)
    print(text, flush=True)
    for _ in range(random_.randrange(4)):
        store.grow_reply(reply.id, "word " * random_.randrange(2000))
    store.finish_reply(reply.id, "complete", text=f"answer {name}")
    print(f"answer {name}", flush=True)
    if random_.random() < 0.1:
        store.walk(chat_id, -1)
    if random_.random() < 0.05:
        store.search(name)


def die_at_each_step(path: Path, first: int, last: int, stride: int) -> None:
    """For every number of SQLite's own steps: a process that is killed after that many, whatever it is doing.

    Prints one line for each: the folder of its store and what it had acknowledged.
    """
    for steps in range(first, last, stride):
        folder = Path(tempfile.mkdtemp(dir=path))
        _in_fork(lambda steps=steps, folder=folder: _short_life(folder, lambda: _die_after(steps)))  # type: ignore[misc]
        print(folder, *(folder / "said").read_text().splitlines(), sep="\t", flush=True)


def starve_at_each_size(path: Path, first: int, last: int, stride: int) -> None:
    """For every size: a process that cannot write a larger file. Prints the same."""
    for size in range(first, last, stride):
        folder = Path(tempfile.mkdtemp(dir=path))
        status = _in_fork(lambda size=size, folder=folder: _short_life(folder, lambda: _starve(size)))  # type: ignore[misc]
        assert status == 0, f"with {size} bytes: {(folder / 'said').read_text()}"
        print(folder, *(folder / "said").read_text().splitlines(), sep="\t", flush=True)


def _short_life(folder: Path, prepare: Callable[[], None]) -> None:
    """Create a store, use it twice, and write down what was acknowledged."""
    said = os.open(folder / "said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    # A pipe for its own output, because the limit on file sizes does not apply to pipes.
    prepare()
    for visit in range(2):
        store = ChatStore.open(folder / "chats.db", lambda: 0.0)
        chat = store.create_chat(f"visit {visit}")
        parent: int | None = None
        for number in range(6):
            text = f"{visit}.{number} " + "x" * 1500
            _, _, reply = store.ask(chat.id, parent, text)
            _acknowledge(said, store, text)
            store.grow_reply(reply.id, "y" * 900)
            parent = store.finish_reply(reply.id, "complete", text=f"answer to {visit}.{number}").id
            _acknowledge(said, store, f"answer to {visit}.{number}")
            # Whatever happened to the disk, the chat of this process is complete.
            assert len(store.path(chat.id)) == 2 * (number + 1)
        assert store.is_saving or store.notice
        store.close()


def die_at_each_point_of_a_conversation(path: Path) -> None:
    """For every call of the store in a conversation: a process killed before it, and one killed after it.

    These three print for each the folder of its store, the point at which it died, and what it had acknowledged.
    The last process runs to the end.
    """
    _die_at_each_point(path, _nothing, _watch_the_store, _converse)


def die_at_each_point_of_a_migration(path: Path) -> None:
    """For every SQL statement and every call to the file system."""
    _die_at_each_point(path, _store_of_two_chats, _watch_the_disk, _open_with_the_next_version)


def die_at_each_point_of_putting_aside(path: Path) -> None:
    """The same, with a damaged file."""
    _die_at_each_point(path, _damaged_store, _watch_the_disk, _open)


Passed = Callable[[str], None]


def _die_at_each_point(
    path: Path,
    prepare: Callable[[Path], None],
    watch: Callable[[Passed], None],
    live: Callable[[Path, Callable[[str], object]], None],
) -> None:
    for last in count():
        folder = Path(tempfile.mkdtemp(dir=path))
        prepare(folder / "chats.db")
        status = _in_fork(partial(_live_until, last, folder, watch, live))
        print(folder, *(folder / "said").read_text().splitlines(), sep="\t", flush=True)
        if status == 0:
            return
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _live_until(
    last: int, folder: Path, watch: Callable[[Passed], None], live: Callable[[Path, Callable[[str], object]], None]
) -> None:
    said = os.open(folder / "said", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    left = last

    def passed(point: str) -> None:
        nonlocal left
        if left == 0:
            os.write(said, f"died {point}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    watch(passed)
    live(folder / "chats.db", lambda text: os.write(said, f"{text}\n".encode()))


def _watch_the_store(passed: Passed) -> None:
    for name, call in vars(ChatStore).items():
        if callable(call) and not name.startswith("_"):
            setattr(ChatStore, name, _watched(call, name, passed))
    vars(transfer)["replace_file"] = _watched(replace_file, "replace_file", passed)


def _watch_the_disk(passed: Passed) -> None:
    for name in FILE_CALLS:
        setattr(os, name, _watched(getattr(os, name), name, passed))
    connect = sqlite3.connect

    def connect_watched(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda statement: passed(f"before {' '.join(statement.split()[:2])}"))
        return connection

    sqlite3.connect = connect_watched  # type: ignore[assignment]


def _watched(call: Callable[..., Any], name: str, passed: Passed) -> Callable[..., Any]:
    @wraps(call)
    def watched(*arguments: Any, **options: Any) -> Any:
        passed(f"before {name}")
        result = call(*arguments, **options)
        passed(f"after {name}")
        return result

    return watched


def _nothing(path: Path) -> None:
    pass


def _store_of_two_chats(path: Path) -> None:
    store = ChatStore.open(path, Clock())
    chat_of_turns(store, 2, "first")
    chat_of_turns(store, 2, "second")
    store.close()


def _damaged_store(path: Path) -> None:
    _store_of_two_chats(path)
    path.write_bytes(damaged(path.read_bytes()))


def _converse(path: Path, acknowledge: Callable[[str], object]) -> None:
    """Everything that a person can do in a chat."""
    moment = count()
    store = ChatStore.open(path, Clock())
    conversation = Conversation(store, clock=lambda: 2.0 * next(moment))
    for number in range(2):
        conversation.ask(f"question {number}")
        acknowledge(f"question {number}")
        conversation.append("word " * 20)
        conversation.append(f"answer {number}")
        conversation.end("stopped" if number else "complete")
        acknowledge(f"answer {number}")
    assert conversation.go_on()
    conversation.append("to the end")
    conversation.end("complete")
    assert conversation.regenerate()
    conversation.append("answer again")
    conversation.end("complete")
    acknowledge("answer again")
    conversation.edit("question changed")
    acknowledge("question changed")
    conversation.append("answer changed")
    conversation.end("complete")
    acknowledge("answer changed")
    conversation.set_params({"temperature": 0.5})
    conversation.rename("a title")
    assert conversation.chat
    transfer.write_file(path.with_name("chat.json"), transfer.export_json(store, [conversation.chat.id]), False)
    store.delete(conversation.chat.id)
    assert store.undo_delete()
    store.close()


def _open(path: Path, acknowledge: Callable[[str], object]) -> None:
    ChatStore.open(path, Clock()).close()


def _open_with_the_next_version(path: Path, acknowledge: Callable[[str], object]) -> None:
    know_the_next_version(setattr)
    _open(path, acknowledge)


def know_the_next_version(set_: Callable[[object, str, object], None]) -> None:
    """Act as a Slipstream with one more migration. `set_`: sets an attribute."""
    for module in (opening, database):
        set_(module, "MIGRATIONS", NEXT_VERSION)
    for module in (opening, aside):
        set_(module, "migrate", partial(migrate, migrations=NEXT_VERSION))


def _acknowledge(said: int, store: ChatStore, text: str) -> None:
    if store.is_saving:
        os.write(said, f"{text.split(' x')[0]}\n".encode())


def _die_after(steps: int) -> None:
    """Count the steps of all connections opened from now on."""
    left = steps
    connect = sqlite3.connect

    def count() -> int:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def connect_counted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
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
