"""`slipstream chats cache`: what the engine has on disk of each chat, and how to delete it."""

from __future__ import annotations

import argparse
import json

from app.store.chat_store import ChatStore
from app.system import places
from app.system.console import say, say_json, warn
from app.system.exit_codes import OK
from app.text.figures import size
from app.text.sanitise import sanitise_line
from mlx_engine.files.chat_cache_folder import ChatCacheFolder


def list_or_clear(store: ChatStore, options: argparse.Namespace) -> int:
    """Raises StoreError."""
    folder = ChatCacheFolder(places.chat_cache_folder())
    if options.clear:
        freed_bytes = folder.clear()
        if options.json:
            say_json(json.dumps({"freed_bytes": freed_bytes}))
        else:
            say(f"freed: {size(freed_bytes).strip()}")
        return OK
    cached = folder.chats()
    if options.json:
        chats = [{"chat_id": chat.chat_id, "size_bytes": chat.size_bytes} for chat in cached]
        say_json(json.dumps({"folder": str(folder.folder), "size_bytes": folder.size_bytes, "chats": chats}))
        return OK
    if not cached:
        warn("Nothing is kept of any chat yet.")
        return OK
    titles = {chat.id: chat.title for chat in store.list_chats(limit=-1)}
    for chat in cached:
        title = sanitise_line(titles.get(chat.chat_id, "")) or "Untitled"
        say(f"{chat.chat_id:>5}  {size(chat.size_bytes):>8}  {title}")
    say(f"{'total':>5}  {size(folder.size_bytes):>8}  {folder.folder}")
    return OK
