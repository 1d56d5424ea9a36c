"""The keys of the chat, each with an id for a keymap and the words the help shows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from textual.app import App
from textual.binding import Binding, BindingType

from app.safe_app import SafeApp
from app.settings.table import SendKey

NEWLINE_KEYS = ("ctrl+j", "shift+enter", "alt+enter")

PROMPT_KEYS: list[BindingType] = [
    Binding("enter", "send", "Send", id="send", tooltip="sends the message"),
    Binding(
        ",".join(NEWLINE_KEYS),
        "newline",
        "New line",
        id="newline",
        tooltip="new line in the prompt (shift+enter and alt+enter too, where the terminal passes them)",
    ),
    Binding("up", "earlier", id="earlier", tooltip="at the top edge of the prompt: earlier prompts", show=False),
    Binding("down", "later", id="later", tooltip="at the bottom edge of the prompt: later prompts", show=False),
    Binding("left", "cursor_left", tooltip="in an empty prompt: the reply before", show=False),
    Binding("right", "cursor_right", tooltip="in an empty prompt: the reply after", show=False),
    Binding(
        "ctrl+up,alt+up",
        "edit_last",
        id="edit",
        tooltip="puts the last message into the prompt, to send it changed (alt+up too)",
        show=False,
    ),
    Binding("pageup", "page(-1)", id="page_up", tooltip="scrolls the transcript up", show=False),
    Binding("pagedown", "page(1)", id="page_down", tooltip="scrolls the transcript down", show=False),
    Binding("end", "end", id="follow", tooltip="at the end of the line: back to following", show=False),
]

CODE_KEYS: list[BindingType] = [
    Binding("c,y,enter", "copy_code", "Copy", tooltip="copies the code block (y and enter too)"),
    Binding("escape", "leave", "Prompt", tooltip="back to the prompt"),
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
    Binding("ctrl+n", "new_chat", id="new", tooltip="new chat; empties the transcript", show=False),
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
PALETTE_KEY = "ctrl+p"


def keymap_of(send_key: SendKey, keys: Keymap) -> Keymap:
    """A person's own keys, and those that follow from what sends a message."""
    if send_key == "enter":
        return keys
    send = dict.fromkeys((send_key, "ctrl+s"))
    newline = ("enter", *(key for key in NEWLINE_KEYS if key not in send))
    return {"send": ",".join(send), "newline": ",".join(newline)} | dict(keys)


def keys_of(id: str, keymap: Keymap) -> tuple[str, ...]:
    """The keys of one thing."""
    return tuple(keymap[id].split(",")) if id in keymap else usual_keys()[id]


def key_in(app: App[Any], id: str) -> str:
    """The key of one thing as sentences on the screen name it: the person's own, if there is one."""
    return keys_of(id, app.own_keys if isinstance(app, SafeApp) else {})[0]


def key_table(keymap: Keymap) -> list[tuple[str, str]]:
    """Every key with what it does, the command palette included, in the order of the help."""
    chat = _rows(CHAT_KEYS, keymap)
    code = [(f"{key} on code", meaning) for key, meaning in _rows(CODE_KEYS, keymap)]
    return [
        *_rows(PROMPT_KEYS, keymap),
        ("shift+tab", "to the code blocks above, the newest first; tab leads back"),
        *code,
        *chat[:-2],
        (PALETTE_KEY, "command palette: everything by name"),
        *chat[-2:],
    ]


def changed_keys(keymap: Keymap) -> dict[str, str]:
    """The keys that are not the usual ones, by the action they run."""
    bindings = [binding for binding in (*PROMPT_KEYS, *CHAT_KEYS) if isinstance(binding, Binding)]
    return {each.action: keymap[each.id].partition(",")[0] for each in bindings if each.id and each.id in keymap}


@cache
def usual_keys() -> Mapping[str, tuple[str, ...]]:
    """The keys of everything that a keymap can change, by id."""
    bindings = [binding for binding in (*PROMPT_KEYS, *CHAT_KEYS) if isinstance(binding, Binding) and binding.id]
    return {str(binding.id): tuple(key.strip() for key in binding.key.split(",")) for binding in bindings}


def _rows(bindings: list[BindingType], keymap: Keymap) -> list[tuple[str, str]]:
    return [
        (keymap.get(each.id or "", each.key).partition(",")[0], each.tooltip)
        for each in bindings
        if isinstance(each, Binding)
    ]
