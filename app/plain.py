"""The chat line by line, for screen readers and terminals that can only print: `slipstream --plain`.

No colour, no cursor movement: lines in, lines out, in order. The engine, the kept chats and the figures are
those of the other chat; only the screen is missing.
"""

from __future__ import annotations

import queue
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import BinaryIO, TextIO

from app.chat_options import ChatOptions
from app.chat_params import ChatParams, with_values
from app.conversation import Conversation
from app.figures import spoken_line
from app.incoming import Incoming
from app.no_drafter import why_there_is_nothing
from app.sanitise import sanitise, sanitise_line
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat, FinalState
from app.turn_stats import turn_stats
from mlx_engine.client import EngineHandle
from mlx_engine.errors import SlipstreamError
from mlx_engine.events import MAX_DRAFT_LENGTH, DraftSetting, Event, Finished, Generate, Round

LISTED_CHATS = 10
LONGEST_HELD = 200
"""A sentence is held back until it is complete, so that it can be read aloud whole; a longer one is not."""
_SENTENCES = re.compile(r".*(?:\n|[.!?:;…](?=\s)|[。！？])", re.DOTALL)
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)

HELP = f"""\
Type a message and press enter. A backslash at the end of a line lets the message go on in the next one.
Control c stops the reply; pressed twice in a row it quits, and so does control d.
/help: this text
/draft: drafting on or off; /draft auto, /draft off, or /draft 1 to {MAX_DRAFT_LENGTH}: tokens drafted per round
/retry: another reply to the last message
/continue: go on with a reply that was stopped
/new: a new chat
/chats: the chats used last
/open: a chat by its number in that list, as in /open 2
/quit: quit
A message that begins with a slash is sent if a space stands before it."""


class Sentences:
    """Holds text back until a sentence or a line is complete. Nothing is lost, nothing is added."""

    def __init__(self) -> None:
        self._held = ""

    def add(self, text: str) -> str:
        """What can be said now."""
        self._held += text
        whole = _SENTENCES.match(self._held)
        end = whole.end() if whole else 0
        if not end and len(self._held) > LONGEST_HELD:
            end = self._held.rfind(" ") + 1
        said, self._held = self._held[:end], self._held[end:]
        return said

    def finish(self) -> str:
        """What is left."""
        said, self._held = self._held, ""
        return said


class NotUtf8Error(ValueError):
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
        self._draft_length = options.draft_length
        self._last_draft_length: DraftSetting = options.draft_length or "auto"
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._last_id = 0
        self._incoming = Incoming()
        self._is_replying = False
        self._is_stopping = False
        self._listed: list[Chat] = []
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: self._say(HELP),
            "draft": self._set_drafting,
            "retry": self._retry,
            "continue": self._go_on,
            "new": self._begin_chat,
            "chats": self._list_chats,
            "open": self._open_listed,
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
        while True:
            try:
                text = self._read()
                is_leaving = False
                if text is None or text.strip() in ("/quit", "/exit"):
                    self._say("Goodbye." if text else "\nGoodbye.")
                    return
                self._obey(text)
            except NotUtf8Error as error:
                self._say(str(error))
            except StoreError as error:
                self._say(f"{error} The message was not sent.")
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
        named = _COMMAND.fullmatch(text)
        if named is None:
            if text.strip():
                self._ask(text.strip())
            return
        command = self._commands.get(named[1])
        if command is None:
            self._say(f"There is no command /{named[1]}. /help lists them; a space before the slash sends it.")
        else:
            command((named[2] or "").strip())

    # Replies

    def _ask(self, text: str) -> None:
        self._conversation.ask(text)
        self._reply()

    def _retry(self, _: str) -> None:
        if self._conversation.regenerate():
            self._reply()
        else:
            self._say("There is no message to reply to yet.")

    def _go_on(self, _: str) -> None:
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
            draft_length=self._draft_length,
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

    def _set_drafting(self, words: str) -> None:
        ready = self._incoming.ready
        if ready is None or ready.drafter is None:
            self._say(why_there_is_nothing(ready, "switch on"))
            return
        if not words:
            self._draft_length = 0 if self._draft_length else self._last_draft_length
        elif words in ("auto", "off"):
            self._draft_length = "auto" if words == "auto" else 0
        elif words.isdecimal() and 1 <= int(words) <= MAX_DRAFT_LENGTH:
            self._draft_length = int(words)
        else:
            self._say(f"{sanitise_line(words)} is not a draft length. Use auto, off, or 1 to {MAX_DRAFT_LENGTH}.")
            return
        self._last_draft_length = self._draft_length or self._last_draft_length
        self._params.switch_drafting(self._draft_length)
        self._conversation.keep_params(self._params.stored)
        self._say(f"Drafting is {_drafting_words(self._draft_length)}.")

    def _begin_chat(self, _: str) -> None:
        self._conversation.clear()
        self._follow_chat()
        self._say("A new chat.")

    def _follow_chat(self) -> None:
        """Go by the settings that the chat has of its own."""
        if refused := self._params.open(self._conversation.params):
            self._say(f"This chat's {', '.join(refused)} cannot be used: the default holds.")
        self._options = with_values(self._options, self._params.values)
        self._conversation.system = self._options.system
        self._draft_length = self._options.draft_length

    def _list_chats(self, _: str) -> None:
        self._listed = self._store.list_chats(limit=LISTED_CHATS)
        for number, chat in enumerate(self._listed, 1):
            self._say(f"{number}: {sanitise_line(chat.title)}, {chat.message_count} messages")
        self._say("/open and a number opens one." if self._listed else "There are no chats yet.")

    def _open_listed(self, words: str) -> None:
        if not self._listed:
            self._list_chats("")
        elif words.isdecimal() and 1 <= int(words) <= len(self._listed):
            self._open(self._listed[int(words) - 1].id)
        else:
            self._say(f"Use a number from 1 to {len(self._listed)}; /chats lists them.")

    def _open(self, chat_id: int) -> None:
        """Go on with a chat, after a word about where it was."""
        self._conversation.open(chat_id)
        self._follow_chat()
        chat, last = self._conversation.chat, self._conversation.last
        if chat is not None:
            self._say(f"Going on with: {sanitise_line(chat.title)}, {chat.message_count} messages. The last ones:")
        if last is not None:
            self._say(f"You: {last.prompt.text}\nAssistant: {last.text}\n")

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


def _drafting_words(setting: DraftSetting) -> str:
    if setting == "auto":
        return "automatic: as many tokens as pay"
    if not setting:
        return "off"
    return f"on, {setting} {'token' if setting == 1 else 'tokens'} per round"
