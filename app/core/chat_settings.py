"""The settings that a chat may have of its own, on top of the defaults.

Only what a chat changes is stored with it; everything else follows the person's settings file. Settings stored
by a newer version, which this one does not know, stay with the chat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.settings.table import per_chat
from mlx_engine.protocol.events import DraftSetting, SamplingOptions

SHOWN_CHARACTERS = 240
SHOWN_LINES = 4
"""More of a system prompt in a notice would cover the chat."""


class ChatSettings:
    """The settings of the open chat, by name."""

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        """defaults: what applies where the chat changes nothing."""
        self.defaults = dict(defaults)
        self._of_this_run: dict[str, Any] = {}
        """Changes until the program ends, in every chat without a setting of its own."""
        self._of_this_chat: dict[str, Any] = {}
        self._unknown: dict[str, Any] = {}

    @property
    def values(self) -> dict[str, Any]:
        """The value of every setting."""
        return self.defaults | self._of_this_run | self._of_this_chat

    @property
    def of_this_run(self) -> Mapping[str, Any]:
        """Changes until the program ends; see `_of_this_run`."""
        return self._of_this_run

    @property
    def stored(self) -> dict[str, Any]:
        """What to store with the chat."""
        return self._unknown | self._of_this_chat

    def open(self, stored: Mapping[str, Any]) -> tuple[str, ...]:
        """Use the settings stored with a chat; the names of those left out because their values are invalid."""
        self._of_this_chat, self._unknown = {}, {}
        invalid = []
        for name, value in stored.items():
            if name not in self.defaults:
                self._unknown[name] = value
            elif _is_valid(name, value):
                self._of_this_chat[name] = value
            else:
                invalid.append(name)
        return tuple(invalid)

    def change(self, values: Mapping[str, Any]) -> None:
        """Set these values in this chat. A value that applies anyway is not stored; a default ends a change of
        this run."""
        for name, value in values.items():
            if value == self.defaults[name]:
                self._of_this_run.pop(name, None)
        without_chat = self.defaults | self._of_this_run
        changed = self._of_this_chat | dict(values)
        self._of_this_chat = {name: value for name, value in changed.items() if value != without_chat[name]}

    def switch_drafting(self, draft_length: DraftSetting) -> None:
        """Change the draft length where it is set: in this chat if it has its own, else in all of this run."""
        if "draft" in self._of_this_chat:
            self._of_this_chat["draft"] = draft_length
        else:
            self._of_this_run["draft"] = draft_length


def describe_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What the next reply does differently, in a sentence."""
    table = per_chat()
    changes = [
        "system prompt" if name == "system" else f"{_label(name)} {table[name].display_text(value)}"
        for name, value in after.items()
        if value != before[name]
    ]
    if not changes:
        return "Nothing has changed."
    listed = ", ".join(changes)
    return f"{listed[0].upper()}{listed[1:]} from your next message."


def describe_system_prompt(system: str | None) -> str:
    """The system prompt, or how to set one."""
    return f"System prompt: {system}" if system else "This chat has no system prompt. Use /system TEXT to set one."


def describe_system_prompt_briefly(system: str | None, settings_key: str) -> str:
    """The same, of a long system prompt only the beginning. settings_key: shows all of it."""
    whole = describe_system_prompt(system)
    beginning = "\n".join(whole[:SHOWN_CHARACTERS].split("\n")[:SHOWN_LINES])
    if system is None or beginning == whole:
        return whole
    return f"{beginning.rstrip()}… ({len(system):,} characters; {settings_key} shows them all)"


def describe_sampling(sampling: SamplingOptions) -> str:
    """Temperature and seed."""
    temperature = "the model's own" if sampling.temperature is None else f"{sampling.temperature:g}"
    seed = "a new one for every reply" if sampling.seed is None else sampling.seed
    return f"Temperature: {temperature}. Seed: {seed}."


def describe_own(values: Mapping[str, Any]) -> str:
    """What people should always see, in a few words: thinking, a system prompt, a temperature of their own."""
    parts = ("thinking" * bool(values["think"]), "system prompt" * bool(values["system"]))
    temperature = "" if values["temp"] is None else f"temp {values['temp']:g}"
    return " · ".join(filter(None, (*parts, temperature)))


def _label(name: str) -> str:
    label = per_chat()[name].label
    return label[0].lower() + label[1:]


def _is_valid(name: str, value: Any) -> bool:
    info = per_chat()[name].info
    assert info.kind is not None
    if value is None:
        return bool(info.unset)
    try:
        info.kind.to_text(value)
    except ValueError:
        return False
    return True
