"""The prompts to measure: built-in ones, all kinds of files, and stored chats."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bench.prompts import (
    BUNDLED_KINDS,
    MOST_PROMPTS,
    bundled_prompts,
    parse_prompts,
    read_prompts,
    stored_prompts,
)
from app.store.chat_store import ChatStore
from mlx_engine.protocol.errors import SlipstreamError


@pytest.mark.parametrize("is_pocket", [True, False])
def test_the_box_has_several_of_every_kind(is_pocket: bool) -> None:
    prompts = bundled_prompts(is_pocket)
    for kind in BUNDLED_KINDS:
        assert len([prompt for prompt in prompts if prompt.kind == kind]) >= 3
    assert len({prompt.name for prompt in prompts}) == len({prompt.messages for prompt in prompts}) == len(prompts)
    assert {prompt.kind for prompt in bundled_prompts(is_pocket, ["code"])} == {"code"}


def texts(path: Path, content: str | bytes) -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [prompt.messages[-1].text for prompt in read_prompts(path)]


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ("one\ntwo\n", ["one", "two"]),
        ("one", ["one"]),
        ("\n\n  one  \r\ntwo\r\n", ["one", "two"]),
        ("one\nmore of it\n\ntwo\n", ["one\nmore of it", "two"]),
        ("one\n \t\n\n\ntwo\n", ["one", "two"]),
        ('["one\\ntwo", "three"]', ["one\ntwo", "three"]),
        ("\ufeffone\n", ["one"]),
    ],
)
def test_a_file_of_ones_own(tmp_path: Path, content: str, prompts: list[str]) -> None:
    assert texts(tmp_path / "prompts", content) == prompts


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        (" \n\n\t\n", "is empty"),
        ("[]", "is empty"),
        ('["", " "]', "is empty"),
        ("[1, 2]", "not a JSON list of strings"),
        ("[broken", "not a JSON list of strings"),
        (b"caf\xe9", "not valid UTF-8 (byte 3)"),
        ("prompt\n" * (MOST_PROMPTS + 1), "201 prompts"),
        ("x" * (1 << 20) + "y", "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_refused_and_why(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(SlipstreamError) as refused:
        texts(tmp_path / "prompts", content)
    assert words in str(refused.value)
    assert str(tmp_path / "prompts") in str(refused.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SlipstreamError, match="no such file"):
        read_prompts(tmp_path / "missing")
    with pytest.raises(SlipstreamError, match="cannot be read: Is a directory"):
        read_prompts(tmp_path)


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_any_text_gives_prompts_or_a_sentence(text: str) -> None:
    if text.lstrip().startswith("["):
        with suppress(SlipstreamError):
            parse_prompts(text, "FILE")
        return
    words = "".join(text.split())
    assert "".join("".join(parse_prompts(text, "FILE")).split()) == words, "nothing is lost"


def test_stored_chats_are_replayed_with_what_came_before(tmp_path: Path) -> None:
    store = ChatStore.open(tmp_path / "chats.db")
    with pytest.raises(SlipstreamError, match="no stored chats"):
        stored_prompts(store)
    chat = store.create_chat()
    _, _, reply = store.ask(chat.id, None, "first")
    store.finish_reply(reply.id, "complete", text="answer")
    store.ask(chat.id, reply.id, "second")
    prompts = stored_prompts(store)
    assert [[message.text for message in prompt.messages] for prompt in prompts] == [
        ["first", "answer", "second"],
        ["first"],
    ]
    assert {prompt.kind for prompt in prompts} == {"stored"}
    assert not any("first" in prompt.name for prompt in prompts), "results hold names, and never what was written"
    assert len(stored_prompts(store, most=1)) == 1
    store.close()
