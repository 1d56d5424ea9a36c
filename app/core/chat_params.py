"""The settings that a chat may have of its own: what holds without it, and what the chat changes.

Only the changes are kept with the chat, so that one that changes nothing follows the person's file. What a chat
holds that this version does not know stays with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.core.chat_options import ChatOptions
from app.settings.table import per_chat
from mlx_engine.protocol.events import SamplingOptions

TOLD_CHARACTERS = 240
TOLD_LINES = 4
"""More of a system text in passing would cover the chat."""


def values_of(options: ChatOptions) -> dict[str, Any]:
    """The values that a request goes by, by the setting's name."""
    sampling = options.sampling
    return {
        "draft": options.draft_length,
        "temp": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "sampling": sampling.rule,
        "seed": sampling.seed,
        "max_tokens": options.max_tokens,
        "think": options.is_thinking,
        "system": options.system,
    }


def with_values(options: ChatOptions, values: Mapping[str, Any]) -> ChatOptions:
    """The same the other way round; more values than these may be given."""
    return replace(
        options,
        sampling=SamplingOptions(
            temperature=values["temp"],
            top_k=values["top_k"],
            top_p=values["top_p"],
            min_p=values["min_p"],
            repetition_penalty=values["repetition_penalty"],
            seed=values["seed"],
            rule=values["sampling"],
        ),
        draft_length=values["draft"],
        max_tokens=values["max_tokens"],
        is_thinking=values["think"],
        system=values["system"] or None,
    )


class ChatParams:
    """What holds in the chat that is open."""

    def __init__(self, options: ChatOptions) -> None:
        self.usual = values_of(options)
        """What holds where the chat changes nothing."""
        self._passing: dict[str, Any] = {}
        """What holds instead as long as the program runs, in every chat that changes nothing."""
        self._changed: dict[str, Any] = {}
        self._unknown: dict[str, Any] = {}

    @property
    def values(self) -> dict[str, Any]:
        """What holds."""
        return self.usual | self._passing | self._changed

    @property
    def stored(self) -> dict[str, Any]:
        """What is to be kept with the chat."""
        return self._unknown | self._changed

    def open(self, stored: Mapping[str, Any]) -> tuple[str, ...]:
        """Go by what a chat has of its own; the names of settings whose values make no sense and are left out."""
        self._changed, self._unknown = {}, {}
        refused = []
        for name, value in stored.items():
            if name not in self.usual:
                self._unknown[name] = value
            elif _makes_sense(name, value):
                self._changed[name] = value
            else:
                refused.append(name)
        return tuple(refused)

    def change(self, values: Mapping[str, Any]) -> None:
        """Have these values in this chat; those that hold anyway are no change. A usual one ends a passing one."""
        for name, value in values.items():
            if value == self.usual[name]:
                self._passing.pop(name, None)
        holding = self.usual | self._passing
        changed = self._changed | dict(values)
        self._changed = {name: value for name, value in changed.items() if value != holding[name]}

    def switch_drafting(self, draft: object) -> None:
        """Have this draft length where drafting is set: in this chat if it has its own, else in all."""
        if "draft" in self._changed:
            self._changed["draft"] = draft
        else:
            self._passing["draft"] = draft


def changes_in_words(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """How the next reply is made otherwise."""
    table = per_chat()
    changes = [
        "system text" if name == "system" else f"{name} {table[name].display_text(value)}"
        for name, value in after.items()
        if value != before[name]
    ]
    return f"From the next message on: {', '.join(changes)}." if changes else "Nothing has changed."


def system_in_words(system: str | None) -> str:
    """What stands ahead of the conversation."""
    return f"The system text: {system}" if system else "There is no system text. /system TEXT gives one."


def system_in_passing(system: str | None, params_key: str) -> str:
    """The same, of a long text the beginning. params_key: shows all of it."""
    told = system_in_words(system)
    beginning = "\n".join(told[:TOLD_CHARACTERS].split("\n")[:TOLD_LINES])
    if system is None or beginning == told:
        return told
    return f"{beginning.rstrip()}… ({len(system):,} characters; {params_key} shows them all)"


def sampling_in_words(sampling: SamplingOptions) -> str:
    """How tokens are drawn."""
    temperature = "the model's own" if sampling.temperature is None else f"{sampling.temperature:g}"
    seed = "a new one every time" if sampling.seed is None else sampling.seed
    return f"Temperature: {temperature}. Seed: {seed}."


def _makes_sense(name: str, value: Any) -> bool:
    about = per_chat()[name].info
    assert about.kind is not None
    if value is None:
        return bool(about.unset)
    try:
        about.kind.to_text(value)
    except ValueError:
        return False
    return True
