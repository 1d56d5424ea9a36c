"""The strict reader of the terminal's bytes is strict."""

from __future__ import annotations

import pytest

from tests.app.tui import vt
from tests.app.tui.corpus import COMMANDS, HIDING


@pytest.mark.parametrize("text", [*COMMANDS, *HIDING[:6]])
def test_what_textual_never_writes_is_an_intruder(text: str) -> None:
    if text.startswith(("\x1b]52;c;ZXZpbA==\x07", "\x1b]22;", "\x1b[?2026h", "\x1b[?1049l", "\x1b[31")):
        return  # Textual's own forms: told by what they do, see below
    with pytest.raises(vt.IntruderError):
        vt.read(b"before" + text.encode("utf-8", "surrogatepass") + b"after")


def test_what_it_does_is_noted() -> None:
    data = "\x1b[?1049h\x1b[?25l\x1b[>29u\x1b[1;1H\x1b[1;38;2;1;2;3mGrüße\x1b[0m\n\x1b]52;c;SGk=\x07"
    written = vt.read(data.encode())
    assert written.text == "Grüße"
    assert written.copied == ["Hi"]
    assert written.modes == {1049: True, 25: False}
    assert not vt.is_given_back(written)
    assert vt.is_given_back(vt.read(data.encode() + b"\x1b[?1049l\x1b[?25h\x1b[<u"))
