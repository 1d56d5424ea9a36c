"""Everything that can be done in the chat, by name: one table for the palette, the slash commands and the help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from app.settings.table import DRAFT_START, SEED, TEMPERATURE
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, DraftSetting


@dataclass(frozen=True, slots=True)
class Argument:
    """What may follow a slash command."""

    shape: str
    """How the help writes it: `on|off`, `FILE`."""
    action: str
    """What Textual runs with the value."""
    allowed: str = ""
    """The values in words, for whoever typed another one."""
    read: Callable[[str], object] = str
    """From the typed words to the value; raises ValueError."""
    choices: tuple[str, ...] = ()
    """Offered while a person types, and taken in any case; in small letters."""
    offers: Literal["", "files", "models", "themes"] = ""
    """What else is offered: it depends on the machine."""
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to do."""

    title: str
    hint: str
    """Its key, or what it does in a few words."""
    action: str
    """What Textual runs, in the chat's own namespace."""
    slash: str = ""
    """What it is called after a slash; empty: it has a key and is in the palette only."""
    argument: Argument | None = None
    also: tuple[str, ...] = ()
    """What other programs call it."""


def _drafting(text: str) -> DraftSetting | Literal["on"]:
    if text in ("auto", "on"):
        return "auto" if text == "auto" else "on"
    return 0 if text == "off" else int(DRAFT_START.parse(text))


def _drafted(text: str) -> DraftSetting:
    return "auto" if text == "auto" else int(DRAFT_START.parse(text))


def _is_on(text: str) -> bool:
    return {"on": True, "off": False}[text]


def _is_code(text: str) -> bool:
    return {"code": True, "answer": False}[text]


def _temperature(text: str) -> float | None:
    return None if text == "default" else TEMPERATURE.parse(text)


def _seed(text: str) -> int | None:
    return None if text == "random" else int(SEED.parse(text))


_MODEL = Argument("NAME", "switch_model", offers="models")
_DRAFT = Argument(
    f"auto|on|off|1..{MAX_DRAFT_LENGTH}",
    "set_drafting",
    f"auto, on, off or 1 to {MAX_DRAFT_LENGTH}",
    _drafting,
    ("auto", "on", "off", *map(str, range(1, MAX_DRAFT_LENGTH + 1))),
)
_COMPARED = Argument(
    f"auto|1..{MAX_DRAFT_LENGTH}",
    "ab",
    f"auto or 1 to {MAX_DRAFT_LENGTH}",
    _drafted,
    ("auto", *map(str, range(1, MAX_DRAFT_LENGTH + 1))),
)
_TITLE = Argument("TITLE", "rename", "a title", is_required=True)
_WORDS = Argument("WORDS", "chats")
_EXPORT = Argument("FILE", "export", offers="files")
_IMPORT = Argument("FILE", "import", "the file of an export", offers="files", is_required=True)
_ATTACH = Argument("FILE", "attach", "a text file", offers="files", is_required=True)
_MESSAGE = Argument("TEXT", "edit")
_COPY = Argument("answer|code", "copy", "answer, or code: its last code block", _is_code, ("answer", "code"))
_THINK = Argument("on|off", "set_thinking", "on or off", _is_on, ("on", "off"))
_SYSTEM = Argument("TEXT|off", "set_system", choices=("off",))
_TEMPERATURE = Argument(
    "T|default",
    "set_temperature",
    f"{TEMPERATURE.allowed}, or default",
    _temperature,
    ("0", "0.7", "1", "default"),
)
_SEED = Argument("N|random", "set_seed", f"{SEED.allowed}, or random", _seed, ("random",))
_THEME = Argument("NAME", "set_theme", "one of the themes", offers="themes")

COMMANDS = (
    Command("Help", "f1", "help", "help", also=("?", "commands")),
    Command("Models", "f2", "models", "model", _MODEL, also=("models",)),
    Command("Drafting on or off", "ctrl+t", "toggle_drafting", "draft", _DRAFT),
    Command("New chat", "ctrl+n", "new_chat", "new", also=("clear",)),
    Command("Chats", "f4", "chats", "chats", also=("list", "resume", "sessions")),
    Command("Rename this chat", "gives it another title", "rename", "rename", _TITLE, also=("title",)),
    Command("Delete this chat", "/undo brings it back", "delete_chat", "delete"),
    Command("Bring back the chat deleted last", "undoes a deletion", "undo_delete", "undo"),
    Command("Search all chats", "titles and messages", "chats", "search", _WORDS, also=("find",)),
    Command("Export this chat", "as .md or .json", "export", "export", _EXPORT, also=("save",)),
    Command("Import chats", "what an export wrote", "import", "import", _IMPORT, also=("load",)),
    Command("Regenerate the last reply", "ctrl+r", "regenerate", "retry", also=("regenerate",)),
    Command("Edit the last message", "ctrl+up", "edit_last", "edit", _MESSAGE),
    Command("Go on with a stopped reply", "it grows where it is", "go_on", "continue"),
    Command("Another version of this chat: the one before", "alt+left", "walk(-1)"),
    Command("Another version of this chat: the one after", "alt+right", "walk(1)"),
    Command("Copy the last answer", "ctrl+y", "copy_answer", "copy", _COPY),
    Command("Write the prompt in an editor", "ctrl+g", "editor", "editor"),
    Command("Attach a file", "@ in the prompt does the same", "attach", "attach", _ATTACH, also=("file",)),
    Command("Thinking on or off", "before an answer", "toggle_thinking", "think", _THINK),
    Command("System text", "what stands ahead of the chat", "tell_system", "system", _SYSTEM),
    Command("Temperature", "0 always takes the likeliest word", "tell_sampling", "temp", _TEMPERATURE),
    Command("Settings of this chat", "f6", "params", "params", also=("set", "settings", "options")),
    Command("Seed", "the same one, the same reply", "tell_sampling", "seed", _SEED),
    Command("Fold or unfold the thoughts", "ctrl+o", "toggle_thoughts", "thoughts"),
    Command(
        "Compare drafting on and off",
        "replays the last prompt, side by side",
        "ab",
        "ab",
        _COMPARED,
        also=("compare",),
    ),
    Command("Tint of what was drafted on or off", "f5", "toggle_tint", "tint"),
    Command("Gauge panel on or off", "f3", "toggle_panel", "gauges"),
    Command("Theme", "change the colours", "change_theme", "theme", _THEME),
    Command("Paths", "where everything is kept", "paths", "paths"),
    Command("Stop the reply", "escape", "stop", "stop"),
    Command("Send the message", "enter", "send"),
    Command("New line in the prompt", "ctrl+j", "newline"),
    Command("Screenshot", "save the screen as SVG", "screenshot_soon", "screenshot"),
    Command("Quit", "ctrl+q", "quit", "quit", also=("exit", "q", "bye")),
)

SLASH = {command.slash: command for command in COMMANDS if command.slash}
"""The slash commands by name, in the order of the table."""


def slash_table(keys: Mapping[str, str]) -> list[tuple[str, str]]:
    """Every slash command with its argument, and what it does, for the help.

    keys: those that are not the usual ones, by the action they run.
    """
    return [
        (
            f"/{command.slash} {command.argument.shape if command.argument else ''}".rstrip(),
            _meaning(command, keys),
        )
        for command in SLASH.values()
    ]


def _meaning(command: Command, keys: Mapping[str, str]) -> str:
    return f"{command.title} ({keys.get(command.action, command.hint)})"
