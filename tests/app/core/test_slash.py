"""What is typed after a slash, as pure text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.commands import COMMANDS, SLASH, Command, hint, slash_table
from app.core.slash import MessageText, ParsedCommand, Refusal, from_paste, nearest, parse
from app.tui.chat_app import ChatApp
from app.tui.chat_screen import APP_ACTIONS, ChatScreen

THEMES = ("dark", "light")


def names_for(command: Command) -> Sequence[str]:
    return THEMES if command.slash == "theme" else ()


def ran(text: str) -> tuple[str, tuple[object, ...]]:
    parsed = parse(text, names_for)
    assert isinstance(parsed, ParsedCommand), parsed
    return parsed.action, parsed.arguments


@pytest.mark.parametrize(
    ("text", "action", "values"),
    [
        ("/help", "help", ()),
        ("/HELP ", "help", ()),
        ("/exit", "quit", ()),
        ("/draft", "toggle_drafting", ()),
        ("/draft auto", "set_drafting", ("auto",)),
        ("/draft off", "set_drafting", (0,)),
        ("/draft on", "set_drafting", ("on",)),
        ("/draft OFF", "set_drafting", (0,)),
        ("/Think On", "set_thinking", (True,)),
        ("/temp Default", "set_temperature", (None,)),
        ("/draft 16", "set_drafting", (16,)),
        ("/rename  A new title ", "rename", ("A new title",)),
        ("/think off", "set_thinking", (False,)),
        ("/temp 0.7", "set_temperature", (0.7,)),
        ("/temp default", "set_temperature", (None,)),
        ("/seed 7", "set_seed", (7,)),
        ("/seed random", "set_seed", (None,)),
        ("/copy code", "copy", (True,)),
        ("/theme dark", "set_theme", ("dark",)),
        ("/system Be brief.\nAnd kind.", "set_system", ("Be brief.\nAnd kind.",)),
        ("/search", "chats", ()),
        ("/edit other words", "edit", ("other words",)),
    ],
)
def test_a_command_and_its_value(text: str, action: str, values: tuple[object, ...]) -> None:
    assert ran(text) == (action, values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/draft 17", "auto, on, off or 1 to 16, not '17'"),
        ("/draft maybe", "auto, on, off or 1 to 16, not 'maybe'"),
        ("/temp nan", "a number from 0 to 100, or default"),
        ("/temp -1", "a number from 0 to 100"),
        ("/seed 1.5", "a whole number from 0 to 4294967295, or random"),
        ("/think perhaps", "on or off, not 'perhaps'"),
        ("/theme pink", "dark or light, not 'pink'"),
        ("/help me", "/help takes no argument"),
        ("/rename", "/rename needs a title: /rename TITLE"),
        ("/attach ", "/attach needs a text file: /attach FILE"),
        ("/hlep", "Did you mean /help?"),
        ("/mod", "Did you mean /model?"),
        ("/usr/bin/env python", "is not a command. /help lists"),
        ("/", "is not a command"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(text: str, said: str) -> None:
    refused = parse(text, names_for)
    assert isinstance(refused, Refusal)
    assert said in refused.reason


def test_two_slashes_send_one() -> None:
    assert parse("//help me", names_for) == MessageText("/help me")
    assert parse(" /help", names_for) == MessageText(" /help")


@pytest.mark.parametrize(
    ("pasted", "typed"),
    [
        ("// a comment", "/// a comment"),
        ("/* a comment */", "//* a comment */"),
        ("/usr/bin/env python\nprint()", "//usr/bin/env python\nprint()"),
        ("/system Be brief.\nAnd kind.", "/system Be brief.\nAnd kind."),
        ("/hlep me", "/hlep me"),
        ("/", "/"),
        ("print() // says", "print() // says"),
        ("", ""),
    ],
)
def test_pasted_code_is_no_command(pasted: str, typed: str) -> None:
    assert from_paste(pasted) == typed


SYNTAXES = [command.argument.syntax for command in SLASH.values() if command.argument]


@settings(max_examples=25)
@example("TITLE")
@given(st.text())
def test_any_text_is_parse(text: str) -> None:
    for typed in (text, "/" + text, "/draft " + text, "/temp " + text, "/seed " + text, "/copy " + text):
        result = parse(typed, names_for)
        assert isinstance(result, MessageText) == (not typed.startswith("/") or typed.startswith("//"))
        if isinstance(result, MessageText):
            assert result.text in (typed, typed[1:])
        if isinstance(result, Refusal):
            assert result.reason.endswith((".", *SYNTAXES))


@settings(max_examples=30)
@given(st.sampled_from(sorted(SLASH)), st.text(alphabet="abcdefghij/", min_size=1, max_size=3))
def test_a_near_match_is_a_command(name: str, more: str) -> None:
    assert nearest(name) == name
    assert (near := nearest(name + more)) is None or near in SLASH


def test_names_are_unique_and_actions_exist() -> None:
    names = [name for command in COMMANDS for name in (command.slash, *command.aliases) if name]
    assert len(names) == len(set(names))
    for command in COMMANDS:
        actions = [command.action.partition("(")[0], *([command.argument.action] if command.argument else [])]
        for action in actions:
            assert hasattr(ChatApp if action in APP_ACTIONS else ChatScreen, f"action_{action}"), action


def test_every_choice_that_is_offered_is_taken() -> None:
    for command in SLASH.values():
        for choice in command.argument.choices if command.argument else ():
            assert isinstance(parse(f"/{command.slash} {choice}", names_for), ParsedCommand)


def test_the_help_has_them_all() -> None:
    assert [name.split()[0][1:] for name, _ in slash_table({})] == list(SLASH)


def test_every_command_has_its_key_or_a_hint() -> None:
    hints = {command.title: hint(command, {"draft": "f9", "chats": "f10"}) for command in COMMANDS}
    assert hints["Turn drafting on or off"] == "f9"
    assert hints["Search all chats"] == "titles and messages", "its action has a key, which opens the whole list"
    assert hints["Stop the reply"] == "esc"
