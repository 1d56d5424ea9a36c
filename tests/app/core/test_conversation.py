"""The conversation, without a screen, over a real store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.conversation import SAVE_INTERVAL_S, Conversation
from app.store import steps
from app.store.chat_store import ChatStore
from app.store.errors import StoreBusyError, StoreError
from app.store.records import StoredMessage, TurnStats
from tests.app.store.support import last_chat, locked


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "chats.db"


@pytest.fixture
def store(database: Path) -> Iterator[ChatStore]:
    opened = ChatStore.open(database)
    yield opened
    opened.close()


def sent(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in conversation.to_send()]


def test_messages_alternate(store: ChatStore) -> None:
    conversation = Conversation(store)
    conversation.system = "Be brief."
    conversation.ask("one")
    assert sent(conversation) == [("system", "Be brief."), ("user", "one")]
    conversation.append("1")
    conversation.append("!")
    conversation.end("complete")
    conversation.ask("two")
    assert sent(conversation) == [("system", "Be brief."), ("user", "one"), ("assistant", "1!"), ("user", "two")]


def test_without_a_system_text_there_is_no_system_message(store: ChatStore) -> None:
    conversation = Conversation(store)
    conversation.ask("one")
    assert sent(conversation) == [("user", "one")]


def test_a_message_is_on_the_disk_before_anybody_answers(store: ChatStore, database: Path) -> None:
    conversation = Conversation(store)
    assert last_chat(database) == [], "a chat that nobody wrote in is not kept"
    conversation.ask("one")
    assert last_chat(database)[0] == ("user", "one", "complete")


def test_a_reply_is_never_far_ahead_of_the_disk(store: ChatStore, database: Path) -> None:
    clock = Clock()
    conversation = Conversation(store, clock=clock)
    conversation.ask("count")
    conversation.append("one ")
    assert last_chat(database)[1][1] == ""
    clock.now_s += SAVE_INTERVAL_S
    conversation.append("two ", "hm")
    assert last_chat(database)[1][1] == "one two "
    conversation.append("three")
    conversation.flush()
    assert last_chat(database)[1][1] == "one two three"
    conversation.end("complete", TurnStats(generated_tokens=3))
    role, text, state = last_chat(database)[1]
    assert (role, text, state) == ("assistant", "one two three", "complete")
    assert conversation.last
    assert conversation.last.reply
    assert conversation.last.reply.thinking == "hm"
    assert conversation.last.reply.stats
    assert conversation.last.reply.stats.generated_tokens == 3


def test_a_stopped_reply_is_kept_and_goes_on(store: ChatStore, database: Path) -> None:
    conversation = Conversation(store)
    assert not conversation.go_on()
    conversation.ask("count")
    conversation.append("one two")
    conversation.end("stopped")
    assert conversation.can_go_on
    assert conversation.go_on()
    assert sent(conversation)[-1] == ("assistant", "one two"), "what there is, to be gone on with"
    conversation.append(" three")
    conversation.end("complete")
    assert last_chat(database)[1] == ("assistant", "one two three", "complete")
    assert not conversation.go_on(), "it is complete"


def test_a_prompt_without_a_reply_is_not_sent_again(store: ChatStore) -> None:
    conversation = Conversation(store)
    conversation.ask("failed")
    conversation.end("failed")
    conversation.ask("again")
    assert sent(conversation) == [("user", "again")]


def test_regenerating_keeps_the_reply_that_was_there(store: ChatStore) -> None:
    conversation = Conversation(store)
    assert not conversation.regenerate()
    conversation.ask("one")
    conversation.append("1")
    conversation.end("complete")
    before = [("user", "one")]
    assert conversation.regenerate()
    assert sent(conversation) == before
    conversation.append("uno")
    conversation.end("complete")
    reply = conversation.exchanges[-1].reply
    assert reply
    assert (reply.sibling, reply.siblings) == (2, 2)
    assert conversation.version == (2, 2)
    conversation.walk(-1)
    assert conversation.last_answer == "1"
    conversation.walk(1)
    assert conversation.last_answer == "uno"


def test_an_edited_message_stands_beside_the_first_one(store: ChatStore) -> None:
    conversation = Conversation(store)
    for prompt, reply in (("one", "1"), ("two", "2")):
        conversation.ask(prompt)
        conversation.append(reply)
        conversation.end("complete")
    conversation.edit("three")
    assert sent(conversation) == [("user", "one"), ("assistant", "1"), ("user", "three")]
    conversation.append("3")
    conversation.end("complete")
    assert conversation.last
    assert (conversation.last.prompt.sibling, conversation.last.prompt.siblings) == (2, 2)
    conversation.walk(-1)
    assert conversation.last_answer == "2"
    assert conversation.version == (1, 2)


def test_a_stored_chat_is_gone_on_with(store: ChatStore) -> None:
    first = Conversation(store)
    first.system = "Be brief."
    first.ask("one")
    first.append("1")
    first.end("complete")
    assert first.chat
    second = Conversation(store)
    second.system = "Be brief."
    second.open(first.chat.id)
    second.ask("two")
    assert sent(second)[1:] == [("user", "one"), ("assistant", "1"), ("user", "two")]
    assert second.chat
    assert second.chat.title == "one"


def test_a_new_chat_keeps_the_system_text_only(store: ChatStore) -> None:
    conversation = Conversation(store)
    conversation.system = "Be brief."
    conversation.ask("one")
    conversation.append("1")
    conversation.end("complete")
    conversation.clear()
    assert conversation.last is None
    assert conversation.last_answer is None
    conversation.ask("two")
    assert sent(conversation) == [("system", "Be brief."), ("user", "two")]
    assert len(store.list_chats()) == 2


def test_lone_surrogates_cannot_be_sent(store: ChatStore) -> None:
    conversation = Conversation(store)
    conversation.ask("a\ud800")
    conversation.append("b\udfff")
    conversation.end("complete")
    conversation.ask("c")
    for _, text in sent(conversation):
        text.encode()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store does not wait for whoever locks it."""
    monkeypatch.setattr("app.store.database.BUSY_TIMEOUT_S", 0.0)


