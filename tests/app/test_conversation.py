"""The conversation, without a screen."""

from __future__ import annotations

from app.conversation import Conversation


def sent(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in conversation.to_send()]


def test_messages_alternate() -> None:
    conversation = Conversation("Be brief.")
    conversation.ask("one")
    assert sent(conversation) == [("system", "Be brief."), ("user", "one")]
    conversation.append("1")
    conversation.append("!")
    conversation.ask("two")
    assert sent(conversation) == [("system", "Be brief."), ("user", "one"), ("assistant", "1!"), ("user", "two")]


def test_without_a_system_text_there_is_no_system_message() -> None:
    conversation = Conversation()
    conversation.ask("one")
    assert sent(conversation) == [("user", "one")]


def test_a_stopped_reply_is_kept() -> None:
    conversation = Conversation()
    conversation.ask("count")
    conversation.append("one two")
    conversation.ask("go on")
    assert ("assistant", "one two") in sent(conversation)
    assert conversation.last_answer == "one two"


def test_a_prompt_without_a_reply_is_not_sent_again() -> None:
    conversation = Conversation()
    conversation.ask("failed")
    conversation.ask("again")
    assert sent(conversation) == [("user", "again")]


def test_regenerating_asks_the_same_once_more() -> None:
    conversation = Conversation()
    assert not conversation.regenerate()
    conversation.ask("one")
    conversation.append("1")
    conversation.ask("two")
    before = sent(conversation)
    conversation.append("2")
    assert conversation.regenerate()
    assert sent(conversation) == before
    assert conversation.last_answer == "1"


def test_a_new_chat_keeps_the_system_text_only() -> None:
    conversation = Conversation("Be brief.")
    conversation.ask("one")
    conversation.append("1")
    conversation.clear()
    assert conversation.last is None
    assert conversation.last_answer is None
    conversation.ask("two")
    assert sent(conversation) == [("system", "Be brief."), ("user", "two")]


def test_lone_surrogates_cannot_be_sent() -> None:
    conversation = Conversation()
    conversation.ask("a\ud800")
    conversation.append("b\udfff")
    conversation.ask("c")
    for _, text in sent(conversation):
        text.encode()
