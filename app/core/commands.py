"""The commands of the chat: one table for the palette, the slash commands and the help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.settings.keys import Keymap, key_of_action
from app.settings.table import DRAFT_START, SEED, TEMPERATURE
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, DraftSetting


@dataclass(frozen=True, slots=True)
class Argument:
    """What may follow a slash command."""

    syntax: str
    """`on|off`, `FILE`."""
    action: str
    """The Textual action that is run with the value."""
    allowed: str = ""
    """The values in words, for an error message."""
    parse: Callable[[str], object] = str
    """From the typed text to the value. Raises ValueError."""
    choices: tuple[str, ...] = ()
    """Offered while a person types, and accepted in any case; in small letters."""
    completes: Literal["", "files", "models", "themes"] = ""
    """What else is offered; it depends on the machine."""
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One row."""

    title: str
    action: str
    """The Textual action that is run if there is no argument."""
    slash: str = ""
    """Its name after a slash; empty: it is in the palette only."""
    argument: Argument | None = None
    hint: str = ""
    """What it does, in a few words; empty: its key is shown instead."""
    aliases: tuple[str, ...] = ()
    """Names that other programs use."""


def _drafting(text: str) -> DraftSetting | Literal["on"]:
    if text in ("auto", "on"):
        return "auto" if text == "auto" else "on"
    return 0 if text == "off" else int(DRAFT_START.parse(text))


def _draft_length(text: str) -> DraftSetting:
    return "auto" if text == "auto" else int(DRAFT_START.parse(text))


def _is_on(text: str) -> bool:
    return {"on": True, "off": False}[text]


def _is_code(text: str) -> bool:
    return {"code": True, "answer": False}[text]


def _temperature(text: str) -> float | None:
    return None if text == "default" else TEMPERATURE.parse(text)


def _seed(text: str) -> int | None:
    return None if text == "random" else int(SEED.parse(text))


_MODEL = Argument("NAME", "switch_model", completes="models")
_DRAFT = Argument(
    f"auto|on|off|1..{MAX_DRAFT_LENGTH}",
    "set_drafting",
    f"auto, on, off or 1 to {MAX_DRAFT_LENGTH}",
    _drafting,
    ("auto", "on", "off", *map(str, range(1, MAX_DRAFT_LENGTH + 1))),
)
_COMPARED_LENGTH = Argument(
    f"auto|1..{MAX_DRAFT_LENGTH}",
    "ab",
    f"auto or 1 to {MAX_DRAFT_LENGTH}",
    _draft_length,
    ("auto", *map(str, range(1, MAX_DRAFT_LENGTH + 1))),
)
_TITLE = Argument("TITLE", "rename", "a title", is_required=True)
_SEARCH = Argument("WORDS", "chats")
_EXPORT = Argument("FILE", "export", completes="files")
_IMPORT = Argument("FILE", "import", "an exported file", completes="files", is_required=True)
_ATTACH = Argument("FILE", "attach", "a text file", completes="files", is_required=True)
_REPORT = Argument("FILE", "report", completes="files")
_MESSAGE = Argument("TEXT", "edit")
_COPY = Argument("answer|code", "copy", "answer, or code for its last code block", _is_code, ("answer", "code"))
_THINK = Argument("on|off", "set_thinking", "on or off", _is_on, ("on", "off"))
_SYSTEM = Argument("TEXT|off", "set_system", choices=("off",))
_SCHEMA = Argument("FILE|off", "set_schema", completes="files", choices=("off",))
_TEMPERATURE = Argument(
    "T|default",
    "set_temperature",
    f"{TEMPERATURE.allowed}, or default",
    _temperature,
    ("0", "0.7", "1", "default"),
)
_SEED = Argument("N|random", "set_seed", f"{SEED.allowed}, or random", _seed, ("random",))
_THEME = Argument("NAME", "set_theme", completes="themes")

