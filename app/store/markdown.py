"""Chats as Markdown that people can read and that can be imported again, with the data for that in HTML comments.

A line of a message that looks like such a comment is escaped with a backslash, which reading removes. Characters
that could steer a terminal are written as `sanitise` shows them; the comment then also has the original text,
which is used unless somebody has changed the visible text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from app.store.errors import ImportRefusedError
from app.store.records import Count, FinalState, NewChat, NewMessage, Role, TurnStats
from app.text.sanitise import sanitise, sanitise_json, sanitise_line

T = TypeVar("T")

VERSION = 1
OPENING = "<!-- slipstream-"
_MARK = re.compile(r"<!-- slipstream-(chat|message|thoughts|answer)(?: (\{.*\}))? -->")
_MARKS_WITH_FACTS = ("chat", "message")
_ESCAPED = re.compile(r"\\+" + OPENING)
_SPEAKERS: dict[Role, str] = {"user": "You", "assistant": "Reply"}


class _ChatFacts(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    title: str
    model: str
    drafter: str | None
    params: dict[str, Any]
    created_s: float
    updated_s: float


class _MessageFacts(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    parent: int | None
    role: Role
    state: FinalState
    created_s: float
    is_shown: bool
    stats: TurnStats | None
    stored_text: str | None = None
    """The original text, if the visible text differs from it."""
    stored_thinking: str | None = None
    typed_characters: Count | None = None


class _Section(NamedTuple):
    """A comment of ours and the lines below it."""

    kind: str
    facts: str
    line: int
    """Of the comment, from 1."""
    lines: list[str]


def write_chat(chat: NewChat) -> str:
    """One chat; a file can contain several in a row."""
    facts = _ChatFacts(VERSION, chat.title, chat.model, chat.drafter, chat.params, chat.created_s, chat.updated_s)
    title = sanitise_line(chat.title) or "Chat"
    return f"{_mark('chat', facts)}\n\n# {title}\n\n" + "".join(map(_write_message, chat.messages))


def read_chats(text: str, name: str) -> Sequence[NewChat]:
    """Read what `write_chat` wrote. Raises ImportRefusedError, whose message has the line."""
    sections = list(_sections(text, name))
    starts = [at for at, section in enumerate(sections) if section.kind == "chat"]
    if not sections or starts[:1] != [0]:
        raise ImportRefusedError(f"{name}, line 1: this is not a chat exported by Slipstream.")
    ends = [*starts[1:], len(sections)]
    return [_read_chat(sections[start:end], name) for start, end in zip(starts, ends)]


def _write_message(message: NewMessage) -> str:
    text, thinking = sanitise(message.text), sanitise(message.thinking)
    facts = _MessageFacts(
        parent=message.parent,
        role=message.role,
        state=message.state,
        created_s=message.created_s,
        is_shown=message.is_shown,
        stats=message.stats,
        stored_text=message.text if message.text != text else None,
        stored_thinking=message.thinking if message.thinking != thinking else None,
        typed_characters=message.typed_characters,
    )
    head = f"{_mark('message', facts)}\n\n## {_SPEAKERS[message.role]}\n\n"
    if not thinking:
        return f"{head}{_escaped(text)}\n\n"
    thoughts = f"{OPENING}thoughts -->\n\n{_escaped(thinking)}\n\n"
    return f"{head}{thoughts}{OPENING}answer -->\n\n{_escaped(text)}\n\n"


def _mark(kind: str, facts: msgspec.Struct) -> str:
    # A ">" could end the comment.
    json = sanitise_json(msgspec.json.encode(facts).decode()).replace(">", "\\u003e")
    return f"{OPENING}{kind} {json} -->"


def _escaped(text: str) -> str:
    return "\n".join(
        "\\" + line if line.startswith(OPENING) or _ESCAPED.match(line) else line for line in text.split("\n")
    )


def _sections(text: str, name: str) -> Iterator[_Section]:
    section: _Section | None = None
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        if not line.startswith(OPENING):
            if section is not None:
                section.lines.append(line[1:] if _ESCAPED.match(line) else line)
            elif line.strip():
                raise ImportRefusedError(f"{name}, line {number}: this is not a chat exported by Slipstream.")
            continue
        if section is not None:
            yield section
        mark = _MARK.fullmatch(line)
        if mark is None or (mark[2] is not None) != (mark[1] in _MARKS_WITH_FACTS):
            raise ImportRefusedError(f"{name}, line {number}: this comment was not written by Slipstream.")
        section = _Section(mark[1], mark[2] or "", number, [])
    if section is not None:
        yield section


def _read_chat(sections: Sequence[_Section], name: str) -> NewChat:
    head = sections[0]
    facts = _facts(head, _ChatFacts, name)
    if facts.version != VERSION:
        raise ImportRefusedError(
            f"{name}, line {head.line}: its format is version {facts.version}, but this Slipstream reads version "
            f"{VERSION}. Update Slipstream."
        )
    messages = []
    position = 1
    while position < len(sections):
        parts = sections[position + 1 : position + 3]
        if [section.kind for section in parts] != ["thoughts", "answer"]:
            parts = ()
        messages.append(_read_message(sections[position], parts, name))
        position += 1 + len(parts)
    return NewChat(
        facts.title, facts.model, facts.drafter, facts.params, facts.created_s, facts.updated_s, tuple(messages)
    )


def _read_message(head: _Section, parts: Sequence[_Section], name: str) -> NewMessage:
    if head.kind != "message":
        raise ImportRefusedError(
            f"{name}, line {head.line}: thoughts and answer must come in pairs below a message."
        )
    facts = _facts(head, _MessageFacts, name)
    if len(head.lines) < 3 or head.lines[0] or not head.lines[1].startswith("## ") or head.lines[2]:
        raise ImportRefusedError(f"{name}, line {head.line + 1}: a heading between two blank lines is missing.")
    texts = [_text(part, part.lines, name) for part in parts]
    thinking, text = texts if texts else ("", _text(head, head.lines[2:], name))
    return NewMessage(
        parent=facts.parent,
        role=facts.role,
        text=_stored(facts.stored_text, text),
        thinking=_stored(facts.stored_thinking, thinking),
        state=facts.state,
        created_s=facts.created_s,
        is_shown=facts.is_shown,
        stats=facts.stats,
        typed_characters=facts.typed_characters,
    )


def _stored(stored: str | None, shown: str) -> str:
    """The message's text: `stored` if it is what is shown, otherwise the shown text, which somebody changed."""
    return stored if stored is not None and sanitise(stored) == shown else shown


def _text(section: _Section, lines: Sequence[str], name: str) -> str:
    """The text between two blank lines; at the end of a file an editor may have removed the second one."""
    if not lines or lines[0]:
        raise ImportRefusedError(f"{name}, line {section.line + 1}: a blank line is missing.")
    return "\n".join(lines[1:]).removesuffix("\n")


def _facts(section: _Section, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(section.facts, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ImportRefusedError(f"{name}, line {section.line}: {error}. Nothing was imported.") from error
    except RecursionError as error:
        raise ImportRefusedError(
            f"{name}, line {section.line}: nested too deeply. Nothing was imported."
        ) from error
