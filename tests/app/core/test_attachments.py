"""Text files in a message."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest

from app.core.attachments import (
    MAX_FILE_BYTES,
    Attachment,
    AttachmentError,
    MissingFileError,
    file_size,
    mentions,
    read_mention,
    read_mentions,
)


def test_mentions() -> None:
    text = 'See @a.md, @"my file.md" and\n@src/x.py twice: @a.md, not me@example.org or @ alone'
    assert mentions(text) == ["@a.md,", '@"my file.md"', "@src/x.py"]


@pytest.mark.parametrize("behind", ["", ".", ",", "?)", "'!"])
def test_what_stands_behind_a_path_is_no_part_of_it(tmp_path: Path, behind: str) -> None:
    (tmp_path / "a.md").write_text("text")
    assert read_mention(f"@a.md{behind}", tmp_path) == Attachment("@a.md", "text", 4)


def test_files_are_found_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my file.md").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    monkeypatch.setenv("HOME", str(tmp_path))
    for mention in ('@"my file.md"', '@"~/my file.md"', f'@"{tmp_path}/my file.md"'):
        assert read_mention(mention, tmp_path) == Attachment(mention, "one\ntwo\nthree", 17)
    for mention in ("@nobody", "@nobody.", "@~nobody-of-that-name/x", "@a\0b", "@" + "x" * 5000, "@no/folder/x"):
        with pytest.raises(MissingFileError, match="There is no file") as missing:
            read_mention(mention, tmp_path)
        assert len(str(missing.value)) < 200


@pytest.mark.parametrize(
    ("mention", "said"),
    [
        ("@nots.md", "There is no file nots.md. Did you mean @notes.md?"),
        ("@NOTES", "There is no file NOTES. Did you mean @notes.md?"),
        ("@notes.markdown,", "There is no file notes.markdown. Did you mean @notes.md?"),
        ("@cafe.txt", "There is no file cafe.txt. Did you mean @café.txt?"),
        ("@src/mian.py", "There is no file src/mian.py. Did you mean @src/main.py?"),
        ("@scr", "There is no file scr. Did you mean @src/?"),
        ('@"my flie.md"', 'There is no file my flie.md. Did you mean @"my file.md"?'),
        ("@zebra", "There is no file zebra."),
        ("@*.md", 'There is no file *.md. Patterns are not expanded: attach each file by its name, such as '
                  '@"my file.md" or @notes.md.'),
        ("@*.zip", "There is no file *.zip. Patterns are not expanded: attach each file by its name."),
        ("@*", 'There is no file *. Patterns are not expanded: attach each file by its name, such as '
               '@café.txt, @"my file.md" or @notes.md.'),
        ("@src", "src is a folder. Only text files can be attached. "
                 "Attach its files one by one, such as @src/main.py."),
        ("@src/", "src/ is a folder. Only text files can be attached. "
                  "Attach its files one by one, such as @src/main.py."),
    ],
)  # fmt: skip
def test_what_names_no_file_is_refused_with_the_nearest_names(tmp_path: Path, mention: str, said: str) -> None:
    (tmp_path / "src").mkdir()
    for name in ("notes.md", "café.txt", "my file.md", ".hidden", "src/main.py"):
        (tmp_path / name).write_text("x")
    [found] = mentions(f"Read {mention} please")
    with pytest.raises(AttachmentError) as refused:
        read_mention(found, tmp_path)
    assert str(refused.value) == said


@pytest.mark.parametrize(("stored", "typed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_name_is_found_in_the_other_unicode_form(
    tmp_path: Path, stored: Literal["NFC", "NFD"], typed: Literal["NFC", "NFD"]
) -> None:
    (tmp_path / normalize(stored, "café.md")).write_text("text")
    mention = "@" + normalize(typed, "café.md")
    assert read_mention(mention, tmp_path) == Attachment(mention, "text", 4)


def test_an_at_sign_before_punctuation_is_no_mention() -> None:
    assert mentions("@ @, @!? @- @@ and @a") == ["@a"]
    assert mentions("@* and @..") == ["@*", "@.."]


def test_every_file_of_a_text_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert [each.mention for each in read_mentions("@a, @a and @a.", tmp_path)] == ["@a"]
    with pytest.raises(MissingFileError):
        read_mentions("@a and @b", tmp_path)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"ELF\0\1")
    (tmp_path / "latin").write_bytes("grün".encode("latin-1"))
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (tmp_path / "most").write_bytes(b"x" * MAX_FILE_BYTES)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "locked").touch(mode=0)
    for name, said in {
        "binary": "zero byte",
        "latin": "not UTF-8 text: byte 2",
        "empty": "is empty",
        "large": "too large .1 MB; the limit is 1 MB",
        "pipe": "is a pipe",
        ".": "is a folder",
        "/dev/zero": "is a device",
    }.items():
        with pytest.raises(AttachmentError, match=said):
            read_mention(f"@{name}", tmp_path)
    assert read_mention("@most", tmp_path) is not None
    if os.getuid():
        with pytest.raises(AttachmentError, match="cannot be read: Permission denied"):
            read_mention("@locked", tmp_path)


def test_sizes() -> None:
    assert [file_size(n) for n in (1, 999, 3210, 1_048_576)] == ["1 byte", "999 bytes", "3.2 kB", "1 MB"]
    assert Attachment("@a", "one\ntwo", 7).summary == "@a · 7 bytes · 2 lines"
    assert Attachment("@a\x1b", "one\n", 4).summary == "@a␛ · 4 bytes · 1 line"
