"""Reads a settings file as names, texts and line numbers, with limits on everything that could make it large.

No YAML types are constructed: a value is the text in the file, so that `draft: off` means off and not False, and
there are no objects, anchors or dates to guard against.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from app.settings.errors import SettingsError
from app.settings.kinds import quoted

MAX_FILE_BYTES = 64 << 10
"""Room for a system prompt of several thousand words; PyYAML needs about a second for this much."""
NULL = "tag:yaml.org,2002:null"
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in (
    "null", "bool", "int", "float", "str", "timestamp", "value", "merge", "seq", "map"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class YamlValue:
    """A value in the file: a text, a list of texts, a mapping, or nothing."""

    line: int
    value: str | tuple[str, ...] | tuple[tuple[str, YamlValue], ...] | None

    @property
    def pairs(self) -> tuple[tuple[str, YamlValue], ...] | None:
        """The names and values of a mapping; None for any other value."""
        if isinstance(self.value, tuple) and all(isinstance(item, tuple) for item in self.value):
            return self.value  # type: ignore[return-value]
        return None


@dataclass(slots=True)
class Problems:
    """The problems found while reading the settings."""

    path: Path
    elsewhere: list[str] = field(default_factory=list)
    """Problems outside the file, one sentence each."""
    _lines: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, problem: str) -> None:
        """Add a problem in the file; lines count from 1."""
        self._lines.append((line, f"{self.path}, line {line}: {problem}"))

    def check(self) -> None:
        """Raises SettingsError with all problems, if there are any."""
        messages = [message for _, message in sorted(self._lines)] + self.elsewhere
        if messages:
            raise SettingsError("\n".join(messages))


class _SettingsLoader(yaml.SafeLoader):
    """Refuses aliases, with which a small file can describe a large tree."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not supported", problem_mark=mark)
        return super().compose_node(parent, index)


def read_file(path: Path, problems: Problems) -> tuple[tuple[str, YamlValue], ...]:
    """Names and values; empty if there is no file.

    Raises SettingsError if the file as a whole cannot be read. Problems with single lines are added to `problems`,
    and those lines are skipped.
    """
    node = _compose(path, _text(path))
    if node is None or _is_null(node):
        return ()
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        raise SettingsError(f"{path}, line {line}: this is not a setting. Write settings as `name: value`.")
    return _pairs(node, problems)


def _text(path: Path) -> str:
    try:
        # Reading a pipe could block, and a device never ends.
        if not stat.S_ISREG(path.stat().st_mode):
            raise SettingsError(f"{path} is not a regular file. Put your settings in a file of that name.")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise SettingsError(f"{path} cannot be read: {reason}. Fix that, or move the file away.") from None
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES >> 10} KiB, the limit. Shorten it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not valid UTF-8. Save the file as UTF-8."
        ) from None


def _compose(path: Path, text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_SettingsLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        context = f"{error.context}: " if error.context and error.problem != error.context else ""
        problem = " ".join(f"{context}{error.problem}".split())
        raise SettingsError(f"{path}{where}: invalid YAML: {problem}. Correct it there.") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        code = ord(text[error.position]) if error.position < len(text) else 0
        raise SettingsError(
            f"{path}, line {line}, column {column}: YAML does not allow the character U+{code:04X}. Remove it."
        ) from None
    except RecursionError:
        raise SettingsError(f"{path} is nested too deeply. Write one `name: value` per line.") from None
    # PyYAML raises other errors for some escapes and directives.
    except (yaml.YAMLError, ValueError, IndexError, OverflowError) as error:
        raise SettingsError(f"{path} is not valid YAML: {quoted(str(error))}. Correct it.") from None


def _pairs(node: yaml.MappingNode, problems: Problems) -> tuple[tuple[str, YamlValue], ...]:
    lines: dict[str, int] = {}
    pairs = []
    for name_node, value_node in node.value:
        line = name_node.start_mark.line + 1
        name = name_node.value
        if not isinstance(name_node, yaml.ScalarNode):
            problems.add(line, "expected a name, as in `name: value`.")
        elif name in lines:
            problems.add(line, f"{quoted(name)} is already set in line {lines[name]}. Remove one of the two.")
        else:
            lines[name] = line
            pairs += [(name, value) for value in _values(value_node, line, problems)]
    return tuple(pairs)


def _values(node: yaml.Node, line: int, problems: Problems) -> Iterator[YamlValue]:
    """One value; none, and a problem, if it cannot be used. line: that of its name."""
    if node.tag not in PLAIN_TAGS:
        problems.add(line, f"the tag {quoted(str(node.tag))} is not supported. Remove it.")
    elif isinstance(node, yaml.MappingNode):
        yield YamlValue(line, _pairs(node, problems))
    elif isinstance(node, yaml.SequenceNode):
        if all(isinstance(item, yaml.ScalarNode) and item.tag in PLAIN_TAGS for item in node.value):
            yield YamlValue(line, tuple(item.value for item in node.value))
        else:
            problems.add(line, "a list can only contain single values.")
    else:
        yield YamlValue(line, None if _is_null(node) else node.value)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == NULL
