"""Twice as many messages take twice as many steps: of Python, and of SQLite's own machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from app.store import transfer
from app.store.chat_store import ChatStore
from app.store.records import NewChat, NewMessage
from app.store.tree import Link, Tree

SOME = 300
STEPS_AT_ONCE = 20
TOLERANCE = 1.2


def siblings(count: int, text: str = "x") -> NewChat:
    """A chat with this many replies to one message."""
    root = NewMessage(None, "user", "question", "", "complete", 1.0, True, None)
    replies = [NewMessage(0, "assistant", f"{text} {n}", "t", "complete", 1.0, n == 3, None) for n in range(count)]
    return NewChat("many", "", None, {}, 1.0, 1.0, (root, *replies))


def steps_of(store: ChatStore, call: Callable[[], object]) -> int:
    """Calls of functions, and steps of SQLite."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += STEPS_AT_ONCE
        return 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    store._database._opened.connection.set_progress_handler(count, STEPS_AT_ONCE)
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return steps


def check(measure: Callable[[int], int]) -> None:
    few, many = measure(SOME), measure(2 * SOME)
    assert many < 2 * TOLERANCE * few, f"{few} steps, then {many}"


@pytest.mark.parametrize("write", [transfer.export_json, transfer.export_markdown])
def test_exporting_many_siblings(write: Callable[..., str]) -> None:
    def measure(count: int) -> int:
        store = ChatStore.in_memory()
        (chat,) = store.import_chats([siblings(count)])
        return steps_of(store, lambda: write(store, [chat.id]))

    check(measure)


@pytest.mark.parametrize("write", [transfer.export_json, transfer.export_markdown])
def test_reading_and_importing_many_siblings(write: Callable[..., str]) -> None:
    def measure(count: int) -> int:
        store = ChatStore.in_memory()
        (chat,) = store.import_chats([siblings(count)])
        data = write(store, [chat.id]).encode()
        other = ChatStore.in_memory()
        return steps_of(other, lambda: other.import_new(transfer.read_bytes(data, "x")))

    check(measure)


def test_importing_many_siblings_again_and_letting_them_grow() -> None:
    def measure(count: int) -> int:
        store = ChatStore.in_memory()
        store.import_chats([siblings(count)])
        known = steps_of(store, lambda: store.import_new([siblings(count)]))
        return known + steps_of(store, lambda: store.import_new([siblings(count, "y")]))

    check(measure)


def test_importing_many_chats_that_begin_alike_again() -> None:
    def measure(count: int) -> int:
        store = ChatStore.in_memory()
        chats = [siblings(2, f"chat {n}") for n in range(count // 5)]
        store.import_chats(chats)
        return steps_of(store, lambda: store.import_new(chats[:10]))

    check(measure)


class Counted(int):
    """A number that counts how often it is compared: also by what is written in C."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return int.__eq__(self, other) if isinstance(other, int) else False

    __hash__ = int.__hash__


def test_a_message_knows_its_number_among_its_siblings_without_counting() -> None:
    def measure(count: int) -> int:
        tree = Tree([Link(Counted(1), None, 1), *(Link(Counted(n), Counted(1), 1) for n in range(2, count))])
        Counted.comparisons = 0
        numbers = [tree.sibling(Counted(n))[0] for n in range(2, count)]
        assert numbers == list(range(1, count - 1))
        return Counted.comparisons

    check(measure)
