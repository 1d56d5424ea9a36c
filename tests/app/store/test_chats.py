"""Chats: titles, order, settings, deleting and restoring."""

from __future__ import annotations

import math
import stat
from pathlib import Path

import pytest

from app.store.chat_store import DELETED_KEPT_S, ChatStore
from app.store.errors import NotStoredError, StoreError
from app.store.records import NewChat, NewMessage, TurnStats
from app.store.title import TITLE_CHARACTERS, automatic_title
from tests.app.store.support import Clock, answer, rows, say, texts

DAY_S = 24 * 3600.0


def titles(store: ChatStore) -> list[str]:
    return [chat.title for chat in store.list_chats()]


def test_a_chat_is_called_by_its_first_message(store: ChatStore) -> None:
    chat = store.create_chat()
    say(store, chat.id, "\n\n  How do   I\tstart?\nThanks")
    say(store, chat.id, "Something else")
    assert store.chat(chat.id).title == "How do I start?"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("", ""),
        (" \n\t ", ""),
        ("a" * 100, "a" * (TITLE_CHARACTERS - 1) + "…"),
        ("word " * 40, ("word " * 11) + "word…"),
        ("x\u2028y", "x"),
    ],
)
def test_an_automatic_title_is_one_short_line(text: str, title: str) -> None:
    assert automatic_title(text) == title
    assert len(automatic_title(text)) <= TITLE_CHARACTERS


def test_a_title_that_was_given_stays(store: ChatStore) -> None:
    named, renamed = store.create_chat("Mine").id, store.create_chat().id
    store.rename(renamed, "  Also\nmine ")
    for chat_id in (named, renamed):
        say(store, chat_id, "hello")
    assert [store.chat(named).title, store.chat(renamed).title] == ["Mine", "Also mine"]
    with pytest.raises(StoreError, match="at least one letter"):
        store.rename(named, " \n ")
    assert store.chat(named).title == "Mine"


def after_days(days: int, path: Path, clock: Clock) -> ChatStore:
    """The store, after it was opened every day."""
    for _ in range(days - 1):
        clock.now_s += DAY_S
        ChatStore.open(path, clock).close()
    clock.now_s += DAY_S
    return ChatStore.open(path, clock)


def test_the_chat_last_used_comes_first_whatever_the_clock_says(store: ChatStore, clock: Clock) -> None:
    first, second, third = (store.create_chat(title).id for title in ("first", "second", "third"))
    for chat_id, jump_s in ((second, -3e8), (third, 3e8), (first, -6e8)):
        clock.now_s += jump_s
        answer(store, say(store, chat_id, "hello"), "hi")
    assert titles(store) == ["first", "third", "second"]
    assert [message.text for message in store.messages(first)] == ["hello", "hi"]
    assert store.chat(first).updated_s == clock.now_s


def test_messages_keep_their_order_when_time_stands_still_or_runs_back(store: ChatStore, clock: Clock) -> None:
    chat = store.create_chat()
    for number in range(20):
        clock.now_s -= number % 3 * 1000
        say(store, chat.id, str(number))
    assert texts(store, chat.id) == [str(number) for number in range(20)]


def test_chats_are_listed_by_pages(store: ChatStore) -> None:
    for number in range(7):
        store.create_chat(str(number))
    pages = [store.list_chats(limit=3, offset=offset) for offset in (0, 3, 6, 9)]
    assert [[chat.title for chat in page] for page in pages] == [["6", "5", "4"], ["3", "2", "1"], ["0"], []]


def test_model_and_settings_are_kept_with_the_chat(store: ChatStore, path: Path, clock: Clock) -> None:
    params = {"temperature": 0.7, "system": "Be \0 brief.", "seed": None, "nested": {"list": [1, "\u2028"]}}
    chat = store.create_chat(model="e2b", drafter="e2b-mtp", params=params)
    store.close()
    again = ChatStore.open(path, clock)
    kept = again.chat(chat.id)
    assert (kept.model, kept.drafter, kept.params) == ("e2b", "e2b-mtp", params)
    assert again.set_params(chat.id, {"temperature": 0}).params == {"temperature": 0}
    again.close()


@pytest.mark.parametrize("params", [{"temperature": math.nan}, {"path": Path("x")}, {"bytes": b""}])
def test_settings_that_json_cannot_hold_are_refused(store: ChatStore, params: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="cannot be stored as JSON"):
        store.create_chat(params=params)
    assert store.list_chats() == []


