"""Search finds the messages that contain the words, with and without the index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.store import search
from app.store.chat_store import ChatStore
from app.store.errors import NotStoredError
from tests.app.store.support import Clock, answer, quick_folder, rows, say
from tests.cases import cases


def found(store: ChatStore, words: str) -> list[str]:
    return [hit.excerpt for hit in store.search(words)]


@pytest.fixture(params=["with the index", "without FTS5"])
def store(
    request: pytest.FixtureRequest, path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ChatStore]:
    if request.param == "without FTS5":
        monkeypatch.setattr(search, "has_index", lambda connection: False)
        monkeypatch.setattr(
            search, "_INDEX", "CREATE VIRTUAL TABLE message_index USING fts5_of_another_build(text)"
        )
    store = ChatStore.open(path, clock)
    yield store
    store.close()


def test_messages_are_found_by_parts_of_words_in_any_case_newest_first(store: ChatStore) -> None:
    first, second = store.create_chat("Travel").id, store.create_chat("Code").id
    answer(store, say(store, first, "A trip to KYOTO in April"), "Kyotographs are not a thing.")
    answer(store, say(store, second, "Сортування Київ"), "京都へようこそ")
    assert found(store, "kyoto") == ["Kyotographs are not a thing.", "A trip to KYOTO in April"]
    assert found(store, "APRIL yot") == ["A trip to KYOTO in April"]
    assert found(store, "київ") == ["Сортування Київ"]
    assert found(store, "京都") == found(store, "都へよ") == ["京都へようこそ"]
    assert found(store, "kyoto code") == found(store, "zebra") == found(store, " \n") == []
    hit = store.search("april")[0]
    assert (hit.chat_id, hit.title, hit.role) == (first, "Travel", "user")


def test_what_was_found_is_shown_unless_the_words_are_seen_anyway(store: ChatStore) -> None:
    chat = store.create_chat().id
    user = say(store, chat, "Name a fruit")
    apple, pear = answer(store, user, "An apple"), answer(store, user, "A pear")
    for words, last in (
        ("fruit", pear), ("apple", apple), ("a", apple), ("PEAR", pear), ("apple pear", pear), (" ", pear)
    ):  # fmt: skip
        store.reveal(chat, words)
        assert store.path(chat)[-1].id == last, words
    with pytest.raises(NotStoredError):
        store.reveal(99, "fruit")


def test_accents_do_not_count_in_either_unicode_form(store: ChatStore) -> None:
    chat = store.create_chat("Rendez-vous à l'École").id
    for text in ("one café", "two cafe\u0301", "three cafe", "four CAFÉ"):
        say(store, chat, text)
    for words in ("café", "cafe\u0301", "cafe", "CAFÉ"):
        assert [text.split()[0] for text in found(store, words)] == ["four", "three", "two", "one"]
        assert [each.id for each in store.list_chats(words)] == [chat]
    assert [each.id for each in store.list_chats("ecole")] == [chat]
    assert found(store, "\u0301") == [], "an accent alone is no word"


def test_an_excerpt_begins_at_the_word_whatever_precedes_it(store: ChatStore) -> None:
    say(store, store.create_chat().id, "e\u0301 " * 500 + "needle" + " end" * 50)
    (excerpt,) = found(store, "needle")
    assert "needle end" in excerpt


@pytest.mark.parametrize(
    "words", ['"', "100%", "a_b", "'; DROP TABLE chat; --", "NEAR(", "* OR", "a\0b", "\\", "^x:"]
)
def test_signs_mean_themselves(store: ChatStore, words: str) -> None:
    chat = store.create_chat()
    say(store, chat.id, f"before {words} after")
    say(store, chat.id, "100 axb OR NEAR")
    assert len(found(store, words)) == 1
    assert len(store.list_chats(words)) == 1


def test_a_chat_is_found_by_its_title_or_by_any_of_its_messages(store: ChatStore) -> None:
    ids = [store.create_chat(title).id for title in ("Trip to Kyoto", "Rust", "Dates")]
    say(store, ids[1], "Why is kyoto in my tests?")
    answer(store, say(store, ids[2], "x"), "y")
    assert [chat.id for chat in store.list_chats("kyoto")] == [ids[1], ids[0]]
    assert [chat.id for chat in store.list_chats("kyoto", limit=1, offset=1)] == [ids[0]]


def test_a_reply_is_found_when_it_has_ended(store: ChatStore) -> None:
    reply = store.begin_reply(say(store, store.create_chat().id, "hello"))
    store.grow_reply(reply.id, "a plat")
    assert found(store, "plat") == []
    store.finish_reply(reply.id, "stopped", text="ypus")
    assert found(store, "platypus") == ["a platypus"]
    store.continue_reply(reply.id)
    store.finish_reply(reply.id, "complete", text=" and an echidna")
    assert found(store, "echidna") == found(store, "platypus") == ["a platypus and an echidna"]


def test_an_excerpt_is_one_line_around_the_first_word(store: ChatStore) -> None:
    say(store, store.create_chat().id, "left " * 100 + "\n\nneedle\n" + "right " * 100)
    (excerpt,) = found(store, "NEEDLE")
    assert excerpt.startswith("…")
    assert excerpt.endswith("…")
    assert "left needle right" in excerpt
    assert len(excerpt) <= search.EXCERPT_CHARACTERS + 2


def test_an_index_is_made_for_a_store_from_a_program_without_one(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(search, "_INDEX", "CREATE VIRTUAL TABLE message_index USING fts5_of_another_build(text)")
        store = ChatStore.open(path, clock)
        for number in range(search.INDEXED_AT_ONCE * 2 + 1):
            say(store, store.create_chat().id, f"message number {number}.")
        assert found(store, "number 200.") == ["message number 200."]
        store.close()
        assert rows(path, "SELECT count(*) FROM sqlite_master WHERE name = 'message_index'") == [(0,)]
    store = ChatStore.open(path, clock)
    assert found(store, "number 200.") == ["message number 200."]
    store.close()
    assert rows(path, "SELECT count(*) FROM message WHERE is_indexed") == [(search.INDEXED_AT_ONCE * 2 + 1,)]


def test_an_index_from_before_texts_were_folded_is_made_again(path: Path, clock: Clock) -> None:
    store = ChatStore.open(path, clock)
    say(store, store.create_chat().id, "one café")
    assert found(store, "cafe") == ["one café"]
    connection = store._database._opened.connection
    connection.execute("UPDATE message_index SET text = 'one café'")
    connection.execute("PRAGMA user_version = 1")
    store.close()
    store = ChatStore.open(path, clock)
    assert found(store, "cafe") == ["one café"]
    store.close()


def test_the_index_is_asked(path: Path, clock: Clock) -> None:
    store = ChatStore.open(path, clock)
    say(store, store.create_chat().id, "hello there")
    assert found(store, "hello") == ["hello there"]
    # An empty index finds nothing, so it was the index that proposed the message.
    store._database._opened.connection.execute("DELETE FROM message_index")
    assert found(store, "hello") == []
    store.close()


WORDS = st.text(
    st.sampled_from("aAbßẞéÉe\u0301ΣςσИиİiıI\u0307ǅⅷⓐꙀꙁꭰᎠ京\U00010400\U00010428\0\x1f%_\"' \n"), max_size=9
)


@pytest.fixture(scope="module")
def both() -> Iterator[ChatStore]:
    with quick_folder() as folder:
        store = ChatStore.open(folder / "chats.db", lambda: 0.0)
        yield store
        store.close()


@given(texts=st.lists(WORDS, min_size=1, max_size=5), words=WORDS)
@settings(max_examples=cases(200, 5000), suppress_health_check=list(HealthCheck))
def test_the_index_changes_nothing_but_the_time(both: ChatStore, texts: list[str], words: str) -> None:
    chat = both.create_chat("chat")
    for text in [*texts, words, f"x{words}x"]:
        say(both, chat.id, text)
    quick = both.search(words, limit=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "has_index", lambda connection: False)
        slow = both.search(words, limit=1000)
    assert quick == slow
    assert not search.terms_of(words) or len(quick) >= 2
    both.delete(chat.id)
