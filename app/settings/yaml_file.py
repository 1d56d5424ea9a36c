"""A settings file, read as text by name, each with its line. Bounded in every way a file can be large.

Nothing is constructed from the tree: a value is the text that stands there, so that `draft: off` means off and not
False, and there are no objects, anchors or dates to beware of.
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
"""Room for a system prompt of some thousand words; PyYAML takes about a second for so much."""
NULL = "tag:yaml.org,2002:null"
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in (
    "null", "bool", "int", "float", "str", "timestamp", "value", "merge", "seq", "map"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class YamlValue:
    """What stands after a name: a text, a list of texts, more names with values, or nothing."""

    line: int
    value: str | tuple[str, ...] | tuple[tuple[str, YamlValue], ...] | None

    @property
    def pairs(self) -> tuple[tuple[str, YamlValue], ...] | None:
        """The names and values, if that is what it is."""
        if isinstance(self.value, tuple) and all(isinstance(each, tuple) for each in self.value):
            return self.value  # type: ignore[return-value]
        return None


@dataclass(slots=True)
class Problems:
    """What is wrong with one file, and beside it."""

    path: Path
    elsewhere: list[str] = field(default_factory=list)
    """What is wrong outside the file."""
    _lines: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, words: str) -> None:
        """One problem, at a line counted from 1."""
        self._lines.append((line, f"{self.path}, line {line}: {words}"))

    def check(self) -> None:
        """Raises SettingsError with all of them, if there are any."""
        told = [words for _, words in sorted(self._lines)] + self.elsewhere
        if told:
            raise SettingsError("\n".join(told))


class _SettingsLoader(yaml.SafeLoader):
    """Composes, and stops at what would make a small file large."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not used here", problem_mark=mark)
        return super().compose_node(parent, index)


def read_file(path: Path, problems: Problems) -> tuple[tuple[str, YamlValue], ...]:
    """Names and what stands after them; nothing if there is no file.

    Raises SettingsError where the file as a whole cannot be read; what is wrong with single lines is added to
    `problems`, and those lines are left out.
    """
    node = _compose(path, _text(path))
    if node is None or _is_null(node):
        return ()
    if not isinstance(node, yaml.MappingNode):
        line = node.start_mark.line + 1
        raise SettingsError(f"{path}, line {line}: there are no settings here. Write them as `name: value`.")
    return _pairs(node, problems)


def _text(path: Path) -> str:
    try:
        # A pipe would have to be waited for, and a device never ends.
        if not stat.S_ISREG(path.stat().st_mode):
            raise SettingsError(f"{path} is not a file. Put the settings into a file of that name.")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        words = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise SettingsError(f"{path} cannot be read: {words}. Correct that, or move the file away.") from None
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES >> 10} KB and was not read. Shorten it.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8. Save the file as UTF-8."
        ) from None


def _compose(path: Path, text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_SettingsLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        context = f"{error.context}: " if error.context and error.problem != error.context else ""
        problem = " ".join(f"{context}{error.problem}".split())
        raise SettingsError(f"{path}{where}: this is not YAML: {problem}. Correct it there.") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        code = ord(text[error.position]) if error.position < len(text) else 0
        raise SettingsError(
            f"{path}, line {line}, column {column}: the character U+{code:04X} may not stand in YAML. Remove it."
        ) from None
    except RecursionError:
        raise SettingsError(f"{path} is nested too deep. Settings are one name and one value to a line.") from None
    # PyYAML stumbles over some escapes and directives in other ways.
    except (yaml.YAMLError, ValueError, IndexError, OverflowError) as error:
        raise SettingsError(f"{path} is not YAML: {quoted(str(error))}. Correct it.") from None


def _pairs(node: yaml.MappingNode, problems: Problems) -> tuple[tuple[str, YamlValue], ...]:
    first_lines: dict[str, int] = {}
    pairs = []
    for name_node, value_node in node.value:
        line = name_node.start_mark.line + 1
        if not isinstance(name_node, yaml.ScalarNode):
            problems.add(line, "a name is expected here, as in `name: value`.")
        elif name_node.value in first_lines:
            first = first_lines[name_node.value]
            problems.add(
                line, f"{quoted(name_node.value)} was set in line {first} already. Remove one of the two."
            )
        else:
            first_lines[name_node.value] = line
            pairs += [(name_node.value, written) for written in _written(value_node, line, problems)]
    return tuple(pairs)


def _written(node: yaml.Node, line: int, problems: Problems) -> Iterator[YamlValue]:
    """One, or none if it is told as a problem. line: where its name stands."""
    if node.tag not in PLAIN_TAGS:
        problems.add(line, f"the tag {quoted(str(node.tag))} is not used here. Remove it.")
    elif isinstance(node, yaml.MappingNode):
        yield YamlValue(line, _pairs(node, problems))
    elif isinstance(node, yaml.SequenceNode):
        if all(isinstance(each, yaml.ScalarNode) and each.tag in PLAIN_TAGS for each in node.value):
            yield YamlValue(line, tuple(each.value for each in node.value))
        else:
            problems.add(line, "a list holds single values only.")
    else:
        yield YamlValue(line, None if _is_null(node) else node.value)


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == NULL
