"""Exports of other programs are imported, and importing twice does not double."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store import transfer
from app.store.chat_store import ChatStore
from app.store.errors import ImportRefusedError
from app.store.records import NewChat
from tests.app.store.support import Clock, answer, say, texts


def node(id: str, parent: str | None, role: str, content: Any, **message: Any) -> dict[str, Any]:
    """A node of ChatGPT's tree."""
    content = {"content_type": "text", "parts": [content]} if isinstance(content, str) else content
    return {
        "id": id,
        "parent": parent,
        "children": [],
        "message": {"id": id, "author": {"role": role}, "content": content, "recipient": "all", **message},
    }


HIDDEN = {"is_visually_hidden_from_conversation": True}
THOUGHTS = {"content_type": "thoughts", "thoughts": [{"summary": "Place", "content": "A temple."}]}
TRIP: list[dict[str, Any]] = [
    {"id": "root", "message": None, "parent": None, "children": []},
    node("system", "root", "system", "Be brief."),
    node("hidden", "system", "user", "memory", metadata=HIDDEN),
    node("ask", "hidden", "user", {
        "content_type": "multimodal_text",
        "parts": ["Where is this?", {"content_type": "image_asset_pointer"}],
    }),
    node("think", "ask", "assistant", THOUGHTS),
    node("call", "think", "assistant", {"content_type": "code", "text": "search()"}, recipient="web"),
    node("found", "call", "tool", "results"),
    node("part", "found", "assistant", "It is Kyoto.", metadata={"model_slug": "gpt-5"}),
    node("reply", "part", "assistant", "In Japan."),
    node("other", "ask", "assistant", "I do not know."),
]  # fmt: skip
CHATGPT: list[dict[str, Any]] = [
    {
        "title": "Newer",
        "create_time": 1_700_000_200.0,
        "update_time": 1_700_000_300.0,
        "current_node": "b",
        "mapping": {
            "root": {"id": "root", "message": None, "parent": None, "children": ["a"]},
            "a": node("a", "root", "user", "Hello", create_time=1_700_000_200.5),
            "b": node("b", "a", "assistant", "Hi.", create_time=1_700_000_201.0),
        },
    },
    {
        "title": "A trip",
        "create_time": 1_700_000_000.0,
        "update_time": 1_700_000_100.0,
        "current_node": "reply",
        "mapping": {each["id"]: each for each in TRIP},
    },
]  # fmt: skip

CLAUDE: list[dict[str, Any]] = [
    {
        "uuid": "1",
        "name": "Words",
        "created_at": "2024-01-01T12:00:00.000000Z",
        "updated_at": "2024-01-01T12:05:00Z",
        "chat_messages": [
            {
                "uuid": "a",
                "sender": "human",
                "text": "Summarise",
                "created_at": "2024-01-01T12:00:00Z",
                "attachments": [{"file_name": "notes.txt", "extracted_content": "Some notes."}],
                "files": [{"file_name": "photo.png"}],
            },
            {
                "uuid": "b",
                "sender": "assistant",
                "text": "",
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "Notes."},
                    {"type": "tool_use", "name": "x", "input": {}},
                    {"type": "text", "text": "That is all."},
                ],
            },
        ],
    }
]

LLM = [
    {
        "id": "2",
        "conversation_id": "c",
        "conversation_name": "Names for pets",
        "model": "small",
        "prompt": "And a cat?",
        "system": None,
        "response": "Tom.",
        "datetime_utc": "2023-09-08T12:39:27.158398",
    },
    {
        "id": "1",
        "conversation_id": "c",
        "conversation_name": "Names for pets",
        "model": "small",
        "prompt": "Name a lion",
        "system": "One word.",
        "response": "Leo.",
        "datetime_utc": "2023-09-08T12:38:27",
    },
    {"id": "3", "conversation_id": None, "model": "small", "prompt": "Hi", "response": "Hello.", "system": None},
]

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": [{"type": "text", "text": "Hello."}, {"type": "image_url"}]},
]

SHAREGPT = [
    {"from": speaker, "value": message["content"]}
    for speaker, message in zip(("system", "human", "gpt"), MESSAGES)
]

OTERM_TEXT = "*me*\nHi\n\n---\n*ollama*\nHello.\n\n---\nA rule is above.\n\n---\n*me*\nBye\n\n---\n"


