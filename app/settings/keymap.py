"""Other keys for what the chat does: names and keys from the file, checked before there is a screen."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from app.settings.keys import DEFAULT_KEYS, NAMED_KEYS, is_for_code, may_share
from app.settings.kinds import quoted
from app.settings.yaml_file import Problems, YamlValue

MODIFIERS = ("ctrl", "alt", "shift", "super", "hyper", "meta")
SAME_BYTES = {"ctrl+i": "tab", "ctrl+m": "enter", "ctrl+[": "escape", "ctrl+h": "backspace"}
"""What a terminal cannot tell from another key."""
KEY_EXAMPLES = "a key such as ctrl+x, alt+x, f5 or shift+enter"


def read_keys(written: YamlValue, problems: Problems, warnings: list[str]) -> Mapping[str, str]:
    """Keys by action, several joined by commas, as Textual's keymap has them."""
    if written.pairs is None:
        problems.add(written.line, "keys holds one line per action, such as `draft: ctrl+x`.")
        return {}
    changed: dict[str, tuple[int, tuple[str, ...]]] = {}
    for action, keys in written.pairs:
        if action not in DEFAULT_KEYS:
            warnings.append(f"{problems.path}, line {keys.line}: {_unknown(action, tuple(DEFAULT_KEYS))}")
        elif found := tuple(_keys_of(action, keys, problems)):
            changed[action] = keys.line, found
    _check_clashes(changed, problems)
    return {action: ",".join(keys) for action, (_, keys) in changed.items()}


def _unknown(action: str, actions: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(action.lower(), actions, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(actions)}."
    return f"{quoted(action)} is nothing that has keys, and is left out. {hint}"


def _keys_of(action: str, written: YamlValue, problems: Problems) -> Iterator[str]:
    if isinstance(written.value, str):
        texts = tuple(text.strip() for text in written.value.split(","))
    elif isinstance(written.value, tuple) and written.pairs in (None, ()):
        texts = tuple(str(text) for text in written.value)
    else:
        texts = ()
    if not texts:
        problems.add(written.line, f"{action} has no key. Use {KEY_EXAMPLES}, or a list of them.")
    for text in texts:
        key = "+".join(part.strip() for part in text.lower().split("+"))
        if key in SAME_BYTES:
            problems.add(written.line, f"{key} is {SAME_BYTES[key]} in a terminal. Use {KEY_EXAMPLES}.")
        elif not (_is_key(key) or (len(key) == 1 and is_for_code(action))):
            problems.add(written.line, f"{action}: {quoted(text)} is no key that can be used. Use {KEY_EXAMPLES}.")
        else:
            yield key


def _is_key(key: str) -> bool:
    *modifiers, name = key.split("+")
    if len(set(modifiers)) != len(modifiers) or not set(modifiers) <= set(MODIFIERS):
        return False
    if len(name) == 1:
        # Alone, or with shift, it is for typing.
        return name.isascii() and name.isprintable() and bool(set(modifiers) - {"shift"})
    return name in NAMED_KEYS


def _check_clashes(changed: Mapping[str, tuple[int, tuple[str, ...]]], problems: Problems) -> None:
    taken = [(key, action) for action, keys in DEFAULT_KEYS.items() if action not in changed for key in keys]
    for action, (line, keys) in changed.items():
        for key in keys:
            for holder in (holder for held, holder in taken if held == key and not may_share(key, action, holder)):
                words = f"{key} is {holder}'s already. Give {action} another key, or {holder} as well."
                problems.add(line, words)
        taken += [(key, action) for key in keys]
