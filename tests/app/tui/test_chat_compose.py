"""What a person does to write a message, and to find what else there is."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from textual import events
from textual.binding import Binding
from textual.widgets import TextArea
from textual.widgets._toast import Toast
from textual.widgets.text_area import Selection

from app.core import attachments
from app.core.attachments import Attachment
from app.core.chat_options import ChatOptions
from app.settings.table import Settings
from app.tui.bars.top_line import TopLine
from app.tui.prompt.attachment_line import AttachmentLine
from app.tui.prompt.completion_list import CompletionList
from mlx_engine.protocol.events import Counted
from tests.app.tui.pilot import Story, chat
from tests.patience import PATIENCE_S


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the person is: two texts, a picture and a folder."""
    (tmp_path / "notes.md").write_text("# Notes\n\n```\nfenced\n```\n")
    (tmp_path / "main.py").write_text("print()\n")
    (tmp_path / "photo.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def completions(story: Story) -> CompletionList:
    return story.app.screen_stack[0].query_one(CompletionList)


def files(story: Story) -> str:
    return str(story.app.screen_stack[0].query_one(AttachmentLine).render())


async def change_beside_a_draft(story: Story) -> None:
    """The last message is being changed, and a draft waits until that is over."""
    await story.exchange("words", "an answer")
    await story.type("my draft")
    await story.pilot.press("ctrl+up")
    await story.until(lambda: story.prompt.text == "words")


async def command(story: Story, text: str) -> None:
    """Type a command and press enter, whatever the list above shows."""
    await story.type(text)
    await story.pilot.press("escape", "enter")


# Commands


async def test_a_command_is_found_while_it_is_typed() -> None:
    async with chat() as story:
        await story.pilot.press("/")
        await story.until_seen("/help Help", "/model Models", "/draft Turn drafting on or off")
        await story.pilot.press("d", "r")
        await story.until(lambda: completions(story).option_count == 1)
        await story.pilot.press("tab")
        assert story.prompt.text == "/draft "
        await story.until_seen("auto", "off")
        await story.pilot.press("down", "down", "down", "enter")
        assert story.prompt.text == "/draft off"
        await story.pilot.press("enter")
        await story.until(lambda: "draft OFF" in story.strip)
        assert (story.prompt.text, completions(story).display) == ("", False)


async def test_enter_runs_a_command_that_is_typed_in_full() -> None:
    async with chat() as story:
        for key in (*"/help", "enter"):
            story.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await story.until(lambda: len(story.app.screen_stack) == 2)
        assert story.prompt.text == ""


async def test_the_list_takes_no_key_once_it_is_closed() -> None:
    async with chat() as story:
        await story.type("earlier")
        await story.pilot.press("ctrl+c")
        await story.pilot.press("/", "h", "escape")
        await story.until(lambda: not completions(story).display)
        assert story.prompt.text == "/h"
        await story.pilot.press("up")
        assert story.prompt.text == "earlier"
        await story.pilot.press("down")
        assert story.prompt.text == "/h"
        await story.pilot.pause()
        assert not completions(story).display, "what comes from the history opens nothing"


async def test_what_is_no_command_is_refused_and_stays() -> None:
    async with chat() as story:
        await command(story, "/hlep me")
        await story.until_told("/hlep is not a command. Did you mean /help?")
        assert story.prompt.text == "/hlep me"
        assert not story.engine.requests
        await story.pilot.press("home", "/", "enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == "/hlep me"


@pytest.mark.parametrize(
    "code",
    ["// a comment\nrun();", "/* a comment */", "/bin/sh\nexit", "// code\n" * 1000],
    ids=["line comment", "comment", "path", "long"],
)
async def test_pasted_code_that_begins_with_a_slash_is_sent_as_it_is(code: str) -> None:
    async with chat() as story:
        await story.exchange(code, "an answer")
        assert story.engine.requests[-1].messages[-1].text == code.rstrip()
        await story.pilot.press("ctrl+up")
        await story.until(lambda: story.prompt.is_editing)
        await story.pilot.press("enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert story.engine.requests[-1].messages[-1].text == code.rstrip()
        story.engine.fail()
        await story.until(lambda: story.prompt.text)
        await story.pilot.press("enter")
        await story.until(lambda: len(story.engine.requests) == 3)
        assert story.engine.requests[-1].messages[-1].text == code.rstrip()
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.pilot.press("up", "enter")
        await story.until(lambda: len(story.engine.requests) == 4)
        assert story.engine.requests[-1].messages[-1].text == code.rstrip()


async def test_commands_run_while_a_reply_does() -> None:
    async with chat() as story:
        await story.send("hello")
        await command(story, "/draft off")
        await story.until(lambda: story.engine.draft_lengths == [0])
        await command(story, "/retry")
        await story.until_told("The reply is still stopping")


async def test_a_command_of_the_palette_that_needs_words_begins_in_the_prompt() -> None:
    async with chat() as story:
        await story.type("kept")
        await story.pilot.press("ctrl+p", *"rename this", "enter")
        await story.until(lambda: story.prompt.text == "/rename ")
        await story.pilot.press("ctrl+c", "up", "up")
        assert story.prompt.text == "kept"


async def test_a_command_of_the_palette_takes_the_place_of_a_message_that_is_changed_and_of_the_draft() -> None:
    async with chat() as story:
        await change_beside_a_draft(story)
        await story.pilot.press("!", "ctrl+p", *"rename this", "enter")
        await story.until(lambda: story.prompt.text == "/rename ")
        assert not story.prompt.is_editing
        await story.pilot.press("up")
        assert story.prompt.text == "my draft"
        await story.pilot.press("up")
        assert story.prompt.text == "words!"


async def test_how_replies_are_made_is_said_and_changed() -> None:
    async with chat() as story:
        for text in ("/temp 0.5", "/seed 7", "/think on", "/system Be brief."):
            await command(story, text)
        await story.until_told("Seed 7 from your next message.")
        await story.send("hello")
        request = story.engine.requests[-1]
        assert (request.sampling.temperature, request.sampling.seed, request.is_thinking) == (0.5, 7, True)
        assert request.messages[0].text == "Be brief."
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        for text in ("/temp default", "/seed random", "/think", "/system", "/system off"):
            await command(story, text)
        await story.until_told("System prompt: Be brief.")
        await story.send("hello")
        request = story.engine.requests[-1]
        assert (request.sampling.temperature, request.sampling.seed, request.is_thinking) == (None, None, False)
        assert request.messages[0].text == "hello"


async def test_a_schema_is_seen_while_replies_match_it(tmp_path: Path) -> None:
    (path := tmp_path / "person.json").write_text('{"type": "object"}')
    async with chat() as story:
        await command(story, f"/schema {path}")
        await story.until(lambda: story.app.query_one(TopLine).settings == "schema person.json")
        await story.send("hello")
        assert story.engine.requests[-1].schema == '{"type": "object"}'
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await command(story, "/schema")
        await story.until_told("Replies match person.json from your next message.")
        await command(story, f"/schema {tmp_path / 'none.json'}")
        await story.until_told("none.json is not a file.")
        await command(story, "/schema off")
        await story.until(lambda: story.app.query_one(TopLine).settings == "")
        await story.send("hello")
        assert story.engine.requests[-1].schema is None


@pytest.mark.parametrize("system", ["Be brief. " * 500, "Be brief.\n" * 50], ids=["long", "high"])
async def test_of_a_long_system_text_the_beginning_is_told(system: str) -> None:
    async with chat(ChatOptions(Settings(system=system))) as story:
        await command(story, "/system")
        await story.until_told(f"… ({len(system):,} characters; f6 shows them all)")
        assert all(len(each.message) < 400 for each in story.app._notifications)


async def test_a_chat_is_renamed_deleted_and_brought_back() -> None:
    async with chat() as story:
        await command(story, "/delete")
        await story.until_told("this chat is empty")
        await story.exchange("first words", "an answer")
        await command(story, "/rename Better title")
        await story.until_seen("Better title")
        await command(story, "/delete")
        await story.until_told("Deleted “Better title”")
        assert "an answer" not in story.screen()
        await command(story, "/undo")
        await story.until_seen("Better title", "an answer")


async def test_a_chat_goes_to_a_file_and_comes_back(folder: Path) -> None:
    async with chat() as story:
        await story.exchange("first words", "an answer")
        for text in ("/export", "/export", "/export kept.json"):
            await command(story, text)
        await story.until((folder / "kept.json").exists)
        assert {"first-words.md", "first-words-2.md"} <= set(os.listdir(folder))
        await command(story, "/export kept.json")
        await story.until_told("kept.json already exists. Choose another name.")
        await command(story, "/export ~nobody-of-that-name/x.md")
        await story.until_told("no user of that name has a home folder here")
        await command(story, "/export a\0b.md")
        await story.until_told("contains a zero byte")
        await command(story, "/new")
        await story.until(lambda: "an answer" not in story.screen())
        await command(story, "/import kept.json")
        await story.until_seen("an answer")
        await command(story, "/import main.py")
        await story.until_told("not a chat exported by Slipstream")


async def test_the_rest_of_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPSTREAM_HOME", "/short")
    async with chat() as story:
        await story.exchange("words", "an answer\n\n```py\ncode\n```")
        await command(story, "/copy code")
        await story.until(lambda: story.app.clipboard == "code")
        await command(story, "/theme textual-light")
        await story.until(lambda: story.app.theme == "textual-light")
        await command(story, "/model broken")
        await story.until_told("There is no model called broken")
        await command(story, "/search words")
        await story.until_seen("words", "enter: open")
        await story.pilot.press("escape")
        await command(story, "/paths")
        await story.until_seen("Where files are kept", "chats.db")
        await story.pilot.press("escape")
        await command(story, "/quit")
        await story.until(lambda: not story.app.is_running)


# Files


async def test_what_only_looks_like_a_file_is_shown_as_it_was_typed(folder: Path) -> None:
    typed = "see\n\n@notes.txt (5 bytes):\n```txt\nfour\n```"
    async with chat() as story:
        story.prompt.text = typed
        await story.pilot.press("enter", "enter")  # the first names the file that does not exist
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == typed
        await story.until_seen("❯ see", "@notes.txt (5 bytes):", "```txt")
        assert "▤" not in story.screen()
        sent_in = story.conversation.chat
        assert sent_in is not None
        await story.run("stop")
        story.conversation.open(sent_in.id)
        await story.transcript.show(story.conversation.exchanges)
        await story.until_seen("@notes.txt (5 bytes):")
        assert "▤" not in story.screen()


async def test_a_file_is_attached_counted_and_sent_folded(folder: Path) -> None:
    async with chat() as story:
        await story.pilot.press(*"see @no")
        await story.until_seen("@notes.md")
        await story.pilot.press("tab")
        assert story.prompt.text == "see @notes.md "
        await story.until_seen("@notes.md · 6 tokens · 24 bytes · 5 lines")
        (folder / "notes.md").write_text("changed since it was shown")
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        sent = "see @notes.md\n\n@notes.md (24 bytes):\n````md\n# Notes\n\n```\nfenced\n```\n````"
        assert story.engine.requests[-1].messages[-1].text == sent
        await story.until_seen("❯ see @notes.md", "▤ @notes.md · 24 bytes · 5 lines")
        assert "fenced" not in story.screen()
        assert files(story) == ""


@pytest.mark.parametrize("typed", ["What is in @notes.md", "/edit What is in @notes.md"])
async def test_while_the_files_of_a_message_are_read_no_other_reply_begins(
    monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    async with chat() as story:
        await story.exchange("one", "1")
        take = AttachmentLine.collect

        async def take_while_a_key_is_pressed(*arguments: Any, **others: Any) -> tuple[Attachment, ...]:
            await story.run("regenerate")
            return await take(*arguments, **others)

        monkeypatch.setattr(AttachmentLine, "collect", take_while_a_key_is_pressed)
        await command(story, typed)
        await story.until_told("A reply is running")
        await story.until(lambda: len(story.engine.requests) > 1)
        [_, asked] = story.engine.requests
        assert "# Notes" in asked.messages[-1].text


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Files are not read until it is set."""
    is_awake = threading.Event()
    read_mention = attachments.read_mention

    def read_slowly(mention: str, folder: Path) -> Attachment | None:
        is_awake.wait(PATIENCE_S)
        return read_mention(mention, folder)

    monkeypatch.setattr(attachments, "read_mention", read_slowly)
    yield is_awake
    is_awake.set()


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
@pytest.mark.parametrize("typed", ["see @main.py", "/edit see @main.py"])
async def test_a_message_whose_file_is_still_being_read_can_be_stopped(
    disk: threading.Event, key: str, typed: str
) -> None:
    async with chat() as story:
        await story.exchange("words", "an answer")
        await command(story, typed)
        await story.until(lambda: not story.prompt.text)
        await story.pilot.press(key)
        await story.until(lambda: story.prompt.text == "see @main.py")
        assert story.prompt.is_editing == typed.startswith("/edit")
        disk.set()
        await story.pilot.press("!")
        await story.pilot.pause()
        assert len(story.engine.requests) == 1
        await story.pilot.press("backspace", "enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert "print()" in story.engine.requests[-1].messages[-1].text


async def test_what_was_typed_meanwhile_stays_where_a_message_is_stopped(disk: threading.Event) -> None:
    async with chat() as story:
        await command(story, "see @main.py")
        await story.pilot.press(*"next", "escape")
        await story.until_told("The message was not sent. Press up to get it back.")
        assert story.prompt.text == "next"
        await story.pilot.press("up")
        assert story.prompt.text == "see @main.py"
        disk.set()


@pytest.mark.parametrize("typed", ["see @main.py", "/edit see @main.py"])
async def test_a_message_whose_file_is_still_being_read_does_not_go_to_a_new_chat(
    disk: threading.Event, typed: str
) -> None:
    async with chat() as story:
        await story.exchange("words", "an answer")
        await command(story, typed)
        await story.until(lambda: not story.prompt.text)
        await story.pilot.press("ctrl+n")
        await story.until(lambda: story.prompt.text == "see @main.py" and "an answer" not in story.screen())
        assert not story.prompt.is_editing
        disk.set()
        await story.pilot.press("!", "backspace")
        assert len(story.engine.requests) == 1
        await story.pilot.press("enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert len(story.engine.requests[-1].messages) == 1


async def test_a_file_that_cannot_be_attached_is_refused_and_the_text_stays() -> None:
    async with chat() as story:
        await story.type("look at @photo.png please")
        await story.until_seen("photo.png is not text: it contains a zero byte")
        await story.pilot.press("enter")
        await story.until_told("Press enter again to send the message without it")
        assert not story.engine.requests
        assert story.prompt.text == "look at @photo.png please"
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == "look at @photo.png please"


async def test_a_file_that_no_context_holds_is_said_before_it_is_sent(folder: Path) -> None:
    (folder / "book.txt").write_text("word " * 30_000)
    async with chat() as story:
        await story.type("see @book.txt")
        await story.until_seen("too long · @book.txt · 37,500 tokens, context 32,768 · 150.0 kB")


@pytest.mark.parametrize(
    ("size", "line"),
    [
        ((44, 12), "too long · @book.txt · 37,500 to… +2 files"),
        ((80, 15), "too long · @book.txt · 37,500 tokens, context 32,768 · 150.0 kB · 1 … +2 files"),
    ],
)
async def test_a_file_that_no_context_holds_is_said_in_a_small_window(
    folder: Path, size: tuple[int, int], line: str
) -> None:
    (folder / "book.txt").write_text("word " * 30_000)
    async with chat(size=size) as story:
        await story.type("see @main.py @notes.md @book.txt")
        await story.until(lambda: files(story) == line)
        await story.pilot.resize_terminal(80, 24)
        await story.until_seen("too long · @book.txt", "@main.py · 2 tokens", "@notes.md · 6 tokens")


async def test_another_model_counts_the_files_again() -> None:
    async with chat() as story:
        await story.type("see @main.py and @notes.md")
        await story.until_seen(
            "@main.py · 2 tokens · 8 bytes · 1 line", "@notes.md · 6 tokens · 24 bytes · 5 lines"
        )
        counted = [each.text for each in story.engine.counts]
        story.engine.count = lambda id, text: story.engine.emit(Counted(id, 7))  # type: ignore[method-assign]
        story.engine.emit(replace(story.engine.ready(), context_tokens=6))
        await story.until_seen("too long · @main.py · 7 tokens, context 6 · 8 bytes · 1 line")
        await story.until_seen("@notes.md · 7 tokens, context 6")
        assert counted == ["print()\n", "# Notes\n\n```\nfenced\n```\n"]


async def test_attach_is_a_mention_and_a_word_that_names_no_file_is_a_word() -> None:
    async with chat() as story:
        await command(story, "/attach main.py")
        await story.until(lambda: story.prompt.text == "@main.py ")
        await story.pilot.press(*"by @nobody", "escape", "enter")
        await story.until_told("There is no file nobody. Press enter again to send the message without it.")
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == (
            "@main.py by @nobody\n\n@main.py (8 bytes):\n```py\nprint()\n```"
        )


async def test_a_message_that_fails_comes_back_with_its_file_as_a_mention() -> None:
    async with chat() as story:
        await story.send("see @main.py")
        story.engine.fail()
        await story.until(lambda: story.prompt.text == "see @main.py")


async def test_the_chat_goes_on_where_its_folder_is_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    async with chat() as story:
        await command(story, "/screenshot")
        await story.until_told("The screenshot cannot be saved in this folder: No such file or directory.")
        await story.pilot.press(*"see @main.py", "enter")
        await story.until_told("There is no file main.py.")
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == "see @main.py"


# Long texts

PASTE = "a line\n" * 1000
TOKEN = "[pasted text 1: 7,000 characters, 1,000 lines]"


@pytest.mark.parametrize(
    "keys",
    [
        ("backspace",),
        ("ctrl+w",),
        ("left", "delete"),
        ("left", "right", "backspace"),
        ("left", "ctrl+k"),
        ("shift+left", "delete"),
        ("home", *["right"] * 4, "delete"),
        ("left", "ctrl+right", "backspace"),
        ("ctrl+shift+left", "delete"),
        ("left", "shift+right", "ctrl+x"),
    ],
)
@pytest.mark.sampled(2)
async def test_a_collapsed_paste_goes_as_a_whole_and_is_brought_back(keys: tuple[str, ...]) -> None:
    async with chat() as story:
        await story.pilot.press(*"see ")
        await story.type(PASTE)
        assert story.prompt.text == f"see {TOKEN}"
        await story.pilot.press(*keys)
        assert story.prompt.text == "see "
        await story.pilot.press("ctrl+z")
        assert story.prompt.text == f"see {TOKEN}"
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == f"see {PASTE}".rstrip()


EVERY_KEY = [each.action for each in TextArea.BINDINGS if isinstance(each, Binding)]
TEXTS = ("", "abc", "abc\ndef", "abc\n", TOKEN, f"see {TOKEN}", f"{TOKEN}\nabc", f"abc\n{TOKEN} def", f"{TOKEN}\n")


def selections(text: str) -> Iterator[Selection]:
    """The cursor at the ends, in the middle and around the line breaks of a text, and all between two of these."""
    rows = text.split("\n")
    places = [
        (row, column) for row, line in enumerate(rows) for column in sorted({0, 1, len(line) // 2, len(line)})
    ]
    places = [(row, column) for row, column in places if column <= len(rows[row])]
    yield from (Selection(begin, end) for begin in places for end in places)


@pytest.mark.parametrize("action", EVERY_KEY)
@pytest.mark.sampled(3)
async def test_every_key_of_a_text_area_works_at_every_place_and_leaves_a_collapsed_paste_whole(
    action: str,
) -> None:
    async with chat() as story:
        prompt = story.prompt
        await story.type(PASTE)
        for text in TEXTS:
            for selection in selections(text):
                prompt.load_text(text)
                prompt.selection = selection
                await prompt.run_action(action)
                assert "[" not in prompt.text.replace(TOKEN, ""), (text, selection)
                prompt.undo()
                assert prompt.text == text, selection


async def test_the_cursor_passes_a_collapsed_paste_as_one_letter() -> None:
    async with chat() as story:
        await story.pilot.press(*"see ")
        await story.type(PASTE)
        begin, end = len("see "), len(f"see {TOKEN}")
        for key, column in (("left", begin), ("right", end), ("ctrl+left", begin), ("left", begin - 1)):
            await story.pilot.press(key)
            assert story.prompt.cursor_location == (0, column), key
        await story.pilot.click(story.prompt, offset=(end, 1))
        await story.pilot.press(*"why?", "enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == f"see {PASTE}why?"


async def test_a_collapsed_paste_is_copied_and_cut_in_full() -> None:
    async with chat() as story:
        await story.pilot.press(*"ab ")
        await story.type(PASTE)
        await story.pilot.press(*" cd @main.py", "escape", "shift+home", "ctrl+c")
        whole = f"ab {PASTE} cd @main.py"
        await story.until_told(f"Copied the selection ({len(whole):,} characters)")
        assert story.app.clipboard == whole
        for keys in (("shift+home", "ctrl+x"), ("ctrl+x",)):
            story.app.copy_to_clipboard("another text")
            await story.pilot.press(*keys)
            assert (story.app.clipboard.rstrip("\n"), story.prompt.text) == (whole, "")
            await story.pilot.press("ctrl+v")
            assert story.prompt.text == f"ab {TOKEN} cd @main.py"


async def test_a_long_text_that_was_copied_here_is_collapsed_too() -> None:
    async with chat() as story:
        story.app.copy_to_clipboard(PASTE)
        await story.pilot.press("ctrl+v")
        assert story.prompt.text == TOKEN


async def test_a_file_is_attached_to_a_long_message_from_the_editor(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "edit.py").write_text("import sys\nopen(sys.argv[1], 'a').write('x ' * 3000 + '@main.py')\n")
    monkeypatch.setenv("VISUAL", f"{sys.executable} edit.py")
    async with chat() as story:
        monkeypatch.setattr(story.app, "suspend", suspended)
        await story.pilot.press("ctrl+g")
        await story.until_seen("[text 1: 6,008 characters, 1 line]", "@main.py · 2 tokens")
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text.endswith("\n\n@main.py (8 bytes):\n```py\nprint()\n```")


async def test_a_long_message_that_is_changed_keeps_its_file() -> None:
    async with chat() as story:
        await story.type("word " * 700)
        await story.type("and @main.py " + "more " * 700)
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.pilot.press("ctrl+up")
        await story.until_seen("[text 1: ")
        await story.pilot.press("!", "enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert "print()" in story.engine.requests[-1].messages[-1].text


NAMING = "as said in @main.py\n" * 300
"""A paste that names a file, which is no wish to attach it."""


async def test_what_a_paste_names_is_not_attached_when_its_message_is_changed_in_a_later_run(
    tmp_path: Path,
) -> None:
    database = tmp_path / "chats.db"
    async with chat(database=database) as story:
        await story.exchange(NAMING, "an answer")
    async with chat(ChatOptions(chat_id=1), database=database) as story:
        await story.until_seen("an answer")
        await story.pilot.press("ctrl+up")
        await story.until(lambda: story.prompt.is_editing)
        await story.pilot.press("enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == NAMING.rstrip()


async def test_what_a_paste_of_an_earlier_run_names_is_not_attached(tmp_path: Path) -> None:
    options = ChatOptions(history_path=tmp_path / "history.jsonl")
    async with chat(options) as story:
        await story.exchange(NAMING, "an answer")
    async with chat(options) as story:
        await story.pilot.press("up", "enter")
        await story.until(lambda: story.engine.requests)
        assert story.engine.requests[-1].messages[-1].text == NAMING.rstrip()


async def test_what_a_paste_names_is_not_attached_by_edit() -> None:
    async with chat() as story:
        await story.exchange("words", "an answer")
        await story.pilot.press(*"/edit ", "escape")
        await story.type(NAMING)
        await story.pilot.press("enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert story.engine.requests[-1].messages[-1].text == NAMING.rstrip()


async def test_what_a_paste_names_is_not_attached_when_it_is_changed_in_the_editor(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / "edit.py").write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "path.write_text('As ' + path.read_text()[3:] + 'and @notes.md')\n"
    )
    monkeypatch.setenv("VISUAL", f"{sys.executable} edit.py")
    async with chat() as story:
        monkeypatch.setattr(story.app, "suspend", suspended)
        await story.type("as said in @main.py " * 300)
        await story.pilot.press("ctrl+g")
        await story.until_seen("[text 2: 6,013 characters, 1 line]", "@notes.md · 6 tokens")
        assert "@main.py" not in files(story)


async def test_a_long_message_of_this_run_comes_back_with_its_file() -> None:
    async with chat() as story:
        await story.type("word " * 700)
        await story.type("and @main.py " + "more " * 700)
        await story.pilot.press("ctrl+c", "up")
        await story.until_seen("[text 1: ", "@main.py · 2 tokens")


# Earlier prompts


async def test_prompts_of_an_earlier_run_come_back(tmp_path: Path) -> None:
    options = ChatOptions(history_path=tmp_path / "history.jsonl")
    async with chat(options) as story:
        await story.send("first\nwith lines")
        await command(story, "/help")
    async with chat(options) as story:
        await story.pilot.press("up", "up")
        assert story.prompt.text == "first\nwith lines"


async def test_a_draft_survives_a_walk_through_the_history() -> None:
    async with chat() as story:
        for text in ("one", "two"):
            await story.type(text)
            story.prompt.discard()
        await story.type("my draft")
        await story.pilot.press("up", "!", "up", "down")
        assert story.prompt.text == "two!", "what was changed on the way is there too"
        await story.pilot.press("down")
        assert story.prompt.text == "my draft"


async def test_the_last_message_is_changed_and_sent_again() -> None:
    async with chat() as story:
        await story.pilot.press("ctrl+up")
        await story.until_told("no message to edit")
        await story.exchange("what is @main.py", "an answer")
        await story.type("half a thought")
        await story.pilot.press("ctrl+up")
        await story.until(lambda: story.prompt.text == "what is @main.py")
        await story.pilot.press("escape")
        assert story.prompt.text == "half a thought"
        (Path("main.py")).unlink()
        await story.pilot.press("ctrl+up")
        await story.until(lambda: story.prompt.is_editing)
        await story.pilot.press(*" about", "enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert story.prompt.text == "half a thought"
        (message,) = story.engine.requests[-1].messages
        assert message.text == "what is @main.py about\n\n@main.py (8 bytes):\n```py\nprint()\n```"
        story.engine.say("another answer")
        story.engine.finish()
        await story.until_seen("another answer", "‹ 2/2 ›")
        assert "an answer" not in story.screen().replace("another answer", "")
        await story.pilot.press("ctrl+c", "alt+left")
        await story.until_seen("an answer", "‹ 1/2 ›")
        await story.pilot.press("alt+right")
        await story.until_seen("another answer", "‹ 2/2 ›")
        await story.pilot.press(*"two words", "alt+left", "!", "alt+right", "?")
        assert story.prompt.text == "two !words?", "in a text they move by words"
        assert story.shows("‹ 2/2 ›")


async def test_a_change_stays_with_the_message_that_is_changed(tmp_path: Path) -> None:
    async with chat(database=tmp_path / "chats.db") as story:
        await story.exchange("one", "an answer")
        await story.type("half a thought")
        await story.pilot.press("ctrl+up", *" more")
        await story.pilot.press("ctrl+n")
        await story.until(lambda: not story.prompt.is_editing)
        assert story.prompt.text == "half a thought"
        await story.pilot.press("up")
        assert story.prompt.text == "one more", "what was typed is not lost"
        await story.pilot.press("enter")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert [each.text for each in story.engine.requests[-1].messages] == ["one more"]


@pytest.mark.parametrize("way", ["another chat", "another version"])
async def test_a_change_does_not_go_to_another_message(tmp_path: Path, way: str) -> None:
    async with chat(database=tmp_path / "chats.db") as story:
        await story.exchange("one", "an answer")
        await story.pilot.press("ctrl+r")
        await story.until(lambda: len(story.engine.requests) == 2)
        story.engine.begin()
        story.engine.finish(text="another answer")
        await story.until_seen("another answer")
        if way == "another chat":
            await story.pilot.press("ctrl+n")
            await story.exchange("two", "something else")
        await story.pilot.press("ctrl+up", *" more")
        if way == "another chat":
            await story.pilot.press("f4")
            await story.until_seen("enter: open")
            await story.pilot.press("down", "enter")
        else:
            await story.run("walk(-1)")
        await story.until(lambda: not story.prompt.is_editing)
        await story.type("three")
        await story.pilot.press("enter")
        await story.until(lambda: story.state == "waiting")
        texts = [each.text for each in story.engine.requests[-1].messages if each.role == "user"]
        assert texts == ["one", "three"]


async def test_leaving_a_message_that_is_changed_is_said_as_what_it_is() -> None:
    async with chat() as story:
        await change_beside_a_draft(story)
        await story.pilot.press("!", "ctrl+c")
        await story.until_told("Your last message stays as it was. Press up to get your changes back.")
        assert story.prompt.text == "my draft"
        await story.pilot.press("up")
        assert story.prompt.text == "words!"


async def test_edit_takes_the_words_at_once() -> None:
    async with chat() as story:
        await story.exchange("poor words", "an answer")
        await command(story, "/edit better words")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert [each.text for each in story.engine.requests[-1].messages] == ["better words"]


async def test_arrows_in_an_empty_prompt_say_nothing_where_there_is_nothing_to_walk() -> None:
    async with chat() as story:
        await story.exchange("words", "an answer")
        await story.pilot.press("left", "right", "alt+left", "alt+right")
        assert not story.app._notifications


async def test_a_bare_arrow_in_an_empty_prompt_leaves_the_chat_as_it_is() -> None:
    async with chat() as story:
        await story.exchange("words", "an answer")
        await story.pilot.press("ctrl+r")
        await story.until(lambda: len(story.engine.requests) == 2)
        story.engine.begin()
        story.engine.finish(text="another answer")
        await story.until_seen("another answer", "‹ 2/2 ›")
        await story.pilot.press("left", "right", "left")
        assert story.shows("‹ 2/2 ›")


async def test_it_is_told_which_version_is_shown_in_one_notice() -> None:
    async with chat() as story:
        await story.exchange("words", "an answer")
        await story.pilot.press("ctrl+r")
        await story.until(lambda: len(story.engine.requests) == 2)
        story.engine.begin()
        story.engine.finish(text="another answer")
        await story.until_seen("another answer", "‹ 2/2 ›")
        for key, number in (("alt+left", 1), ("alt+left", 1), ("alt+right", 2), ("alt+right", 2)):
            await story.pilot.press(key)
            await story.until_told(f"Version {number} of 2 of this chat.")
            await story.until(lambda: len(story.app.screen.query(Toast)) == 1, "notices pile up")
            assert len(story.app._notifications) == 1


# The editor


@contextmanager
def suspended() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        ("open(p, 'a').write(' from the editor')", "words from the editor", None),
        ("pass", "words", "The editor made no changes"),
        ("sys.exit(1)", "words", "exit status 1"),
        ("os.remove(p)", "words", "left no file"),
    ],
)
async def test_the_prompt_in_an_editor(
    monkeypatch: pytest.MonkeyPatch, folder: Path, code: str, text: str, told: str | None
) -> None:
    (folder / "edit.py").write_text(f"import os, sys\np = sys.argv[1]\n{code}\n")
    monkeypatch.setenv("VISUAL", f"{sys.executable} edit.py")
    async with chat() as story:
        monkeypatch.setattr(story.app, "suspend", suspended)
        await story.type("words")
        await story.pilot.press("ctrl+g")
        if told:
            await story.until_told(told)
        await story.until(lambda: story.prompt.text == text)


async def test_an_editor_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "no-such-editor")
    async with chat() as story:
        await story.type("words")
        await story.pilot.press("ctrl+g")
        await story.until_told("there is no such program")
        assert story.prompt.text == "words"


# Code


async def test_a_code_block_is_copied_by_keys() -> None:
    reply = "One:\n\n```py\nfirst()\n```\n\nTwo:\n\n```py\nsecond()\n```\n"
    async with chat() as story:
        await story.exchange("code", reply)
        await story.until_seen("second()")
        await story.pilot.press("shift+tab", "c")
        await story.until(lambda: story.app.clipboard == "second()")
        await story.until_told("Copied the code block (8 characters)")
        await story.pilot.press("shift+tab", "ctrl+y")
        await story.until(lambda: story.app.clipboard == "first()")
        await story.pilot.press("h")
        await story.until(lambda: story.prompt.has_focus and story.prompt.text == "h")
        await story.pilot.press("shift+tab", "escape")
        assert story.prompt.has_focus


# The first screen


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (120, 36)])
async def test_the_prompt_is_seen_under_everything_that_opens(size: tuple[int, int]) -> None:
    async with chat(size=size) as story:
        await story.type("see @notes.md and @")
        await story.until_seen("see @notes.md and @", "@notes.md · 6 tokens", "@main.py")
        await story.pilot.press("escape", "ctrl+c", "/")
        await story.until_seen("/help Help")
        assert story.prompt.region.bottom <= size[1]
