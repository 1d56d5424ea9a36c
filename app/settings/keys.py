"""The keys of the chat as plain data. Settings files change them, the help lists them, the screen binds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from app.settings.table import SendKey

NEWLINE_KEYS = ("ctrl+j", "shift+enter", "alt+enter")


@dataclass(frozen=True, slots=True)
class Key:
    """What one or several keys do."""

    keys: str
    """As Textual names them, several joined by commas; the help mentions the first."""
    action: str
    id: str
    """Its name in the settings file."""
    help: str
    label: str = ""
    """A word for the key line at the bottom; empty: not shown there."""
    has_priority: bool = False
    """Whether it comes before what the focused widget would do with the key."""


PROMPT_KEYS = (
    Key("enter", "send", "send", "sends the message", "Send"),
    Key(",".join(NEWLINE_KEYS), "newline", "newline", "starts a new line in the prompt", "New line"),
    Key("up", "earlier", "earlier", "in the first line of the prompt: earlier prompts"),
    Key("down", "later", "later", "in the last line of the prompt: later prompts"),
    Key(
        "alt+left",
        "walk(-1)",
        "version_before",
        "in an empty prompt: previous version, which is an earlier reply, or your message before you edited it",
    ),
    Key("alt+right", "walk(1)", "version_after", "in an empty prompt: next version"),
    # ctrl+l first: macOS keeps ctrl+up for itself, and its terminals do not pass alt+up on.
    Key("ctrl+l,ctrl+up,alt+up", "edit_last", "edit", "edits your last message and sends it again"),
    Key("pageup", "page(-1)", "page_up", "scrolls the transcript up"),
    Key("pagedown", "page(1)", "page_down", "scrolls the transcript down"),
    Key("end", "end", "follow", "at the end of the line: follows the reply again"),
)
CODE_KEYS = (
    Key("c,y,enter", "copy_code", "copy_code", "copies the code block", "Copy"),
    Key("escape", "leave", "leave_code", "goes back to the prompt", "Prompt"),
)
CHAT_KEYS = (
    Key("escape", "stop", "stop", "stops the reply or loading; before a first word, returns the message", "Stop"),
    Key(
        "ctrl+t",
        "toggle_drafting",
        "draft",
        "turns drafting on or off, also during a reply (from the next round)",
        "Drafting",
    ),
    Key("ctrl+o", "toggle_thoughts", "thoughts", "folds or unfolds the thoughts"),
    Key("ctrl+r", "regenerate", "retry", "regenerates the last reply"),
    Key("ctrl+g", "editor", "editor", "opens the prompt in $VISUAL or $EDITOR"),
    # With priority, so that it is handled in the order of typing.
    Key("ctrl+n", "new_chat", "new", "starts a new chat", has_priority=True),
    Key("f2", "models", "model", "models: switch to one or pull one", "Model"),
    Key("f4", "chats", "chats", "chats: open, search, rename, delete", "Chats"),
    Key("f3", "toggle_panel", "gauges", "shows or hides the gauge panel", "Gauges"),
    Key("f5", "toggle_tint", "tint", "colours the drafted words in the replies, or stops doing so"),
    # With priority, because a text area selects a line with it.
    Key(
        "f6", "params", "params", "settings of this chat: temperature, system prompt, draft length ...",
        has_priority=True,
    ),
    # With priority, because a text area selects everything with it.
    Key(
        "f7", "requests", "requests", "requests that a server answers beside the chat: watch them, stop one",
        has_priority=True,
    ),
    Key("f1", "help", "help", "help: keys, and what each gauge means", "Help"),
)  # fmt: skip
APP_KEYS = (
    # Textual's own key, with an id so that a settings file can change it.
    Key(
        "ctrl+p", "command_palette", "palette", "command palette: every command by name", "palette",
        has_priority=True,
    ),
    # With priority, because a text area redoes with it.
    Key(
        "ctrl+y", "copy_answer", "copy", "copies the last answer, or the code block in focus", has_priority=True
    ),
    Key(
        "ctrl+c",
        "interrupt",
        "interrupt",
        "copies a selection, else stops the reply, else empties the prompt; twice in a row quits",
        has_priority=True,
    ),
    Key("ctrl+q", "quit", "quit", "quits", has_priority=True),
)  # fmt: skip
"""They work on every screen, except for the palette, whose commands are the chat's."""

