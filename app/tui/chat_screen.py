"""The screen of the chat: passes the person's messages and the engine's events to the dialogue.

The actions of keys and commands are in `ChatActions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing, suppress
from functools import cached_property, partial

from textual import events, on, work
from textual.app import ComposeResult
from textual.message import Message

from app.core.chat_options import ChatOptions
from app.core.commands import Command
from app.core.conversation import SAVE_INTERVAL_S, Conversation
from app.core.current_chat import CurrentChat
from app.core.current_pair import CurrentPair
from app.core.dialogue import Dialogue
from app.core.downloads import Downloads
from app.core.models_list import own_and_bundled
from app.core.pair_choice import Choose, PairChoice
from app.core.phase import Phase
from app.core.prompt_history import PromptHistory
from app.core.reply_settings import ReplySettings
from app.core.reply_view import Severity
from app.core.requests import count_words, requests_of_pair
from app.core.store_notices import StoreNotices, storing
from app.remote.address import ServerError
from app.remote.requests import ServerRequests
from app.settings.keys import CHAT_KEYS, Keymap, key_names, keys_of
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.text.sanitise import cleaned
from app.tui.actions import ChatActions
from app.tui.bars.top_line import NAME, TopLine
from app.tui.chat_view import ChatView
from app.tui.keys import bindings, prefer
from app.tui.mailbox import Mailbox
from app.tui.pauses import ROUNDS_S
from app.tui.prompt.composer import Composer
from app.tui.prompt.prompt import Prompt
from app.tui.reply_on_screen import ReplyOnScreen
from app.tui.screens.models import PullReported
from app.tui.transcript.code_block import CodeBlock
from app.tui.transcript.transcript import Transcript
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Counted, Died, Event, Failed, Measured, Part, Round
from models.pull import PullEvent

WELCOME = f"""\
{NAME}

Type a message below; {{send}} sends it, {{stop}} stops the reply.
/ for commands, @ for files, {{draft}} for drafting; {{help}} explains the rest."""

APP_ACTIONS = ("change_theme", "copy_answer", "quit", "screenshot_soon", "set_theme")
"""Actions of commands that are the app's, because they concern more than this screen."""


class EngineReported(Message):
    """The mailbox has events to fetch."""


