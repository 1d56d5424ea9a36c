"""`slipstream chats`: stored chats from the command line. Needs no engine and no screen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from app.core.chat_files import imported_line
from app.core.turn_stats import RUNNING_ELSEWHERE
from app.shell import chats_cache
from app.store import transfer
from app.store.chat_store import ChatStore
from app.store.errors import NotStoredError, StoreError
from app.store.records import Chat, NewChat, StoredMessage
from app.system import places
from app.system.console import say, say_json, warn
from app.system.exit_codes import OK, WRONG_USAGE
from app.text.figures import local_time
from app.text.folding import folded
from app.text.sanitise import sanitise_line
from mlx_engine.files.chat_cache_folder import ChatCacheFolder

NO_LIMIT = -1
MAX_CANDIDATES = 5
"""Chats listed in the error for an ambiguous title."""

Subcommand = Callable[[ChatStore, argparse.Namespace], int]


def add_parser(subparsers: Any) -> None:
    """Register `chats` and its subcommands."""
    parser = subparsers.add_parser("chats", help="list, show, search, export, import or delete stored chats")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = _add(
        commands, "list", _list, "list chats, most recently used first (same as `slipstream chats` alone)"
    )
    listing.add_argument("words", nargs="*", metavar="WORD", help="only chats that contain all of these words")
    show = _add(commands, "show", _show, "print a chat, in the version that was shown last")
    show.add_argument("chat", metavar="CHAT", help="its number or title")
    show.add_argument("--thoughts", action="store_true", help="also print the model's thoughts")
    search = _add(commands, "search", _search, "search the messages of all chats, newest first")
    search.add_argument("words", nargs="+", metavar="WORD", help="words that a message must contain")
    for command, limit in ((listing, 100), (search, 20)):
        command.add_argument(
            "--limit", type=_count, default=limit, metavar="N", help=f"show at most N (default: {limit})"
        )
    export = _add(commands, "export", _export, "export chats as Markdown or JSON, for reading or importing")
    export.add_argument("chats", nargs="*", metavar="CHAT", help="number or title of a chat (default: all chats)")
    export.add_argument(
        "--json", action="store_true", help="export as JSON (default: Markdown, unless FILE ends in .json)"
    )
    export.add_argument("--output", metavar="FILE", type=Path, help="write to FILE (default: standard output)")
    export.add_argument("--force", action="store_true", help="replace FILE if it exists")
    export.add_argument(
        "--shown", action="store_true", help="export only the version of each chat that was shown last"
    )
    importing = _add(
        commands, "import", _import, "import chats from exports of Slipstream, ChatGPT, Claude, llm and oterm"
    )
    importing.add_argument("files", nargs="+", metavar="FILE", help="an exported file; - reads standard input")
    remove = _add(commands, "rm", _remove, "delete chats; --undo restores them for 30 days")
    remove.add_argument("chats", nargs="*", metavar="CHAT", help="number or title of a chat")
    remove.add_argument("--undo", action="store_true", help="restore the chat that was deleted last")
    cache = _add(
        commands, "cache", chats_cache.list_or_clear, "list or clear what makes reopened chats answer at once"
    )
    cache.add_argument("--clear", action="store_true", help="delete it; the chats themselves stay")
    for command in (listing, show, search, importing, remove, cache):
        command.add_argument("--json", action="store_true", help="print one JSON object")


def _add(commands: Any, name: str, subcommand: Subcommand, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help)
    parser.set_defaults(command=lambda options: _run(subcommand, options))
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used. Use a number from 1 to 1000000000")
    return int(text)


def _run(subcommand: Subcommand, options: argparse.Namespace) -> int:
    """Run a subcommand on the store. Raises SlipstreamError."""
    store = ChatStore.open(places.chats_database(), cache=ChatCacheFolder(places.chat_cache_folder()))
    try:
        if store.notice:
            warn(store.notice)
        return subcommand(store, options)
    finally:
        store.close()


def _list(store: ChatStore, options: argparse.Namespace) -> int:
    chats = store.list_chats(" ".join(options.words), limit=options.limit)
    if options.json:
        _say_json({"chats": chats})
    elif not chats:
        warn("No chat contains these words." if options.words else "There are no chats yet.")
    for chat in chats if not options.json else ():
        say(f"{chat.id:>5}  {_date(chat.updated_s)}  {chat.message_count:>4} messages  {_title(chat)}")
    return OK


def _show(store: ChatStore, options: argparse.Namespace) -> int:
    chat = _find(store, options.chat)
    messages = store.path(chat.id)
    if options.json:
        _say_json({"chat": chat, "messages": messages})
        return OK
    say(f"# {_title(chat)}\n")
    for message in messages:
        say(_message_text(message, options.thoughts))
    return OK


def _message_text(message: StoredMessage, has_thoughts: bool) -> str:
    notes = [f"{message.sibling}/{message.siblings}"] if message.siblings > 1 else []
    state = RUNNING_ELSEWHERE if message.state == "generating" else message.state
    notes += [state] if state != "complete" else []
    speaker = "You" if message.role == "user" else "Reply"
    head = f"{speaker} ({', '.join(notes)}):" if notes else f"{speaker}:"
    thoughts = f"[thoughts]\n{message.thinking}\n[answer]\n" if has_thoughts and message.thinking else ""
    return f"{head}\n{thoughts}{message.text}\n"


def _search(store: ChatStore, options: argparse.Namespace) -> int:
    hits = store.search(" ".join(options.words), limit=options.limit)
    if options.json:
        _say_json({"hits": hits})
    elif not hits:
        warn("No message contains these words.")
    for hit in hits if not options.json else ():
        say(f"{hit.chat_id:>5}  {_date(hit.created_s)}  {sanitise_line(hit.title) or 'Untitled'}: {hit.excerpt}")
    return OK


def _export(store: ChatStore, options: argparse.Namespace) -> int:
    chats = [_find(store, name) for name in options.chats] or list(reversed(store.list_chats(limit=NO_LIMIT)))
    is_json = options.json or (options.output is not None and transfer.is_json(options.output))
    write = transfer.export_json if is_json else transfer.export_markdown
    text = write(store, [chat.id for chat in chats], is_whole=not options.shown)
    if options.output is None:
        say(text, end="")
        return OK
    advice = "Choose another name, or use --force to replace it."
    transfer.write_file(options.output, text, options.force, advice)
    warn(f"exported {len(chats)} {'chat' if len(chats) == 1 else 'chats'} to {options.output}")
    return OK


def _import(store: ChatStore, options: argparse.Namespace) -> int:
    # Read all files before storing anything, so that a bad file leaves the store as it was.
    new = [chat for name in options.files for chat in _read(name)]
    _refuse_unsaved(store)
    imported = store.import_new(new)
    _refuse_unsaved(store)
    if options.json:
        _say_json({"imported": imported.added, "already_here": imported.known, "grown": imported.grown})
    elif imported.known or imported.grown:
        warn(imported_line(imported))
    for chat in [*imported.added, *imported.grown] if not options.json else ():
        say(f"{chat.id:>5}  {chat.message_count:>4} messages  {_title(chat)}")
    return OK


def _read(name: str) -> Sequence[NewChat]:
    if name == "-":
        if sys.stdin is None:
            raise StoreError("Standard input is closed. Name a file to import.")
        return transfer.read_bytes(sys.stdin.buffer.read(), "standard input")
    return transfer.read_file(Path(name))


def _remove(store: ChatStore, options: argparse.Namespace) -> int:
    if options.undo == bool(options.chats):
        warn("name the chats to delete (slipstream chats rm 3), or use --undo to restore the last one deleted")
        return WRONG_USAGE
    _refuse_unsaved(store)
    if options.undo:
        restored = store.undo_delete()
        if restored is None:
            raise NotStoredError("There is no deleted chat to restore.")
        chats, key, label = [restored], "back", "restored"
    else:
        chosen = {chat.id: chat for chat in (_find(store, name) for name in options.chats)}
        chats, key, label = list(chosen.values()), "deleted", "deleted"
        for id in chosen:
            store.delete(id)
    _refuse_unsaved(store)
    if options.json:
        _say_json({key: chats})
    for chat in chats if not options.json else ():
        say(f"{label}: {chat.id} {_title(chat)}")
    return OK


def _refuse_unsaved(store: ChatStore) -> None:
    if not store.is_saving:
        raise StoreError(store.notice or "Chats cannot be changed right now.")


def _find(store: ChatStore, name: str) -> Chat:
    """The chat with this number or title, or the only one whose title contains `name`. Raises NotStoredError."""
    chats = store.list_chats(limit=NO_LIMIT)
    query = folded(name).strip()
    for matches in (
        [chat for chat in chats if str(chat.id) == query],
        [chat for chat in chats if folded(chat.title) == query],
        [chat for chat in chats if query and query in folded(chat.title)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise NotStoredError(_ambiguous(name, matches))
    hint = "Run `slipstream chats list` to see them." if chats else "There are no chats yet."
    raise NotStoredError(f"There is no chat {sanitise_line(name)!r}. {hint}")


def _ambiguous(name: str, matches: Sequence[Chat]) -> str:
    listed = ", ".join(f"{chat.id} ({_title(chat)})" for chat in matches[:MAX_CANDIDATES])
    more = f" and {len(matches) - MAX_CANDIDATES} more" if len(matches) > MAX_CANDIDATES else ""
    return f"{sanitise_line(name)!r} matches {len(matches)} chats: {listed}{more}. Use the number of one."


def _title(chat: Chat) -> str:
    return sanitise_line(chat.title) or "Untitled"


def _date(moment_s: float) -> str:
    when = local_time(moment_s)
    return "unknown date    " if when is None else f"{when:%Y-%m-%d %H:%M}"


def _say_json(content: object) -> None:
    say_json(msgspec.json.encode(content).decode())
