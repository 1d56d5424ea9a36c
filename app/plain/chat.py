"""The chat line by line, for screen readers and terminals that can only print: `slipstream --plain`.

It prints lines in order, without colours or cursor movement. Everything else is in the core.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Literal

from app.core import attachments, slash
from app.core.attachments import Attachment, AttachmentError, mention_of
from app.core.chat_options import ChatOptions
from app.core.chat_settings import describe_sampling, describe_system_prompt
from app.core.commands import SLASH, Argument, Command
from app.core.conversation import Conversation
from app.core.current_chat import CurrentChat
from app.core.current_pair import NO_REPORT, CurrentPair
from app.core.dialogue import Dialogue
from app.core.dropped_paths import dropped_paths
from app.core.message_files import compose_message
from app.core.models_list import own_and_bundled, pulled_state
from app.core.pair_choice import Choose, PairChoice, absolute
from app.core.phase import Phase
from app.core.reply_settings import ReplySettings
from app.core.reply_view import Severity
from app.core.store_notices import StoreNotices
from app.core.unsaved import keep_unsaved, what_is_unsaved
from app.plain.lines import Lines
from app.plain.report import report
from app.plain.requests import SpokenRequests, number_to_stop
from app.plain.spoken_replies import SpokenReplies, as_typed, attached
from app.report.contents import TerminalFacts
from app.report.making import reported_pair
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat
from app.system.signals import ENDING_SIGNALS
from app.system.terminal_bytes import variables_in
from app.text.sanitise import sanitise_line
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, DraftSetting, Event
from models.hub_cache import cache_folder

LISTED_CHATS = 10

HELP = f"""\
Type a message and press enter. To continue it on the next line, end the line with a backslash.
To attach a text file, write its path after an @, as in @notes.md.
Control c stops the reply; press it twice to quit. Control d quits too.
/help: this text
/draft: turn drafting on or off; /draft auto, /draft off, or a draft length: /draft 1 to /draft {MAX_DRAFT_LENGTH}
/think: turn thinking on or off; /think on, /think off
/system: show the system prompt; /system and a text sets it, /system off removes it
/schema and a file: hold the replies to the JSON schema in it; /schema off ends that, /schema shows it
/temp and /seed: show temperature and seed; set them with /temp 0.7, /temp default, /seed 7, /seed random
/retry: regenerate the last reply
/edit: show your last message; /edit and a text sends that instead
/continue: continue a reply that was stopped
/new: start a new chat
/model: list the models that are here; /model and a name switches to that one
/chats: list the latest chats; /search and words lists those that contain them
/open: open a chat by its number in that list, as in /open 2
/rename and a title: rename this chat
/delete: delete this chat; /undo brings it back
/export: write this chat to a file; add a name that ends in .md or .json to choose its format
/requests: list what the server of this machine answers; /requests stop 2 stops one by its number in that list
/report: measure this machine, and write a report about it that you can send
/quit: quit
To send a message that begins with a slash, put a space or another slash before it."""

_NAMES = (
    "help", "model", "draft", "think", "system", "schema", "temp", "seed", "retry", "edit", "continue", "new",
    "chats", "search", "rename", "delete", "undo", "export", "requests", "report", "quit",
)  # fmt: skip
_OPEN = Command("Open a listed chat", "list_chats", "open", Argument("NUMBER", "open_listed"))
_STOP_REQUEST = Argument("stop N", "stop_request", "stop and a number", number_to_stop)
_REQUESTS = replace(SLASH["requests"], argument=_STOP_REQUEST)
_TABLE = {name: SLASH[name] for name in _NAMES} | {"open": _OPEN, "requests": _REQUESTS}
"""The commands that work without a screen."""

Action = Callable[..., Awaitable[None] | None]


class PlainChat:
    """One conversation over two streams. The caller starts the engine before and closes it afterwards."""

    def __init__(
        self,
        engine: EngineHandle,
        pair: PairChoice,
        options: ChatOptions,
        store: ChatStore,
        lines: Lines,
        *,
        choose: Choose | None = None,
    ) -> None:
        """pair: the one that the engine is loading. choose: finds the pair that /model names; None: /model cannot
        switch."""
        self._engine = engine
        self._options = options
        self._store = store
        self._lines, self._say = lines, lines.say
        self._choose = choose
        self._replies = replies = SpokenReplies(lines)
        conversation = Conversation(store)
        self._notices = StoreNotices(store, self._tell, replies)
        self._dialogue = Dialogue(
            engine,
            conversation,
            CurrentPair(
                engine,
                pair,
                self._tell,
                fallback=options.fallback,
                remember=lambda name: options.remember("model", name, self._tell),
            ),
            ReplySettings(options.settings, conversation),
            replies,
            self._tell,
            self._notices,
            stop_key="control c",
        )
        self._chat = CurrentChat(
            store, self._dialogue, replies, self._tell, self._notices, options.open_chats_path
        )
        self._inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        """None only wakes the reader, to check for an interrupt."""
        self._is_over = False
        self._is_interrupted = False
        self._is_stop_requested = False
        self._exit_code = 0
        """Of a signal that ends the chat; 0: none came."""
        self._refused_message = ""
        """The message that failed because of a file; typed again, it is sent without that file."""
        self._listed: list[Chat] = []
        self._requests = SpokenRequests(self._dialogue.pair, self._say)
        self._actions: dict[str, Action] = self._all_actions()

    def _all_actions(self) -> dict[str, Action]:
        dialogue, chat, change = self._dialogue, self._chat, self._dialogue.change_settings
        return {
            "help": lambda: self._say(HELP),
            "models": self._list_models,
            "switch_model": self._switch_model,
            "toggle_drafting": lambda: self._set_drafting(0 if dialogue.settings.draft_length else "on"),
            "set_drafting": self._set_drafting,
            "toggle_thinking": lambda: change({"think": not dialogue.settings.options.is_thinking}),
            "set_thinking": lambda is_thinking: change({"think": is_thinking}),
            "show_system": lambda: self._say(describe_system_prompt(dialogue.settings.options.system)),
            "set_system": lambda text: change({"system": None if text == "off" else text}),
            "show_schema": lambda: self._say(dialogue.settings.describe_schema()),
            "set_schema": dialogue.use_schema,
            "show_sampling": lambda: self._say(describe_sampling(dialogue.settings.options.sampling)),
            "set_temperature": lambda temperature: change({"temp": temperature}),
            "set_seed": lambda seed: change({"seed": seed}),
            "regenerate": dialogue.regenerate,
            "edit_last": self._show_last_message,
            "edit": self._edit,
            "go_on": dialogue.go_on,
            "new_chat": chat.begin,
            "chats": self._list_chats,
            "list_chats": self._list_chats,
            "open_listed": self._open_listed,
            "rename": chat.rename,
            "delete_chat": chat.delete,
            "undo_delete": chat.undo_delete,
            "export": lambda name=None: chat.export(name),
            "requests": self._requests.show,
            "stop_request": self._requests.stop,
            "report": self._report,
            "quit": self._quit,
        }

    def run(self) -> None:
        """Chat until the person leaves. Raises SlipstreamError if the model cannot be loaded.

        KeyboardInterrupt is raised when a reply is interrupted twice; what it has is stored.
        """
        asyncio.run(self._run())

    async def _run(self) -> None:
        interrupt_handler = signal.signal(signal.SIGINT, self._interrupted)
        end_handlers = {
            number: signal.signal(number, self._ended)
            for number in ENDING_SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        self._engine.on_event = self._inbox.put
        try:
            for notice in self._options.notices:
                self._say(notice)
            await self._load()
            self._notices.check()
            if self._options.chat_id is not None:
                await self._chat.open(self._options.chat_id)
            await self._converse()
        except KeyboardInterrupt:
            self._lines.note_interrupt()
            raise
        finally:
            signal.signal(signal.SIGINT, interrupt_handler)
            self._is_over = True
            self._engine.on_event = None
            with suppress(StoreError):
                self._dialogue.conversation.end("interrupted")
            self._chat.close()
            for number, handler in end_handlers.items():
                signal.signal(number, handler)
            with suppress(OSError):
                self._lines.end_line()

    async def _load(self) -> None:
        pair = self._dialogue.pair
        self._say(f"Asking {pair.choice.title}." if pair.choice.is_served else "Loading the model.")
        await self._wait_for_pair()
        if pair.ready is None:
            raise SlipstreamError(self._replies.load_error)
        self._say(f"Slipstream with {self._pair_words()}. /help lists the commands.")
        if self._options.about_model:
            self._say(self._options.about_model)

    async def _wait_for_pair(self) -> None:
        """Why it could not be loaded is in `load_error` of the replies then."""
        self._replies.load_error, self._replies.is_loading = "", True
        try:
            while self._dialogue.pair.is_loading:
                await self._hear()
        finally:
            self._replies.is_loading = False

    def _pair_words(self) -> str:
        pair = self._dialogue.pair
        if pair.ready and pair.ready.server:
            return f"{sanitise_line(pair.title)}, answered by {pair.ready.server.name}"
        drafter = pair.ready.drafter if pair.ready else None
        return f"{sanitise_line(pair.choice.title)}, " + (
            "without a drafter" if drafter is None else f"drafting with {drafter}"
        )

    async def _converse(self) -> None:
        is_leaving = False
        while not self._is_over:
            try:
                text = self._lines.read_message("You (not saved): " if self._replies.is_cut_off else "You: ")
                is_leaving = False
                if text is None:
                    self._lines.write("\n")
                    self._quit()
                else:
                    await self._obey(text)
                    await self._finish_reply()
            except SlipstreamError as error:
                self._say(str(error))
            except KeyboardInterrupt:
                if is_leaving or self._dialogue.phase.is_replying:
                    raise
                is_leaving = True
                self._say("\nPress control c again to quit.")

    async def _obey(self, text: str) -> None:
        if paths := dropped_paths(text):
            text = " ".join(map(mention_of, paths))
        match slash.parse(text, lambda _: (), _TABLE):
            case slash.Refusal(reason):
                self._say(reason)
            case slash.ParsedCommand() as parsed:
                done = self._actions[parsed.action](*parsed.arguments)
                if done is not None:
                    await done
            case slash.MessageText(message) if message.strip():
                await self._send(message.strip(), self._dialogue.ask)

    def _quit(self) -> None:
        self._is_over = True
        self._offer_to_keep()
        self._say("Goodbye.")

    def _offer_to_keep(self) -> None:
        """Ask where to keep what could not be saved, until it is kept or nothing is typed."""
        self._chat.save()
        unsaved = what_is_unsaved(self._store)
        while unsaved and self._lines.is_prompting:
            self._say(f"{unsaved}. The file of chats cannot be written.")
            name = self._lines.read("Type a file to keep them in, or press enter to quit without them: ")
            if not (name or "").strip():
                return
            try:
                self._say(f"Kept in {keep_unsaved(self._store, str(name).strip())}.")
            except StoreError as error:
                self._say(str(error))
            else:
                return

    # Replies

    async def _send(self, text: str, ask: Callable[[str, int], Awaitable[None]]) -> None:
        """Attach the files that the text mentions, and send it. Raises AttachmentError."""
        message = self._with_files(text)
        try:
            await ask(message, len(text))
        except StoreError as error:
            self._say(f"{error} The message was not sent.")

    async def _finish_reply(self) -> None:
        """Print the running reply to its end."""
        while self._dialogue.phase.is_replying:
            await self._hear()
        self._chat.save()

    async def _hear(self) -> Event | None:
        """Handle the engine's next event."""
        event = self._inbox.get()
        if self._exit_code:
            raise SystemExit(self._exit_code)
        if self._is_interrupted:
            raise KeyboardInterrupt
        if self._is_stop_requested:
            self._is_stop_requested = False
            self._dialogue.stop()
        if event is not None:
            await self._dialogue.hear(event)
        return event

    def _interrupted(self, signum: int, frame: FrameType | None) -> None:
        """Control c: stop the reply; if it is already stopping, quit; without a reply, cancel what is being typed.

        During a reply it does not raise, because nothing may keep the reply from being stored.
        """
        pair = self._dialogue.pair
        if pair.is_silent and (self._dialogue.phase.is_replying or self._replies.is_loading):
            self._is_stop_requested = True  # restarts the engine
        elif not self._dialogue.phase.is_replying:
            raise KeyboardInterrupt
        elif self._dialogue.phase is Phase.STOPPING:
            self._is_interrupted = True
        elif pair.is_loading:
            self._is_stop_requested = True  # it ends the reply at once, so not in the middle of an event
        else:
            self._dialogue.stop()
        self._inbox.put(None)

    def _ended(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGHUP: end, during a reply only once nothing is being stored."""
        is_second, self._exit_code = bool(self._exit_code), 128 + signum
        if self._is_over:
            return
        if is_second or not self._dialogue.phase.is_replying:
            raise SystemExit(self._exit_code)
        self._inbox.put(None)

    def _with_files(self, text: str) -> str:
        is_insisting, self._refused_message = self._refused_message == text, ""
        files: dict[str, Attachment] = {}
        for mention in attachments.mentions(text):
            try:
                file = attachments.read_mention(mention, Path())
            except AttachmentError as error:
                if not is_insisting:
                    self._refused_message = text
                    raise AttachmentError(
                        f"{error} The message was not sent. Type it again to send it without the file."
                    ) from None
                continue
            files[file.mention] = file
        for file in files.values():
            self._say(attached(file))
        return compose_message(text, [*files.values()])

    async def _edit(self, text: str) -> None:
        if self._dialogue.last_message() is not None:
            await self._send(text, self._dialogue.ask_instead)

    def _show_last_message(self) -> None:
        if self._dialogue.last_message() is not None:
            last = self._dialogue.conversation.last
            assert last is not None
            self._say(f"{as_typed(last)}\nUse /edit and a text to send that instead.")

    # Settings and chats

    def _set_drafting(self, setting: DraftSetting | Literal["on"]) -> None:
        if self._dialogue.set_drafting(setting):
            self._say(f"Drafting is {_drafting_words(self._dialogue.settings.draft_length)}.")

    def _list_chats(self, words: str = "") -> None:
        self._listed = self._store.list_chats(words, limit=LISTED_CHATS)
        for number, chat in enumerate(self._listed, 1):
            self._say(f"{number}: {sanitise_line(chat.title)}, {chat.message_count} messages")
        none_listed = "No chat contains these words." if words else "There are no chats yet."
        self._say("To open one, type /open and its number." if self._listed else none_listed)

    async def _open_listed(self, number: str) -> None:
        chat = {str(row): chat for row, chat in enumerate(self._listed, 1)}.get(number)
        if chat is not None:
            await self._chat.open(chat.id)
        elif self._listed:
            self._say(f"Use a number from 1 to {len(self._listed)}; /chats lists them.")
        else:
            self._list_chats()

    # Models

    def _list_models(self) -> None:
        ready = self._dialogue.pair.ready
        if ready is not None and ready.server is not None and not self._dialogue.pair.choice.is_attached:
            self._say(f"Now: {self._pair_words()}.")
            names = ", ".join(map(sanitise_line, ready.server.models)) or "it does not list them"
            self._say(f"Models of the server: {names}. Type /model and a name to switch to one.")
            return
        try:
            catalog, cache = own_and_bundled(), cache_folder()
            here = [name for name, entry in catalog.entries.items() if pulled_state(entry.target, cache) == "yes"]
        except SlipstreamError as error:
            self._say(str(error))
            return
        self._say(f"Now: {self._pair_words()}.")
        self._say(f"On this machine: {', '.join(here)}. Type /model and a name to switch to one.")
        self._say("Run `slipstream models list` for the others, and `slipstream models pull` to get one.")

    async def _switch_model(self, name: str) -> None:
        """Load another model, or go on with this one if that fails."""
        pair = self._dialogue.pair
        if self._choose is None or name == pair.model:
            self._say(f"The model is {self._pair_words()} already.")
            return
        try:
            choice = self._choose(name, False)
        except SlipstreamError as error:
            self._say(str(error))
            return
        is_folder = not choice.is_served and choice.load.target == absolute(name)
        self._dialogue.switch_pair(choice, absolute(name) if is_folder else name)
        self._say(f"Loading {sanitise_line(choice.title)}.")
        await self._wait_for_pair()
        if self._replies.load_error:
            self._say(self._replies.load_error)
        if pair.ready is not None:
            self._say(f"Now: {self._pair_words()}.")

    async def _report(self, name: str | None = None) -> None:
        pair = self._dialogue.pair
        if pair.ready is None:
            self._say("No model is loaded. /retry or /model loads one; then ask for the report again.")
            return
        if pair.ready.server is not None:
            self._say(NO_REPORT)
            return
        await report(
            name,
            engine=self._engine,
            hear=self._hear,
            pair=reported_pair(pair.choice.title, pair.ready),
            examine=self._options.examine,
            terminal=TerminalFacts(size=self._lines.size, variables=variables_in(os.environ)),
            lines=self._lines,
        )

    # To the person

    def _tell(self, message: str, *, severity: Severity = "information", timeout: float | None = None) -> None:
        self._say(message)


def _drafting_words(setting: DraftSetting) -> str:
    if setting == "auto":
        return "automatic: it picks the draft length that is fastest right now"
    if not setting:
        return "off"
    return f"on, {setting} {'token' if setting == 1 else 'tokens'} per round"
