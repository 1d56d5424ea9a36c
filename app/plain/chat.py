"""The chat line by line, for screen readers and terminals that can only print: `slipstream --plain`.

No colour, no cursor movement: lines in, lines out, in order. The engine, the kept chats and the figures are
those of the other chat; only the screen is missing.
"""

from __future__ import annotations

import queue
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Literal, TextIO

from app.core import attachments, slash
from app.core.attachments import Attachment, AttachmentError
from app.core.chat_files import export_chat
from app.core.chat_options import ChatOptions
from app.core.chat_params import ChatParams, changes_in_words, sampling_in_words, system_in_words, with_values
from app.core.commands import SLASH, Argument, Command
from app.core.conversation import Conversation, Exchange
from app.core.incoming import Incoming
from app.core.no_drafter import why_there_is_nothing
from app.core.turn_stats import turn_stats
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat, FinalState
from app.text.figures import spoken_line
from app.text.sanitise import sanitise, sanitise_line
from app.text.sentences import Sentences
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import MAX_DRAFT_LENGTH, DraftSetting, Event, Finished, Generate, Round

LISTED_CHATS = 10

HELP = f"""\
Type a message and press enter. A backslash at the end of a line lets the message go on in the next one.
A path behind an @, as in @notes.md, sends the text of that file with the message.
Control c stops the reply; pressed twice in a row it quits, and so does control d.
/help: this text
/draft: drafting on or off; /draft auto, on, off, or 1 to {MAX_DRAFT_LENGTH}: tokens drafted per round
/think: thinking before an answer on or off; /think on, /think off
/system: the text ahead of the chat; /system and a text gives one, /system off takes it away
/temp and /seed: how words are drawn; /temp 0.7, /temp default, /seed 7, /seed random
/retry: another reply to the last message
/edit: the last message; /edit and a text sends that in its place
/continue: go on with a reply that was stopped
/new: a new chat
/chats: the chats used last; /search and words: those that hold them
/open: a chat by its number in that list, as in /open 2
/rename and a title: another title for this chat
/delete: take this chat out of sight; /undo brings it back
/export: write this chat to a file; /export and a name that ends in .md or .json says which
/quit: quit
A message that begins with a slash is sent if a space or another slash stands before it."""

_NAMES = (
    "help", "draft", "think", "system", "temp", "seed", "retry", "edit", "continue", "new", "chats", "search",
    "rename", "delete", "undo", "export", "quit",
)  # fmt: skip
_OPEN = Command("Open a listed chat", "", "list_chats", "open", Argument("NUMBER", "open_listed"))
_TABLE = {name: SLASH[name] for name in _NAMES} | {"open": _OPEN}
"""What can be done without a screen."""


class NotUtf8Error(SlipstreamError):
    """A line that is not text."""


