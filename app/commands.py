"""Everything that can be done in the chat, by name: one table for the palette and whoever else lists it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to do."""

    title: str
    hint: str
    """Its key, or what it does in a few words."""
    action: str
    """What Textual runs, in the chat's own namespace."""


COMMANDS = (
    Command("Drafting on or off", "ctrl+t", "toggle_drafting"),
    Command("Stop the reply", "escape", "stop"),
    Command("Regenerate the last reply", "ctrl+r", "regenerate"),
    Command("Go on with a stopped reply", "it grows where it is", "go_on"),
    Command("Another reply to the last message", "the one before", "walk(-1)"),
    Command("The next reply to the last message", "the one after", "walk(1)"),
    Command("Chats", "f4", "chats"),
    Command("Models", "f2", "models"),
    Command("New chat", "ctrl+n", "new_chat"),
    Command("Copy the last answer", "ctrl+y", "copy_answer"),
    Command("Fold or unfold the thoughts", "ctrl+o", "toggle_thoughts"),
    Command("Send the message", "enter", "send"),
    Command("New line in the prompt", "ctrl+j", "newline"),
    Command("Gauge panel on or off", "f3", "toggle_panel"),
    Command("Tint of what was drafted on or off", "f5", "toggle_tint"),
    Command("Help", "f1", "help"),
    Command("Theme", "change the colours", "change_theme"),
    Command("Screenshot", "save the screen as SVG", "screenshot_soon"),
    Command("Quit", "ctrl+q", "quit"),
)
