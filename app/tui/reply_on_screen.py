"""Shows the dialogue on the screen: its phase in the top line, messages and replies in the transcript."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from app.core.conversation import Conversation
from app.core.current_pair import CurrentPair
from app.core.phase import Phase
from app.core.queued_messages import QueuedMessage
from app.core.reply_view import ReplyView, Tell
from app.core.store_notices import storing
from app.core.turn_stats import reply_line, short_line
from app.settings.table import Notify
from app.store.records import FinalState, StoredMessage, TurnStats
from app.tui.bars.top_line import NO_DRAFTER
from app.tui.chat_view import ChatView
from app.tui.prompt.prompt import Prompt
from app.tui.terminal.safe_app import SafeApp
from app.tui.transcript.turn import ReplyWidget
from mlx_engine.protocol.events import Finished, Part, Ready, Round

LONG_REPLY_S = 10.0
"""A person who waits longer than this may have gone to another window."""


class ReplyOnScreen(ReplyView):
    """The ReplyView of the Textual chat."""

    def __init__(
        self, view: ChatView, pair: CurrentPair, conversation: Conversation, tell: Tell, notify: Notify = "off"
    ) -> None:
        """notify: what happens when a long reply ends while another window has the focus."""
        self._view = view
        self._pair = pair
        self._conversation = conversation
        self._tell = tell
        self._notify = notify
        self._started_s = 0.0
        self._phase: Phase | None = None
        self.reply: ReplyWidget | None = None
        """None while no reply is running."""

    def show_phase(self, phase: Phase, status: str, *, is_error: bool) -> None:
        """See ReplyView. Also shows the pair."""
        line, ready = self._view.top_line, self._pair.ready
        line.model = self._pair.title
        line.drafter = _drafter_words(ready) if ready else None
        line.say(status, is_error=is_error)
        if phase is not self._phase:
            self._phase = phase
            self._view.screen.refresh_bindings()

    async def show_message(self, message: StoredMessage, *, replaces_last: bool) -> None:
        """See ReplyView."""
        self._view.top_line.version = ""  # shown again when the versions can be walked
        if replaces_last:
            await self._view.transcript.drop_turn()
        await self._view.transcript.add_turn(message.text, message.typed_characters)

    async def begin_reply(self, text: str, thinking: str) -> None:
        """See ReplyView."""
        turn = self._view.transcript.last_turn
        assert turn is not None
        self._view.transcript.show_version((1, 1), None)
        self._started_s = monotonic()
        self._view.top_line.version = ""
        self._view.transcript.follow()
        self.reply = await turn.begin_reply()
        self.reply.think(thinking)
        self.reply.write(text)

    def grow_reply(self, part: Round | Part | Finished) -> None:
        """See ReplyView."""
        if self.reply is None:
            return
        self.reply.think(part.thinking)
        if isinstance(part, Round):
            self._view.transcript.count_new(len(part.token_ids))
            self.reply.write(part.text, part.drafted_characters, is_copied=part.is_copied)
        else:
            self.reply.write(part.text)

    def end_reply(self, stats: TurnStats, state: FinalState, *, is_empty: bool) -> None:
        """See ReplyView."""
        if self.reply is not None:
            broke_off = state == "failed"
            lines = short_line(stats, broke_off=broke_off), reply_line(stats, broke_off=broke_off)
            self.reply.finish(*(("", "") if is_empty else lines), can_go_on=state == "stopped")
            self._show_version()
            if monotonic() - self._started_s >= LONG_REPLY_S and isinstance(app := self._view.app, SafeApp):
                app.call_attention(self._notify, "Slipstream: the reply has ended.")
        self.reply = None

    async def show_error(self, message: str) -> None:
        """See ReplyView."""
        await self._view.transcript.add_error(message)

    def give_back(self, text: str, mentions: Sequence[str]) -> None:
        """See ReplyView."""
        self._view.composer.prompt.offer(text, mentions)

    def edit_again(self, message: StoredMessage) -> None:
        """See ReplyView. A text that is being typed stays; up has the message then."""
        if not self._view.composer.prompt.text:
            self._view.composer.edit(message)

    def show_queue(self, queued: Sequence[QueuedMessage]) -> None:
        """See ReplyView."""
        self._view.queue_line.show(queued)

    def send_queued(self, message: QueuedMessage) -> None:
        """See ReplyView."""
        self._view.composer.submit(Prompt.Submitted(message.text, message.mentions))

    def return_queue(self, queued: Sequence[QueuedMessage]) -> None:
        """See ReplyView. A text that is being typed stays; up has the messages then."""
        prompt = self._view.composer.prompt
        if prompt.text:
            plural = "s were" if len(queued) > 1 else " was"
            self._tell(f"{len(queued)} queued message{plural} not sent. Press up to get the text back.")
        else:
            prompt.take_back(queued)

    async def show_chat(self, conversation: Conversation) -> None:
        """See ReplyView. Stops editing a message of the previous chat; up brings the text back."""
        if self._view.composer.prompt.is_editing:
            self._view.composer.prompt.discard()
        self._view.has_news = True
        await self._view.transcript.show(conversation.exchanges)
        self._show_version()

    def show_cut_off(self, is_cut_off: bool) -> None:
        """See ReplyView."""
        self._view.top_line.is_cut_off = is_cut_off

    def show_title(self, title: str) -> None:
        """See ReplyView."""
        self._view.top_line.title = title

    def _show_version(self) -> None:
        with storing(self._tell):
            number, count = version = self._conversation.version
            self._view.top_line.version = f"version {number}/{count}" if count > 1 else ""
            self._view.transcript.show_version(version, self._conversation.last_branch)


def _drafter_words(ready: Ready) -> str:
    """The drafter's name, or the server that may have one."""
    return ready.server.name if ready.server else ready.drafter or NO_DRAFTER
