"""What is offered while a person types, as pure text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import attachments
from app.core.completion import Completions, PartialPath, complete, list_files


def names(found: Completions | PartialPath | None) -> list[str]:
    assert not isinstance(found, PartialPath)
    return [each.text for each in found.candidates] if found else []


def at(text: str, *, is_first_line: bool = True) -> Completions | PartialPath | None:
    return complete(text, is_first_line, lambda command: ["dark", "light"])


def test_commands_are_filtered_as_one_types() -> None:
    assert "/help" in names(at("/"))
    assert names(at("/ed")) == ["/edit", "/editor", "/seed"]
    assert names(at("/EDITO")) == ["/editor"]
    assert names(at("/port")) == ["/export", "/import", "/report"]
    assert names(at("/zzz")) == []


def test_what_is_complete_is_not_offered_alone() -> None:
    assert at("/help") is None
    assert names(at("/edit")) == ["/edit", "/editor"], "and the exact one is first"


def test_the_values_of_an_argument() -> None:
    assert names(at("/draft o")) == ["on", "off"]
    assert names(at("/theme ")) == ["dark", "light"]
    assert at("/rename o") is None
    assert at("/nothing o") is None
    draft = at("/draft ")
    assert isinstance(draft, Completions)
    assert not draft.is_first_selected, "enter runs the command alone"


@pytest.mark.parametrize("text", ["//he", "text /he", "/he/lp", "", "a@b"])
def test_nothing_is_offered(text: str) -> None:
    assert at(text) is None


def test_only_the_first_line_holds_a_command() -> None:
    assert at("/he", is_first_line=False) is None


def test_a_file_is_looked_for_behind_an_at_sign_or_a_command() -> None:
    assert at("see @src/ma") == PartialPath("@src/ma", "src/ma", is_mention=True)
    assert at('see @"my fi') == PartialPath('@"my fi', "my fi", is_mention=True)
    assert at("/attach src/ma") == PartialPath("src/ma", "src/ma", is_mention=False)
    assert at("see @src/main.py and") is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text("x")
    for name in ("Notes.md", "my file.md", ".hidden", "news.txt"):
        (tmp_path / name).write_text("x")
    return tmp_path


def listed(folder: Path, typed: str) -> list[str]:
    partial = at(typed)
    assert isinstance(partial, PartialPath)
    return names(list_files(partial, folder))


def test_files_and_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed(folder, "@") == ['@"my file.md"', "@news.txt", "@Notes.md", "@src/"]
    assert listed(folder, "@n") == ["@news.txt", "@Notes.md"]
    assert listed(folder, "@.h") == ["@.hidden"]
    assert listed(folder, "@src/") == ["@src/main.py"]
    assert listed(folder, '@"my f') == ['@"my file.md"']
    assert listed(folder, f"@{folder}/no") == [f"@{folder}/Notes.md"]
    assert listed(folder, "/import n") == ["news.txt", "Notes.md"]
    monkeypatch.setenv("HOME", str(folder))
    assert listed(folder, "@~") == ["@~/"]
    assert listed(folder, "@~/ne") == ["@~/news.txt"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_completed_in_either_unicode_form_and_without_accents(
    folder: Path, form: Literal["NFC", "NFD"]
) -> None:
    name = normalize(form, "café.md")
    (folder / name).write_text("x")
    for typed in ("@café", "@cafe\u0301", "@cafe", "@CAF"):
        assert listed(folder, typed) == [f"@{name}"]


@pytest.mark.parametrize("typed", ["@nowhere/x", "@~nobody-of-that-name/x", "@\0/x", "@news.txt"])
def test_where_nothing_can_be_listed_nothing_is_offered(folder: Path, typed: str) -> None:
    assert listed(folder, typed) == []


@given(st.text(), st.booleans())
def test_any_text_can_stand_before_the_cursor(text: str, is_first_line: bool) -> None:
    for typed in (text, "/" + text, "@" + text, "/draft " + text):
        found = at(typed, is_first_line=is_first_line)
        if found is not None:
            assert typed.endswith(found.typed)


def test_what_is_offered_is_what_attaches(folder: Path) -> None:
    for mention in listed(folder, "@"):
        assert attachments.mentions(f"see {mention} now") == [mention]
