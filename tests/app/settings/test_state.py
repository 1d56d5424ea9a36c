"""What the app remembers: written whole, private, and shared by several running chats."""

from __future__ import annotations

import multiprocessing
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.settings import remembered as app_state
from app.settings.remembered import Choices, RememberedChoices
from app.system.files import opening_alone


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.json"


def test_what_was_chosen_is_there_the_next_time(path: Path) -> None:
    state = RememberedChoices.read(path)
    assert state.values == Choices()
    state.remember(theme="nord")
    state.remember(model="e4b", has_panel=False)
    again = RememberedChoices.read(path)
    assert again.values == Choices("nord", "e4b", False)
    assert again.as_settings() == {"theme": "nord", "model": "e4b"}
    assert again.notice is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {each.name for each in path.parent.iterdir()} == {"state.json", "state.json.lock"}


def test_two_chats_at_once_keep_what_the_other_chose(path: Path) -> None:
    one, other = RememberedChoices.read(path), RememberedChoices.read(path)
    one.remember(theme="nord")
    other.remember(model="e4b")
    one.remember(has_panel=True)
    assert RememberedChoices.read(path).values == Choices("nord", "e4b", True)


def test_a_newer_version_keeps_what_only_it_knows(path: Path) -> None:
    RememberedChoices.read(path).remember(theme="nord")
    path.write_text('{"theme": "nord", "of_tomorrow": [1, {"a": null}]}')
    RememberedChoices.read(path).remember(theme="dracula")
    assert msgspec.json.decode(path.read_bytes()) == {"theme": "dracula", "of_tomorrow": [1, {"a": None}]}


BROKEN = [b"", b"{", b"[]", b"null", b'{"theme": 5}', b'{"has_panel": "yes"}', b"\xff\xfe", b"\x00" * 9,
          b'{"theme": "nord"} x', b"[" * 5000, b'{"a": "' + b"x" * app_state.MAX_FILE_BYTES + b'"}']  # fmt: skip


@pytest.mark.parametrize("data", BROKEN, ids=lambda data: repr(data[:12]))
def test_broken_content_is_put_aside_and_told(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    for number in (1, 2):
        path.write_bytes(data)
        state = RememberedChoices.read(path)
        assert state.values == Choices()
        assert state.notice is not None
        assert f"state.json.corrupt-{number}" in state.notice
        assert path.with_name(f"state.json.corrupt-{number}").read_bytes() == data
    state.remember(theme="nord")
    assert RememberedChoices.read(path).values.theme == "nord"


@settings(max_examples=60)
@given(st.binary(max_size=80))
def test_any_bytes_are_values_or_are_put_aside(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.json"
        path.write_bytes(data)
        state = RememberedChoices.read(path)
        assert isinstance(state.values, Choices)
        assert any(each.read_bytes() == data for each in Path(folder).iterdir())
        assert path.exists() == (state.notice is None)


def test_what_cannot_be_written_holds_for_this_chat(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    state = RememberedChoices.read(in_the_way / "state.json")
    state.remember(theme="nord")
    assert state.values.theme == "nord"
    assert state.notice is not None
    assert "this choice lasts until you quit" in state.notice


def test_a_lock_that_is_not_given_back_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_state, "LOCK_WAIT_S", -1.0)
    RememberedChoices.read(path).remember(theme="nord")
    with opening_alone(path):
        state = RememberedChoices.read(path)
        state.remember(theme="dracula")
        assert state.notice is not None
    assert RememberedChoices.read(path).values.theme == "nord"


def test_a_write_that_is_cut_short_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RememberedChoices.read(path).remember(theme="nord")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    state = RememberedChoices.read(path)
    state.remember(theme="dracula")
    assert "No space left" in str(state.notice)
    assert RememberedChoices.read(path).values.theme == "nord"
    assert {each.name for each in path.parent.iterdir()} == {"state.json", "state.json.lock"}


def _remember_often(path: Path, name: str, values: list[object]) -> None:
    state = RememberedChoices.read(path)
    for value in values:
        state.remember(**{name: value})  # type: ignore[arg-type]


def test_processes_that_write_at_once(path: Path) -> None:
    RememberedChoices.read(path).remember(theme="first")
    context = multiprocessing.get_context("spawn")
    jobs: list[tuple[Callable[..., None], tuple[object, ...]]] = [
        (_remember_often, (path, "theme", [f"theme {n}" for n in range(20)])),
        (_remember_often, (path, "model", [f"model {n}" for n in range(20)])),
    ]
    processes = [context.Process(target=job, args=arguments) for job, arguments in jobs]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0, 0]
    assert RememberedChoices.read(path).values == Choices("theme 19", "model 19")
