"""Files in a message, with the bytes that terminals send."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.tui.terminal import slipstream
from tests.app.tui.test_terminal_signals import kept
from tests.fakes.scripted_engine import Script


@pytest.mark.parametrize("form", ["{escaped} ", "'{plain}' ", '"{plain}" ', "file://{percent}\r\n", "{plain}"])
def test_a_file_dropped_on_the_window_is_attached(tmp_path: Path, form: str) -> None:
    path = tmp_path / "my notes.md"
    path.write_text("Some notes.\n")
    plain = str(path)
    dropped = form.format(plain=plain, escaped=plain.replace(" ", "\\ "), percent=plain.replace(" ", "%20"))
    with slipstream(tmp_path / "home", Script(pieces=["An answer."]), size=(200, 50)) as terminal:
        terminal.until("ready")
        terminal.type("Summarise")
        terminal.paste(dropped)
        terminal.until("12 bytes")
        terminal.type("\r")
        terminal.until("An answer.")
        terminal.type("\x11")
        terminal.wait()
    assert kept(tmp_path / "home")[0][1] == (
        f'Summarise @"{plain}"\n\n@"{plain}" (12 bytes):\n```md\nSome notes.\n```'
    )


def test_in_a_command_a_dropped_file_is_its_path(tmp_path: Path) -> None:
    path = tmp_path / "my chats.json"
    path.write_text('[{"role": "user", "content": "Remember me?"}]')
    with slipstream(tmp_path / "home", Script()) as terminal:
        terminal.until("ready")
        terminal.type("/import ")
        terminal.paste(f"'{path}'")
        terminal.type("\r")
        terminal.until("Remember me?")


def test_a_mention_of_no_file_is_not_sent_silently(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("Some notes.\n")
    with slipstream(tmp_path, Script(pieces=["An answer."]), folder=tmp_path, size=(120, 36)) as terminal:
        terminal.until("ready")
        terminal.type("Read @nots.md\r")
        terminal.until("There is no file nots.md. Did you mean @notes.md?")
        terminal.type("\r")
        terminal.until("An answer.")
        terminal.type("\x11")
        terminal.wait()
    assert kept(tmp_path)[0][1] == "Read @nots.md"