def oterm_database(folder: Path, speaker: str, words: tuple[str, str]) -> bytes:
    path = folder / "store.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"""CREATE TABLE chat (id INTEGER PRIMARY KEY, name TEXT, model TEXT NOT NULL, system TEXT);
            CREATE TABLE message (id INTEGER PRIMARY KEY, chat_id INTEGER, {speaker} TEXT, text TEXT, images TEXT);
            INSERT INTO chat VALUES (1, 'Pets', 'gemma', 'Be brief.'), (2, 'Empty', 'gemma', NULL);
            INSERT INTO message VALUES (1, 1, '{words[0]}', 'Hi', '[]'), (2, 1, '{words[1]}', 'Hello.', '[]');"""
    )
    connection.close()
    return path.read_bytes()


def read(content: Any) -> list[NewChat]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return list(transfer.read_bytes(data, "x"))


def shown(store: ChatStore, content: Any) -> list[list[str]]:
    """The texts of each imported chat, in the version that is shown."""
    return [texts(store, chat.id) for chat in store.import_new(read(content))[0]]


def test_chatgpt(store: ChatStore) -> None:
    older, newer = read(CHATGPT)
    assert shown(store, CHATGPT) == [
        ["Where is this?\n\n[image asset pointer: not imported]", "It is Kyoto.\n\nIn Japan."],
        ["Hello", "Hi."],
    ]
    assert (older.title, older.model, older.params) == ("A trip", "gpt-5", {"system": "Be brief."})
    assert (older.created_s, older.updated_s) == (1_700_000_000.0, 1_700_000_100.0)
    assert [message.thinking for message in older.messages if message.is_shown] == ["", "A temple."]
    store.walk(2 - 1, -1)
    assert "I do not know." in [message.text for message in older.messages], "other replies are other versions"
    assert store.version(1)[1] == 2
    assert newer.messages[0].created_s == 1_700_000_200.5


def test_an_archive_as_it_is_sent(store: ChatStore) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("export/conversations.json", json.dumps(CHATGPT))
        archive.writestr("export/user.json", "{}")
    assert len(shown(store, data.getvalue())) == 2
    with pytest.raises(ImportRefusedError, match="x: this archive cannot be read"):
        read(data.getvalue()[:-30])
    with zipfile.ZipFile(data := io.BytesIO(), "w") as archive:
        archive.writestr("user.json", "{}")
    with pytest.raises(ImportRefusedError, match=r"x: there is no conversations\.json in this archive"):
        read(data.getvalue())


@pytest.mark.parametrize("content", [CLAUDE, {"conversations": CLAUDE}, CLAUDE[0]])
def test_claude(store: ChatStore, content: Any) -> None:
    [chat] = read(content)
    assert shown(store, content) == [
        [
            "Summarise\n\nnotes.txt:\n\nSome notes.\n\n[file photo.png: not imported]",
            "Notes.\n\nThat is all.",
        ]
    ]
    assert (chat.title, chat.created_s, chat.messages[1].thinking) == ("Words", 1_704_110_400.0, "Hm.")


def test_claude_with_versions(store: ChatStore) -> None:
    messages = [
        {"uuid": "a", "sender": "human", "text": "One", "parent_message_uuid": "0"},
        {"uuid": "b", "sender": "assistant", "text": "First", "parent_message_uuid": "a"},
        {"uuid": "c", "sender": "assistant", "text": "Second", "parent_message_uuid": "a"},
    ]
    content = [{**CLAUDE[0], "chat_messages": messages, "current_leaf_message_uuid": "b"}]
    assert shown(store, content) == [["One", "First"]]


def test_llm_logs(store: ChatStore) -> None:
    pets, greeting = read(LLM)
    assert shown(store, LLM) == [["Name a lion", "Leo.", "And a cat?", "Tom."], ["Hi", "Hello."]]
    assert (pets.title, pets.params, greeting.title) == ("Names for pets", {"system": "One word."}, "Hi")
    assert pets.created_s == 1_694_176_707.0


@pytest.mark.parametrize("content", [
    MESSAGES,
    {"messages": MESSAGES},
    [{"title": "Greeting", "messages": MESSAGES}],
    "\n".join(map(json.dumps, MESSAGES)).encode(),
    {"conversations": SHAREGPT},
])  # fmt: skip
def test_lists_of_messages(store: ChatStore, content: Any) -> None:
    [chat] = read(content)
    assert shown(store, content) == [["Hi", "Hello.\n\n[image url: not imported]"]]
    assert chat.params == {"system": "Be brief."}
    assert chat.created_s > 1_700_000_000


@pytest.mark.parametrize(("speaker", "words"), [("author", ("me", "ollama")), ("role", ("user", "assistant"))])
def test_oterm(store: ChatStore, folder: Path, speaker: str, words: tuple[str, str]) -> None:
    data = oterm_database(folder, speaker, words)
    assert shown(store, data) == [["Hi", "Hello."]]
    assert read(data)[0].params == {"system": "Be brief."}
    assert shown(store, OTERM_TEXT.encode()) == [["Hi", "Hello.\n\n---\nA rule is above.", "Bye"]]


def test_a_reply_without_a_message_is_kept(store: ChatStore) -> None:
    assert shown(store, [{"role": "assistant", "content": "Welcome."}]) == [["…", "Welcome."]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "x: this JSON is of an unknown kind, an empty list. Slipstream imports"),
        ({"users": [], "a": 1}, "an object with 'users', 'a'"),
        ([1], "a list that begins with a single value"),
        ([[[]]], "a list that begins with a list"),
        ([{"role": "user"}], "a list that begins with an object with 'role'"),
        ([{"role": "boss", "content": "x"}], "x, message 1: the role 'boss' is unknown"),
        ({"messages": [{"role": "user", "content": "a"}, 3]}, "x, message 2: a role and a content are missing"),
        (b"hello", "x, line 1: this is not a chat exported by Slipstream. Slipstream imports its own"),
        (b"SQLite format 3\0" + bytes(200), "x: this database"),
        (b'{"role": "user", "content": "a"}\n{"role": ', "x, line 2"),
    ],
)
def test_what_is_unknown_is_named(content: Any, words: str) -> None:
    with pytest.raises(ImportRefusedError) as refused:
        read(content)
    assert words in str(refused.value)


def test_the_database_of_another_program_is_named(folder: Path) -> None:
    path = folder / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE message (text TEXT)")
    connection.close()
    with pytest.raises(ImportRefusedError, match=r"this database is not the store\.db of oterm"):
        read(path.read_bytes())


@pytest.mark.parametrize("content", [CHATGPT, CLAUDE, LLM, MESSAGES, OTERM_TEXT.encode()])
def test_importing_twice_does_not_double(store: ChatStore, content: Any) -> None:
    added, known, grown = store.import_new(read(content))
    assert known == grown == []
    for chat in added:
        answer(store, say(store, chat.id, "And then?"), "Nothing.")
    again, known, grown = store.import_new(read(content))
    assert again == grown == []
    assert {chat.id for chat in known} == {chat.id for chat in added}
    store.delete(added[0].id)
    assert len(store.import_new(read(content))[0]) == 1, "a deleted chat is not there"


def test_our_own_export_does_not_double_either(store: ChatStore, clock: Clock) -> None:
    chat = store.create_chat("Fruit")
    answer(store, say(store, chat.id, "Name one"), "An apple.")
    store.create_chat("empty")
    file = transfer.export_json(store, [1, 2]).encode()
    assert store.import_new(transfer.read_bytes(file, "x"))[0] == []
    answer(store, say(store, chat.id, "Another"), "A pear.")
    newer = transfer.export_json(store, [1]).encode()
    elsewhere = ChatStore.in_memory(clock)
    elsewhere.import_new(transfer.read_bytes(file, "x"))
    imported = elsewhere.import_new(transfer.read_bytes(newer, "x"))
    assert (imported.added, imported.known, len(imported.grown)) == ([], [], 1)
    assert texts(elsewhere, 1) == texts(store, chat.id)


def chatgpt_of(*turns: str, began_s: float = 1000.0) -> list[Any]:
    """An export of ChatGPT with one chat."""
    mapping: dict[str, Any] = {
        str(at): {
            "id": str(at), "parent": str(at - 1) if at else None, "children": [],
            "message": {
                "author": {"role": "assistant" if at % 2 else "user"}, "content": {"parts": [text]},
                "create_time": began_s + at,
            },
        }
        for at, text in enumerate(turns)
    }  # fmt: skip
    return [{"title": "T", "create_time": began_s, "current_node": str(len(turns) - 1), "mapping": mapping}]


def test_a_chat_that_has_grown_elsewhere_grows_here_too(store: ChatStore) -> None:
    (chat,) = store.import_new(read(chatgpt_of("Hi", "Hello"))).added
    (grown,) = store.import_new(read(chatgpt_of("Hi", "Hello", "More", "Yes"))).grown
    assert grown.id == chat.id
    assert texts(store, chat.id) == ["Hi", "Hello", "More", "Yes"]
    assert store.import_new(read(chatgpt_of("Hi", "Hello", "More"))).known[0].id == chat.id


def test_what_was_typed_here_stays_and_stays_shown(store: ChatStore) -> None:
    (chat,) = store.import_new(read(chatgpt_of("Hi", "Hello"))).added
    answer(store, say(store, chat.id, "Typed here"), "Replied here")
    (grown,) = store.import_new(read(chatgpt_of("Hi", "Hello", "More", "Yes"))).grown
    assert grown.id == chat.id
    assert texts(store, chat.id) == ["Hi", "Hello", "Typed here", "Replied here"]
    store.walk(chat.id, 1)
    assert texts(store, chat.id) == ["Hi", "Hello", "More", "Yes"]


def test_a_chat_grows_only_where_that_is_unambiguous(store: ChatStore) -> None:
    store.import_new(read(chatgpt_of("Hi", "Hello")))
    later = store.import_new(read(chatgpt_of("Hi", "Good day", began_s=2000.0)))
    assert (len(later.added), later.grown) == (1, []), "another chat with the same first message"
    twins = chatgpt_of("Hi", "One") + chatgpt_of("Hi", "Two")
    assert len(store.import_new(read(twins)).added) == 2, "two chats that began at the same moment"
    third = store.import_new(read(chatgpt_of("Hi", "Three")))
    assert (len(third.added), third.grown) == (1, [])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "mapping", "message", "content", "parts", "author", "role", "chat_messages", "sender", "text", "prompt",
        "response", "messages", "conversations", "from", "value", "created_at", "parent", "user", "uuid",
    ]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
def test_any_json_is_read_or_refused(content: Any) -> None:
    with suppress(ImportRefusedError):
        chats = read(content)
        store = ChatStore.in_memory()
        store.import_new(chats)
        store.close()
