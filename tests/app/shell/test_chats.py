"""`slipstream chats` from the command line: text and JSON, exit codes, and nothing that steers a terminal."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.shell import chats as chats_command
from app.store.chat_store import ChatStore
from app.store.connection import connect
from app.store.errors import StoreError
from app.system import places
from mlx_engine.protocol.errors import SlipstreamError
from models.errors import PathError
from tests.app.store.support import Clock, answer, say, texts
from tests.paths import ROOT

EVIL = "\x1b]52;c;aGk=\x07\x9b2J\u202eevil"


@pytest.fixture(autouse=True)
def home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIPSTREAM_HOME", str(folder))
    monkeypatch.setenv("TZ", "UTC")
    return folder


@pytest.fixture
def filled(clock: Clock) -> None:
    """Three chats, the last one with a second reply."""
    store = ChatStore.open(places.chats_database(), clock)
    for title, question, reply in (
        ("Trip to Kyoto", "When do cherries blossom?", "In April."),
        ("Trip home", "Which train?", "The early one."),
        ("Rust", f"What is {EVIL}?", "A lifetime."),
    ):
        user = say(store, store.create_chat(title).id, question)
        reply_id = answer(store, user, reply)
    user = store.path(3)[0].id
    second = store.begin_reply(user)
    store.finish_reply(second.id, "stopped", text="A life", thinking="Hm.")
    assert reply_id < second.id
    store.close()


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser(prog="slipstream")
    chats_command.add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args(["chats", *arguments])
    code: int = options.command(options)
    return code


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run(*arguments) == code
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(said(capsys, *arguments, "--json"))


def refused(*arguments: str) -> str:
    with pytest.raises(SlipstreamError) as error:
        run(*arguments)
    return str(error.value)


def test_an_empty_store_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "slipstream: There are no chats yet.\n")
    assert as_json(capsys, "list") == {"chats": []}
    assert "There are no chats yet" in refused("show", "3")
    assert said(capsys, "export") == ""
    assert "There is no deleted chat to restore" in refused("rm", "--undo")


@pytest.mark.usefixtures("filled")
def test_chats_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "list").splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["Rust", "Trip home", "Trip to Kyoto"]
    assert lines[0].split()[0] == "3"
    assert "3 messages" in lines[0]
    assert [chat["id"] for chat in as_json(capsys, "list", "trip")["chats"]] == [2, 1]
    assert [chat["id"] for chat in as_json(capsys, "list", "--limit", "1")["chats"]] == [3]
    assert run("list", "zebra") == 0
    assert "No chat contains these words" in capsys.readouterr().err


@pytest.mark.usefixtures("filled")
def test_a_chat_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        said(capsys, "show", "1") == "# Trip to Kyoto\n\nYou:\nWhen do cherries blossom?\n\nReply:\nIn April.\n\n"
    )
    assert "Reply (2/2, stopped):\nA life\n" in said(capsys, "show", "rust")
    assert "[thoughts]\nHm.\n[answer]\nA life" in said(capsys, "show", "3", "--thoughts")
    shown = as_json(capsys, "show", "kyoto")
    assert shown["chat"]["title"] == "Trip to Kyoto"
    assert [message["text"] for message in shown["messages"]] == ["When do cherries blossom?", "In April."]


@pytest.mark.parametrize("name", ["café", "cafe\u0301", "CAFE"])
def test_a_title_is_found_in_either_unicode_form_and_without_accents(
    capsys: pytest.CaptureFixture[str], clock: Clock, name: str
) -> None:
    store = ChatStore.open(places.chats_database(), clock)
    say(store, store.create_chat("Café du Nord").id, "Une table?")
    store.close()
    assert "Une table?" in said(capsys, "show", name)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("command", ["show", "export", "rm"])
def test_a_chat_that_is_not_clear_is_asked_back(command: str) -> None:
    assert refused(command, "trip") == (
        "'trip' matches 2 chats: 2 (Trip home), 1 (Trip to Kyoto). Use the number of one."
    )
    for unknown in ("99", "zebra", "", str(10**40), "-0"):
        assert "There is no chat" in refused(command, "--", unknown)
        assert "Run `slipstream chats list` to see them." in refused(command, "--", unknown)


@pytest.mark.usefixtures("filled")
def test_messages_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = said(capsys, "search", "cherries", "BLOSSOM").splitlines()
    assert line.split()[0] == "1"
    assert line.endswith("Trip to Kyoto: When do cherries blossom?")
    hits = as_json(capsys, "search", "a", "--limit", "2")["hits"]
    assert [hit["chat_id"] for hit in hits] == [3, 3]
    assert run("search", "zebra") == 0
    assert "No message contains these words" in capsys.readouterr().err


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("command", ["search", "list"])
def test_words_that_are_no_utf8_are_found_nowhere(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "\udcff\udcfe") == 0
    assert "contains these words" in capsys.readouterr().err


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("kind", [[], ["--json"]])
def test_what_is_exported_can_be_imported(
    capsys: pytest.CaptureFixture[str], home: Path, kind: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = said(capsys, "export", *kind)
    file = home / "all"
    file.write_text(everything, newline="")
    monkeypatch.setenv("SLIPSTREAM_HOME", str(home / "elsewhere"))
    imported = as_json(capsys, "import", str(file))["imported"]
    assert [chat["title"] for chat in imported] == ["Trip to Kyoto", "Trip home", "Rust"]
    assert said(capsys, "export", *kind) == everything
    monkeypatch.setattr(sys, "stdin", argparse.Namespace(buffer=io.BytesIO(everything.encode())))
    assert said(capsys, "import", "-") == "", "they are here already"
    run("rm", "1", "2", "3")
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", argparse.Namespace(buffer=io.BytesIO(everything.encode())))
    assert [line.split()[0] for line in said(capsys, "import", "-").splitlines()] == ["4", "5", "6"]


@pytest.mark.usefixtures("filled")
def test_an_export_goes_to_a_file_of_its_kind(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert run("export", "kyoto", "rust", "--output", str(home / "two.json")) == 0
    assert "exported 2 chats to" in capsys.readouterr().err
    assert [chat["title"] for chat in json.loads((home / "two.json").read_text())["chats"]] == [
        "Trip to Kyoto",
        "Rust",
    ]
    assert run("export", "3", "--output", str(home / "LOUD.JSON")) == 0
    json.loads((home / "LOUD.JSON").read_text())
    assert run("export", "3", "--shown", "--output", str(home / "one.md")) == 0
    assert "# Rust" in (home / "one.md").read_text()
    assert "A lifetime." not in (home / "one.md").read_text()
    words = refused("export", "1", "--output", str(home / "one.md"))
    assert "already exists. Choose another name, or use --force to replace it." in words
    assert run("export", "1", "--force", "--output", str(home / "one.md")) == 0
    assert "# Trip to Kyoto" in (home / "one.md").read_text()


@pytest.mark.usefixtures("filled")
def test_of_several_files_none_is_imported_if_one_is_refused(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home / "good.md").write_text(said(capsys, "export", "1"), newline="")
    (home / "bad.md").write_text("hello")
    assert f"{home / 'bad.md'}, line 1" in refused("import", str(home / "good.md"), str(home / "bad.md"))
    assert len(as_json(capsys, "list")["chats"]) == 3


@pytest.mark.usefixtures("filled")
def test_chats_are_deleted_and_brought_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "rm", "1", "rust", "Rust") == "deleted: 1 Trip to Kyoto\ndeleted: 3 Rust\n"
    assert [chat["id"] for chat in as_json(capsys, "list")["chats"]] == [2]
    assert "There is no chat" in refused("show", "3")
    assert [chat["title"] for chat in as_json(capsys, "rm", "--undo")["back"]] == ["Rust"]
    assert said(capsys, "rm", "--undo") == "restored: 1 Trip to Kyoto\n"


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("rm") == 2
    assert run("rm", "1", "--undo") == 2
    assert "name the chats to delete" in capsys.readouterr().err
    for arguments in ([], ["search"], ["show"], ["import"], ["list", "--limit", "0"], ["list", "--limit", "x"]):
        with pytest.raises(SystemExit) as ended:
            run(*arguments)
        assert ended.value.code == 2


@pytest.mark.usefixtures("filled")
def test_a_newer_store_is_read_and_not_changed(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    (home / "one.md").write_text(said(capsys, "export", "1"), newline="")
    connection = connect(places.chats_database())
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    assert run("list") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert "written by a newer Slipstream" in err
    for arguments in (["rm", "1"], ["rm", "--undo"], ["import", str(home / "one.md")]):
        assert "newer Slipstream" in refused(*arguments)


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    "arguments",
    [["list"], ["show", "3"], ["show", "3", "--json"], ["search", "evil"], ["export", "3"], ["export", "--json"]],
)
def test_a_terminal_gets_text_only(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    store = ChatStore.open(places.chats_database(), Clock())
    store.rename(3, f"Rust {EVIL}")
    store.close()
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Terminal(written, encoding="utf-8"))
    assert run(*arguments) == 0
    text = written.getvalue().decode()
    assert "evil" in text
    assert not {letter for letter in text if (ord(letter) < 32 and letter != "\n") or 0x7F <= ord(letter) < 0xA0}
    assert "\u202e" not in text


@pytest.mark.usefixtures("filled")
def test_a_pipe_gets_what_is_stored(capsys: pytest.CaptureFixture[str]) -> None:
    assert EVIL in said(capsys, "show", "3")


@pytest.mark.usefixtures("filled")
def test_an_error_names_a_title_as_text_only() -> None:
    store = ChatStore.open(places.chats_database(), Clock())
    for chat_id in (1, 2):
        store.rename(chat_id, f"Trip {EVIL}")
    store.close()
    assert "\x1b" not in refused("show", "trip")
    assert "\x1b" not in refused("show", "no\x1bsuch")


@pytest.mark.usefixtures("filled")
def test_a_reader_that_has_enough_is_no_error() -> None:
    program = "from tests.app.shell.test_chats import run; raise SystemExit(run('list'))"
    read, write = os.pipe()
    os.close(read)
    try:
        child = subprocess.run(
            [sys.executable, "-c", program],
            stdout=write,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )
    finally:
        os.close(write)
    assert (child.returncode, child.stderr) == (0, b"")


@pytest.mark.usefixtures("filled")
def test_a_store_that_cannot_be_saved_refuses_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    database = places.chats_database()
    database.unlink()
    database.mkdir()
    with pytest.raises(StoreError, match="is not a regular file"):
        run("rm", "1")
    assert database.is_dir()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLIPSTREAM_HOME": "/a", "XDG_DATA_HOME": "/b"}, "/a/data/chats.db"),
        ({"XDG_DATA_HOME": "/b"}, "/b/slipstream/chats.db"),
        ({}, "/c/.local/share/slipstream/chats.db"),
    ],
)
def test_where_chats_are_kept(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name in ("SLIPSTREAM_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/c")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert places.chats_database() == Path(expected)


def test_a_home_of_nobody_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPSTREAM_HOME", "~nobody-of-that-name/x")
    with pytest.raises(PathError, match="~nobody-of-that-name/x: no user of that name has a home folder here"):
        run("list")


def test_the_path_that_is_shown_is_the_one_the_app_shows(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    store = ChatStore.open(places.chats_database(), clock)
    chat = store.create_chat("branches")
    user = say(store, chat.id, "one")
    answer(store, user, "1a")
    answer(store, user, "1b")
    store.walk(chat.id, -1)
    expected = texts(store, chat.id)
    store.close()
    assert (
        [message["text"] for message in as_json(capsys, "show", "branches")["messages"]]
        == expected
        == ["one", "1a"]
    )