def test_figures_are_kept_with_the_reply(store: ChatStore) -> None:
    stats = TurnStats(
        finish_reason="length", prompt_tokens=12, cached_tokens=3, disk_tokens=2, generated_tokens=40,
        rounds=20, target_passes=21, drafted=80, accepted=20, drafted_by_position=(20, 20),
        accepted_by_position=(15, 5), draft_length=4, ttft_s=0.4, decode_s=1.5, plain_tokens_per_s=32.0,
        speedup=1.8, peak_memory_bytes=1 << 40,
        model="pocket", drafter="pocket-mtp", app_version="0.1.0",
    )  # fmt: skip
    chat = store.create_chat()
    reply = store.begin_reply(say(store, chat.id, "hello"))
    assert store.finish_reply(reply.id, "stopped", stats, text="hi").stats == stats
    store.continue_reply(reply.id)
    assert store.finish_reply(
        reply.id, "complete", TurnStats(generated_tokens=3), text=" there"
    ).stats == TurnStats(generated_tokens=3)
    assert texts(store, chat.id) == ["hello", "hi there"]


def test_a_chat_has_the_pair_that_answered_last(store: ChatStore) -> None:
    chat = store.create_chat()
    for stats, pair in (
        (TurnStats(model="e2b", drafter="e2b-mtp"), ("e2b", "e2b-mtp")),
        (None, ("e2b", "e2b-mtp")),
        (TurnStats(), ("e2b", "e2b-mtp")),
        (TurnStats(model="12b"), ("12b", None)),
    ):
        reply = store.begin_reply(say(store, chat.id, "hello"))
        store.finish_reply(reply.id, "complete", stats)
        kept = store.chat(chat.id)
        assert (kept.model, kept.drafter) == pair


def test_the_chat_last_answered_in_comes_first(store: ChatStore) -> None:
    first, second = store.create_chat("first").id, store.create_chat("second").id
    reply = store.begin_reply(say(store, first, "hello"))
    say(store, second, "hello")
    assert titles(store) == ["second", "first"]
    store.finish_reply(reply.id, "complete", text="hi")
    assert titles(store) == ["first", "second"]


def test_figures_that_are_not_numbers_count_as_unknown(store: ChatStore) -> None:
    reply = store.begin_reply(say(store, store.create_chat().id, "hello"))
    stats = TurnStats(speedup=math.inf, decode_s=math.nan, rounds=3)
    assert store.finish_reply(reply.id, "complete", stats).stats == TurnStats(rounds=3)


def test_deleted_chats_come_back_the_last_one_first(store: ChatStore, clock: Clock) -> None:
    ids = [store.create_chat(title).id for title in "abc"]
    say(store, ids[1], "kept")
    for chat_id in ids:
        clock.now_s -= 100
        store.delete(chat_id)
    assert store.list_chats() == []
    assert store.search("kept") == []
    assert [chat.title if (chat := store.undo_delete()) else None for _ in range(4)] == ["c", "b", "a", None]
    assert texts(store, ids[1]) == ["kept"]
    assert len(store.search("kept")) == 1


def test_a_chat_is_deleted_once(store: ChatStore) -> None:
    chat = store.create_chat("a")
    store.delete(chat.id)
    with pytest.raises(NotStoredError, match=f"no chat {chat.id}"):
        store.delete(chat.id)


def test_writing_in_a_chat_that_another_window_has_deleted_brings_it_back(store: ChatStore) -> None:
    chat = store.create_chat("a")
    store.delete(chat.id)
    say(store, chat.id, "still here")
    assert titles(store) == ["a"]
    assert store.undo_delete() is None


def test_deleted_chats_are_forgotten_after_a_month(store: ChatStore, path: Path, clock: Clock) -> None:
    kept, gone = store.create_chat("kept").id, store.create_chat("gone").id
    for chat_id in (kept, gone):
        answer(store, say(store, chat_id, "platypus"), "echidna")
    assert len(store.search("platypus")) == 2
    store.delete(gone)
    store.close()
    again = after_days(40, path, clock)
    assert again.undo_delete() is None
    assert [hit.chat_id for hit in again.search("platypus")] == [kept]
    assert say(again, kept, "next") > 4, "an id is never given twice"
    again.close()
    for table in ("message", "message_index"):
        assert rows(path, f"SELECT count(*) FROM {table} WHERE text LIKE '%platypus%'") == [(1,)]


@pytest.mark.parametrize("is_wrong", ["at deleting", "afterwards"])
@pytest.mark.parametrize("error_s", [-1.7e9, -60 * DAY_S, 60 * DAY_S, 1e9])
def test_a_clock_that_was_wrong_once_costs_no_deleted_chat(
    store: ChatStore, path: Path, clock: Clock, is_wrong: str, error_s: float
) -> None:
    store.create_chat("a")
    store.close()
    for name in ("at deleting", "afterwards"):
        clock.now_s += error_s if name == is_wrong else 0
        opened = ChatStore.open(path, clock)
        if name == "at deleting":
            opened.delete(1)
        opened.close()
        clock.now_s -= error_s if name == is_wrong else 0
    again = after_days(int(DELETED_KEPT_S / DAY_S), path, clock)
    assert again.undo_delete()
    again.delete(1)
    again.close()
    again = after_days(40, path, clock)
    assert again.undo_delete() is None, "it is not kept for ever"
    again.close()


