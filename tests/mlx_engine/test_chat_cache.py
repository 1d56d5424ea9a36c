"""Chats over several starts of the engine: read from disk what was read before, and never a wrong token."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_engine import engine as engine_module
from mlx_engine.files import chat_cache_file
from mlx_engine.files.model_identity import model_identity
from mlx_engine.network import disk_cache, stored_rows
from mlx_engine.network.disk_cache import DiskCache
from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Message, SamplingOptions
from mlx_engine.speculation.steering import ReplyControl
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.fakes.folders import write_pair
from tests.mlx_engine.rig import Rig, only, token_ids
from tests.patience import PATIENCE_S

pytestmark = [pytest.mark.slow, pytest.mark.sampled(3)]

CHAT = 7
GREEDY = SamplingOptions(temperature=0)
TEXTS = ["Tell me about the drafter, and what it proposes.", "And then?", "Why is that?"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"), 2048)


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short chats are kept as well."""
    monkeypatch.setattr(disk_cache, "FEWEST_TOKENS", 20)


class Reopened:
    """One chat, and the engines that it is asked of."""

    def __init__(self, pair: tuple[Path, Path], folder: Path, **load: object) -> None:
        self._pair, self._load, self.folder = pair, load, folder
        self.messages: list[Message] = []
        self.start()

    def start(self, **load: object) -> None:
        """The engine is started again."""
        both = {"chat_cache_folder": str(self.folder), **self._load, **load}
        self.rig = Rig(self._pair[0], self._pair[1], **both)

    def ask(self, text: str, max_tokens: int = 30, chat_id: int | None = CHAT) -> list[events.Event]:
        """One turn, and what is then on disk is complete."""
        self.messages.append(Message("user", text))
        request = Generate(1, tuple(self.messages), GREEDY, max_tokens=max_tokens, chat_id=chat_id)
        emitted = self.rig.ask(request)
        answer = "".join(event.text for event in emitted if isinstance(event, events.Round | events.Finished))
        self.messages.append(Message("assistant", answer))
        self.rig.engine._disk.finish(PATIENCE_S)
        return emitted

    @property
    def head(self) -> Path:
        """Of the one chat."""
        (path,) = self.folder.glob(f"*/{self.rig.engine._disk._key}.safetensors")
        return path

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


def cached(emitted: list[events.Event]) -> int:
    (started,) = only(events.Started, emitted)
    return started.cached_tokens


@pytest.fixture
def chat(pair: tuple[Path, Path], tmp_path: Path) -> Reopened:
    return Reopened(pair, tmp_path / "chats")


def last_turn(chat: Reopened) -> tuple[int, list[int]]:
    """Tokens that were kept, and the reply."""
    emitted = chat.ask(TEXTS[2])
    return cached(emitted), token_ids(emitted)


def talked(pair: tuple[Path, Path], folder: Path) -> Reopened:
    chat = Reopened(pair, folder)
    for text in TEXTS[:2]:
        chat.ask(text)
    return chat


def test_the_first_reply_after_a_restart_is_that_of_the_engine_that_never_ended(tmp_path: Path) -> None:
    pocket = (TARGET_FOLDER, DRAFTER_FOLDER)
    expected = last_turn(talked(pocket, tmp_path / "one"))
    chat = talked(pocket, tmp_path / "two")
    assert len(chat.files) > 1
    for path in chat.files:
        assert path.parent == chat.folder / str(CHAT)
        assert path.stat().st_mode & 0o777 == 0o600
    chat.start()
    assert last_turn(chat) == expected
    (started,) = only(events.Started, chat.rig.emitted)
    assert started.read_tokens < 30, "only the new message was read"
    assert (started.disk_tokens, started.memory_tokens) == (started.cached_tokens, 0)


