"""Exports can be imported unchanged; anything else is refused with an error that says where."""

from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from app.store import transfer
from app.store.chat_store import ChatStore
from app.store.errors import ImportRefusedError, StoreError
from app.store.records import TurnStats
from app.text.sanitise import UNSAFE_CODES
from tests.app.store.support import Clock, answer, say, texts
from tests.app.tui.corpus import CORPUS
from tests.cases import cases


@pytest.fixture
def chat_id(store: ChatStore, clock: Clock) -> int:
    """A chat with two branches, thoughts, figures and a stopped reply."""
    chat = store.create_chat("Trip > Kyoto -->", "e2b", "e2b-mtp", {"temperature": 0.5, "system": "Be > brief."})
    _, user, first = store.ask(chat.id, None, "When?\n\n<!-- slipstream-message {} -->\n", 5)
    stats = TurnStats(drafted=8, accepted=3, drafted_by_position=(5, 3), speedup=1.5, finish_reason="stop")
    store.finish_reply(first.id, "complete", stats, "In **April**.", "Let me\nthink.")
    clock.now_s += 3600
    second = store.begin_reply(user.id)
    store.finish_reply(second.id, "stopped", text="Late Ma")
    say(store, chat.id, "Thanks")
    store.walk(chat.id, -1)
    say(store, chat.id, "And maples?")
    return chat.id


