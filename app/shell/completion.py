"""`slipstream completion`: prints a script that completes commands, flags and their values in a shell."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.models_list import own_and_bundled
from app.system.console import say
from app.system.exit_codes import OK

_NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
_SENTENCE_END = re.compile(r"[.;(].*", re.DOTALL)

HOW_TO_USE = {
    "zsh": "put `source <(slipstream completion zsh)` into ~/.zshrc, after compinit",
    "bash": "put `source <(slipstream completion bash)` into ~/.bashrc",
    "fish": "run `slipstream completion fish > ~/.config/fish/completions/slipstream.fish`",
}


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of a command, in all its spellings."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    values: tuple[str, ...]
    """The values that are known; none for a number, a text or a file."""


@dataclass(frozen=True, slots=True)
class Completable:
    """What can follow a command."""

    path: str
    """`models pull`; empty: `slipstream` itself."""
    help: str
    commands: tuple[str, ...]
    arguments: tuple[str, ...]
    """Values of its argument that are known."""
    takes_files: bool
    """Whether its argument can be something else, such as a file."""
    flags: tuple[Flag, ...]


def add_parser(subparsers: Any, parser: argparse.ArgumentParser) -> None:
    """Register `completion`. parser: the whole one, read when the command runs."""
    command = subparsers.add_parser(
        "completion", help="print a script that completes commands in zsh, bash or fish"
    )
    command.add_argument("shell", choices=tuple(HOW_TO_USE), help="the shell")
    command.description = "For " + "; for ".join(f"{shell}, {use}" for shell, use in HOW_TO_USE.items()) + "."
    command.set_defaults(command=lambda options: _print(options.shell, parser))


def _print(shell: str, parser: argparse.ArgumentParser) -> int:
    """Raises SlipstreamError if the person's catalog cannot be read."""
    rows = list(_completables(parser, tuple(sorted(own_and_bundled().entries))))
    say(f"# slipstream completion {shell}: {HOW_TO_USE[shell]}.\n{_SCRIPTS[shell](rows)}", end="")
    return OK


def _completables(
    parser: argparse.ArgumentParser, models: Sequence[str], path: str = "", help: str = ""
) -> Iterator[Completable]:
    """A parser and its subcommands, outermost first. The chat's flags work without a command too."""
    nested = next((each for each in parser._actions if isinstance(each, argparse._SubParsersAction)), None)
    parsers: dict[str, argparse.ArgumentParser] = nested.choices if nested else {}
    helps = {each.dest: each.help or "" for each in nested._choices_actions} if nested else {}
    flags = [_flag(each, models) for each in parser._actions if each.option_strings]
    if not path and "chat" in parsers:
        own = {name for flag in flags for name in flag.names}
        flags += [
            _flag(each, models)
            for each in parsers["chat"]._actions
            if each.option_strings and not own & {*each.option_strings}
        ]
    arguments = [each for each in parser._actions if not each.option_strings and each is not nested]
    values = tuple(value for each in arguments for value in _values(each, models))
    takes_files = any(each.choices is None for each in arguments)
    yield Completable(path, _short(help), tuple(parsers), tuple(dict.fromkeys(values)), takes_files, tuple(flags))
    for name, subparser in parsers.items():
        yield from _completables(subparser, models, f"{path} {name}".strip(), helps.get(name, ""))


def _flag(action: argparse.Action, models: Sequence[str]) -> Flag:
    return Flag(
        tuple(action.option_strings), _short(action.help or ""), action.nargs != 0, _values(action, models)
    )


def _values(action: argparse.Action, models: Sequence[str]) -> tuple[str, ...]:
    """The known values: its choices, or the words and numbers of a metavar such as `auto|off|1..16`."""
    if action.nargs == 0:
        return ()
    if action.choices is not None:
        return tuple(map(str, action.choices))
    values: list[str] = []
    for word in str(action.metavar or "").split("|"):
        if numbers := _NUMBERS.fullmatch(word):
            values += map(str, range(int(numbers[1]), int(numbers[2]) + 1))
        elif word == "MODEL" or (word == "NAME" and action.dest == "model"):
            values += models
        elif word and word == word.lower():
            values.append(word)
    return tuple(values)


def _short(help: str) -> str:
    """The beginning of a help text, on one line."""
    return " ".join(_SENTENCE_END.sub("", help.replace("%%", "%")).split())