class PlainChat:
    """One conversation over two streams. Whoever runs it starts the engine before and closes it afterwards."""

    def __init__(
        self,
        engine: EngineHandle,
        title: str,
        options: ChatOptions,
        store: ChatStore,
        streams: tuple[BinaryIO, TextIO],
        *,
        is_prompting: bool = True,
    ) -> None:
        """title: of the pair; streams: what is typed, in UTF-8, and what is said; is_prompting: to a person."""
        self._engine = engine
        self._title = title
        self._options = options
        self._store = store
        self._store_notice: str | None = None
        self._typed, self._out = streams
        self._is_prompting = is_prompting
        self._conversation = Conversation(store, options.system)
        self._params = ChatParams(options)
        self._draft_length_when_on: DraftSetting = options.draft_length or "auto"
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._last_id = 0
        self._incoming = Incoming()
        self._is_replying = False
        self._is_stopping = False
        self._is_over = False
        self._refused = ""
        """What could not be sent with its files; typed once more, it goes without those."""
        self._listed: list[Chat] = []
        self._actions: dict[str, Callable[..., None]] = {
            "help": lambda: self._say(HELP),
            "toggle_drafting": lambda: self._set_drafting(0 if self._options.draft_length else "on"),
            "set_drafting": self._set_drafting,
            "toggle_thinking": lambda: self._change("think", not self._options.is_thinking),
            "set_thinking": lambda is_thinking: self._change("think", is_thinking),
            "tell_system": lambda: self._say(system_in_words(self._options.system)),
            "set_system": lambda text: self._change("system", None if text == "off" else text),
            "tell_sampling": lambda: self._say(sampling_in_words(self._options.sampling)),
            "set_temperature": lambda temperature: self._change("temp", temperature),
            "set_seed": lambda seed: self._change("seed", seed),
            "regenerate": self._retry,
            "edit_last": self._tell_last,
            "edit": self._edit,
            "go_on": self._go_on,
            "new_chat": self._begin_chat,
            "chats": self._list_chats,
            "list_chats": self._list_chats,
            "open_listed": self._open_listed,
            "rename": self._rename,
            "delete_chat": self._delete,
            "undo_delete": self._undo_delete,
            "export": self._export,
            "quit": self._quit,
        }

    def run(self) -> None:
        """Chat until the person leaves. Raises SlipstreamError if the model cannot be loaded.

        KeyboardInterrupt is raised when a reply is interrupted twice; what it has is kept.
        """
        was = signal.signal(signal.SIGINT, self._interrupted)
        self._engine.on_event = self._inbox.put
        try:
            for notice in self._options.notices:
                self._say(notice)
            self._await_pair()
            self._tell_of_store()
            if self._options.chat_id is not None:
                self._open(self._options.chat_id)
            self._converse()
        finally:
            signal.signal(signal.SIGINT, was)
            self._engine.on_event = None
            with suppress(StoreError):
                self._conversation.end("interrupted")

    def _await_pair(self) -> None:
        self._say("Loading the model.")
        while self._incoming.ready is None:
            self._incoming.take(self._inbox.get())
        ready = self._incoming.ready
        drafter = "without a drafter" if ready.drafter is None else f"drafting with {ready.drafter}"
        self._say(f"Slipstream, with {sanitise_line(self._title)}, {drafter}. /help says what can be typed.")
        if self._options.about_model:
            self._say(self._options.about_model)

    def _converse(self) -> None:
        is_leaving = False
        while not self._is_over:
            try:
                text = self._read()
                is_leaving = False
                if text is None:
                    self._write("\n")
                    self._quit()
                else:
                    self._obey(text)
            except (NotUtf8Error, AttachmentError, StoreError) as error:
                self._say(str(error))
            except KeyboardInterrupt:
                if is_leaving or self._is_replying:
                    raise
                is_leaving = True
                self._say("\nPress control c again to quit.")

    def _read(self) -> str | None:
        """What the person typed; None: there is no more to come."""
        lines: list[str] = []
        while True:
            if self._is_prompting:
                self._write("and: " if lines else "You: ")
            data = self._typed.readline()
            if not data:
                return "\n".join(lines) or None
            line = _text(data)
            if not line.endswith("\\"):
                return "\n".join([*lines, line])
            lines.append(line[:-1])

    def _obey(self, text: str) -> None:
        match slash.read(text, lambda _: (), _TABLE):
            case slash.Refuse(words):
                self._say(words)
            case slash.Run() as run:
                self._actions[run.action](*run.values)
            case slash.Say(message) if message.strip():
                self._send(message.strip(), self._conversation.ask)

    def _quit(self) -> None:
        self._is_over = True
        self._say("Goodbye.")

    # Replies

    def _send(self, text: str, keep: Callable[[str], None]) -> None:
        """Attach what the text mentions, keep the message, let the engine answer. Raises AttachmentError."""
        message = self._with_files(text)
        try:
            keep(message)
        except StoreError as error:
            self._say(f"{error} The message was not sent.")
        else:
            self._reply()

    def _with_files(self, text: str) -> str:
        is_insisting, self._refused = self._refused == text, ""
        found: dict[str, Attachment] = {}
        for mention in attachments.mentions(text):
            try:
                file = attachments.find(mention, Path())
            except AttachmentError as error:
                if not is_insisting:
                    self._refused = text
                    raise AttachmentError(
                        f"{error} The message was not sent; typed once more, it goes without the file."
                    ) from None
                continue
            if file is not None:
                found[file.mention] = file
        for file in found.values():
            self._say(_attached(file))
        return attachments.compose(text, [*found.values()])

    def _edit(self, text: str) -> None:
        if self._conversation.last is None:
            self._say("There is no message to change yet.")
        else:
            self._send(text, self._conversation.edit)

    def _tell_last(self) -> None:
        last = self._conversation.last
        if last is None:
            self._say("There is no message to change yet.")
        else:
            self._say(f"{_typed(last)}\n/edit and a text sends that in its place.")

    def _retry(self) -> None:
        if self._conversation.regenerate():
            self._reply()
        else:
            self._say("There is no message to reply to yet.")

    def _go_on(self) -> None:
        if self._conversation.go_on():
            self._reply()
        else:
            self._say("The last reply is complete; there is nothing to go on with.")

    def _reply(self) -> None:
        """Let the engine answer, and say it sentence by sentence."""
        self._last_id += 1
        self._incoming = Incoming(self._incoming.pace, self._incoming.ready)
        state: FinalState = "failed"
        trouble = ""
        self._is_replying, self._is_stopping = True, False
        try:
            self._engine.generate(self._request())
            self._say_reply()
            finished = self._incoming.finished
            state = "complete" if finished and finished.reason == "stop" else "stopped"
        except SlipstreamError as error:
            trouble = str(error)
        incoming = self._incoming
        stats = turn_stats(incoming.stats, incoming.ready, incoming.started, incoming.finished, trouble)
        # An interrupt that comes too late must not come between the reply and the disk.
        self._is_stopping = False
        try:
            self._conversation.end(state, stats)
        finally:
            self._is_replying = False
        if trouble:
            self._say(f"\n{trouble} /retry asks again.")
        else:
            self._say(f"\n{spoken_line(stats)}\n")
        self._tell_of_store()

    def _say_reply(self) -> None:
        sentences = Sentences()
        is_thinking = False
        self._write("Assistant: ")
        while self._incoming.finished is None:
            event = self._inbox.get()
            said = self._incoming.take(event)
            if isinstance(event, Round | Finished):
                self._conversation.append(event.text, event.thinking)
                if event.thinking and not is_thinking:
                    is_thinking = True
                    self._write("thinking. ")
            self._write(sentences.add(said))
        self._write(sentences.finish())

    def _request(self) -> Generate:
        return Generate(
            id=self._last_id,
            messages=self._conversation.to_send(),
            sampling=self._options.sampling,
            draft_length=self._options.draft_length,
            max_tokens=self._options.max_tokens,
            is_thinking=self._options.is_thinking,
        )

    def _interrupted(self, signum: int, frame: FrameType | None) -> None:
        """Control c: stop the reply; while it stops, and where there is none, it is an interrupt."""
        if not self._is_replying or self._is_stopping:
            raise KeyboardInterrupt
        self._is_stopping = True
        self._engine.cancel()

    # Settings and chats

    def _set_drafting(self, setting: DraftSetting | Literal["on"]) -> None:
        ready = self._incoming.ready
        if ready is None or ready.drafter is None:
            self._say(why_there_is_nothing(ready, "switch on"))
            return
        self._params.switch_drafting(self._draft_length_when_on if setting == "on" else setting)
        self._apply()
        self._say(f"Drafting is {_drafting_words(self._options.draft_length)}.")
        self._conversation.keep_params(self._params.stored)

    def _change(self, name: str, value: object) -> None:
        before = self._params.values
        self._params.change({name: value})
        self._apply()
        self._say(changes_in_words(before, self._params.values))
        self._conversation.keep_params(self._params.stored)

    def _apply(self) -> None:
        self._options = with_values(self._options, self._params.values)
        self._conversation.system = self._options.system
        self._draft_length_when_on = self._options.draft_length or self._draft_length_when_on

    def _begin_chat(self) -> None:
        self._conversation.clear()
        self._follow_chat()
        self._say("A new chat.")

    def _follow_chat(self) -> None:
        """Go by the settings that the chat has of its own."""
        if refused := self._params.open(self._conversation.params):
            self._say(f"This chat's {', '.join(refused)} cannot be used: the default holds.")
        self._apply()

    def _list_chats(self, words: str = "") -> None:
        self._listed = self._store.list_chats(words, limit=LISTED_CHATS)
        for number, chat in enumerate(self._listed, 1):
            self._say(f"{number}: {sanitise_line(chat.title)}, {chat.message_count} messages")
        none = "No chat holds these words." if words else "There are no chats yet."
        self._say("/open and a number opens one." if self._listed else none)

    def _open_listed(self, number: str) -> None:
        chat = {str(place): chat for place, chat in enumerate(self._listed, 1)}.get(number)
        if chat is not None:
            self._open(chat.id)
        elif self._listed:
            self._say(f"Use a number from 1 to {len(self._listed)}; /chats lists them.")
        else:
            self._list_chats()

    def _rename(self, title: str) -> None:
        if self._stored_chat() is not None:
            self._conversation.rename(title)
            self._say(f"This chat is now called {title}.")

    def _delete(self) -> None:
        if (chat := self._stored_chat()) is not None:
            self._store.delete(chat.id)
            self._say(f"Deleted: {sanitise_line(chat.title)}. /undo brings it back.")
            self._begin_chat()

    def _undo_delete(self) -> None:
        chat = self._store.undo_delete()
        if chat is None:
            self._say("There is no deleted chat to bring back.")
        else:
            self._open(chat.id)

    def _export(self, name: str | None = None) -> None:
        if (chat := self._stored_chat()) is not None:
            self._say(f"Exported to {export_chat(self._store, chat, name)}.")

    def _stored_chat(self) -> Chat | None:
        """This chat; None, and said: nobody has written in it."""
        if self._conversation.chat is None:
            self._say("This chat is empty: it is kept from its first message on.")
        return self._conversation.chat

    def _open(self, chat_id: int) -> None:
        """Go on with a chat, after a word about where it was."""
        self._conversation.open(chat_id)
        self._follow_chat()
        chat, last = self._conversation.chat, self._conversation.last
        if chat is not None:
            self._say(f"Going on with: {sanitise_line(chat.title)}, {chat.message_count} messages. The last ones:")
        if last is not None:
            self._say(f"{_typed(last)}\nAssistant: {last.text}\n")

    def _tell_of_store(self) -> None:
        if self._store.notice and self._store.notice != self._store_notice:
            self._say(self._store.notice)
        self._store_notice = self._store.notice

    # To the person

    def _say(self, line: str) -> None:
        self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        if text:
            self._out.write(sanitise(text))
            self._out.flush()


def _text(data: bytes) -> str:
    """One line without its end. Raises NotUtf8Error."""
    try:
        return data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise NotUtf8Error(
            f"That line was not sent: it is not UTF-8 (byte {error.start + 1} is {data[error.start]:#04x}). "
            "Set the terminal to UTF-8, or convert the file first, for example with iconv."
        ) from None


def _typed(exchange: Exchange) -> str:
    """What the person typed, and the names of the files that went with it."""
    text, files = attachments.split(exchange.prompt.text)
    return "\n".join([f"You: {text}", *map(_attached, files)])


def _attached(file: Attachment) -> str:
    return f"Attached: {file.figures.replace(' · ', ', ')}."


def _drafting_words(setting: DraftSetting) -> str:
    if setting == "auto":
        return "automatic: as many tokens as pay"
    if not setting:
        return "off"
    return f"on, {setting} {'token' if setting == 1 else 'tokens'} per round"
