"""Any bytes from the terminal, in any kind of terminal."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from app.tui.terminal.driver import PasteGuard
from app.tui.terminal.input_parser import PASTE_BEGINS, PASTE_ENDS
from tests.app.tui import vt
from tests.app.tui.terminal import answered, slipstream
from tests.app.tui.test_terminal_signals import kept
from tests.fakes.scripted_engine import Script
from tests.paths import ROOT

pytestmark = pytest.mark.sampled(2)

F2, F4, F6, F9 = "\x1bOQ", "\x1bOS", "\x1b[17~", "\x1b[20~"
EVERY_BYTE_BUT_KEYS = bytes(byte for byte in range(0x20, 0x100) if byte != 0x7F)


def test_bytes_that_are_not_utf_8_do_not_end_it(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer."])) as terminal:
        terminal.until("ready")
        terminal.type(b"ab\xff\xfecd ")
        terminal.type(b"\x1b[M \xe0\xff")  # a mouse report in the old form, past column 95
        terminal.type(b"\x1b[200~" + EVERY_BYTE_BUT_KEYS + b"\xe2\x82\x1b[201~")
        terminal.type(b"\r")
        terminal.until("An answer.")
        terminal.type("\x11")
        assert terminal.wait() == 0
        assert vt.is_given_back(vt.read(bytes(terminal.written)))
    [(_, text, _), _] = kept(tmp_path)
    assert "ab\ufffd\ufffdcd" in str(text)


@pytest.mark.parametrize("size", range(1, 40))
def test_a_paste_is_text_however_it_is_split(size: int) -> None:
    hostile = "a\x1b]52;c;x\x07\x1b[201b\r\x1b\x1b[200~c\x1b["
    whole = f"k\x1b[A{PASTE_BEGINS}{hostile}{PASTE_ENDS}\x1b[B{PASTE_BEGINS}{PASTE_ENDS}\x1b"
    guard = PasteGuard()
    given = "".join(guard.feed(whole[at : at + size]) for at in range(0, len(whole), size))
    harmless = hostile.replace("\x1b", "\u241b")
    assert given == f"k\x1b[A{PASTE_BEGINS}{harmless}{PASTE_ENDS}\x1b[B{PASTE_BEGINS}{PASTE_ENDS}\x1b"


def test_a_paste_presses_no_keys(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer."])) as terminal:
        terminal.until("ready")
        terminal.paste("one \x1b\x11 \x1b]0;\x07 \x1b[13u\x1bx\r two")  # quit, editor, enter
        terminal.type("\r")
        terminal.until("An answer.")
        terminal.type("\x11")
        assert terminal.wait() == 0
    assert kept(tmp_path)[0][1] == "one \u241b\x11 \u241b]0;\x07 \u241b[13u\u241bx\n two"


def test_keys_of_one_burst_edit_a_list_in_their_order(tmp_path: Path) -> None:
    with answered(tmp_path) as terminal:
        terminal.type(F4)
        terminal.until("2 messages")
        terminal.type("\x12")
        terminal.until("enter saves the title")
        terminal.type("one\x15two\x01three \x05!\x7f?\r")
        terminal.until("three two?")
        terminal.type("\x1b")
        terminal.type("\x11")
        assert terminal.wait() == 0
    [database] = tmp_path.rglob("chats.db")
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT title FROM chat").fetchall() == [("three two?",)]


def test_a_paste_that_never_ends_swallows_no_keys(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer."]), faults="impatient") as terminal:
        terminal.until("ready")
        terminal.type(f"{PASTE_BEGINS}pasted\rwords")
        terminal.until("words")
        terminal.type(" and keys\r")
        terminal.until("An answer.")
        terminal.type("\x11")
        assert terminal.wait() == 0
    assert kept(tmp_path)[0][1] == "pasted\nwords and keys"


def test_without_this_driver_one_byte_ends_it(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(), faults="no-driver") as terminal:
        terminal.until("ready")
        terminal.type(b"\xff")
        assert terminal.wait() == 1
        assert b"Slipstream stopped because it could not read from the terminal." in terminal.written


def test_many_resizes_down_to_nothing(tmp_path: Path) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer.\n\n"] * 40, pause_s=0.01)) as terminal:
        terminal.until("ready")
        terminal.type("Hi\r")
        for size in [(20, 5), (1, 1), (0, 0), (300, 2), (2, 100), (80, 24)] * 4:
            terminal.resize(*size)
            terminal.settle(0.02)
        terminal.until("40 tok")
        terminal.type("\x11")
        assert terminal.wait() == 0
        assert vt.is_given_back(vt.read(bytes(terminal.written)))
    assert kept(tmp_path)[-1] == ("assistant", "An answer.\n\n" * 40, "complete")


SCREENS = {
    "help": ("\x1bOP", "sends the message"),
    "models": (F2, "pocket"),
    "chats": (F4, "Hi"),
    "settings": (F6, "Temperature"),
    "palette": ("\x10", "Search"),
    "comparison": ("/ab\r", "Yes."),
}


@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_works_at_every_size(tmp_path: Path, screen: str) -> None:
    keys, words = SCREENS[screen]
    with slipstream(tmp_path, Script(pieces=["Yes."])) as terminal:
        terminal.until("ready")
        terminal.type("Hi\r")
        terminal.until("Yes.")
        terminal.settle(0.3)
        terminal.written.clear()
        terminal.type(keys)
        terminal.until(words)
        for size in [(20, 5), (1, 1), (0, 0), (80, 24)]:
            terminal.resize(*size)
            terminal.settle(0.1)
        terminal.written.clear()
        terminal.type("\x1b")
        terminal.until("Message")
        terminal.type("\x11")
        assert terminal.wait() == 0


@pytest.mark.parametrize("size", [(20, 5), (0, 0)])
def test_it_starts_at_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    with slipstream(tmp_path, Script(pieces=["Yes."], stalls_at="stream"), size=size) as terminal:
        terminal.until("Message")
        terminal.type("Hi\r")
        terminal.until("Yes.")
        terminal.type("\x11")
        assert terminal.wait() == 0
        assert vt.is_given_back(vt.read(bytes(terminal.written)))


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "LANG": "", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_it_starts_in_poor_environments(tmp_path: Path, environment: dict[str, str]) -> None:
    with slipstream(tmp_path, Script(pieces=["Grüße"]), environment=environment) as terminal:
        terminal.until("ready")
        terminal.type("Hi\r")
        terminal.until("Gr")
        terminal.type("\x11")
        assert terminal.wait() == 0
        vt.read(bytes(terminal.written))


@pytest.mark.parametrize(
    "words", [["chat"], ["--model", "\x1b]0;evil\x07"], ["models", "info", "\x1b[2J"], ["\x1b[2J"]]
)
def test_no_terminal_no_escapes(tmp_path: Path, words: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-P", "-m", "app.cli", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env={
            "PYTHONPATH": str(ROOT),
            "SLIPSTREAM_HOME": str(tmp_path),
            "HOME": str(tmp_path),
            "PATH": "/usr/bin:/bin",
        },
    )
    assert run.returncode in (1, 2)
    assert b"\x1b" not in run.stdout + run.stderr
    assert b"Traceback" not in run.stderr


def test_the_shell_on_a_terminal_shows_stored_text_as_text(tmp_path: Path) -> None:
    hostile = "x\x1b]52;c;ZXZpbA==\x07\x9b2J\u202e"
    with slipstream(tmp_path, Script(pieces=[hostile])) as terminal:
        terminal.until("ready")
        terminal.paste(f"Title {hostile}")
        terminal.type("\r")
        terminal.until("1 tok")
        terminal.type("\x11")
        terminal.wait()
    said = ("chats list", "chats show 1", "chats export 1", "chats export --json", "chats search Title")
    asked = ("run Hi", "run Hi --json", f"chats show {hostile}", hostile)
    for words in (line.split(" ") for line in (*said, *asked)):
        with slipstream(tmp_path, Script(pieces=[hostile]), *words) as terminal:
            terminal.wait()
            assert vt.read(bytes(terminal.written).replace(b"\t", b" ")).copied == []
            assert terminal.written


def test_a_settings_file_that_changes_counts_from_the_next_start(tmp_path: Path) -> None:
    config = tmp_path / "config" / "config.yaml"
    config.parent.mkdir()
    config.write_text("keys: {help: f9}\ntemperature: 0.5\n")
    script = Script(pieces=["An answer."])
    with slipstream(tmp_path, script) as terminal:
        terminal.until("ready")
        for change in (lambda: config.write_bytes(b"{\xff"), lambda: shutil.rmtree(config.parent)):
            change()
            terminal.written.clear()
            terminal.type("Hello\r")
            terminal.until("An answer.")
            for key, words in ((F9, "Keys"), (F6, "0.5"), (F2, "pocket"), (F4, "Hello")):
                terminal.written.clear()
                terminal.type(key)
                terminal.until(words)
                # The prompt below is drawn with what opens, too.
                terminal.settle(0.2)
                terminal.written.clear()
                terminal.type("\x1b")
                terminal.until("Message")
            assert terminal.process.poll() is None
            terminal.type("\x0e")
        terminal.type("\x11")
        assert terminal.wait() == 0
    config.parent.mkdir()
    config.write_bytes(b"{\xff")
    with slipstream(tmp_path, script) as terminal:
        assert terminal.wait() == 1
        assert b"config.yaml" in terminal.written
