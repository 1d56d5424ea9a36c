"""Which value each setting has and where it comes from.

Later sources win: defaults, what was chosen in the chat, the file, the environment, flags.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.settings.keymap import read_keys
from app.settings.kinds import quoted
from app.settings.table import NO_SERVER, Setting, Settings, table, variable_of
from app.settings.yaml_file import Problems, YamlValue, read_file
from app.system import places

DEFAULT = "default"
REMEMBERED = "chosen in the chat"
PREFIX = variable_of("")
VARIABLES_OF_OTHERS = frozenset({"SLIPSTREAM_HOME", "SLIPSTREAM_SERVER_KEY"})


@dataclass(frozen=True, slots=True)
class EffectiveSettings:
    """The values that apply."""

    settings: Settings
    sources: Mapping[str, str]
    """Where each value comes from, by the setting's name, as text for people."""
    path: Path
    """The person's settings file, which need not exist."""
    warnings: tuple[str, ...] = ()
    """One sentence about each entry that was ignored."""

    @property
    def has_server(self) -> bool:
        """Whether a server is named."""
        return self.settings.server not in (None, NO_SERVER)

    def is_set_by_person(self, name: str) -> bool:
        """Whether the file, the environment or a flag sets it."""
        return self.sources[name] not in (DEFAULT, REMEMBERED)


def read_settings(
    typed: Mapping[str, Any] | None = None,
    remembered: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> EffectiveSettings:
    """Combine all sources. Raises SettingsError with every problem in the file and the environment.

    typed: the values of flags; None where a flag was not given.
    remembered: what was chosen in the chat.
    """
    problems = Problems(path or places.config_file())
    warnings: list[str] = []
    layers = (
        _set_values(remembered or {}, lambda setting, value: REMEMBERED),
        _from_file(problems, warnings),
        _from_environment(os.environ if environment is None else environment, problems, warnings),
        _set_values(typed or {}, _flag_of),
    )
    values: dict[str, Any] = {}
    sources = dict.fromkeys(table(), DEFAULT)
    for layer in layers:
        for name, value, source in layer:
            values[name], sources[name] = value, source
    settings = Settings(**values)
    _check_send_key(settings, problems)
    problems.check()
    return EffectiveSettings(settings, sources, problems.path, tuple(warnings))


def _check_send_key(settings: Settings, problems: Problems) -> None:
    """Keys that a person assigns must not clash with those that follow from send_key."""
    taken = {settings.send_key, "ctrl+s"} if settings.send_key != "enter" else set()
    for action, keys in (settings.keys or {}).items():
        for key in sorted(taken.intersection(keys.split(","))):
            if action != "send":
                problems.elsewhere.append(
                    f"{key} is assigned to {action}, but send_key makes it send. Use another key for {action}."
                )


def _set_values(
    values: Mapping[str, Any], source: Callable[[Setting, Any], str]
) -> Iterator[tuple[str, Any, str]]:
    for name, setting in table().items():
        if values.get(name) is not None:
            yield name, values[name], source(setting, values[name])


def _flag_of(setting: Setting, value: Any) -> str:
    return setting.flag if value is not False else f"--no-{setting.flag.removeprefix('--')}"


def _from_file(problems: Problems, warnings: list[str]) -> Iterator[tuple[str, Any, str]]:
    known = {name: setting for setting in table().values() for name in setting.names}
    lines: dict[str, int] = {}
    for name, entry in read_file(problems.path, problems):
        if name not in known:
            warnings.append(f"{problems.path}, line {entry.line}: {_unknown(name, tuple(known))}")
            continue
        setting = known[name]
        if entry.value is None:
            continue
        if setting.name in lines:
            first_line = lines[setting.name]
            problems.add(
                entry.line, f"{name} sets {setting.name} again, after line {first_line}. Remove one of the two."
            )
            continue
        lines[setting.name] = entry.line
        source = f"{problems.path.name}, line {entry.line}"
        if setting.info.kind is None:
            yield setting.name, read_keys(entry, problems, warnings), source
        else:
            for value in _parsed(setting, entry, problems):
                yield setting.name, value, source


def _parsed(setting: Setting, entry: YamlValue, problems: Problems) -> Iterator[Any]:
    """The value; nothing, and a problem, if it cannot be used."""
    kind = setting.info.kind
    assert kind is not None
    if not isinstance(entry.value, str):
        problems.add(entry.line, f"{setting.name} takes a single value. Use {kind.allowed}.")
        return
    try:
        yield kind.parse(entry.value)
    except ValueError:
        problems.add(entry.line, f"{setting.name} is {quoted(entry.value)}. Use {kind.allowed}.")


def _from_environment(
    environment: Mapping[str, str], problems: Problems, warnings: list[str]
) -> Iterator[tuple[str, Any, str]]:
    known = {
        variable_of(name): variable_of(name).removeprefix(PREFIX)
        for setting in table().values()
        if setting.variable
        for name in setting.names
    }
    for setting in table().values():
        if setting.info.kind is None:
            continue
        for name in setting.names:
            text = environment.get(variable_of(name), "")
            if not text.strip():
                continue
            try:
                yield setting.name, setting.info.kind.parse(text), variable_of(name)
            except ValueError:
                allowed = setting.info.kind.allowed
                problems.elsewhere.append(f"{variable_of(name)} is {quoted(text)}. Use {allowed}, or unset it.")
            break
    for name in environment:
        if name.startswith(PREFIX) and name not in known and name not in VARIABLES_OF_OTHERS:
            near = difflib.get_close_matches(name.removeprefix(PREFIX), known.values(), n=1, cutoff=0.8)
            if near:
                warnings.append(
                    f"The environment variable {quoted(name)} has no effect. Did you mean {PREFIX}{near[0]}?"
                )


def _unknown(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Run `slipstream settings` to list all settings."
    return f"{quoted(name)} is not a setting and was ignored. {hint}"