@pytest.mark.parametrize("is_edited", [False, True])
def test_the_last_message_can_be_asked_again_after_a_restart(
    is_edited: bool, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = " ".join(TEXTS * 4), " ".join(TEXTS * 3)
    chat = Reopened(pair, tmp_path / "chats")
    chat.ask(first, 60)
    chat.ask(second, 60)
    replies = dict(chat.rig.engine._known_replies)
    del chat.messages[-2:]
    cold = Reopened(pair, tmp_path / "elsewhere")
    cold.messages = list(chat.messages)
    cold.rig.engine._known_replies.update(replies)
    text = "What else?" if is_edited else second
    expected = cold.ask(text)
    chat.start()
    emitted = chat.ask(text)
    assert token_ids(emitted) == token_ids(expected)
    (started,), (of_cold,) = only(events.Started, emitted), only(events.Started, expected)
    assert started.disk_tokens > 100
    assert started.read_tokens < len(chat.rig.engine._format.encode(text)) + 20, "the message alone"
    assert of_cold.cached_tokens == 0


def test_without_a_chat_nothing_is_kept(chat: Reopened) -> None:
    chat.ask(TEXTS[0], chat_id=None)
    assert not chat.folder.exists()


def test_a_bound_of_nothing_switches_it_off(pair: tuple[Path, Path], tmp_path: Path) -> None:
    chat = talked(pair, tmp_path)
    chat.start(chat_cache_bytes=0)
    assert last_turn(chat)[0] == 0
    shutil.rmtree(tmp_path)
    chat.ask("More?")
    assert not tmp_path.exists()


def test_a_chat_that_is_larger_than_the_bound_is_not_kept(pair: tuple[Path, Path], tmp_path: Path) -> None:
    chat = Reopened(pair, tmp_path, chat_cache_bytes=10_000)
    chat.ask(TEXTS[0])
    assert chat.files == []


def test_replies_keep_the_tokens_that_they_were_generated_as(
    chat: Reopened, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat.ask(TEXTS[0])
    reply = chat.rig.engine._known_replies[chat.messages[-1].text]
    chat.start()
    assert chat.rig.engine._known_replies == {}
    emitted = chat.ask(TEXTS[1])
    assert chat.rig.engine._known_replies[chat.messages[1].text] == reply
    assert cached(emitted) > len(reply)


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a flipped byte of the header": lambda content: flipped(content, 60),
    "a flipped byte of a row": lambda content: flipped(content, len(content) - 1000),
    "the last byte is missing": lambda content: content[:-1],
    "half a file": lambda content: content[: len(content) // 2],
    "only zeros": lambda content: bytes(len(content)),
    "nothing": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["head", "part"])
def test_a_damaged_file_costs_a_prefill(kind: str, damage: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    chat = talked(pair, tmp_path)
    replies = dict(chat.rig.engine._known_replies)
    cold = Reopened(pair, tmp_path / "elsewhere")
    cold.messages = list(chat.messages)
    path = chat.head if kind == "head" else next(path for path in chat.files if path != chat.head)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    chat.start()
    for engine in (chat.rig.engine, cold.rig.engine):
        engine._known_replies.update(replies)
    assert last_turn(chat) == last_turn(cold)
    assert cold.rig.engine._prefix.tokens == chat.rig.engine._prefix.tokens
    chat.start()
    (started,) = only(events.Started, chat.ask("More?"))
    assert started.disk_tokens > started.prompt_tokens - 20, "it was written again"


def test_a_file_of_another_model_is_not_read(pair: tuple[Path, Path], tmp_path: Path) -> None:
    chat = talked(pair, tmp_path / "chats")
    own, files = chat.rig.engine._disk._key, chat.files
    other = Reopened(write_pair(tmp_path / "other", 2048, seed=9), tmp_path / "chats")
    other.messages = list(chat.messages)
    for path in files:
        os.link(path, path.with_name(path.name.replace(own, other.rig.engine._disk._key)))  # even under its name
    assert last_turn(other)[0] == 0


@pytest.mark.parametrize("package", ["mlx", "mlx-lm"])
def test_a_file_of_another_version_is_not_read(
    package: str, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = talked(pair, tmp_path)
    own = importlib.metadata.version
    monkeypatch.setattr(disk_cache, "version", lambda name: "0.1" if name == package else own(name))
    chat.start()
    assert last_turn(chat)[0] == 0


def test_a_model_whose_file_was_replaced_is_another_one(pair: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "target"
    shutil.copytree(pair[0], copy)
    before = model_identity(copy)
    assert before == model_identity(copy) != model_identity(pair[0])
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert model_identity(copy) != before


def test_a_chat_of_other_words_shares_what_it_begins_with(pair: tuple[Path, Path], tmp_path: Path) -> None:
    chat = talked(pair, tmp_path)
    chat.messages = [Message("user", "Something else"), Message("assistant", "Yes.")]
    cold = Reopened(pair, tmp_path / "elsewhere")
    cold.messages = list(chat.messages)
    chat.start()
    assert last_turn(chat)[1] == last_turn(cold)[1]


def test_what_is_in_memory_is_not_read_from_disk(chat: Reopened, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    own = stored_rows.read_conversation

    def counting(*arguments: object) -> object:
        nonlocal reads
        reads += 1
        return own(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(disk_cache, "read_conversation", counting)
    for text in TEXTS:
        chat.ask(text)
    assert reads == 0
    chat.start()
    chat.ask("More?")
    chat.ask("More?")
    assert reads == 1


def test_a_stopped_reply_keeps_what_it_had(chat: Reopened) -> None:
    messages = (Message("user", TEXTS[0]),)
    control, emit = ReplyControl(0), chat.rig.engine._emit

    def stopping(event: events.Event) -> None:
        control.is_cancelled |= isinstance(event, events.Round)
        emit(event)

    chat.rig.engine._emit = stopping
    stopped = chat.rig.ask(Generate(1, messages, chat_id=CHAT), control)
    assert only(events.Finished, stopped)[0].reason == "cancelled"
    chat.rig.engine._disk.finish(PATIENCE_S)
    chat.start()
    assert cached(chat.rig.ask(Generate(2, messages, max_tokens=2, chat_id=CHAT))) == 19


def test_a_cancelled_prefill_keeps_what_it_read(pair: tuple[Path, Path], tmp_path: Path) -> None:
    chat = Reopened(pair, tmp_path / "chats", prefill_chunk=16)
    messages = (Message("user", " ".join(TEXTS * 6)),)
    control, emit = ReplyControl(0), chat.rig.engine._emit

    def stopping(event: events.Event) -> None:
        control.is_cancelled |= isinstance(event, events.Prefilled) and event.done_tokens >= 48
        emit(event)

    chat.rig.engine._emit = stopping
    stopped = chat.rig.ask(Generate(1, messages, chat_id=CHAT), control)
    assert only(events.Finished, stopped)[0].reason == "cancelled"
    chat.rig.engine._disk.finish(PATIENCE_S)
    assert cached(chat.rig.ask(Generate(2, messages, max_tokens=2))) == 48
    chat.start()
    (started,) = only(events.Started, chat.rig.ask(Generate(3, messages, max_tokens=2, chat_id=CHAT)))
    assert started.disk_tokens == 48


def test_a_reply_that_breaks_leaves_the_file_as_it_was(chat: Reopened, monkeypatch: pytest.MonkeyPatch) -> None:
    chat.ask(TEXTS[0])
    before = {path: path.read_bytes() for path in chat.files}
    monkeypatch.setattr(engine_module, "generate", lambda *each: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        chat.ask(TEXTS[1])
    assert {path: path.read_bytes() for path in chat.files} == before


def test_a_chat_that_was_deleted_during_its_reply_does_not_come_back(chat: Reopened) -> None:
    chat.ask(TEXTS[0])
    emit = chat.rig.engine._emit

    def deleting(event: events.Event) -> None:
        if isinstance(event, events.Finished):
            shutil.rmtree(chat.folder / str(CHAT))
        emit(event)

    chat.rig.engine._emit = deleting
    chat.ask(TEXTS[1])
    assert chat.files == []


def test_nothing_is_written_while_a_reply_is_computed(
    chat: Reopened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The writer stands still in the middle of its first piece until the next reply has begun."""
    begun, goes_on, pieces = threading.Event(), threading.Event(), 0

    def reached(point: str) -> None:
        nonlocal pieces
        pieces += point == "piece"
        if point == "piece":
            begun.set()
            goes_on.wait(PATIENCE_S)

    monkeypatch.setattr(chat_cache_file, "reached", reached)
    monkeypatch.setattr(chat_cache_file, "PIECE_BYTES", 1000)
    first = (Message("user", TEXTS[0]),)
    chat.rig.ask(Generate(1, first, max_tokens=30, chat_id=CHAT))
    assert begun.wait(PATIENCE_S)
    writer = chat.rig.engine._disk._thread
    assert writer is not None
    own = DiskCache.begin

    def begin(disk: DiskCache, chat_id: int | None) -> None:
        own(disk, chat_id)
        goes_on.set()
        writer.join(PATIENCE_S)

    monkeypatch.setattr(DiskCache, "begin", begin)
    chat.rig.ask(Generate(2, first, max_tokens=2, chat_id=None))
    assert not writer.is_alive()
    assert pieces == 1
    assert chat.files == []


def test_the_engine_ends_with_its_chat_written(chat: Reopened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "FINISH_S", PATIENCE_S)
    chat.rig.ask(Generate(1, (Message("user", TEXTS[0]),), max_tokens=30, chat_id=CHAT))
    chat.rig.engine.close()
    assert chat.head in chat.files


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_a_disk_that_is_full_costs_nothing_but_the_file(
    error: Exception, chat: Reopened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(chat_cache_file, "_write", full)
    assert len(token_ids(chat.ask(TEXTS[0]))) > 1
    assert not only(events.Notice, chat.rig.emitted)
    assert chat.files == []


def test_a_folder_that_cannot_be_made_costs_nothing(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    chat = Reopened(pair, tmp_path / "file")
    assert len(token_ids(chat.ask(TEXTS[0]))) > 1
    chat.start()
    assert cached(chat.ask(TEXTS[1])) == 0


def test_two_engines_may_write_the_same_chat(pair: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = Reopened(pair, tmp_path), Reopened(pair, tmp_path)
    one.ask(TEXTS[0])
    other.ask("Something quite different, and longer than the other one.")
    one.ask(TEXTS[1])
    other.ask(TEXTS[1])
    assert one.head in one.files
    cold = Reopened(pair, tmp_path / "elsewhere")
    cold.messages = list(one.messages)
    one.start()
    assert last_turn(one)[1] == last_turn(cold)[1]
