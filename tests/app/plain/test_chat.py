"""The chat line by line: what is typed, what is said, and that nothing but plain text is ever written."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.chat_options import ChatOptions
from app.plain.chat import HELP, PlainChat
from app.plain.lines import Lines
from app.settings.table import Settings
from app.store.chat_store import ChatStore
from app.store.errors import StoreError
from app.store.records import Chat
from app.store.transfer import read_file
from app.text.sentences import Sentences
from mlx_engine.protocol.errors import SlipstreamError
from mlx_engine.protocol.events import Event, Failed, Generate, Load, Loading
from tests.app.store.support import full_disk
from tests.app.tui.pilot import PAIR, choose
from tests.app.tui.terminal import Terminal, slipstream
from tests.app.tui.test_terminal_signals import kept
from tests.fakes.engine import FakeEngine
from tests.fakes.scripted_engine import Script
from tests.paths import ROOT

Answer = Callable[[FakeEngine], None]


class AnsweringEngine(FakeEngine):
    """Answers each request as the next of the answers says."""

    def __init__(self, *answers: str | Answer, drafter: str | None = "fake-assistant") -> None:
        super().__init__(drafter)
        self.answers = iter(answers)

    def generate(self, request: Generate) -> None:
        super().generate(request)
        answer = next(self.answers)
        if callable(answer):
            answer(self)
        else:
            self.begin()
            self.say(answer)
            self.finish()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChatStore]:
    store = ChatStore.open(tmp_path / "chats.db")
    yield store
    store.close()


def talk(
    store: ChatStore, engine: FakeEngine, *lines: str | bytes, options: ChatOptions | None = None
) -> list[str]:
    """Type `lines`, then control d; the lines that were said."""
    typed = b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines)
    out = StringIO()
    engine.start()
    PlainChat(engine, PAIR, options or ChatOptions(), store, Lines(BytesIO(typed), out)).run()
    said = out.getvalue()
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said) is None
    return said.splitlines()


def test_a_conversation_is_said_and_kept(store: ChatStore) -> None:
    engine = AnsweringEngine("Hello. I am here.", "Again.")
    said = talk(store, engine, "Hi", "And again", "/quit")
    assert said[1].startswith("Slipstream with gemma-4-e2b, drafting with fake-assistant.")
    assert "You: Assistant: Hello. I am here." in said
    assert "4 tokens, 80.0 tokens per second, 75% of the drafts accepted" in " ".join(said)
    assert "first token after 0.41 seconds." in " ".join(said)
    assert said[-1] == "You: Goodbye."
    assert [message.text for message in engine.requests[1].messages] == ["Hi", "Hello. I am here.", "And again"]
    (chat,) = store.list_chats()
    assert chat.model == "fake"
    assert [(message.role, message.text, message.state) for message in store.path(chat.id)] == [
        ("user", "Hi", "complete"),
        ("assistant", "Hello. I am here.", "complete"),
        ("user", "And again", "complete"),
        ("assistant", "Again.", "complete"),
    ]
    stats = store.path(chat.id)[1].stats
    assert stats is not None
    assert stats.accepted == 3


def test_what_cannot_be_saved_is_said_and_can_be_kept_elsewhere(
    store: ChatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_disk():
        said = talk(store, AnsweringEngine("Hello."), "Hi", "/quit", str(tmp_path / "no" / "kept.json"), "")
        words = " ".join(said)
        assert "Chats are no longer saved" in words
        assert "You (not saved): " in words
        assert words.count("Type a file to keep them in") == 2, "asked again"
        assert "1 chat has unsaved messages: “Hi”." in words
        assert "No such file" in words
    monkeypatch.setattr(ChatStore, "save_again", lambda self, *, is_urgent=False: False)
    said = talk(store, AnsweringEngine(), "/quit", str(tmp_path / "kept.json"))
    assert "kept.json." in " ".join(said)
    assert [message.text for message in read_file(tmp_path / "kept.json")[0].messages] == ["Hi", "Hello."]


def test_slower_is_said_in_words(store: ChatStore) -> None:
    def slow(engine: FakeEngine) -> None:
        for _ in range(4):
            engine.say("a ", is_plain=True, round_s=0.1)
        engine.say("b.", drafted=4, accepted=0, round_s=0.2)
        engine.finish()

    assert any(
        "0.83 times plain speed, which is slower" in line for line in talk(store, AnsweringEngine(slow), "Hi")
    )


def test_control_c_stops_a_reply_which_can_go_on(store: ChatStore) -> None:
    def stopped(engine: FakeEngine) -> None:
        engine.say("One two")
        signal.raise_signal(signal.SIGINT)
        assert engine.cancels == 1
        engine.finish("cancelled")

    engine = AnsweringEngine(stopped, " three.")
    said = talk(store, engine, "Count", "/continue", "/continue")
    assert any(line.endswith("stopped.") for line in said)
    assert engine.requests[1].messages[-1].text == "One two"
    assert any("Nothing to continue" in line for line in said)
    assert store.path(store.list_chats()[0].id)[1].text == "One two three."


def test_control_c_twice_leaves_and_keeps_the_reply(store: ChatStore) -> None:
    def stuck(engine: FakeEngine) -> None:
        engine.say("One two")
        engine._listener = None  # what comes now is not heard any more
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        talk(store, AnsweringEngine(stuck), "Count")
    assert store.path(store.list_chats()[0].id)[1].state == "interrupted"


class Interrupting(BytesIO):
    """Control c in place of each of the first lines."""

    def __init__(self, times: int, rest: bytes) -> None:
        super().__init__(rest)
        self.times = times

    def readline(self, size: int | None = -1) -> bytes:
        if self.times:
            self.times -= 1
            signal.raise_signal(signal.SIGINT)
        return super().readline(size)


@pytest.mark.parametrize("times", [1, 2])
def test_control_c_at_the_prompt_asks_once_and_then_leaves(store: ChatStore, times: int) -> None:
    engine, out = FakeEngine(), StringIO()
    engine.start()
    chat = PlainChat(engine, PAIR, ChatOptions(), store, Lines(Interrupting(times, b"/help\n"), out))
    if times == 2:
        with pytest.raises(KeyboardInterrupt):
            chat.run()
    else:
        chat.run()
    assert "Press control c again to quit." in out.getvalue()
    assert (HELP in out.getvalue()) is (times == 1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_failures_are_sentences_and_the_chat_goes_on(store: ChatStore) -> None:
    engine = AnsweringEngine(
        lambda it: it.fail("It does not fit."), lambda it: it.die("The engine ended."), "Here."
    )
    said = talk(store, engine, "Hi", "/retry", "/retry")
    assert "It does not fit. /retry asks again." in said
    assert "The engine ended. /retry asks again." in said
    assert any(line.endswith("Assistant: Here.") for line in said)


def test_a_model_that_cannot_be_loaded_ends_it(store: ChatStore) -> None:
    engine = FakeEngine()
    engine.start = lambda: engine.emit(Failed(None, "There are no weights."))  # type: ignore[method-assign]
    with pytest.raises(SlipstreamError, match="no weights"):
        talk(store, engine, "Hi")


def test_what_is_not_utf8_is_not_sent(store: ChatStore) -> None:
    engine = AnsweringEngine("Fine.")
    said = talk(store, engine, b"caf\xe9\n", "café")
    assert any("not UTF-8 (byte 4 is 0xe9)" in line for line in said)
    assert [request.messages[-1].text for request in engine.requests] == ["café"]


def test_a_model_cannot_steer_the_terminal(store: ChatStore) -> None:
    assert any("␛[2J" in line for line in talk(store, AnsweringEngine("\x1b[2J\x07gone."), "Hi"))


def test_messages_of_several_lines_and_messages_with_a_slash(store: ChatStore) -> None:
    engine = AnsweringEngine("a", "b", "c")
    lines = ("one\\", "two", " /etc/hosts?", "//etc/passwd?", "/nonsense", "/", "/theme dark", "")
    said = talk(store, engine, *lines)
    sent = [request.messages[-1].text for request in engine.requests]
    assert sent == ["one\ntwo", "/etc/hosts?", "/etc/passwd?"]
    for name in ("/nonsense", "/", "/theme"):
        assert any(f"{name} is not a command. " in line for line in said)


def test_a_file_goes_with_the_message_that_mentions_it(
    store: ChatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.md").write_text("# Notes\n")
    monkeypatch.chdir(tmp_path)
    engine = AnsweringEngine("Good notes.")
    said = talk(store, engine, *["What of @notes.md, @nobody?"] * 2, "/edit")
    assert any("There is no file nobody. The message was not sent." in line for line in said)
    sent = "What of @notes.md, @nobody?\n\n@notes.md (8 bytes):\n```md\n# Notes\n```"
    assert [request.messages[-1].text for request in engine.requests] == [sent]
    assert said.count("You: Attached: @notes.md, 8 bytes, 1 line.") == 1
    shown = said.index("You: You: What of @notes.md, @nobody?")
    assert said[shown + 1] == "Attached: @notes.md, 8 bytes, 1 line."


def test_a_file_that_cannot_be_attached_is_said_and_typed_once_more_the_message_goes_without(
    store: ChatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo").write_bytes(b"\0")
    monkeypatch.chdir(tmp_path)
    engine = AnsweringEngine("a", "b")
    said = talk(store, engine, "See @photo", "Hello", "See @photo", "See @photo")
    assert [request.messages[-1].text for request in engine.requests] == ["Hello", "See @photo"]
    assert sum("not text: it contains a zero byte" in line for line in said) == 2
    assert any("Type it again to send it without the file." in line for line in said)


def test_a_file_that_is_dropped_on_the_window_is_attached(store: ChatStore, tmp_path: Path) -> None:
    (tmp_path / "my notes.md").write_text("Notes\n")
    engine = AnsweringEngine("Good notes.")
    path = str(tmp_path / "my notes.md")
    talk(store, engine, path.replace(" ", "\\ ") + " ")
    assert engine.requests[0].messages[0].text == f'@"{path}"\n\n@"{path}" (6 bytes):\n```md\nNotes\n```'


def test_a_stopped_reply_is_said_to_be_one_when_it_is_opened(store: ChatStore) -> None:
    chat = store.create_chat()
    _, _, reply = store.ask(chat.id, None, "Count")
    store.finish_reply(reply.id, "interrupted", text="One two")
    engine = AnsweringEngine(" three.")
    said = talk(store, engine, "/continue", options=ChatOptions(chat_id=chat.id))
    assert "This reply was stopped. /continue continues it." in said
    assert engine.requests[0].messages[-1].text == "One two"


@pytest.mark.parametrize("letter", ["a", "é"])
def test_a_line_that_the_terminal_cuts_is_not_sent(tmp_path: Path, letter: str) -> None:
    with slipstream(tmp_path, Script(pieces=["An answer."]), "--plain") as terminal:
        terminal.until("You: ")
        terminal.type(letter * 6000 + "\n")
        terminal.until("That line was not sent")
        terminal.type("Short\n")
        terminal.until("An answer.")
        terminal.type("\x04")
        assert terminal.wait() == 0
    assert [message[1] for message in kept(tmp_path)] == ["Short", "An answer."]


def test_a_pipe_has_lines_of_any_length(store: ChatStore) -> None:
    engine = AnsweringEngine("Fine.")
    talk(store, engine, "a" * 100_000)
    assert engine.requests[0].messages[0].text == "a" * 100_000


def test_how_replies_are_made_is_changed_and_kept_with_the_chat(store: ChatStore) -> None:
    engine = AnsweringEngine(*"ab")
    lines = ("/temp 0.5", "/seed 7", "/think", "/system Be brief.", "/system", "/temp", "Hi", "/system off", "Hi")
    said = talk(store, engine, *lines, "/think perhaps")
    first, second = engine.requests
    assert (first.sampling.temperature, first.sampling.seed, first.is_thinking) == (0.5, 7, True)
    assert [each.messages[0].role for each in (first, second)] == ["system", "user"]
    assert store.list_chats()[0].params == {"temp": 0.5, "seed": 7, "think": True}
    for words in (
        "Temperature 0.5 from your next message.",
        "System prompt: Be brief.",
        "Temperature: 0.5. Seed: 7.",
        "/think: use on or off, not 'perhaps'.",
    ):
        assert f"You: {words}" in said


def test_replies_match_the_schema_of_a_file_until_it_is_off(store: ChatStore, tmp_path: Path) -> None:
    (path := tmp_path / "person.json").write_text('{"type": "object"}')
    engine = AnsweringEngine(*"abc")
    said = talk(
        store, engine, f"/schema {path}", "/schema", "Hi", "/schema off", "Hi", f"/schema {path}", "/new", "Hi"
    )
    assert [each.schema for each in engine.requests] == ['{"type": "object"}', None, None]
    assert said.count("You: Replies match person.json from your next message. /schema off ends that.") == 3
    assert "You: Replies may be any text. Use /schema FILE to hold them to a JSON schema." in said


def test_a_schema_that_cannot_be_used_leaves_the_one_before(store: ChatStore, tmp_path: Path) -> None:
    (good := tmp_path / "good.json").write_text('{"type": "object"}')
    (bad := tmp_path / "bad.json").write_text('{"not": {}}')
    engine = AnsweringEngine("a")
    said = talk(store, engine, f"/schema {good}", f"/schema {bad}", f"/schema {tmp_path / 'none'}", "Hi")
    assert engine.requests[0].schema == '{"type": "object"}'
    assert any('keywords that are not supported, ["not"]' in line for line in said)
    assert any("none is not a file" in line for line in said)


def test_the_last_message_is_changed(store: ChatStore) -> None:
    engine = AnsweringEngine("a", "b")
    said = talk(store, engine, "/edit", "/edit other", "Poor words", "/edit Better words")
    assert sum("There is no message to edit yet." in line for line in said) == 2
    assert [each.text for each in engine.requests[1].messages] == ["Better words"]


def test_a_chat_is_renamed_deleted_brought_back_found_and_exported(
    store: ChatStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ("/rename x", "/undo", "Hi", "/rename Better title", "/export", "/delete", "/chats", "/undo")
    said = talk(store, AnsweringEngine("Hello."), *lines, "/search hello", "/search pears", "/open " + "9" * 5000)
    assert (tmp_path / "Better-title.md").exists()
    for words in (
        "Nothing to rename: this chat is empty.",
        "There is no deleted chat to bring back.",
        "This chat is now called “Better title”.",
        "Exported to Better-title.md.",
        "Deleted “Better title”. /undo brings it back.",
        "There are no chats yet.",
        "Continuing Better title, 2 messages. The last exchange:",
        "1: Better title, 2 messages",
        "No chat contains these words.",
    ):
        assert any(line.removeprefix("You: ") == words for line in said), words


def test_a_message_that_cannot_be_kept_is_not_sent(store: ChatStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object, **__: object) -> Chat:
        raise StoreError("The chats are busy.")

    monkeypatch.setattr(ChatStore, "create_chat", busy)
    said = talk(store, AnsweringEngine(), "Hi")
    assert "You: The chats are busy. The message was not sent." in said


def test_drafting_is_set_and_said(store: ChatStore) -> None:
    engine = AnsweringEngine(*"abcd")
    lines = (
        "/draft",
        "1",
        "/draft ON",
        "2",
        "/draft 3",
        "3",
        "/draft off",
        "4",
        "/draft 17",
        "/draft " + "1" * 5000,
    )
    said = talk(store, engine, *lines, options=ChatOptions(Settings(draft=4)))
    assert [request.draft_length for request in engine.requests] == [0, 4, 3, 0]
    assert any("/draft: use auto, on, off or 1 to 16, not '17'." in line for line in said)
    assert any("Drafting is on, 3 tokens per round." in line for line in said)
    alone = talk(store, AnsweringEngine(drafter=None), "/draft")
    assert any("without a drafter" in line for line in alone[2:])


def test_a_drafter_that_is_of_no_use_is_told_once(store: ChatStore) -> None:
    engine = AnsweringEngine("Hello.")
    engine.refusal = "The drafter x\x1b gives no usable numbers."
    said = talk(store, engine, "Hi", "/draft")
    assert any("with gemma-4-e2b, without a drafter." in line for line in said)
    assert "You: Assistant: Hello." in said
    assert any("Drafting is off, so there is nothing to switch on. The drafter x␛" in line for line in said)
    assert said.count("Replies are made without a drafter. The drafter x␛ gives no usable numbers.") == 1


def test_an_earlier_chat_is_gone_on_with(store: ChatStore) -> None:
    talk(store, AnsweringEngine("Yes.", "No."), "First", "/new", "Second")
    engine = AnsweringEngine("Again.")
    said = talk(store, engine, "/open 2", "/open 9", "/open 2", "More")
    assert "2: First, 2 messages" in said
    assert any("Use a number from 1 to 2" in line for line in said)
    assert any("Continuing First" in line for line in said)
    assert [message.text for message in engine.requests[0].messages] == ["First", "Yes.", "More"]
    last = store.list_chats()[0]
    assert any(f"Continuing {last.title}" in line for line in talk(
        store, AnsweringEngine(), options=ChatOptions(chat_id=last.id)
    ))  # fmt: skip


@given(st.lists(st.text("ab .!\n。…", max_size=30)))
def test_sentences_are_the_text(parts: list[str]) -> None:
    sentences = Sentences()
    said = [sentences.add(part) for part in parts]
    assert "".join([*said, sentences.finish()]) == "".join(parts)


def test_a_sentence_is_said_when_it_is_complete() -> None:
    sentences = Sentences()
    assert [sentences.add(part) for part in ("One ", "two", ". Thr", "ee", "\n", "x = 1.5")] == [
        "", "", "One two.", "", " Three\n", "",
    ]  # fmt: skip
    assert sentences.finish() == "x = 1.5"
    assert sentences.add("word " * 60).endswith("word ")


@pytest.mark.slow
def test_the_pocket_pair_on_a_dumb_terminal(tmp_path: Path) -> None:
    own = {"TERM": "dumb", "SLIPSTREAM_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    terminal = Terminal([sys.executable, "-m", "app.cli"], (80, 24), {**os.environ, **own})

    def until(words: bytes, times: int = 1) -> None:
        terminal.until(lambda: terminal.written.count(words) >= times)

    try:
        until(b"You: ")
        terminal.type("How do I turn drafting off?\n")
        until(b"You: ", 2)
        terminal.type(b"\xff\n")
        until(b"not UTF-8")
        until(b"You: ", 3)
        terminal.type("\x04")
        until(b"Goodbye.")
        assert terminal.wait() == 0
    finally:
        terminal.close()
    written = bytes(terminal.written)
    assert b"TERM is dumb" in written
    assert b"ctrl+t" in written
    assert b"tokens per second" in written
    assert b"\x1b" not in written


@pytest.mark.parametrize(("term", "said"), [("dumb", b"TERM is dumb"), ("", b"TERM is not set")])
def test_a_terminal_that_can_only_print_is_chatted_with_line_by_line(
    tmp_path: Path, term: str, said: bytes
) -> None:
    with slipstream(tmp_path, Script(), environment={"TERM": term}) as terminal:
        terminal.until("You: ")
        terminal.type("\x03")
        terminal.until("Press control c again to quit.")
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert said in terminal.written
    assert b"\x1b" not in terminal.written


@pytest.mark.slow
@pytest.mark.parametrize("plain", ["true", "false"])
def test_plain_may_stand_in_the_settings(tmp_path: Path, plain: str) -> None:
    own = {"SLIPSTREAM_PLAIN": plain, "SLIPSTREAM_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "app.cli"]
    run = subprocess.run(command, check=False, input=b"/quit\n", capture_output=True, env={**os.environ, **own})
    assert run.returncode == (0 if plain == "true" else 2)
    assert (b"Goodbye." in run.stdout) == (plain == "true")
    assert (b"the chat needs a terminal" in run.stderr) == (plain == "false")


def test_the_model_is_switched(store: ChatStore) -> None:
    engine, out = AnsweringEngine("One.", "Two."), StringIO()
    engine.start()

    def switch(load: Load) -> None:
        engine.loads.append(load)
        engine.emit(engine.ready())

    engine.switch = switch  # type: ignore[method-assign]
    typed = BytesIO(b"/model\n/model broken\n/model 12b\nHi\n/model 12b\n")
    PlainChat(engine, PAIR, ChatOptions(), store, Lines(typed, out), choose=choose).run()
    said = out.getvalue()
    assert "Now: gemma-4-e2b, drafting with fake-assistant." in said
    assert "On this machine: pocket" in said
    assert "There is no model called broken." in said
    assert "Loading 12b.\nNow: 12b, drafting with fake-assistant." in said
    assert "The model is 12b, drafting with fake-assistant already." in said
    assert [load.target for load in engine.loads] == ["/models/12b"]


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(store: ChatStore) -> None:
    engine, out = AnsweringEngine("One."), StringIO()
    engine.start()

    def switch(load: Load) -> None:
        engine.loads.append(load)
        engine.emit(Failed(None, "It is damaged.") if load.target == "/models/12b" else engine.ready())

    engine.switch = switch  # type: ignore[method-assign]
    PlainChat(engine, PAIR, ChatOptions(), store, Lines(BytesIO(b"/model 12b\nHi\n"), out), choose=choose).run()
    said = out.getvalue()
    assert "It is damaged." in said
    assert "Now: gemma-4-e2b" in said
    assert "Assistant: One." in said


def test_lines_break_between_words_and_the_last_one_ends(tmp_path: Path) -> None:
    words = "Wonderful words are wrapped where windows would otherwise break them. "
    script = Script(pieces=[words] * 4)
    with slipstream(tmp_path, script, "--plain", size=(40, 24)) as terminal:
        terminal.until("You: ")
        terminal.type("Hi\n")
        terminal.until(lambda: terminal.written.count(b"You: ") == 2)
        terminal.type("\x03")
        terminal.until("again to quit.")
        terminal.type("\x03")
        assert terminal.wait() == 130
    written = terminal.written.decode().replace("\r\n", "\n")
    assert max(map(len, written.split("\n"))) <= 40
    assert words.strip() in " ".join(written.split())
    for word in ("Wonderful", "otherwise", "windows"):
        assert written.count(word) >= 4, "no word is broken"
    assert written.endswith("\n")


def test_a_chat_keeps_its_own_settings_here_as_well(store: ChatStore) -> None:
    made = store.create_chat(params={"temp": 1.5, "draft": 0, "system": "Be brief.", "top_k": "many"})
    store.ask(made.id, None, "Hi")
    engine = AnsweringEngine("One.", "Two.", "Three.")
    options = ChatOptions(Settings(draft=4), chat_id=made.id, notices=("Something to know.",))
    said = talk(store, engine, "Go on", "/draft 2", "Go on", "/new", "Hello", options=options)
    assert "Something to know." in said
    assert "These settings of this chat cannot be used here, so the defaults apply: Top K." in said
    assert [each.sampling.temperature for each in engine.requests] == [1.5, 1.5, None]
    assert [each.draft_length for each in engine.requests] == [0, 2, 4]
    assert [each.messages[0].role for each in engine.requests] == ["system", "system", "user"]
    assert store.chat(made.id).params == {"temp": 1.5, "draft": 2, "system": "Be brief."}


class InterruptedWhenEmpty(queue.SimpleQueue[Event | None]):
    """Control c, once, when the chat has nothing more to hear."""

    def __init__(self) -> None:
        super().__init__()
        self.is_interrupted = False

    def get(self, block: bool = True, timeout: float | None = None) -> Event | None:
        if self.empty() and not self.is_interrupted:
            self.is_interrupted = True
            signal.raise_signal(signal.SIGINT)
        return super().get(block, timeout)


def test_control_c_ends_the_wait_for_an_engine_that_loads_again(store: ChatStore) -> None:
    def loads_again(engine: FakeEngine) -> None:
        engine.emit(Loading("weights"))

    engine, out = AnsweringEngine(lambda it: it.die("The engine ended."), loads_again), StringIO()
    engine.start()
    chat = PlainChat(engine, PAIR, ChatOptions(), store, Lines(BytesIO(b"Hi\n/retry\n/quit\n"), out))
    chat._inbox = InterruptedWhenEmpty()
    chat.run()
    assert out.getvalue().endswith("You: Goodbye.\n")
    assert store.path(store.list_chats()[0].id)[-1].state == "stopped"
