"""What could not be saved when the program ends, and keeping it in a file elsewhere."""

from __future__ import annotations

from pathlib import Path

from app.core.chat_files import export_chats
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.text.sanitise import sanitise_line

MOST_NAMED = 3


def what_is_unsaved(store: ChatStore) -> str:
    """The chats with changes that are in memory only, as a clause; empty if there are none. Tries to save them."""
    if store.save_again(is_urgent=True):
        return ""
    try:
        chats = store.unsaved_chats()
    except StoreError:
        return ""
    titles = [f"“{sanitise_line(chat.title) or 'Untitled'}”" for chat in chats[:MOST_NAMED]]
    more = [f"{len(chats) - MOST_NAMED} more"] if len(chats) > MOST_NAMED else []
    count = "1 chat has" if len(chats) == 1 else f"{len(chats)} chats have"
    return f"{count} unsaved messages: {', '.join([*titles, *more])}" if chats else ""


def keep_unsaved(store: ChatStore, name: str) -> Path:
    """Export those chats whole to a file. Returns its path. Raises StoreError."""
    store.kept_path = export_chats(store, [chat.id for chat in store.unsaved_chats()], name)
    return store.kept_path


def last_words(store: ChatStore) -> str:
    """What to say after the program has ended; empty if everything is kept."""
    unsaved = what_is_unsaved(store)
    if not unsaved or store.kept_path is not None:
        return ""
    return f"{unsaved}. They are lost, because the file of chats could not be written."
