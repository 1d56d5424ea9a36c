"""Keys of servers: of `slipstream serve` from what it announces to this machine's programs while it runs, of the
others from the environment or the system's keychain. Never in a file of ours or a log."""

from __future__ import annotations

import os
from contextlib import suppress
from types import ModuleType

from app.remote.address import ServerAddress, ServerError
from app.system import places
from app.system.running_server import can_be_sent, find_server

VARIABLE = "SLIPSTREAM_SERVER_KEY"
SERVICE = "slipstream server"
"""The name of the entries in the keychain; the user of an entry is the server's host and port."""


def key_for(address: ServerAddress) -> str | None:
    """None: there is none, and none is sent. Raises ServerError for one that cannot be sent."""
    own = find_server(places.server_file()) if address.is_this_machine else None
    if own is not None and own.url == address.root:
        return own.key
    if typed := os.environ.get(VARIABLE, "").strip():
        return _checked(typed, VARIABLE)
    keyring = _keyring()
    if keyring is None:
        return None
    # Without a keychain, or with one that is locked, the server says itself that it wants a key.
    stored = None
    with suppress(Exception):
        stored = keyring.get_password(SERVICE, address.shown)
    return _checked(stored, "the keychain") if isinstance(stored, str) and stored else None


def store_key(address: ServerAddress, key: str) -> None:
    """Keep a key in the keychain. Raises ServerError."""
    _checked(key, "what was typed")
    keyring = _keyring()
    if keyring is None:
        raise ServerError(
            f"The keychain needs an extra: `pip install --editable '.[remote]'`. Without it, set {VARIABLE}."
        )
    try:
        keyring.set_password(SERVICE, address.shown, key)
    except Exception as error:
        raise ServerError(f"The keychain does not take the key ({error}). Set {VARIABLE} instead.") from None


def _checked(key: str, place: str) -> str:
    """The key, which is not repeated if it cannot be sent."""
    if not can_be_sent(key):
        raise ServerError(
            f"The key in {place} cannot be sent: it has a space, a line break or a letter with an accent in it. "
            "Copy it again."
        )
    return key


def _keyring() -> ModuleType | None:
    try:
        import keyring
    except ImportError:
        return None
    return keyring
