"""All texts come back unchanged, except lone surrogates, which UTF-8 cannot represent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.store import transfer
from app.store.chat_store import ChatStore
from app.text.sanitise import cleaned
from tests.app.store.support import quick_folder
from tests.cases import cases

ANY = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["\0", "\ud800", "\udfff\ud800", "\x1b]52;c;aGk=\x07", "a\0b", "\r\n\r", "\x85\u2028\u2029", "\ufeff", "-->",
     "<!-- slipstream-message -->", "\\<!-- slipstream-answer -->\n", "\n\n", "\n## You\n", "\U000f0000\U0010ffff"]
)  # fmt: skip
LONG = st.builds(lambda text, times: (text * times)[:1_000_000], st.text(min_size=1), st.integers(1, 200_000))


@pytest.fixture(scope="module")
def store() -> Iterator[ChatStore]:
    with quick_folder() as folder:
        store = ChatStore.open(folder / "chats.db", lambda: 0.0)
        yield store
        store.close()


@pytest.fixture(scope="module")
def other(store: ChatStore) -> Iterator[ChatStore]:
    """Another connection, which reads what was written."""
    name = store._database._path
    other = ChatStore.open(Path(name), lambda: 0.0)
    yield other
    other.close()


few = settings(max_examples=cases(150, 4000), suppress_health_check=list(HealthCheck))


@given(text=ANY, thinking=ANY, pieces=st.lists(ANY, max_size=4))
@few
def test_every_text_comes_back(
    store: ChatStore, other: ChatStore, text: str, thinking: str, pieces: list[str]
) -> None:
    chat = store.create_chat(title=text, model=thinking, drafter=text, params={"system": text})
    _, user, reply = store.ask(chat.id, None, text)
    for piece in pieces:
        store.grow_reply(reply.id, piece, thinking)
    store.finish_reply(reply.id, "stopped", text=text)
    kept = other.chat(chat.id)
    assert (kept.model, kept.drafter, kept.params) == (cleaned(thinking), cleaned(text), {"system": cleaned(text)})
    asked, answered = other.path(chat.id)
    assert asked.text == user.text == cleaned(text)
    assert answered.text == cleaned("".join([*pieces, text]))
    assert answered.thinking == cleaned(thinking * len(pieces))
    for write in (transfer.export_json, transfer.export_markdown):
        exported = transfer.exported(store, chat.id)
        assert list(transfer.read_bytes(write(store, [chat.id]).encode(), "x")) == [exported]


@given(text=ANY)
@few
def test_text_without_lone_surrogates_is_not_changed(text: str) -> None:
    is_plain = not any("\ud800" <= letter <= "\udfff" for letter in text)
    assert (cleaned(text) == text) == is_plain
    cleaned(text).encode()


@given(text=LONG)
@settings(few, max_examples=cases(6, 200))
def test_a_megabyte_comes_back(store: ChatStore, other: ChatStore, text: str) -> None:
    chat = store.create_chat()
    _, _, reply = store.ask(chat.id, None, text)
    store.grow_reply(reply.id, text)
    store.finish_reply(reply.id, "complete")
    assert [message.text for message in other.path(chat.id)] == [text, text]