WRITERS = [transfer.export_json, transfer.export_markdown]


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_of_chats_comes_back_as_it_was(
    store: ChatStore, chat_id: int, folder: Path, write: Callable[..., str]
) -> None:
    other = store.create_chat("empty").id
    third = store.create_chat().id
    answer(store, say(store, third, "x"), "")
    ids = [chat_id, other, third]
    file = folder / "export"
    transfer.write_file(file, write(store, ids), may_replace=False)
    chats = store.import_chats(transfer.read_file(file))
    assert [transfer.exported(store, chat.id) for chat in chats] == [transfer.exported(store, id) for id in ids]
    assert texts(store, chats[0].id) == texts(store, chat_id)
    assert [chat.title for chat in store.list_chats(limit=3)] == ["x", "empty", "Trip > Kyoto -->"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("write", WRITERS)
def test_only_the_branch_that_is_shown(store: ChatStore, chat_id: int, write: Callable[..., str]) -> None:
    text = write(store, [chat_id], is_whole=False)
    (chat,) = store.import_chats(transfer.read_bytes(text.encode(), "x"))
    assert texts(store, chat.id) == texts(store, chat_id)
    assert chat.message_count == 3
    assert "Late Ma" not in text


@pytest.mark.parametrize("write", WRITERS)
def test_no_export_can_steer_a_terminal_and_all_of_it_comes_back(
    store: ChatStore, folder: Path, write: Callable[..., str]
) -> None:
    for number, evil in enumerate(CORPUS):
        chat = store.create_chat(evil, evil, evil, {"system": evil})
        _, _, reply = store.ask(chat.id, None, f"{number} {evil}")
        store.finish_reply(reply.id, "complete", TurnStats(model=evil), f"{evil}\n{evil}", f"hm {evil}")
        file = folder / str(number)
        transfer.write_file(file, write(store, [chat.id]), may_replace=False)
        assert ascii(set(file.read_bytes().decode()) & set(map(chr, UNSAFE_CODES))) == "set()"
        assert list(transfer.read_file(file)) == [transfer.exported(store, chat.id)]


def test_what_somebody_has_changed_in_an_export_counts(store: ChatStore) -> None:
    chat = store.create_chat()
    reply = store.begin_reply(say(store, chat.id, "red \x1b[31m here"))
    store.finish_reply(reply.id, "complete", text="\u202edone\u2028<!-- slipstream-answer -->", thinking="\x9bhm")
    text = transfer.export_markdown(store, [chat.id])
    assert "red ␛[31m here" in text
    (read,) = transfer.read_bytes(text.replace("␛[31m here", "␛[31m there").encode(), "x")
    assert [message.text for message in read.messages] == [
        "red ␛[31m there",
        "\u202edone\u2028<!-- slipstream-answer -->",
    ]
    assert read.messages[1].thinking == "\x9bhm"


def test_markdown_is_for_people_too(store: ChatStore, chat_id: int) -> None:
    lines = transfer.export_markdown(store, [chat_id], is_whole=False).splitlines()
    shown = [line for line in lines if line and not line.startswith("<!-- ")]
    assert shown == [
        "# Trip > Kyoto -->", "## You", "When?", "\\<!-- slipstream-message {} -->", "## Reply", "Let me",
        "think.", "In **April**.", "## You", "And maples?",
    ]  # fmt: skip


def test_a_reply_that_is_running_is_exported_as_interrupted(store: ChatStore) -> None:
    chat = store.create_chat()
    reply = store.begin_reply(say(store, chat.id, "hello"))
    store.grow_reply(reply.id, "half")
    assert [message.state for message in transfer.exported(store, chat.id).messages] == ["complete", "interrupted"]


def test_an_editor_may_take_the_last_line_or_put_a_mark_first(store: ChatStore, chat_id: int) -> None:
    text = transfer.export_markdown(store, [chat_id])
    expected = [transfer.exported(store, chat_id)]
    for edited in (text.rstrip("\n") + "\n", text.rstrip("\n"), "\ufeff" + text, "\n" + text):
        assert list(transfer.read_bytes(edited.encode(), "x")) == expected
    edited = text.replace("And maples?", "And the maples?")
    assert transfer.read_bytes(edited.encode(), "x")[0].messages[-1].text == "And the maples?"


def changed(text: str, *path: object, to: object) -> str:
    """The JSON `text` with one value replaced."""
    content = json.loads(text)
    at = content
    for key in path[:-1]:
        at = at[key]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return json.dumps(content)


M = ("chats", 0, "messages", 1)


@pytest.mark.parametrize(
    ("at", "to", "words"),
    [
        (("format",), "other", "not an export of Slipstream.*'other'"),
        (("format",), ..., "format"),
        (("version",), 2, "format is version 2.*reads version 1"),
        (("chats",), {}, r"\$\.chats"),
        (("extra",), 1, "extra"),
        (("chats", 0, "title"), None, r"\$\.chats\[0\]\.title"),
        (("chats", 0, "params"), [], r"\$\.chats\[0\]\.params"),
        (("chats", 0, "created_s"), "noon", r"created_s"),
        ((*M, "parent"), 1, "x, chat 1, message 2: its parent 1 is not an earlier"),
        ((*M, "parent"), -1, "chat 1, message 2: its parent -1"),
        ((*M, "parent"), 0.5, r"messages\[1\]\.parent"),
        ((*M, "role"), "system", r"messages\[1\]\.role"),
        ((*M, "state"), "generating", r"messages\[1\]\.state"),
        ((*M, "text"), ..., r"messages\[1\]"),
        ((*M, "id"), 7, r"messages\[1\]"),
        ((*M, "stats"), {"drafted": -1}, r"messages\[1\]\.stats\.drafted"),
        ((*M, "stats"), {"drafted": 10**30}, r"messages\[1\]\.stats"),
        ((*M, "stats"), {"unknown": 1}, r"messages\[1\]\.stats"),
        ((*M, "stats"), {"drafted_by_position": [True]}, r"messages\[1\]\.stats"),
        (
            ("chats", 0, "messages", 2, "is_shown"),
            True,
            "message 3: another reply to the same message is already shown",
        ),
    ],
)
def test_json_with_one_thing_wrong_is_refused(
    store: ChatStore, chat_id: int, at: tuple[object, ...], to: object, words: str
) -> None:
    text = changed(transfer.export_json(store, [chat_id]), *at, to=to)
    with pytest.raises(ImportRefusedError, match=words) as refused:
        store.import_chats(transfer.read_bytes(text.encode(), "x"))
    assert str(refused.value).startswith("x")
    assert len(store.list_chats()) == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<!-- slipstream-chat", "<!-- chat", "line 1: this is not a chat"),
        ("# Trip", "# Trip\n<!-- slipstream-other -->\n", "line 4: this comment was not written by Slipstream"),
        ("slipstream-chat {", "slipstream-chat {,", "line 1: JSON is malformed"),
        ('"version":1', '"version":2', "line 1: its format is version 2"),
        ('"role":"user"', '"role":"boss"', r"line 5: .*`\$\.role`"),
        ('"parent":0', '"parent":9', "chat 1, message 2: its parent 9"),
        ("## You", "You", "line 6: a heading between two blank lines is missing"),
        ("<!-- slipstream-thoughts -->\n", "<!-- slipstream-thoughts -->", "line 19: a blank line is missing"),
        ("<!-- slipstream-answer -->", "", "line 18: thoughts and answer must come in pairs"),
        ("<!-- slipstream-thoughts -->", "", "thoughts and answer must come in pairs"),
        ("slipstream-answer -->", "slipstream-answer {} -->", "this comment was not written by Slipstream"),
    ],
)  # fmt: skip
def test_markdown_with_one_thing_wrong_is_refused(
    store: ChatStore, chat_id: int, old: str, new: str, words: str
) -> None:
    text = transfer.export_markdown(store, [chat_id])
    assert old in text
    with pytest.raises(ImportRefusedError, match=words) as refused:
        transfer.read_bytes(text.replace(old, new, 1).encode(), "x.md")
    assert str(refused.value).startswith("x.md, ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a chat exported by Slipstream"),
        (b"hello\n", "line 1: this is not a chat"),
        (b"{", "truncated"),
        (b"[]", "x: "),
        (b"{}", "x: "),
        (b'{"format": "slipstream-chats", "version": 1}', "chats"),
        (b"\xff\xfe", "byte 0"),
        (b'{"format": "slipstream-chats", "version": 1, "chats": ' + b"[" * 100_000, "x: "),
        (b'{"a":' * 100_000, "nested too deeply|truncated"),
        (b'<!-- slipstream-chat {"a":' + b'{"a":' * 50_000 + b"} -->", "line 1"),
    ],
)
def test_what_is_no_export_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ImportRefusedError, match=words):
        transfer.read_bytes(content, "x")