def exchange(conversation: Conversation, prompt: str, reply: str) -> None:
    conversation.ask(prompt)
    conversation.append(reply)
    conversation.end("complete")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "begin",
    [
        lambda conversation: conversation.ask("three"),
        lambda conversation: conversation.edit("three"),
        lambda conversation: conversation.regenerate(),
        lambda conversation: conversation.go_on(),
    ],
    ids=["ask", "edit", "regenerate", "go_on"],
)
def test_what_cannot_be_begun_changes_nothing(
    store: ChatStore, database: Path, begin: Callable[[Conversation], object]
) -> None:
    conversation = Conversation(store)
    exchange(conversation, "one", "1")
    conversation.ask("two")
    conversation.append("2")
    conversation.end("stopped")
    before = sent(conversation), last_chat(database)
    with locked(database), pytest.raises(StoreError):
        begin(conversation)
    assert (sent(conversation), last_chat(database)) == before
    begin(conversation)
    assert [state for _, _, state in last_chat(database)].count("generating") == 1


@pytest.mark.parametrize("begin", ["ask", "edit"])
def test_a_message_is_never_kept_without_its_reply(
    store: ChatStore, database: Path, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    conversation = Conversation(store)
    exchange(conversation, "one", "1")
    append, before = steps.append, last_chat(database)

    def append_messages_only(*arguments: Any) -> StoredMessage:
        if arguments[3] == "assistant":
            raise StoreError("The disk is away.")
        return append(*arguments)

    monkeypatch.setattr(steps, "append", append_messages_only)
    with pytest.raises(StoreError):
        getattr(conversation, begin)("two")
    assert last_chat(database) == before
    assert conversation.last_answer == "1"


@pytest.mark.usefixtures("impatient")
def test_a_reply_that_ends_while_the_database_is_locked_is_kept_before_the_next(
    store: ChatStore, database: Path
) -> None:
    conversation = Conversation(store)
    conversation.ask("one")
    conversation.append("1")
    with locked(database):
        with pytest.raises(StoreError):
            conversation.end("complete", TurnStats(generated_tokens=1))
        conversation.append("a straggler")
        conversation.flush()
    conversation.ask("two")
    assert last_chat(database)[:2] == [("user", "one", "complete"), ("assistant", "1", "complete")]
    assert sent(conversation) == [("user", "one"), ("assistant", "1"), ("user", "two")]


@pytest.mark.usefixtures("impatient")
def test_a_locked_database_is_not_tried_again_with_every_word(
    store: ChatStore, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    conversation = Conversation(store, clock=clock)
    conversation.ask("count")
    attempts = []

    def grow(*arguments: object) -> None:
        attempts.append(clock.now_s)
        clock.now_s += 5.0
        raise StoreBusyError("locked")

    monkeypatch.setattr(store, "grow_reply", grow)
    clock.now_s = SAVE_INTERVAL_S
    for word in ("one ", "two ", "three "):
        conversation.append(word)
    assert attempts == [SAVE_INTERVAL_S]
    monkeypatch.undo()
    conversation.flush()
    assert last_chat(database)[1][1] == "one two three "


def test_a_growing_reply_hardly_waits_for_a_locked_database(store: ChatStore, database: Path) -> None:
    conversation = Conversation(store)
    conversation.ask("count")
    conversation.append("one")
    with locked(database), pytest.raises(StoreBusyError, match=r"more than 0\.1 s"):
        conversation.flush()
    conversation.end("complete")
    assert last_chat(database)[1] == ("assistant", "one", "complete")
