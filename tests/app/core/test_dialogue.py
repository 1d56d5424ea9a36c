"""The dialogue without a screen: one phase, what is shown when, and what an engine may do in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from app.core.conversation import Conversation
from app.core.current_chat import CurrentChat
from app.core.current_pair import CurrentPair
from app.core.dialogue import Dialogue
from app.core.phase import Phase
from app.core.queued_messages import QueuedMessage
from app.core.reply_settings import ReplySettings
from app.core.reply_view import ReplyView, Severity
from app.core.store_notices import StoreNotices
from app.settings.table import Settings
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import FinalState, StoredMessage, TurnStats
from mlx_engine.protocol.events import Answering, Event, Failed, Finished, Loading, Part, Round, Silent
from tests.app.tui.pilot import PAIR, choose
from tests.fakes.engine import FakeEngine


class Recorder(ReplyView):
    """Notes what it is told to show."""

    def __init__(self) -> None:
        self.phases: list[tuple[Phase, str]] = []
        self.shown: list[str] = []
        self.queue: list[str] = []
        self.sent: list[str] = []
        self.is_error = False
        self.while_laying_out: Callable[[], None] = lambda: None
        """What happens while the screen makes room for a reply."""
        self.while_showing_message: Callable[[], Awaitable[None] | None] = lambda: None

    def show_phase(self, phase: Phase, status: str, *, is_error: bool) -> None:
        self.phases.append((phase, status))
        self.is_error = is_error

    async def show_message(self, message: StoredMessage, *, replaces_last: bool) -> None:
        self.shown.append(f"{'edited' if replaces_last else 'message'}: {message.text}")
        if (done := self.while_showing_message()) is not None:
            await done

    async def begin_reply(self, text: str, thinking: str) -> None:
        self.shown.append(f"reply: {text}")
        self.while_laying_out()

    def grow_reply(self, part: Round | Part | Finished) -> None:
        self.shown.append(f"+{part.text}")

    def end_reply(self, stats: TurnStats, state: FinalState, *, is_empty: bool) -> None:
        self.shown.append(f"end: {state}{', empty' * is_empty}")

    async def show_error(self, message: str) -> None:
        self.shown.append(f"error: {message}")

    def give_back(self, text: str, mentions: Sequence[str]) -> None:
        self.shown.append(f"back: {text}")

    def edit_again(self, message: StoredMessage) -> None:
        self.shown.append(f"edit: {message.text}")

    def show_queue(self, queued: Sequence[QueuedMessage]) -> None:
        self.queue = [message.text for message in queued]

    def send_queued(self, message: QueuedMessage) -> None:
        self.sent.append(message.text)

    def return_queue(self, queued: Sequence[QueuedMessage]) -> None:
        self.shown.append(f"returned: {[message.text for message in queued]}")

    async def show_chat(self, conversation: Conversation) -> None:
        self.shown.append(f"chat of {len(conversation.exchanges)}")


class Chat:
    """A dialogue with a scripted engine, whose events are heard one by one."""

    def __init__(self, settings: Settings | None = None, *, is_loaded: bool = True) -> None:
        self.engine, self.view, self.store = FakeEngine(), Recorder(), ChatStore.in_memory()
        self.told: list[str] = []
        self.remembered: list[str] = []
        self.conversation = Conversation(self.store)
        self.pair = CurrentPair(self.engine, PAIR, self.tell, remember=self.remembered.append)
        self.dialogue = Dialogue(
            self.engine,
            self.conversation,
            self.pair,
            ReplySettings(settings or Settings(draft=4), self.conversation),
            self.view,
            self.tell,
            StoreNotices(self.store, self.tell),
        )
        self._heard: list[Event] = []
        self.engine.on_event = self._heard.append
        self.is_loaded = is_loaded

    async def __aenter__(self) -> Chat:
        if self.is_loaded:
            self.engine.start()
            await self.hear()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.store.close()

    def tell(self, message: str, *, severity: Severity = "information", timeout: float | None = None) -> None:
        self.told.append(message)

    async def hear(self) -> None:
        """Let the dialogue take what the engine has reported since."""
        while self._heard:
            await self.dialogue.hear(self._heard.pop(0))

    @property
    def phase(self) -> Phase:
        return self.dialogue.phase

    @property
    def states(self) -> list[str]:
        """Of all messages of the chat, in order."""
        chat = self.conversation.chat
        return [message.state for message in self.store.path(chat.id)] if chat else []


async def test_the_phases_of_a_reply() -> None:
    async with Chat(is_loaded=False) as chat:
        assert chat.phase is Phase.LOADING
        chat.engine.emit(Loading("weights", 500_000_000, 2_000_000_000), chat.engine.ready())
        await chat.hear()
        assert chat.view.phases == [(Phase.LOADING, "loading 500 MB of 2.0 GB"), (Phase.IDLE, "ready")]
        chat.view.phases.clear()
        chat.dialogue.begin_message()
        await chat.dialogue.ask("Hi")
        chat.engine.begin(prompt_tokens=12)
        chat.engine.say("", thinking="Hm. ")
        chat.engine.say("Hello")
        chat.engine.finish(text=".")
        await chat.hear()
        assert chat.view.phases == [
            (Phase.READING_FILES, "reading files"),
            (Phase.WAITING, "waiting"),
            (Phase.WAITING, "reading prompt 0 of 12"),
            (Phase.WAITING, "reading prompt 12 of 12"),
            (Phase.REPLYING, "thinking"),
            (Phase.REPLYING, "generating"),
            (Phase.REPLYING, "generating"),
            (Phase.IDLE, "ready"),
        ]
        assert chat.view.shown == ["message: Hi", "reply: ", "+", "+Hello", "+.", "end: complete"]
        assert chat.states == ["complete", "complete"]


async def test_a_reply_is_stopped_once() -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Count")
        chat.engine.say("One")
        await chat.hear()
        chat.dialogue.stop()
        assert chat.phase is Phase.STOPPING
        chat.dialogue.stop()
        chat.engine.say(" two")
        await chat.hear()
        assert chat.phase is Phase.STOPPING, "rounds that were on their way change nothing"
        assert chat.engine.cancels == 1
        chat.engine.finish("cancelled")
        await chat.hear()
        assert chat.view.phases[-1] == (Phase.IDLE, "stopped")
        assert chat.states == ["complete", "stopped"]
        chat.dialogue.leave()
        assert chat.view.phases[-1] == (Phase.IDLE, "ready"), "how it ended is no news in another chat"


async def test_stopping_a_message_that_waits_for_the_model_ends_the_wait() -> None:
    async with Chat(is_loaded=False) as chat:
        await chat.dialogue.ask("Hi")
        assert chat.phase is Phase.WAITING
        chat.dialogue.stop()
        assert chat.phase is Phase.LOADING
        assert chat.states == ["complete", "stopped"]


async def test_rounds_of_an_abandoned_reply_count_nowhere() -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        chat.engine.say("One", drafted=4, accepted=3)
        await chat.hear()
        before = chat.dialogue.gauges.reading()
        assert before.acceptance == pytest.approx(0.75)
        chat.dialogue.abandon()
        chat.engine.say(" two", drafted=4, accepted=0, context_tokens=9999)
        chat.engine.finish()
        await chat.hear()
        assert chat.dialogue.gauges.reading() == before
        assert chat.conversation.last_answer == "One"
        assert chat.states == ["complete", "stopped"]
        assert chat.phase is Phase.IDLE


async def test_a_reply_is_stopped_or_abandoned_while_its_place_is_being_made() -> None:
    async with Chat() as chat:
        chat.view.while_laying_out = chat.dialogue.stop
        await chat.dialogue.ask("Hi")
        assert chat.engine.cancels == 2, "the first was sent before there was a request to cancel"
        chat.engine.finish("cancelled")
        await chat.hear()
        chat.view.while_laying_out = chat.dialogue.abandon
        await chat.dialogue.ask("Again")
        assert [request.messages[-1].text for request in chat.engine.requests] == ["Hi"]
        assert chat.phase is Phase.IDLE


async def test_another_chat_is_begun_while_a_message_is_being_shown() -> None:
    async with Chat() as chat:
        notices = StoreNotices(chat.store, chat.tell)
        current_chat = CurrentChat(chat.store, chat.dialogue, chat.view, chat.tell, notices)
        chat.view.while_showing_message = current_chat.begin
        chat.dialogue.begin_message()
        await chat.dialogue.ask("Hi")
        assert chat.phase is Phase.IDLE
        assert chat.engine.requests == []
        assert chat.view.shown[-1] == "chat of 0", "the message is not left behind in the new chat"
        (stored,) = chat.store.list_chats()
        assert [message.state for message in chat.store.path(stored.id)] == ["complete", "stopped"]


async def test_a_reply_is_stopped_while_its_message_is_being_shown() -> None:
    async with Chat() as chat:
        chat.view.while_showing_message = chat.dialogue.stop
        chat.dialogue.begin_message()
        await chat.dialogue.ask("Hi")
        assert chat.phase is Phase.STOPPING
        assert chat.engine.cancels == 2, "the first was sent before there was a request to cancel"


async def test_only_one_thing_at_a_time() -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        chat.engine.finish(text="Hello.")
        await chat.hear()
        assert chat.dialogue.compare() is not None
        assert chat.phase is Phase.COMPARING
        await chat.dialogue.regenerate()
        await chat.dialogue.go_on()
        assert chat.dialogue.last_message() is None
        assert chat.told == ["A comparison is running. Press esc to end it."] * 3
        chat.dialogue.end_comparison()
        assert chat.phase is Phase.IDLE
        chat.dialogue.begin_message()
        assert not chat.dialogue.is_free()
        chat.dialogue.take_back_message()
        assert chat.dialogue.is_free()


async def test_queued_messages_are_sent_one_after_another_in_their_order() -> None:
    async with Chat() as chat:
        assert not chat.dialogue.can_queue
        await chat.dialogue.ask("One")
        assert chat.dialogue.can_queue
        chat.dialogue.queue(QueuedMessage("Two"))
        chat.dialogue.queue(QueuedMessage("Three"))
        assert chat.view.queue == ["Two", "Three"]
        chat.engine.finish()
        await chat.hear()
        assert (chat.view.sent, chat.view.queue) == (["Two"], ["Three"])
        await chat.dialogue.ask("Two")
        chat.engine.finish("length")
        await chat.hear()
        assert (chat.view.sent, chat.view.queue) == (["Two", "Three"], [])


@pytest.mark.parametrize("ending", ["stop", "fail", "die", "leave", "take back"])
async def test_queued_messages_come_back_when_a_reply_does_not_end_by_itself(ending: str) -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("One")
        chat.engine.say("Word")
        await chat.hear()
        chat.dialogue.queue(QueuedMessage("Two"))
        match ending:
            case "stop":
                chat.dialogue.stop()
                chat.engine.finish("cancelled")
            case "fail":
                chat.engine.fail()
            case "die":
                chat.engine.die()
            case "leave":
                chat.dialogue.leave()
            case _:
                assert [message.text for message in chat.dialogue.take_back_queue()] == ["Two"]
                chat.engine.finish()
        await chat.hear()
        assert chat.view.sent == []
        assert chat.view.queue == []
        assert ("returned: ['Two']" in chat.view.shown) is (ending != "take back")


async def test_a_message_whose_files_cannot_be_read_takes_the_queue_back_with_it() -> None:
    async with Chat() as chat:
        chat.dialogue.begin_message()
        chat.dialogue.queue(QueuedMessage("Two"))
        chat.dialogue.take_back_message()
        assert chat.phase is Phase.IDLE
        assert chat.view.shown == ["returned: ['Two']"]


@pytest.mark.parametrize("is_loaded", [True, False])
async def test_stopping_before_the_first_word_gives_the_message_back(*, is_loaded: bool) -> None:
    async with Chat(is_loaded=is_loaded) as chat:
        await chat.dialogue.ask("Hi")
        chat.dialogue.stop()
        assert chat.view.shown.count("edit: Hi") == 1
        if is_loaded:
            chat.engine.finish("cancelled")
            await chat.hear()
        assert chat.view.shown.count("edit: Hi") == 1
        await chat.dialogue.ask_instead("Hello")
        assert [message.text for message in chat.engine.requests[-1].messages] == ["Hello"]


async def test_stopping_later_or_a_second_reply_gives_no_message_back() -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        chat.engine.say("", thinking="Hm")
        await chat.hear()
        chat.dialogue.stop()
        chat.engine.finish("cancelled")
        await chat.hear()
        await chat.dialogue.regenerate()
        chat.dialogue.stop()
        assert "edit: Hi" not in chat.view.shown


async def test_opening_another_chat_and_a_new_one_stop_a_reply_alike_and_say_so() -> None:
    async with Chat() as chat:
        current = CurrentChat(chat.store, chat.dialogue, chat.view, chat.tell, StoreNotices(chat.store, chat.tell))
        other = chat.store.create_chat()
        chat.store.ask(other.id, None, "Other")
        leaving: tuple[Callable[[], Awaitable[None]], ...] = (partial(current.open, other.id), current.begin)
        for leave in leaving:
            await current.begin()
            await chat.dialogue.ask("Hi")
            chat.engine.say("One")
            await chat.hear()
            left = chat.conversation.chat
            assert left is not None
            chat.told.clear()
            await current.open(left.id)
            assert chat.phase is Phase.REPLYING, "the chat that is shown already is not left"
            await leave()
            assert chat.told == ["The reply was stopped. To go on with it, open its chat and use /continue."]
            assert chat.phase is Phase.IDLE
            assert [message.state for message in chat.store.path(left.id)] == ["complete", "stopped"]


async def test_a_chat_deleted_during_its_reply_stays_deleted() -> None:
    async with Chat() as chat:
        notices = StoreNotices(chat.store, chat.tell)
        current = CurrentChat(chat.store, chat.dialogue, chat.view, chat.tell, notices)
        await chat.dialogue.ask("Hi")
        assert chat.conversation.chat is not None
        chat_id = chat.conversation.chat.id
        chat.store.delete(chat_id)
        await current.was_deleted(chat_id)
        assert chat.store.list_chats() == []
        assert chat.phase is Phase.IDLE


async def test_walking_past_the_last_version_shows_nothing_again() -> None:
    async with Chat() as chat:
        notices = StoreNotices(chat.store, chat.tell)
        current = CurrentChat(chat.store, chat.dialogue, chat.view, chat.tell, notices)
        await chat.dialogue.ask("Hi")
        chat.engine.finish()
        await chat.hear()
        await chat.dialogue.regenerate()
        chat.engine.finish()
        await chat.hear()
        chat.view.shown.clear()
        await current.walk(1)
        assert chat.view.shown == []
        assert chat.told[-1] == "Version 2 of 2 of this chat."
        await current.walk(-1)
        assert chat.view.shown == ["chat of 1"]
        await current.walk(-1)
        assert chat.view.shown == ["chat of 1"]
        assert chat.told[-1] == "Version 1 of 2 of this chat."


async def test_a_comparison_leaves_chat_and_gauges_alone() -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        chat.engine.say("Hello.")
        chat.engine.finish()
        await chat.hear()
        before = chat.dialogue.gauges.reading(), chat.conversation.to_send(), list(chat.view.shown)
        comparison = chat.dialogue.compare(8)
        assert comparison is not None
        for _ in range(2):
            chat.engine.begin()
            chat.engine.say("Something else.", drafted=0, accepted=0)
            chat.engine.finish()
            await chat.hear()
        assert [request.draft_length for request in chat.engine.requests[1:]] == [0, 8]
        assert not comparison.is_running
        assert (chat.dialogue.gauges.reading(), chat.conversation.to_send(), chat.view.shown) == before


async def test_stop_ends_a_comparison() -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        chat.engine.finish()
        await chat.hear()
        comparison = chat.dialogue.compare()
        chat.dialogue.stop()
        assert comparison is not None
        assert comparison.is_stopping
        assert chat.engine.cancels == 1


@pytest.mark.parametrize(("begun", "state"), [("", "error"), ("One", "error")])
async def test_an_engine_that_dies_gives_the_message_back_unless_it_got_a_word(begun: str, state: str) -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        if begun:
            chat.engine.say(begun)
        chat.engine.die("The engine ended.")
        await chat.hear()
        assert chat.view.shown[-1] == f"{state}: The engine ended."
        assert ("back: Hi" in chat.view.shown) is not bool(begun)
        assert chat.view.phases[-1] == (Phase.IDLE, "engine ended")
        assert chat.view.is_error
        await chat.dialogue.regenerate()
        chat.engine.say("Here.")
        chat.engine.finish()
        await chat.hear()
        assert chat.view.phases[-1] == (Phase.IDLE, "ready")
        assert not chat.view.is_error


async def test_a_message_that_cannot_be_stored_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreError("The disk is full.")

    async with Chat() as chat:
        monkeypatch.setattr(ChatStore, "create_chat", full)
        chat.dialogue.begin_message()
        with pytest.raises(StoreError):
            await chat.dialogue.ask("Hi")
        assert chat.phase is Phase.IDLE
        assert chat.engine.requests == []
        assert chat.view.shown == []


async def test_only_a_model_that_was_loaded_is_remembered() -> None:
    async with Chat() as chat:
        chat.dialogue.switch_pair(choose("31b"), "31b")
        assert chat.phase is Phase.LOADING
        chat.engine.emit(Failed(id=None, message="It is damaged."))
        await chat.hear()
        assert "Going back to gemma-4-e2b." in chat.told
        assert chat.engine.loads == [choose("31b").load, PAIR.load]
        chat.engine.emit(chat.engine.ready())
        await chat.hear()
        assert chat.remembered == [], "neither the one that failed nor the one gone back to was chosen"
        chat.dialogue.switch_pair(choose("12b"), "12b")
        chat.engine.emit(chat.engine.ready())
        await chat.hear()
        assert chat.remembered == ["12b"]


async def test_a_load_that_was_stopped_begins_again_with_the_next_message() -> None:
    async with Chat(is_loaded=False) as chat:
        chat.dialogue.stop()
        assert chat.engine.is_closed
        assert chat.view.phases[-1] == (Phase.IDLE, "not loaded")
        chat.engine.emit(Loading("weights"))
        await chat.hear()
        assert chat.phase is Phase.IDLE, "this was on its way when loading was stopped"
        await chat.dialogue.ask("Hi")
        chat.engine.emit(Loading("weights"))
        await chat.hear()
        assert chat.view.phases[-1] == (Phase.WAITING, "loading: weights")


async def test_the_draft_length_changes_in_the_running_reply_and_only_there() -> None:
    async with Chat(Settings(draft=4)) as chat:
        chat.dialogue.set_drafting(2)
        assert chat.engine.draft_lengths == []
        await chat.dialogue.ask("Hi")
        assert chat.engine.requests[-1].draft_length == 2
        chat.dialogue.set_drafting(0)
        chat.dialogue.set_drafting("on")
        chat.dialogue.change_settings({"seed": 7})
        assert chat.engine.draft_lengths == [0, 2]


async def test_without_a_drafter_there_is_nothing_to_switch() -> None:
    async with Chat(is_loaded=False) as chat:
        chat.engine.drafter = None
        chat.engine.start()
        await chat.hear()
        assert not chat.dialogue.set_drafting(4)
        assert chat.told == ["This model runs without a drafter, so there is nothing to switch on."]


async def test_an_old_store_notice_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "chats.db").mkdir()
    store, told = ChatStore.open(tmp_path / "chats.db"), list[str]()
    notices = StoreNotices(store, lambda message, **_: told.append(message))
    notices.check()
    notices.check()
    assert len(told) == 1
    store.close()


@pytest.mark.parametrize("begun", ["", "One"])
async def test_stop_restarts_an_engine_that_gives_no_sign_of_life(begun: str) -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        if begun:
            chat.engine.say(begun)
        await chat.hear()
        chat.dialogue.stop()
        assert chat.phase is Phase.STOPPING
        assert not chat.engine.loads, "a first stop only asks"
        chat.engine.emit(Silent("The engine has not stopped for 20 seconds."))
        await chat.hear()
        assert chat.told[-1] == (
            "The engine has not stopped for 20 seconds. Wait for it, or press esc to restart it."
        )
        assert chat.view.phases[-1] == (Phase.STOPPING, "engine does not answer")
        chat.dialogue.stop()
        assert [load.target for load in chat.engine.loads] == [PAIR.load.target]
        assert chat.phase is Phase.LOADING
        assert chat.states == ["complete", "stopped"]
        assert chat.view.shown.count("edit: Hi") == (not begun)
        await chat.dialogue.ask("Again")
        chat.dialogue.stop()
        assert len(chat.engine.loads) == 1, "the new one has time to load"


async def test_an_engine_that_answers_again_is_not_restarted() -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        chat.engine.emit(Silent("The engine has not answered for 10 seconds."), Answering())
        await chat.hear()
        assert not chat.view.is_error
        chat.dialogue.stop()
        assert not chat.engine.loads
        assert chat.engine.cancels == 1


async def test_a_comparison_ends_when_a_silent_engine_is_restarted() -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        chat.engine.finish(text="Hello.")
        await chat.hear()
        comparison = chat.dialogue.compare()
        assert comparison is not None
        chat.engine.emit(Silent("The engine has not answered for 10 seconds."))
        await chat.hear()
        chat.dialogue.stop()
        assert comparison.error == "The engine was restarted."
        chat.dialogue.end_comparison()
        assert chat.phase is Phase.LOADING


@pytest.mark.parametrize(("text", "is_told"), [("", True), ("Hello.", False)])
async def test_a_reply_without_a_word_is_told(text: str, is_told: bool) -> None:
    async with Chat() as chat:
        await chat.dialogue.ask("Hi")
        chat.engine.finish(text=text)
        await chat.hear()
        assert ("The reply is empty: the model ended it without a word." in chat.told) is is_told
        await chat.dialogue.regenerate()
        chat.engine.finish("cancelled")
        await chat.hear()
        assert len(chat.told) == is_told, "a person who stops it knows"