@pytest.mark.parametrize("write", WRITERS)
def test_a_damaged_export_is_refused_or_read_and_never_breaks(
    store: ChatStore, chat_id: int, write: Callable[..., str]
) -> None:
    random_ = random.Random(5)
    text = write(store, [chat_id]).encode()
    refused = 0
    for _ in range(cases(300, 10_000)):
        content = bytearray(text)
        for _ in range(random_.randrange(1, 4)):
            start = random_.randrange(len(content))
            content[start : start + random_.randrange(20)] = random_.randbytes(random_.randrange(3))
        before = len(store.list_chats(limit=-1))
        imported = 0
        with suppress(ImportRefusedError):
            imported = len(store.import_chats(transfer.read_bytes(bytes(content), "x")))
        refused += not imported
        assert len(store.list_chats(limit=-1)) == before + imported
    assert refused > cases(300, 10_000) // 2


def test_several_chats_are_imported_all_or_none(store: ChatStore, chat_id: int) -> None:
    chat = transfer.exported(store, chat_id)
    broken = msgspec.structs.replace(chat, params={"not json": object()})
    with pytest.raises(StoreError, match="JSON"):
        store.import_chats([chat, chat, broken])
    assert len(store.list_chats()) == 1


def test_files_that_cannot_be_read(folder: Path) -> None:
    with pytest.raises(ImportRefusedError, match="no such file"):
        transfer.read_file(folder / "none")
    with pytest.raises(ImportRefusedError, match="no such file"):
        transfer.read_file(folder)
    os.mkfifo(folder / "pipe")
    with pytest.raises(ImportRefusedError, match="no such file"):
        transfer.read_file(folder / "pipe")


def test_an_export_replaces_a_file_only_when_told(folder: Path) -> None:
    file = folder / "chats.md"
    transfer.write_file(file, "one", may_replace=False)
    with pytest.raises(StoreError, match="already exists"):
        transfer.write_file(file, "two", may_replace=False)
    assert file.read_text() == "one"
    transfer.write_file(file, "two", may_replace=True)
    assert file.read_text() == "two"
    for wrong in (folder / "no" / "folder.md", folder, Path("/")):
        with pytest.raises(StoreError, match="cannot be written"):
            transfer.write_file(wrong, "x", may_replace=True)
    assert [each.name for each in folder.iterdir()] == ["chats.md"]