NAMED_KEYS = frozenset(
    (
        "backspace", "ctrl-at", "delete", "down", "end", "enter", "escape", "home", "insert", "left", "pagedown",
        "pageup", "return", "right", "space", "tab", "up", *(f"f{number}" for number in range(1, 25)),
    )
)  # fmt: skip
"""Keys whose names have more than one letter, as Textual spells them; repeated here so that the shell knows them
without loading Textual."""

Keymap = Mapping[str, str]
"""Keys by id, several joined by commas; an id that is missing has its default keys."""

_BY_ID = {key.id: key for table in (PROMPT_KEYS, CODE_KEYS, CHAT_KEYS, APP_KEYS) for key in table}
DEFAULT_KEYS: Mapping[str, tuple[str, ...]] = {id: tuple(key.keys.split(",")) for id, key in _BY_ID.items()}
"""The keys of everything that a keymap can change, by id."""


def keymap_of(send_key: SendKey, keys: Keymap) -> Keymap:
    """A person's own keys, and those that follow from the choice of the key that sends."""
    if send_key == "enter":
        return keys
    send = dict.fromkeys((send_key, "ctrl+s"))
    newline = ("enter", *(key for key in NEWLINE_KEYS if key not in send))
    return {"send": ",".join(send), "newline": ",".join(newline)} | dict(keys)


def keys_of(id: str, keymap: Keymap) -> tuple[str, ...]:
    """The keys with this id, as Textual names them."""
    return tuple(_split(keymap[id])) if id in keymap else DEFAULT_KEYS[id]


def key_names(id: str, keymap: Keymap) -> tuple[str, ...]:
    """The keys with this id as sentences name them."""
    return tuple("esc" if key == "escape" else key for key in keys_of(id, keymap))


def key_of_action(action: str, keymap: Keymap) -> str:
    """The first key that runs this action, as sentences name it."""
    return next(key_names(key.id, keymap)[0] for key in _BY_ID.values() if key.action == action)


def key_table(keymap: Keymap) -> list[tuple[str, str]]:
    """Every key with what it does, in the order of the help."""
    code = [(f"{key} on code", meaning) for key, meaning in _help_rows(CODE_KEYS, keymap)]
    return [
        *_help_rows(PROMPT_KEYS, keymap),
        ("alt+left, alt+right", "in a text: to the word before or after; alt+d deletes the next word"),
        ("shift+tab", "goes to the code blocks above, newest first; tab goes back"),
        *code,
        *_help_rows(CHAT_KEYS, keymap),
        *_help_rows(APP_KEYS, keymap),
    ]


def is_for_code(id: str) -> bool:
    """Whether it acts on a code block. Nothing is typed there, so single letters can be keys."""
    return any(key.id == id for key in CODE_KEYS)


def may_share(key: str, one: str, other: str) -> bool:
    """Whether two ids can have the same key: they never work at the same time, or share it by default."""
    prompt, code = ({key.id for key in table} for table in (PROMPT_KEYS, CODE_KEYS))
    if (one in prompt and other in code) or (one in code and other in prompt):
        return True
    return key in DEFAULT_KEYS[one] and key in DEFAULT_KEYS[other]


def _split(joined: str) -> Iterator[str]:
    return (key.strip() for key in joined.split(","))


def _help_rows(table: Iterable[Key], keymap: Keymap) -> Iterator[tuple[str, str]]:
    for row in table:
        key, *more = key_names(row.id, keymap)
        yield key, f"{row.help}{_also(more)}"


def _also(keys: list[str]) -> str:
    if not keys:
        return ""
    where = ", where the terminal passes them on" if any("enter" in key and "+" in key for key in keys) else ""
    return f" ({' and '.join(keys)} too{where})"
