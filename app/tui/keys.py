"""The keys of the chat, each with an id for a keymap and the words the help shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from textual.app import App
from textual.binding import Binding, BindingType

from app.settings.table import SendKey
from app.tui.terminal.safe_app import SafeApp

NEWLINE_KEYS = ("ctrl+j", "shift+enter", "alt+enter")

PROMPT_KEYS: list[BindingType] = [
    Binding("enter", "send", "Send", id="send", tooltip="sends the message"),
    Binding(
        ",".join(NEWLINE_KEYS),
        "newline",
        "New line",
        id="newline",
        tooltip="new line in the prompt",
    ),
    Binding("up", "earlier", id="earlier", tooltip="at the top edge of the prompt: earlier prompts", show=False),
    Binding("down", "later", id="later", tooltip="at the bottom edge of the prompt: later prompts", show=False),
    Binding(
        "alt+left",
        "walk(-1)",
        id="version_before",
        tooltip="the version of the chat before: another reply, or other words (left in an empty prompt too)",
        show=False,
    ),
    Binding(
        "alt+right",
        "walk(1)",
        id="version_after",
        tooltip="the version of the chat after (right in an empty prompt too)",
        show=False,
    ),
    Binding(
        "ctrl+up,alt+up",
        "edit_last",
        id="edit",
        tooltip="puts the last message into the prompt, to send it changed",
        show=False,
    ),
    Binding("pageup", "page(-1)", id="page_up", tooltip="scrolls the transcript up", show=False),
    Binding("pagedown", "page(1)", id="page_down", tooltip="scrolls the transcript down", show=False),
    Binding("end", "end", id="follow", tooltip="at the end of the line: back to following", show=False),
]

CODE_KEYS: list[BindingType] = [
    Binding("c,y,enter", "copy_code", "Copy", id="copy_code", tooltip="copies the code block"),
    Binding("escape", "leave", "Prompt", id="leave_code", tooltip="back to the prompt"),
]

CHAT_KEYS: list[BindingType] = [
    Binding("escape", "stop", "Stop", id="stop", tooltip="stops the reply, which stays, or loading"),
    Binding(
        "ctrl+t",
        "toggle_drafting",
        "Drafting",
        id="draft",
        tooltip="drafting on or off, also in the middle of a reply (from the next round on)",
    ),
    Binding("ctrl+o", "toggle_thoughts", id="thoughts", tooltip="folds or unfolds the thoughts", show=False),
    Binding("ctrl+r", "regenerate", id="retry", tooltip="regenerates the last reply", show=False),
    Binding("ctrl+g", "editor", id="editor", tooltip="the prompt in $VISUAL or $EDITOR", show=False),
    # Priority, because it takes its turn among what is typed.
    Binding("ctrl+n", "new_chat", id="new", tooltip="new chat; empties the transcript", show=False, priority=True),
    # Priority, because a text area redoes with it.
    Binding(
        "ctrl+y",
        "copy_answer",
        id="copy",
        tooltip="copies the last answer, or the code block in focus",
        show=False,
        priority=True,
    ),
    Binding("f2", "models", "Model", id="model", tooltip="the models: switch to one, or fetch one"),
    Binding("f4", "chats", "Chats", id="chats", tooltip="the chats that are kept: open, search, rename, delete"),
    Binding("f3", "toggle_panel", "Gauges", id="gauges", tooltip="gauge panel on or off"),
    Binding(
        "f5", "toggle_tint", id="tint", tooltip="tints what was drafted in the replies, or stops that", show=False
    ),
    # Priority, because a text area selects a line with it.
    Binding(
        "f6",
        "params",
        id="params",
        tooltip="the settings of this chat: temperature, system text, draft length ...",
        show=False,
        priority=True,
    ),
    Binding("f1", "help", "Help", id="help", tooltip="help: keys, and what each gauge means"),
    # As Textual's own, but with an id, so that it can be changed.
    Binding(
        "ctrl+p",
        "command_palette",
        "palette",
        id="palette",
        tooltip="command palette: everything by name",
        show=False,
        priority=True,
    ),
    Binding(
        "ctrl+c",
        "interrupt",
        id="interrupt",
        tooltip="copies a selection, or stops a reply, or empties the prompt; pressed twice quits",
        show=False,
        priority=True,
    ),
    Binding("ctrl+q", "quit", id="quit", tooltip="quits", show=False, priority=True),
]


Keymap = Mapping[str, str]
"""Keys by the id of what they do, several joined by commas; what is not in it has its usual ones."""


def keymap_of(send_key: SendKey, keys: Keymap) -> Keymap:
    """A person's own keys, and those that follow from what sends a message."""
    if send_key == "enter":
        return keys
    send = dict.fromkeys((send_key, "ctrl+s"))
    newline = ("enter", *(key for key in NEWLINE_KEYS if key not in send))
    return {"send": ",".join(send), "newline": ",".join(newline)} | dict(keys)