COMMANDS = (
    Command("Help", "help", "help", aliases=("?", "commands")),
    Command("Models", "models", "model", _MODEL, aliases=("models",)),
    Command("Turn drafting on or off", "toggle_drafting", "draft", _DRAFT),
    Command("New chat", "new_chat", "new", aliases=("clear",)),
    Command("Chats", "chats", "chats", aliases=("list", "resume", "sessions")),
    Command("Rename this chat", "rename", "rename", _TITLE, "give it another title", ("title",)),
    Command("Delete this chat", "delete_chat", "delete", hint="/undo brings it back"),
    Command("Bring back the last deleted chat", "undo_delete", "undo", hint="undo /delete"),
    Command("Search all chats", "chats", "search", _SEARCH, "titles and messages", ("find",)),
    Command("Export this chat", "export", "export", _EXPORT, "as .md or .json", ("save",)),
    Command("Import chats", "import", "import", _IMPORT, "from an exported file", ("load",)),
    Command("Regenerate the last reply", "regenerate", "retry", aliases=("regenerate",)),
    Command("Edit your last message", "edit_last", "edit", _MESSAGE),
    Command("Continue a stopped reply", "go_on", "continue", hint="from where it stopped"),
    Command("Previous version of this chat", "walk(-1)"),
    Command("Next version of this chat", "walk(1)"),
    Command("Copy the last answer", "copy_answer", "copy", _COPY),
    Command("Open the prompt in your editor", "editor", "editor"),
    Command("Attach a file", "attach", "attach", _ATTACH, "or type @ in the prompt", ("file",)),
    Command("Turn thinking on or off", "toggle_thinking", "think", _THINK, "let the model think first"),
    Command("System prompt", "show_system", "system", _SYSTEM, "instructions for this chat"),
    Command("JSON schema", "show_schema", "schema", _SCHEMA, "what replies have to match"),
    Command("Temperature", "show_sampling", "temp", _TEMPERATURE, "0 always picks the most likely token"),
    Command("Settings of this chat", "params", "params", aliases=("set", "settings", "options")),
    Command("Seed", "show_sampling", "seed", _SEED, "the same seed gives the same reply"),
    Command("Fold or unfold the thoughts", "toggle_thoughts", "thoughts"),
    Command(
        "Compare drafting on and off",
        "ab",
        "ab",
        _COMPARED_LENGTH,
        "replay your last message, side by side",
        ("compare",),
    ),
    Command("Show or hide what was drafted", "toggle_tint", "tint"),
    Command(
        "Show all figures of the replies, or few", "toggle_figures", "figures", hint="a click on the line too"
    ),
    Command("Show or hide the gauge panel", "toggle_panel", "gauges"),
    Command("Theme", "change_theme", "theme", _THEME, "change the colours"),
    Command("Report about this machine", "report", "report", _REPORT, "measures, shows and writes it"),
    Command("Paths", "paths", "paths", hint="where files are kept"),
    Command("Requests that a server answers", "requests", "requests"),
    Command("Stop the reply", "stop", "stop"),
    Command("Send the message", "send"),
    Command("New line in the prompt", "newline"),
    Command("Screenshot", "screenshot_soon", "screenshot", hint="save the screen as SVG"),
    Command("Quit", "quit", "quit", aliases=("exit", "q", "bye")),
)

SLASH = {command.slash: command for command in COMMANDS if command.slash}
"""The slash commands by name, in the order of the table."""


def slash_table(keymap: Keymap) -> list[tuple[str, str]]:
    """Every slash command with its argument, and what it does, for the help."""
    return [(_usage(command), f"{command.title} ({hint(command, keymap)})") for command in SLASH.values()]


def hint(command: Command, keymap: Keymap) -> str:
    """What it does in a few words, or its key."""
    return command.hint or key_of_action(command.action, keymap)


def _usage(command: Command) -> str:
    return f"/{command.slash} {command.argument.syntax}" if command.argument else f"/{command.slash}"
