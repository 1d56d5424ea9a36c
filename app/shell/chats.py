"""`slipstream chats`: the stored conversations from the shell. Knows nothing of engine or screen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from app.store import transfer
from app.store.chat_store import ChatStore
from app.store.errors import NotStoredError, StoreError
from app.store.records import Chat, NewChat, StoredMessage
from app.system import places
from app.system.console import say, say_json, warn
from app.system.exit_codes import OK, WRONG_USAGE
from app.text.figures import local_time
from app.text.sanitise import sanitise_line

EVERY = -1
"""As a limit: no limit."""
MOST_NAMED = 5
"""Chats listed in a question which of them is meant."""

Subcommand = Callable[[ChatStore, argparse.Namespace], int]


def add_parser(subparsers: Any) -> None:
    """Add `chats` and its subcommands; each sets `command`, which takes the options and returns the exit code."""
    parser = subparsers.add_parser("chats", help="list, show, search, export, import or delete stored chats")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = _add(
        commands, "list", _list, "list chats, the one last used first (what `slipstream chats` alone does)"
    )
    listing.add_argument("words", nargs="*", metavar="WORD", help="only chats that hold all of these words")
    show = _add(commands, "show", _show, "print the branch of a chat that is shown")
    show.add_argument("chat", metavar="CHAT", help="number or title")
    show.add_argument("--thoughts", action="store_true", help="print the thoughts too")
    search = _add(commands, "search", _search, "find messages in all chats, the newest first")
    search.add_argument("words", nargs="+", metavar="WORD", help="what a message must hold")
    for command, limit in ((listing, 100), (search, 20)):
        command.add_argument(
            "--limit", type=_count, default=limit, metavar="N", help=f"at most N (default: {limit})"
        )
    export = _add(commands, "export", _export, "write chats as Markdown or JSON, which can be imported again")
    export.add_argument("chats", nargs="*", metavar="CHAT", help="number or title (default: all chats)")
    export.add_argument("--json", action="store_true", help="JSON (default: Markdown, or as FILE ends)")
    export.add_argument("--output", metavar="FILE", type=Path, help="write here (default: standard output)")
    export.add_argument("--force", action="store_true", help="replace FILE if it exists")
    export.add_argument("--shown", action="store_true", help="only the branches that are shown")
    importing = _add(commands, "import", _import, "add the chats of an export, Markdown or JSON")
    importing.add_argument("files", nargs="+", metavar="FILE", help="what an export wrote; - is standard input")
    remove = _add(commands, "rm", _remove, "delete chats; for 30 days --undo brings them back")
    remove.add_argument("chats", nargs="*", metavar="CHAT", help="number or title")
    remove.add_argument("--undo", action="store_true", help="bring back the chat that was deleted last")
    for command in (listing, show, search, importing, remove):
        command.add_argument("--json", action="store_true", help="print one JSON object")


def _add(commands: Any, name: str, subcommand: Subcommand, words: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=words)
    parser.set_defaults(command=lambda options: _run(subcommand, options))
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000000")
    return int(text)


def _run(subcommand: Subcommand, options: argparse.Namespace) -> int:
    """Raises SlipstreamError with what went wrong."""
    store = ChatStore.open(places.chats_database())
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
        warn("No chat holds these words." if options.words else "There are no chats yet.")
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
        say(_as_words(message, options.thoughts))
    return OK


def _as_words(message: StoredMessage, has_thoughts: bool) -> str:
    notes = [f"{message.sibling}/{message.siblings}"] if message.siblings > 1 else []
    notes += [message.state] if message.state != "complete" else []
    speaker = "You" if message.role == "user" else "Reply"
    head = f"{speaker} ({', '.join(notes)}):" if notes else f"{speaker}:"
    thoughts = f"[thoughts]\n{message.thinking}\n[answer]\n" if has_thoughts and message.thinking else ""
    return f"{head}\n{thoughts}{message.text}\n"


def _search(store: ChatStore, options: argparse.Namespace) -> int:
    hits = store.search(" ".join(options.words), limit=options.limit)
    if options.json:
        _say_json({"hits": hits})
    elif not hits:
        warn("No message holds these words.")
    for hit in hits if not options.json else ():
        say(f"{hit.chat_id:>5}  {_date(hit.created_s)}  {sanitise_line(hit.title) or 'Untitled'}: {hit.excerpt}")
    return OK


def _export(store: ChatStore, options: argparse.Namespace) -> int:
    chats = [_find(store, name) for name in options.chats] or list(reversed(store.list_chats(limit=EVERY)))
    is_json = options.json or (options.output is not None and transfer.is_json(options.output))
    write = transfer.export_json if is_json else transfer.export_markdown
    text = write(store, [chat.id for chat in chats], is_whole=not options.shown)
    if options.output is None:
        say(text, end="")
        return OK
    advice = "Choose another name, or allow it to be replaced with --force."
    transfer.write_file(options.output, text, options.force, advice)
    warn(f"{len(chats)} {'chat' if len(chats) == 1 else 'chats'} written to {options.output}")
    return OK


def _import(store: ChatStore, options: argparse.Namespace) -> int:
    # All files are read before anything is stored.
    new = [chat for name in options.files for chat in _read(name)]
    _refuse_unsaved(store)
    chats = store.import_chats(new)
    _refuse_unsaved(store)
    if options.json:
        _say_json({"imported": chats})
    for chat in chats if not options.json else ():
        say(f"{chat.id:>5}  {chat.message_count:>4} messages  {_title(chat)}")
    return OK


def _read(name: str) -> Sequence[NewChat]:
    if name == "-":
        return transfer.read_bytes(sys.stdin.buffer.read(), "standard input")
    return transfer.read_file(Path(name))


def _remove(store: ChatStore, options: argparse.Namespace) -> int:
    if options.undo == bool(options.chats):
        warn("name the chats to delete, or --undo to bring the last one back: slipstream chats rm 3")
        return WRONG_USAGE
    _refuse_unsaved(store)
    if options.undo:
        back = store.undo_delete()
        if back is None:
            raise NotStoredError("No chat has been deleted.")
        chats, words = [back], "back"
    else:
        named = {chat.id: chat for chat in (_find(store, name) for name in options.chats)}
        chats, words = list(named.values()), "deleted"
        for id in named:
            store.delete(id)
    _refuse_unsaved(store)
    if options.json:
        _say_json({words: chats})
    for chat in chats if not options.json else ():
        say(f"{words}: {chat.id} {_title(chat)}")
    return OK


def _refuse_unsaved(store: ChatStore) -> None:
    if not store.is_saving:
        raise StoreError(store.notice or "The chats cannot be changed.")


def _find(store: ChatStore, name: str) -> Chat:
    """The chat of this number or title, or the only one whose title holds `name`. Raises NotStoredError."""
    chats = store.list_chats(limit=EVERY)
    wanted = name.casefold().strip()
    for found in (
        [chat for chat in chats if str(chat.id) == wanted],
        [chat for chat in chats if chat.title.casefold() == wanted],
        [chat for chat in chats if wanted and wanted in chat.title.casefold()],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise NotStoredError(_which(name, found))
    hint = "`slipstream chats list` shows them" if chats else "there are none yet"
    raise NotStoredError(f"There is no chat {sanitise_line(name)!r}: {hint}.")


def _which(name: str, found: Sequence[Chat]) -> str:
    listed = ", ".join(f"{chat.id} ({_title(chat)})" for chat in found[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f"{sanitise_line(name)!r} fits {len(found)} chats: {listed}{more}. Name one by its number."


def _title(chat: Chat) -> str:
    return sanitise_line(chat.title) or "Untitled"


def _date(moment_s: float) -> str:
    when = local_time(moment_s)
    return "unknown date    " if when is None else f"{when:%Y-%m-%d %H:%M}"


def _say_json(content: object) -> None:
    say_json(msgspec.json.encode(content).decode())
