"""The conversation, without a screen, over a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.conversation import FLUSH_S, Conversation
from app.store.chat_store import ChatStore
from app.store.records import TurnStats
from tests.app.store.support import last_chat


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
    conversation = Conversation(store, "Be brief.")
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
    clock.now_s += FLUSH_S
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
    conversation.walk(reply.id, -1)
    assert conversation.last_answer == "1"
    shown = conversation.exchanges[-1].reply
    assert shown
    conversation.walk(shown.id, 1)
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
    conversation.walk(conversation.last.prompt.id, -1)
    assert conversation.last_answer == "2"


def test_a_stored_chat_is_gone_on_with(store: ChatStore) -> None:
    first = Conversation(store, "Be brief.")
    first.ask("one")
    first.append("1")
    first.end("complete")
    assert first.chat
    second = Conversation(store, "Be brief.")
    second.open(first.chat.id)
    second.ask("two")
    assert sent(second)[1:] == [("user", "one"), ("assistant", "1"), ("user", "two")]
    assert second.chat
    assert second.chat.title == "one"


def test_a_new_chat_keeps_the_system_text_only(store: ChatStore) -> None:
    conversation = Conversation(store, "Be brief.")
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
