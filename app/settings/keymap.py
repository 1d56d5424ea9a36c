"""A person's own keys, read from the settings file and checked before there is a screen."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from app.settings.keys import DEFAULT_KEYS, NAMED_KEYS, is_for_code, may_share
from app.settings.kinds import quoted
from app.settings.yaml_file import Problems, YamlValue

MODIFIERS = ("ctrl", "alt", "shift", "super", "hyper", "meta")
SAME_BYTES = {"ctrl+i": "tab", "ctrl+m": "enter", "ctrl+[": "escape", "ctrl+h": "backspace"}
"""Keys that send the same bytes as another key."""
KEY_EXAMPLES = "a key such as ctrl+x, alt+x, f5 or shift+enter"


def read_keys(entry: YamlValue, problems: Problems, warnings: list[str]) -> Mapping[str, str]:
    """Keys by action, several joined by commas, in the form of Textual's keymap."""
    if entry.pairs is None:
        problems.add(entry.line, "keys needs one line per action, such as `draft: ctrl+x`.")
        return {}
    changed: dict[str, tuple[int, tuple[str, ...]]] = {}
    for action, keys in entry.pairs:
        if action not in DEFAULT_KEYS:
            warnings.append(f"{problems.path}, line {keys.line}: {_unknown(action, tuple(DEFAULT_KEYS))}")
        elif accepted := tuple(_keys_of(action, keys, problems)):
            changed[action] = keys.line, accepted
    _check_clashes(changed, problems)
    return {action: ",".join(keys) for action, (_, keys) in changed.items()}


def _unknown(action: str, actions: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(action.lower(), actions, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Use one of {', '.join(actions)}."
    return f"{quoted(action)} is not an action that can have keys and was ignored. {hint}"


def _keys_of(action: str, entry: YamlValue, problems: Problems) -> Iterator[str]:
    if isinstance(entry.value, str):
        texts = tuple(text.strip() for text in entry.value.split(","))
    elif isinstance(entry.value, tuple) and entry.pairs in (None, ()):
        texts = tuple(str(text) for text in entry.value)
    else:
        texts = ()
    if not texts:
        problems.add(entry.line, f"{action} has no key. Use {KEY_EXAMPLES}, or a list of keys.")
    for text in texts:
        parts = (part.strip() for part in text.lower().split("+"))
        key = "+".join("escape" if part == "esc" else part for part in parts)
        if key in SAME_BYTES:
            problems.add(entry.line, f"A terminal cannot tell {key} from {SAME_BYTES[key]}. Use {KEY_EXAMPLES}.")
        elif not (_is_key(key) or (len(key) == 1 and is_for_code(action))):
            problems.add(entry.line, f"{action}: {quoted(text)} is not a usable key. Use {KEY_EXAMPLES}.")
        else:
            yield key


def _is_key(key: str) -> bool:
    *modifiers, name = key.split("+")
    if len(set(modifiers)) != len(modifiers) or not set(modifiers) <= set(MODIFIERS):
        return False
    if len(name) == 1:
        # Alone or with shift, the key types a character.
        return name.isascii() and name.isprintable() and bool(set(modifiers) - {"shift"})
    return name in NAMED_KEYS


def _check_clashes(changed: Mapping[str, tuple[int, tuple[str, ...]]], problems: Problems) -> None:
    taken = [(key, action) for action, keys in DEFAULT_KEYS.items() if action not in changed for key in keys]
    for action, (line, keys) in changed.items():
        for key in keys:
            for owner in (owner for other, owner in taken if other == key and not may_share(key, action, owner)):
                message = (
                    f"{key} already belongs to {owner}. Give {action} another key, or change {owner} as well."
                )
                problems.add(line, message)
        taken += [(key, action) for key in keys]
