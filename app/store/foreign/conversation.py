"""A conversation of another program, and how it becomes a chat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from app.store.foreign.values import paragraphs
from app.store.records import NewChat, NewMessage, Role
from app.store.title import automatic_title

NO_PROMPT = "…"
"""Stands for the person's message where a conversation begins with a reply."""
_SPOKEN = ("user", "assistant")


@dataclass
class Entry:
    """A message as another program has it."""

    id: str
    parent: str | None
    role: str
    """user, assistant or system; any other is skipped, but not what follows it."""
    text: str
    thinking: str = ""
    created_s: float = 0.0


@dataclass
class Conversation:
    """A conversation as another program has it. Times are 0 if unknown."""

    entries: list[Entry]
    """In the order they were made."""
    title: str = ""
    model: str = ""
    created_s: float = 0.0
    updated_s: float = 0.0
    last_id: str | None = None
    """The end of the version that was shown last; None: the newest entry."""


@dataclass
class _Tree:
    """The entries that were spoken, by the nearest spoken ancestor."""

    children: dict[str | None, list[Entry]] = field(default_factory=dict)
    shown: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a message."""

    last: Entry
    before: _Parts | None = None

    def texts(self) -> tuple[str, str]:
        """Text and thoughts of all parts."""
        entries = [self.last]
        part = self.before
        while part is not None:
            entries.append(part.last)
            part = part.before
        entries.reverse()
        return paragraphs(each.text for each in entries), paragraphs(each.thinking for each in entries)


def in_line(spoken: Iterable[tuple[str, str, float]]) -> list[Entry]:
    """Entries of role, text and time, each of which follows the one before."""
    entries = [
        Entry(str(number), None, role, text, created_s=created_s)
        for number, (role, text, created_s) in enumerate(spoken)
    ]
    for before, after in pairwise(entries):
        after.parent = before.id
    return entries


def as_chat(conversation: Conversation, now_s: float) -> NewChat:
    """now_s: the time of messages that have none."""
    messages = tuple(_messages(_tree_of(conversation), now_s))
    times = [message.created_s for message in messages]
    created_s = conversation.created_s or min(times, default=now_s)
    first_text = next((message.text for message in messages if message.role == "user"), "")
    system = paragraphs(entry.text.strip() for entry in conversation.entries if entry.role == "system")
    return NewChat(
        title=" ".join(conversation.title.split()) or automatic_title(first_text),
        model=conversation.model,
        drafter=None,
        params={"system": system} if system else {},
        created_s=created_s,
        updated_s=conversation.updated_s or max(times, default=created_s),
        messages=messages,
    )


def _tree_of(conversation: Conversation) -> _Tree:
    entries = {entry.id: entry for entry in conversation.entries}
    spoken = {
        id
        for id, entry in entries.items()
        if entry.role in _SPOKEN and (entry.text.strip() or entry.thinking.strip())
    }
    last = conversation.last_id if conversation.last_id in entries else next(reversed(entries), None)
    tree = _Tree(shown=set(_lineage(entries, last, spoken)))
    nearest: dict[str, str | None] = {}
    for id, entry in entries.items():
        if id in spoken:
            above = _nearest_spoken(entries, entry.parent, spoken, nearest)
            tree.children.setdefault(above, []).append(entry)
    return tree


def _nearest_spoken(
    entries: Mapping[str, Entry], id: str | None, spoken: set[str], nearest: dict[str, str | None]
) -> str | None:
    """The entry itself or the first of its ancestors that is spoken. nearest: those that are known already."""
    passed: list[str] = []
    while id is not None and id in entries and id not in spoken and id not in nearest:
        nearest[id] = None  # for a circle, which leads nowhere
        passed.append(id)
        id = entries[id].parent
    above = id if id in spoken else nearest.get(id or "")
    nearest.update(dict.fromkeys(passed, above))
    return above


def _lineage(entries: Mapping[str, Entry], id: str | None, spoken: set[str]) -> Iterator[str]:
    """An entry and its ancestors, as far as they are spoken. A circle is followed once."""
    seen: set[str] = set()
    while id is not None and id in entries and id not in seen:
        seen.add(id)
        if id in spoken:
            yield id
        id = entries[id].parent


def _messages(tree: _Tree, now_s: float) -> Iterator[NewMessage]:
    """The messages, parents first. A reply in several parts, such as around the call of a tool, becomes one."""
    count = 0
    waiting: list[tuple[_Parts, int | None]] = [
        (_Parts(root), None) for root in reversed(tree.children.get(None, []))
    ]
    """Each entry, with the earlier parts of its message and the position of the message's parent."""
    while waiting:
        whole, parent = waiting.pop()
        entry = whole.last
        children = tree.children.get(entry.id, [])
        parts = [child for child in children if entry.role == child.role == "assistant"]
        waiting += [(_Parts(part, whole), parent) for part in reversed(parts)]
        if parts and len(parts) == len(children):
            continue
        created_s = entry.created_s or now_s
        if parent is None and entry.role == "assistant":
            yield NewMessage(None, "user", NO_PROMPT, "", "complete", created_s, is_shown=False, stats=None)
            parent, count = count, count + 1
        role: Role = "user" if entry.role == "user" else "assistant"
        is_shown = entry.id in tree.shown and not any(part.id in tree.shown for part in parts)
        text, thinking = whole.texts()
        typed_characters = len(text) if role == "user" else None
        yield NewMessage(parent, role, text, thinking, "complete", created_s, is_shown, None, typed_characters)
        ids_of_parts = {part.id for part in parts}
        waiting += [(_Parts(child), count) for child in reversed(children) if child.id not in ids_of_parts]
        count += 1
