"""Every byte that the program writes to a terminal is one that Textual writes for itself, whatever is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.text.sanitise import sanitise
from tests.app.tui import vt
from tests.app.tui.corpus import CORPUS, SHORT
from tests.app.tui.terminal import slipstream
from tests.cases import cases
from tests.fakes.scripted_engine import Script

SENDABLE = [text.encode("utf-8", "replace").decode() for text in CORPUS]
"""Lone surrogates have no place in UTF-8, so no pipe brings them."""
SPLIT_IN_CI = 6
STYLES = {
    "colour and style", "cursor", "line", "mode", "keyboard", "question about a mode",
    "question about the background", "pointer shape",
}  # fmt: skip
HOSTILE_NAME = "e2b\x1b]0;evil\x07[/nope]\u202e"


def shown(
    home: Path, pieces: Sequence[str], faults: str = "", *, pause_s: float = 0.0, more: bool = False
) -> vt.Written:
    """Let the engine say something, and read what the terminal got."""
    script = Script(pieces=[*pieces, "\n\nThat was all."], pause_s=pause_s)
    if more:
        script.thinking = list(pieces)
        script.notices = list(pieces[:3])
        script.name = HOSTILE_NAME
    with slipstream(home, script, faults=faults) as terminal:
        terminal.until("ready")
        terminal.type("Hi\r")
        terminal.until("That was all.")
        terminal.settle(0.1)
        if more:
            for text in pieces[:12]:
                terminal.paste(text)
            terminal.type("\x1b[13;2u")  # shift+enter
            terminal.type("\r")
            terminal.until(lambda: terminal.drawn.count(b"That was all.") > 1)
            for keys in (
                "\x0f",
                "\x1bOS",
                f"\x1b[200~{HOSTILE_NAME}\x1b[201~",
                "\x1b",
                "\x10",
            ):  # thoughts, chats, palette
                terminal.type(keys)
                terminal.settle(0.1)
            terminal.paste(HOSTILE_NAME)
            terminal.settle(0.1)
            terminal.type("\x1b")
            terminal.settle(0.1)
            terminal.type("\x19")  # copy
            terminal.until("Copied")
        terminal.type("\x11")
        assert terminal.wait() == 0, bytes(terminal.written[-3000:])
        assert terminal.is_as_before
        return vt.read(bytes(terminal.written))


def test_nothing_hostile_reaches_the_terminal_from_any_side(tmp_path: Path) -> None:
    written = shown(tmp_path, [f"{text}\n\n" for text in SENDABLE], more=True)
    assert set(written.forms) <= {*STYLES, "clipboard"}
    assert vt.is_given_back(written)
    answer = "".join(f"{text}\n\n" for text in SENDABLE)
    assert written.copied == [sanitise(answer) + "\n\nThat was all."]


def splits(texts: Sequence[str]) -> list[str]:
    """Every text cut in two at every place, the halves one after the other."""
    return [half for text in texts for at in range(1, len(text)) for half in (text[:at], text[at:] + "\n\n")]


def test_at_every_split_of_a_stream(tmp_path: Path) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in SHORT]
    for start in range(0, cases(SPLIT_IN_CI, len(texts)), SPLIT_IN_CI):
        pieces = splits(texts[start : start + SPLIT_IN_CI])
        written = shown(tmp_path / str(start), pieces, "eager", pause_s=0.01)
        assert set(written.forms) <= STYLES
        assert written.copied == []


@pytest.mark.parametrize("fault", ["no-sanitiser", "no-barrier"])
def test_each_of_the_two_defences_holds_alone(tmp_path: Path, fault: str) -> None:
    pieces = [f"{text}\n\n" for text in SENDABLE if "&#" not in text]
    assert shown(tmp_path, pieces, fault).copied == []


def test_without_both_it_is_seen(tmp_path: Path) -> None:
    with pytest.raises(vt.IntruderError):
        shown(tmp_path, [f"{text}\n\n" for text in SENDABLE], "no-sanitiser,no-barrier")