def test_a_chat_of_thousands_of_messages_can_be_forgotten(store: ChatStore, path: Path, clock: Clock) -> None:
    messages = [
        NewMessage(at - 1 if at else None, "user", "x", "", "complete", 0.0, True, None) for at in range(3000)
    ]
    (chat,) = store.import_chats([NewChat("long", "", None, {}, 0.0, 0.0, tuple(messages))])
    assert len(store.path(chat.id)) == 3000
    store.delete(chat.id)
    store.close()
    after_days(40, path, clock).close()
    assert rows(path, "SELECT count(*) FROM message") == [(0,)]


def test_unknown_numbers_are_named(store: ChatStore) -> None:
    chat = store.create_chat("a")
    message_id = say(store, chat.id, "hello")
    other = store.create_chat("b")
    for call in (
        lambda: store.chat(99),
        lambda: store.path(99),
        lambda: store.messages(99),
        lambda: store.rename(99, "x"),
        lambda: store.delete(99),
        lambda: store.ask(99, None, "x"),
        lambda: store.ask(chat.id, 99, "x"),
        lambda: store.begin_reply(99),
        lambda: store.continue_reply(99),
        lambda: store.grow_reply(99, "x"),
        lambda: store.finish_reply(99, "complete"),
        lambda: store.walk(99, 1),
        lambda: store.reveal(99, "x"),
    ):
        with pytest.raises(NotStoredError, match="99"):
            call()
    with pytest.raises(NotStoredError, match=f"no message {message_id} in chat {other.id}"):
        store.ask(other.id, message_id, "x")
    with pytest.raises(NotStoredError, match="no running reply"):
        store.grow_reply(message_id, "x")
    assert texts(store, chat.id) == ["hello"]
    assert texts(store, other.id) == []


def test_a_reply_that_has_ended_grows_only_when_it_is_continued(store: ChatStore) -> None:
    chat = store.create_chat()
    reply_id = store.begin_reply(say(store, chat.id, "hello")).id
    store.finish_reply(reply_id, "stopped", text="hi")
    with pytest.raises(NotStoredError):
        store.grow_reply(reply_id, "!")
    store.continue_reply(reply_id)
    store.grow_reply(reply_id, "!", "hm")
    path = store.path(chat.id)
    assert (path[-1].text, path[-1].thinking, path[-1].state) == ("hi!", "hm", "generating")
    store.finish_reply(reply_id, "complete")
    with pytest.raises(StoreError, match="complete by now"):
        store.continue_reply(reply_id)


def test_a_reply_whose_store_was_closed_is_interrupted(store: ChatStore, path: Path, clock: Clock) -> None:
    chat = store.create_chat()
    reply = store.begin_reply(say(store, chat.id, "hello"))
    store.grow_reply(reply.id, "half a", "a thought")
    store.close()
    other = ChatStore.open(path, clock)
    last = other.path(chat.id)[-1]
    assert (last.text, last.thinking, last.state) == ("half a", "a thought", "interrupted")
    other.close()


def test_only_the_person_can_read_the_files(store: ChatStore, path: Path) -> None:
    say(store, store.create_chat().id, "hello")
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (path.parent, *path.parent.iterdir())}
    assert modes.pop("data") == 0o700
    assert set(modes) >= {"chats.db", "chats.db-wal", "chats.db-shm", "chats.db.lock"}
    assert set(modes.values()) == {0o600}


def test_a_file_that_others_could_read_is_closed_to_them(path: Path, clock: Clock) -> None:
    ChatStore.open(path, clock).close()
    path.chmod(0o644)
    ChatStore.open(path, clock).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_closing_leaves_one_file(store: ChatStore, path: Path) -> None:
    say(store, store.create_chat().id, "hello")
    store.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["chats.db", "chats.db.lock"]


def test_what_a_person_typed_is_synced_and_what_streams_is_not(store: ChatStore) -> None:
    done: list[str] = []
    store._database._opened.connection.set_trace_callback(done.append)

    def syncs(call: object) -> set[str]:
        done.clear()
        call()  # type: ignore[operator]
        settings = [sql.rpartition(" ")[2] for sql in done if sql.startswith("PRAGMA synchronous")]
        commits = [sql for sql in done if sql == "COMMIT"]
        assert commits
        return set(settings)

    chat = store.create_chat()
    reply = None

    def begin() -> None:
        nonlocal reply
        reply = store.begin_reply(store.path(chat.id)[0].id)

    assert syncs(lambda: store.ask(chat.id, None, "hello")) <= {"FULL"}
    assert syncs(begin) == {"NORMAL"}
    assert reply
    assert syncs(lambda: store.grow_reply(reply.id, "x")) == set()
    assert "FULL" in syncs(lambda: store.finish_reply(reply.id, "complete"))