def _quoted(text: str) -> str:
    """For a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _path_patterns(rows: Sequence[Completable]) -> str:
    return "|".join(f'"{" " * (" " not in row.path)}{row.path}"' for row in rows if row.path)


def _value_cases(rows: Sequence[Completable], answer: Callable[[tuple[str, ...]], str]) -> Iterator[str]:
    """One case per flag with a value, as `PATH:--flag`."""
    for row in rows:
        for flag in row.flags:
            if flag.takes_value:
                patterns = "|".join(f'"{row.path}:{name}"' for name in flag.names)
                yield f"        {patterns}) {answer(flag.values)} ;;"


def _bash(rows: Sequence[Completable]) -> str:
    def listed(names: Sequence[str]) -> str:
        return f'COMPREPLY=($(compgen -W "{" ".join(names)}" -- "$current")); return'

    def offered(row: Completable) -> str:
        flags = [name for flag in row.flags for name in flag.names]
        words = [*row.commands, *row.arguments]
        return f'        "{row.path}") words="{" ".join(words)}"; flags="{" ".join(flags)}" ;;'

    return "\n".join(
        [
            "_slipstream() {",
            "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}",
            "    # --flag=value is three words to bash.",
            '    if [[ $current == "=" ]]; then current=""',
            '    elif [[ $previous == "=" ]]; then previous=${COMP_WORDS[COMP_CWORD-2]}; fi',
            '    local path="" word words="" flags=""',
            '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            '        case "$path $word" in',
            f'            {_path_patterns(rows)}) path="${{path:+$path }}$word" ;;',
            "        esac",
            "    done",
            '    case "$path:$previous" in',
            *_value_cases(rows, lambda values: listed(values) if values else "return"),
            "    esac",
            '    case "$path" in',
            *map(offered, rows),
            "    esac",
            "    [[ $current == -* ]] && words=$flags",
            "    [[ -z $words ]] && return",
            '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
            "}",
            "complete -o default -F _slipstream slipstream",
            "",
        ]
    )


def _zsh(rows: Sequence[Completable]) -> str:
    helps = {row.path: row.help for row in rows}

    def offered(row: Completable) -> Iterator[str]:
        commands = [_quoted(f"{name}:{helps[f'{row.path} {name}'.strip()]}") for name in row.commands]
        flags = [_quoted(f"{name}:{flag.help}") for flag in row.flags for name in flag.names]
        yield f'        "{row.path}")'
        yield f"            offered=({' '.join([*commands, *map(_quoted, row.arguments)])})"
        yield f"            files={'yes' if row.takes_files else 'no'}"
        yield f"            flags=({' '.join(flags)}) ;;"

    return "\n".join(
        [
            "_slipstream() {",
            '    local here="" word files previous=${words[CURRENT-1]}',
            "    local -a offered flags",
            '    for word in "${words[@]:1:$((CURRENT-2))}"; do',
            '        case "$here $word" in',
            f'            {_path_patterns(rows)}) here="${{here:+$here }}$word" ;;',
            "        esac",
            "    done",
            "    if [[ ${words[CURRENT]} == --*=* ]]; then",
            "        previous=${words[CURRENT]%%=*}",
            "        compset -P '*='",
            "    fi",
            '    case "$here:$previous" in',
            *_value_cases(
                rows, lambda values: f"compadd -- {' '.join(values)}; return" if values else "_files; return"
            ),
            "    esac",
            '    case "$here" in',
            *(line for row in rows for line in offered(row)),
            "    esac",
            "    if [[ $PREFIX == -* ]]; then _describe -o flag flags; return; fi",
            "    (( $#offered )) && _describe command offered",
            "    [[ $files == yes ]] && _files",
            "}",
            "compdef _slipstream slipstream",
            "",
        ]
    )


def _fish(rows: Sequence[Completable]) -> str:
    return "\n".join([*(line for row in rows for line in _fish_lines(row, rows)), ""])


def _fish_lines(row: Completable, rows: Sequence[Completable]) -> Iterator[str]:
    helps = {each.path: each.help for each in rows}
    seen = [f"__fish_seen_subcommand_from {name}" for name in row.path.split()]
    if row.commands:
        seen.append(f"not __fish_seen_subcommand_from {' '.join(row.commands)}")
    start = f"complete -c slipstream -n {_quoted('; and '.join(seen))}"
    for name in row.commands:
        yield f"{start} -f -a {name} -d {_quoted(helps[f'{row.path} {name}'.strip()])}"
    if not row.takes_files:
        yield f"{start} -f"
    if row.arguments:
        yield f"{start} -a {_quoted(' '.join(row.arguments))}"
    for flag in row.flags:
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names)
        values = f" -x -a {_quoted(' '.join(flag.values))}" if flag.values else " -r" if flag.takes_value else ""
        yield f"{start} {names}{values} -d {_quoted(flag.help)}"


_SCRIPTS: dict[str, Callable[[Sequence[Completable]], str]] = {"zsh": _zsh, "bash": _bash, "fish": _fish}
