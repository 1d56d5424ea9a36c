"""What was typed before, from run to run."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import prompt_history
from app.core.prompt_history import MAX_ENTRIES, MAX_ENTRY_CHARACTERS, PromptHistory
from mlx_engine.files.atomic import replace_file

ENTRIES = st.lists(st.text(), max_size=6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "prompt_history.jsonl"


def test_entries_come_back_with_their_lines(path: Path) -> None:
    history = PromptHistory(path)
    for entry in ("first", "two\nlines\n\n", "ü\u2028\ud800"):
        history.add(entry)
    assert PromptHistory(path).entries == ["first", "two\nlines\n\n", "ü\u2028\ud800"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_and_repetitions_are_not_kept(path: Path) -> None:
    history = PromptHistory(path)
    for entry in ("a", "a", " \n", "b", "a"):
        history.add(entry)
    assert history.entries == PromptHistory(path).entries == ["a", "b", "a"]


@settings(max_examples=40)
@given(ENTRIES, ENTRIES)
def test_two_chats_lose_nothing_of_each_other(ours: list[str], theirs: list[str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "history"
        one, other = PromptHistory(path), PromptHistory(path)
        for place in range(6):
            for history, entries in ((one, ours), (other, theirs)):
                if place < len(entries):
                    history.add(entries[place])
        kept = PromptHistory(path).entries
        assert sorted(set(kept)) == sorted({entry for entry in (*ours, *theirs) if entry.strip()})
        assert [each for each in one.entries if each.strip()] == one.entries


@settings(max_examples=60)
@given(st.binary(max_size=300), st.text())
def test_a_broken_file_is_read_as_far_as_it_goes_and_written_on(data: bytes, entry: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "history"
        path.write_bytes(json.dumps("good").encode() + b"\n" + data)
        history = PromptHistory(path)
        assert history.entries[0] == "good"
        history.add(entry)
        again = PromptHistory(path).entries
        assert again[0] == "good"
        assert not entry.strip() or again[-1] == entry


def test_a_line_that_was_cut_off_swallows_nothing(path: Path) -> None:
    PromptHistory(path).add("whole")
    with path.open("ab") as file:
        file.write(b'"cut off in the mid')
    PromptHistory(path).add("next")
    assert PromptHistory(path).entries == ["whole", "next"]


def test_it_is_bounded(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("".join(f"{json.dumps(f'prompt {n}')}\n" for n in range(3 * MAX_ENTRIES)))
    newest = f"prompt {3 * MAX_ENTRIES - 1}"
    history = PromptHistory(path)
    assert len(history.entries) == MAX_ENTRIES
    assert history.entries[-1] == newest
    again = PromptHistory(path).entries
    assert len(again) == MAX_ENTRIES // 2, "the file was shortened as well"
    assert again[-1] == newest
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_draft_is_kept_however_long(path: Path) -> None:
    draft = "ü" * (4 * MAX_ENTRY_CHARACTERS)
    PromptHistory(path).add(draft)
    assert PromptHistory(path).entries == []
    PromptHistory(path).add(draft, is_draft=True)
    assert PromptHistory(path).entries == [draft]


def test_what_another_chat_adds_while_the_file_is_shortened_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other chat either waits for the lock, or has added by then; only then is the file replaced."""
    path.parent.mkdir()
    path.write_text("".join(f"{json.dumps(f'prompt {n}')}\n" for n in range(MAX_ENTRIES - 1)))
    other = PromptHistory(path)
    other.add("the last that fits")
    has_come = threading.Event()

    def wait_for_the_lock(wait_s: float) -> None:
        has_come.set()
        real_sleep(wait_s)

    def add() -> None:
        other.add("added meanwhile")
        has_come.set()

    def replace(*shortened: Any) -> None:
        adding.start()
        has_come.wait()
        real_replace(*shortened)

    real_sleep, real_replace, adding = time.sleep, replace_file, threading.Thread(target=add)
    monkeypatch.setattr(time, "sleep", wait_for_the_lock)
    monkeypatch.setattr(prompt_history, "replace_file", replace)
    monkeypatch.setattr(prompt_history, "_LOCK_S", 60.0)
    PromptHistory(path)
    adding.join()
    kept = PromptHistory(path).entries
    assert kept[-2:] == ["the last that fits", "added meanwhile"]
    assert len(kept) == MAX_ENTRIES // 2 + 1, "it was shortened"


def test_large_entries_are_bounded_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_history, "MAX_FILE_BYTES", 4000)
    history = PromptHistory(path)
    for number in range(100):
        history.add(f"{number} " + "x" * 100)
    assert path.stat().st_size < 4200
    assert PromptHistory(path).entries
    assert path.stat().st_size <= 1200
    history.add("y" * (MAX_ENTRY_CHARACTERS + 1))
    assert history.entries[-1].startswith("y"), "for this run"
    assert not PromptHistory(path).entries[-1].startswith("y")


def test_whatever_is_in_its_place_the_chat_goes_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "file" / "below", None):
        history = PromptHistory(path)
        history.add("typed")
        assert history.entries == ["typed"]
