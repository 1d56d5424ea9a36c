"""Says replies and chats line by line: what the core shows through a ReplyView."""

from __future__ import annotations

from app.core.attachments import Attachment
from app.core.conversation import Conversation, Exchange
from app.core.message_files import split_message
from app.core.reply_view import ReplyView
from app.core.turn_stats import RUNNING_ELSEWHERE, spoken_line
from app.plain.lines import Lines
from app.store.records import FinalState, TurnStats
from app.text.sanitise import sanitise_line
from app.text.sentences import Sentences
from mlx_engine.protocol.events import Finished, Part, Round


class SpokenReplies(ReplyView):
    """Sentence by sentence, so that a screen reader reads them whole."""

    def __init__(self, lines: Lines) -> None:
        self.is_cut_off = False
        """The file of chats cannot be written; the prompt says it."""
        self.is_loading = False
        """While a model is being loaded, an error is why that failed: it is kept in `load_error`, not said."""
        self.load_error = ""
        self._lines = lines
        self._sentences = Sentences()
        self._is_thinking_said = False

    async def begin_reply(self, text: str, thinking: str) -> None:
        """See ReplyView."""
        self._sentences = Sentences()
        self._is_thinking_said = False
        self._lines.write("Assistant: ")

    def grow_reply(self, part: Round | Part | Finished) -> None:
        """See ReplyView."""
        if part.thinking and not self._is_thinking_said:
            self._is_thinking_said = True
            self._lines.write("thinking. ")
        self._lines.write(self._sentences.add(part.text))

    def end_reply(self, stats: TurnStats, state: FinalState, *, is_empty: bool) -> None:
        """See ReplyView."""
        if state != "failed":
            self._lines.write(self._sentences.finish())
            self._lines.say(f"\n{spoken_line(stats)}\n")

    def show_cut_off(self, is_cut_off: bool) -> None:
        """See ReplyView."""
        self.is_cut_off = is_cut_off

    async def show_error(self, message: str) -> None:
        """See ReplyView."""
        if self.is_loading:
            self.load_error = message
        else:
            self._lines.say(f"\n{message} /retry asks again.")

    async def show_chat(self, conversation: Conversation) -> None:
        """See ReplyView. Says only the last exchange."""
        say, chat, last = self._lines.say, conversation.chat, conversation.last
        if chat is None:
            say("A new chat.")
        else:
            say(f"Continuing {sanitise_line(chat.title)}, {chat.message_count} messages. The last exchange:")
        if last is not None:
            say(f"{as_typed(last)}\nAssistant: {last.text}\n")
            if last.reply and last.reply.state in ("stopped", "interrupted"):
                say("This reply was stopped. /continue continues it.\n")
            if last.reply and last.reply.state == "generating":
                say(f"This reply is {RUNNING_ELSEWHERE}.\n")


def as_typed(exchange: Exchange) -> str:
    """The person's message, and the names of its files."""
    text, files = split_message(exchange.prompt.text, exchange.prompt.typed_characters)
    return "\n".join([f"You: {text}", *map(attached, files)])


def attached(file: Attachment) -> str:
    """That a file goes with a message."""
    return f"Attached: {file.summary.replace(' · ', ', ')}."
