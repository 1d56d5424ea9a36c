"""A message with its files: put together, and taken apart again."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.core.attachments import MAX_FILE_BYTES, Attachment
from app.core.message_files import compose_message, split_message

FILES = st.lists(
    st.builds(
        Attachment,
        st.from_regex(r'@("[^"\n]+"|[^\s"]+)', fullmatch=True),
        st.text(min_size=1) | st.text(alphabet="`\n@a (1bytes):", min_size=1),
        st.integers(0, MAX_FILE_BYTES),
    ),
    max_size=3,
)


@settings(max_examples=50)
@given(st.text(), FILES)
def test_a_message_is_taken_apart_as_it_was_made(text: str, files: list[Attachment]) -> None:
    assume("bytes):" not in text)
    typed, found = split_message(compose_message(text, files))
    assert typed == text
    assert [(each.mention, each.size_bytes) for each in found] == [
        (each.mention, each.size_bytes) for each in files
    ]
    for each, before in zip(found, files):
        assert each.text == before.text + "\n" * (not before.text.endswith("\n"))
        assert split_message(compose_message("", [each])) == ("", (each,))


@given(st.text(), st.text(alphabet="`\n@a (1bytes):"))
def test_any_message_can_be_taken_apart(text: str, more: str) -> None:
    for message in (text, more, text + more, more + text):
        typed, files = split_message(message)
        assert files or typed == message
        assert compose_message(typed, files) == message or files


def test_what_only_looks_like_a_file_is_text() -> None:
    message = "see\n\n@a.py (3 bytes):\n```py\nabc\n```\nand that was it"
    assert split_message(message) == (message, ())
    typed, files = split_message(compose_message(message, [Attachment("@b.py", "x\n", 2)]))
    assert (typed, [each.mention for each in files]) == (message, ["@b.py"])


def test_what_is_no_size_is_text() -> None:
    for size in (",", ",,,", "1,", ",1", "12,3", "٣", "9" * 5000, "1" + ",000" * 2000):
        message = f"see\n\n@a.py ({size} bytes):\n```\nabc\n```"
        assert split_message(message) == (message, ())


def test_the_fence_is_longer_than_any_in_the_file() -> None:
    message = compose_message("Explain @a.md", [Attachment("@a.md", "```\n`````\n", 10)])
    assert message == "Explain @a.md\n\n@a.md (10 bytes):\n``````md\n```\n`````\n\n``````".replace(
        "\n\n``````", "\n``````"
    )


@given(st.text(alphabet="`\n@a (1bytes):") | st.text(), FILES)
def test_the_files_are_those_that_were_attached(text: str, files: list[Attachment]) -> None:
    typed, found = split_message(compose_message(text, files), len(text))
    assert typed == text
    assert [each.mention for each in found] == [each.mention for each in files]


def test_what_looks_like_a_file_in_typed_text_is_text() -> None:
    look_alike = compose_message("see", [Attachment("@a.py", "abc\n", 4)])
    assert split_message(look_alike, len(look_alike)) == (look_alike, ())
    typed, files = split_message(compose_message(look_alike, [Attachment("@b.py", "x\n", 2)]), len(look_alike))
    assert (typed, [each.mention for each in files]) == (look_alike, ["@b.py"])


@pytest.mark.parametrize("length", [-1, 0, 1, 2, 4, 10_000])
def test_a_wrong_length_makes_all_of_it_text(length: int) -> None:
    message = compose_message("see", [Attachment("@a.py", "abc\n", 4)])
    assert split_message(message, length) == (message, ())