def keys_of(id: str, keymap: Keymap) -> tuple[str, ...]:
    """The keys of one thing."""
    return _keys(keymap[id]) if id in keymap else usual_keys()[id]


def key_in(app: App[Any], id: str) -> str:
    """The key of one thing as sentences on the screen name it: the person's own, if there is one."""
    return keys_in(app, id)[0]


def keys_in(app: App[Any], id: str) -> tuple[str, ...]:
    """The keys of one thing in a running app."""
    return keys_of(id, app.own_keys if isinstance(app, SafeApp) else {})


def key_table(keymap: Keymap) -> list[tuple[str, str]]:
    """Every key with what it does, in the order of the help."""
    code = [(f"{key} on code", meaning) for key, meaning in _rows(CODE_KEYS, keymap)]
    return [
        *_rows(PROMPT_KEYS, keymap),
        ("shift+tab", "to the code blocks above, the newest first; tab leads back"),
        *code,
        *_rows(CHAT_KEYS, keymap),
    ]


def changed_keys(keymap: Keymap) -> dict[str, str]:
    """The keys that are not the usual ones, by the action they run."""
    bindings = _by_id(PROMPT_KEYS, CODE_KEYS, CHAT_KEYS)
    return {binding.action: keys_of(id, keymap)[0] for id, binding in bindings.items() if id in keymap}


@cache
def usual_keys() -> Mapping[str, tuple[str, ...]]:
    """The keys of everything that a keymap can change, by id."""
    return {id: _keys(binding.key) for id, binding in _by_id(PROMPT_KEYS, CODE_KEYS, CHAT_KEYS).items()}


def is_for_code(id: str) -> bool:
    """Whether something is done to a code block: nothing is typed there, so that letters are keys."""
    return id in _by_id(CODE_KEYS)


def may_share(key: str, one: str, other: str) -> bool:
    """Whether two things can have one key: never in reach at once, or meant so, as escape leads out of both."""
    prompt, code = _by_id(PROMPT_KEYS), _by_id(CODE_KEYS)
    if (one in prompt and other in code) or (one in code and other in prompt):
        return True
    return key in usual_keys()[one] and key in usual_keys()[other]


def _by_id(*tables: list[BindingType]) -> dict[str, Binding]:
    bindings = [binding for table in tables for binding in table if isinstance(binding, Binding)]
    return {binding.id: binding for binding in bindings if binding.id}


def _keys(joined: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in joined.split(","))


def _rows(bindings: list[BindingType], keymap: Keymap) -> Iterator[tuple[str, str]]:
    for each in bindings:
        if isinstance(each, Binding):
            key, *more = _keys(keymap.get(each.id or "", each.key))
            yield key, f"{each.tooltip}{_also(more)}"


def _also(keys: list[str]) -> str:
    if not keys:
        return ""
    where = ", where the terminal passes them" if any("enter" in key and "+" in key for key in keys) else ""
    return f" ({' and '.join(keys)} too{where})"