class ChatScreen(ChatActions):
    """Lists and settings open in front of it."""

    BINDINGS = bindings(CHAT_KEYS)

    def __init__(
        self,
        engine: EngineHandle,
        pair: PairChoice,
        choose: Choose,
        options: ChatOptions,
        store: ChatStore,
        keymap: Keymap,
    ) -> None:
        """pair: the one that the engine is loading. keymap: the person's own keys."""
        super().__init__()
        prefer(self._bindings, keymap)
        self.choose = choose
        self.options = options
        self.store = store
        self.wants_panel = options.state.values.has_panel
        self._engine = engine
        self._mail = Mailbox(lambda: self.post_message(EngineReported()))
        conversation = Conversation(store)
        settings = ReplySettings(options.settings, conversation)
        current_pair = CurrentPair(
            engine,
            pair,
            self._tell,
            fallback=options.fallback,
            in_thread=partial(self.run_worker, thread=True, exit_on_error=False),
            remember=lambda name: options.remember("model", name, self._tell),
        )
        self.composer = Composer(PromptHistory(options.history_path), self._names_for)
        keys = {id: key_names(id, keymap)[0] for id in ("send", "stop", "draft", "help")}
        about = f"\n\n{options.about_model}" if options.about_model else ""
        transcript = Transcript(WELCOME.format(**keys) + about)
        self.view = ChatView(TopLine(pair.title), transcript, self.composer)
        self.reply_view = ReplyOnScreen(self.view, current_pair, conversation, self._tell, options.settings.notify)
        self._notices = StoreNotices(store, self._tell, self.reply_view)
        self.dialogue = Dialogue(
            engine,
            conversation,
            current_pair,
            settings,
            self.reply_view,
            self._tell,
            self._notices,
            stop_key=keys["stop"],
        )
        self.chat = CurrentChat(
            store, self.dialogue, self.reply_view, self._tell, self._notices, options.open_chats_path
        )
        self.view.follow(self.dialogue)
        self.downloads = Downloads(self._report_pull, self._show_pull)
        self.prompt.use_keys(keys_of("send", keymap), keys_of("newline", keymap))

    def compose(self) -> ComposeResult:
        yield self.view

    def on_mount(self) -> None:
        """Focus the prompt, listen to the engine, and open the requested chat."""
        self.set_focus(self.prompt)  # at once, because what was typed before the first frame comes with it
        self.view.top_line.say(Phase.LOADING.value)
        self._engine.on_event = self._mail.put
        self.set_interval(SAVE_INTERVAL_S, self.chat.save)
        self.call_after_refresh(self._begin)

    async def _begin(self) -> None:
        self._notices.check()
        for notice in self.options.notices:
            self._tell(notice, severity="warning", timeout=20)
        if self.options.chat_id is not None:
            await self.chat.open(self.options.chat_id)

    def leave(self) -> None:
        """Stop listening, and store the draft and what a running reply has.

        Called when the app ends, after its screens.
        """
        self._engine.on_event = None
        self.prompt.keep_draft()
        self.downloads.stop()()
        with suppress(StoreError):
            for event in self._mail.fetch():
                self.dialogue.keep(event)
            self.dialogue.conversation.end("interrupted")
        self.chat.close()

    def _report_pull(self, number: int, event: PullEvent) -> None:
        """Called on the pull's thread."""
        self.post_message(PullReported(number, event))

    def _show_pull(self) -> None:
        self.view.top_line.pull = self.downloads.brief

    def on_resize(self, event: events.Resize) -> None:
        self.view.fit(*event.size, self.wants_panel)

    # The engine

    async def on_engine_reported(self) -> None:
        """Handle the events so far. After a round, the next ones are collected for a moment."""
        if not self.app.screen_stack:
            return  # the app is ending; `leave` stores what a running reply has
        for event in self._mail.fetch():
            if isinstance(event, Round | Part) and not self._mail.is_collecting:
                self._mail.is_collecting = True
                self.set_timer(ROUNDS_S, self._fetch_collected)
            await self._hear(event)

    async def _fetch_collected(self) -> None:
        self._mail.is_collecting = False
        if self._mail.has_events:
            await self.on_engine_reported()

    async def _hear(self, event: Event) -> None:
        self.view.has_news = True
        if isinstance(event, Counted):
            self.composer.counted(event.id, event.tokens)
            return
        if isinstance(event, Measured | Failed | Died):
            self.tell_report(event)
        before = self.dialogue.pair.ready
        await self.dialogue.hear(event)
        ready = self.dialogue.pair.ready
        if ready is not None and ready is not before:
            self.composer.recount(ready.context_tokens)
            self._count_requests(requests_of_pair(self.dialogue.pair))

    @work(exclusive=True, group="requests", exit_on_error=False)
    async def _count_requests(self, requests: ServerRequests | None) -> None:
        """Keep the number of other programs' requests in the top line. requests: None: there is no such server."""
        self.view.top_line.requests = ""
        if requests is None:
            return
        # The chat is told by its own engine if the server ends.
        with suppress(ServerError):
            async with aclosing(requests.follow()) as lists:
                async for listed in lists:
                    self.view.top_line.requests = count_words(listed)
        self.view.top_line.requests = ""

    # What the person does

    @on(Composer.MessageReady)
    async def _send(self, event: Composer.MessageReady) -> None:
        """Send a message. One that cannot be stored comes back to the prompt."""
        if not self.composer.take(event.submitted):
            return
        try:
            ask = self.dialogue.ask_instead if event.submitted.is_edit else self.dialogue.ask
            await ask(event.text, event.typed_characters)
        except StoreError as error:
            self.composer.give_back(event.submitted)
            self._tell(str(error), severity="error")
        else:
            self.chat.mark_open()

    @on(Prompt.Refused)
    @on(Composer.AttachmentFailed)
    def _not_sent(self, event: Prompt.Refused | Composer.AttachmentFailed) -> None:
        self._tell(event.reason, severity="warning")

    @on(Composer.CountRequested)
    def _count(self, event: Composer.CountRequested) -> None:
        # While the engine loads it does not read its pipe, and a large text would block this thread.
        if self.dialogue.pair.ready is not None:
            self._engine.count(event.id, cleaned(event.text))

    @on(Prompt.CommandEntered)
    async def _command(self, event: Prompt.CommandEntered) -> None:
        parsed = event.parsed
        mentions = (event.mentions,) if parsed.action == "edit" else ()
        await self.run_command(parsed.action, (*parsed.arguments, *mentions))

    async def run_command(self, action: str, arguments: tuple[object, ...] = ()) -> None:
        """Run the action of a command, here or in the app."""
        target = self.app if action in APP_ACTIONS else self
        await self.app.run_action(("", action, arguments) if arguments else action, target)

    @on(Prompt.WalkRequested)
    async def _walk(self, event: Prompt.WalkRequested) -> None:
        with storing(self._tell):
            if not self.dialogue.phase.is_busy and self.chat.has_versions:
                await self.chat.walk(event.step)

    @on(CodeBlock.LeaveRequested)
    def _leave_code(self, event: CodeBlock.LeaveRequested) -> None:
        self.prompt.focus()
        self.prompt.insert(event.typed)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey out the stop key while there is nothing to stop."""
        if action == "stop" and self.dialogue.phase is Phase.IDLE and not self.dialogue.pair.is_silent:
            return None
        return True

    def _names_for(self, command: Command) -> Sequence[str]:
        match command.argument and command.argument.completes:
            case "themes":
                return sorted(self.app.available_themes)
            case "models":
                return self._model_names
        return ()

    @cached_property
    def _model_names(self) -> Sequence[str]:
        try:
            return sorted(own_and_bundled().entries)
        except SlipstreamError:
            return ()

    def _tell(self, message: str, *, severity: Severity = "information", timeout: float | None = None) -> None:
        self.app.notify(message, severity=severity, timeout=timeout)
