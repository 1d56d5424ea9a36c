"""Characters from a terminal become keys, or nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from textual import events
from textual.message import Message

from app.tui.terminal.driver import as_typed
from app.tui.terminal.input_parser import InputParser

SEQUENCES = 20_000


def heard(*texts: str) -> list[Message]:
    """The events of some text, after which nothing more comes for a while."""
    parser = InputParser()
    return [*(event for text in texts for event in parser.feed(text)), *silence(parser)]


def silence(parser: InputParser) -> Iterable[Message]:
    if parser._timeout_time is not None:
        parser._timeout_time = 0
    return parser.tick()


def keys(*texts: str) -> list[str]:
    return [event.key for event in heard(*texts) if isinstance(event, events.Key)]


def typed(*texts: str) -> str:
    """What a text area would insert."""
    return "".join(
        event.character or "" for event in heard(*texts) if isinstance(event, events.Key) and event.is_printable
    )


NAMES = {
    "\x1b": "escape",
    "\x1b\x1b": "escape escape",
    "\x1b\r": "alt+enter",
    "\x1b\n": "alt+enter",
    "\x1b[27;2;13~": "shift+enter",
    "\x1b[27;5;13~": "ctrl+enter",
    "\x1b[13;2u": "shift+enter",
    "\x1b[13;3u": "alt+enter",
    "\x1b\x1b[A": "alt+up",
    "\x1b\x1b[D": "alt+left",
    "\x1b\x1bOC": "alt+right",
    "\x1b\x1b[3~": "alt+delete",
    "\x1b\x1b\x1b[B": "escape alt+down",
    "\x1b\x1bx": "escape alt+x",
    "\x1b\x1b[99;99x": "",
    "\x1b\x1b[<35;1;1M": "escape",
    "\x1b[1;3D": "alt+left",
    "\x1b[1;9C": "alt+right",
    "\x1bb": "alt+left",
    "\x1bf": "alt+right",
    "\x1b\x7f": "alt+backspace",
    "\x1bd": "alt+d",
    "\x1bD": "alt+shift+d",
    "\x1b,": "alt+comma",
    "\x1b2": "alt+2",
    "\x1b\x11": "escape ctrl+q",
    "\x1b[": "alt+left_square_bracket",
    "\x1bO": "alt+shift+o",
    "\x1bP": "alt+shift+p",
    "\x1b]": "alt+right_square_bracket",
    "\x1b]x": "alt+right_square_bracket x",
    "\x1b[100;3u": "alt+d",
    "\x1b[A": "up",
    "\x1b[1;129A": "up",
    "\x1bOA": "up",
    "\x1bOM": "enter",
    "\x1b[Z": "shift+tab",
    "\x1b[9;2u": "shift+tab",
    "\x1b[[C": "f3",
    "\x1b[11~": "f1",
    "\x1b[1;2R": "shift+f3",
    "\x1b[3$": "shift+delete",
    "\x1b[3^": "ctrl+delete",
    "\x1b[5A": "ctrl+up",
    "\x1b[13;1:1u": "enter",
    "\x1b[13;1:3u": "",
    # с, е, з and С of a Cyrillic layout, with and without their place in the US layout; α; a on a French keyboard.
    "\x1b[1089::99;5u": "ctrl+c",
    "\x1b[1077::116;5u": "ctrl+t",
    "\x1b[1079::112;69u": "ctrl+p",
    "\x1b[1089:1057:99;6u": "ctrl+shift+c",
    "\x1b[1089;5u": "ctrl+c",
    "\x1b[27;5;1077~": "ctrl+t",
    "\x1b[945::97;5u": "ctrl+a",
    "\x1b[97::113;5u": "ctrl+a",
    "\x1b[91;5u": "escape",
    "\x1b[91;69u": "escape",
}


@pytest.mark.parametrize("text", NAMES)
def test_keys_have_their_names(text: str) -> None:
    assert " ".join(keys(text)) == NAMES[text]
    assert " ".join(keys(*text)) == NAMES[text], "byte by byte"
    assert keys(f"{text}\x1b[A" if len(text) > 2 else text) == NAMES[text].split() + ["up"] * (len(text) > 2)


@pytest.mark.parametrize(
    ("text", "inserted"),
    [
        ("aß€\u0435", "aß€\u0435"),
        ("\x1b[97;;97u", "a"),
        ("\x1b[97:65;2;65u", "A"),
        ("\x1b[97;2u", "A"),
        ("\x1b[97u", "a"),
        ("\x1b[27;2;33~", "!"),
        ("\x1b[32;;32u", " "),
        ("\x1b[113;7;64u", "@"),
        ("\x1b[1089::99;;1089u", "с"),
        ("\x1b[97;;27:98u", "b"),
        ("\x1bd\x1bp\x1bn\x1b,\x1b2\x1b \x1bé", ""),
        ("\x1b[100;3u\x1b[99;5;99u", ""),
        ("\x1b]11;rgb:0000/0000/0000\x07\x1b]11;rgb:0/0/0\x1b\\\x1bP>|a 1\x1b\\\x1b_Gi=1;OK\x1b\\", ""),
        ("\x1b[?1;2c\x1b[?29u\x1b[>0;1;0c\x1b[5;7R\x1b[8;24;80t", ""),
    ],
)
def test_what_is_typed(text: str, inserted: str) -> None:
    assert typed(text) == typed(*text) == inserted


@pytest.mark.parametrize(
    "unreadable",
    [
        "\x1b[9999999999u",
        "\x1b[1114112u",
        "\x1b[55296u",
        "\x1b[55296;1;55296u",
        "\x1b[97;;1114112u",
        "\x1b[1:2:3:4u",
        "\x1b[1:2;3:4:5;6u",
        "\x1b[;;;u",
        "\x1b[99~",
        "\x1b[27;1;99999999999999~",
        "\x1b[48;0;0;0;0t",
        "\x1b[48;99999;99999;1;1t",
        "\x1b[<0;99999999999999;1M",
        "\x1b[?2026;2$y",
        f"\x1b[{'1' * 100_000}u",
        f"\x1b[1;{'9' * 100}u",
        "\x1b[<0;-1;-1M",
        "\x1b[M !",
        "\x1bO9",
        "\x1b[1;5",
    ],
)
def test_what_cannot_be_read_is_dropped(unreadable: str) -> None:
    assert typed(unreadable, "\x1b[A", "ok") == "ok"
    assert keys(unreadable, "\x1b[A") == ["up"]


def test_any_control_sequence_can_come() -> None:
    chance = random.Random(18)
    parser = InputParser()
    for _ in range(SEQUENCES):
        size = chance.choice((1, 3, 6, 12, 40))
        body = "".join(chance.choice("0123456789;:<=>?-$ !\"'") for _ in range(size))
        final = chance.choice("ABCDEFGHIJKLMNOPQRSTUZabcdfhmnrstuy~~~uuu@^")
        for event in parser.feed(chance.choice(("", "\x1b")) + f"\x1b[{body}{final}"):
            if isinstance(event, events.Key):
                event.key.encode()
                (event.character or "").encode()
    assert [event.key for event in parser.feed("\x1b[A") if isinstance(event, events.Key)] == ["up"]


def test_any_characters_can_come() -> None:
    chance = random.Random(18)
    parser = InputParser()
    alphabet = "\x1b\x1b\x1b[[[O]P_M<;:0123456789uA~$\x07\\\r\x00\x7f\x9bé\U0001f600"
    for _ in range(SEQUENCES):
        for _ in parser.feed(chance.choice(alphabet)):
            pass
        if chance.random() < 0.02:
            for _ in silence(parser):
                pass


def test_a_paste_without_an_end_is_what_came_before_a_silence() -> None:
    parser = InputParser()
    assert list(parser.feed("\x1b[200~one\rtw")) == []
    assert parser.is_pasting
    assert [event.text for event in silence(parser) if isinstance(event, events.Paste)] == ["one\rtw"]
    assert not parser.is_pasting
    assert [event.key for event in parser.feed("o\r") if isinstance(event, events.Key)] == ["o", "enter"]


def test_a_paste_is_one_event() -> None:
    [paste] = heard("\x1b[200~one\r\n\ttwo~\x1b[201~")
    assert isinstance(paste, events.Paste)
    assert paste.text == "one\r\n\ttwo~"


def test_what_comes_before_the_first_frame_becomes_text() -> None:
    early = heard("\rab\r\rc\t\x1b[A\x1b\x7f\x1b[200~p\rq\x1b[201~\x1b[15~\x03\r\n")
    handed_over = as_typed(event for event in early if isinstance(event, events.Key | events.Paste))
    texts = [event.text if isinstance(event, events.Paste) else event.key for event in handed_over]
    assert texts == ["\n", "a", "b", "\n\n", "c", "\t", "p\rq", "ctrl+c"]
