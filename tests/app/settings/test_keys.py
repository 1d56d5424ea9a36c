"""A person's own keys: which are allowed, and that they work."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.keys import Keys

from app.core.chat_options import ChatOptions
from app.settings.keys import DEFAULT_KEYS, NAMED_KEYS, key_of_action, key_table, keymap_of
from app.settings.table import SendKey, Settings
from tests.app.settings.support import holds, refusal
from tests.app.tui.pilot import Story, chat


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("draft: x", "draft: 'x' is not a usable key. Use a key such as ctrl+x"),
        ("draft: shift+x", "is not a usable key"),
        ("draft: cmd+x", "is not a usable key"),
        ("draft: ctrl+ctrl+x", "is not a usable key"),
        ("draft: ctrl+", "is not a usable key"),
        ("draft: f99", "is not a usable key"),
        ("draft: ctrl+i", "A terminal cannot tell ctrl+i from tab."),
        ("draft: ctrl+m", "A terminal cannot tell ctrl+m from enter."),
        ("draft: []", "draft has no key."),
        ("draft:", "draft has no key."),
        ("draft: {a: b}", "draft has no key."),
        ("draft: ctrl+r", "ctrl+r already belongs to retry. Give draft another key, or change retry as well."),
        ("draft: f9\n  retry: f9", "f9 already belongs to draft."),
        ("copy_code: f9\n  leave_code: f9", "f9 already belongs to copy_code."),
        (
            "copy_code: ctrl+t",
            "ctrl+t already belongs to draft. Give copy_code another key, or change draft as well.",
        ),
        ("draft: ctrl+p", "ctrl+p already belongs to palette."),
        ("stop: c", "stop: 'c' is not a usable key."),
    ],
)
def test_keys_that_cannot_be_had(file: Path, line: str, words: str) -> None:
    assert words in refusal(file, f"keys:\n  {line}\n")


def test_the_keys_that_follow_from_send_key_are_taken(file: Path) -> None:
    words = refusal(file, "send_key: alt+enter\nkeys: {draft: ctrl+s}\n")
    assert "ctrl+s is assigned to draft, but send_key makes it send." in words
    assert holds(file, "keys: {draft: ctrl+s}\n").settings.keys == {"draft": "ctrl+s"}


def test_keys_can_be_exchanged_and_written_in_any_way(file: Path) -> None:
    found = holds(file, "keys:\n  draft: CTRL + R\n  retry: [ctrl+t, f9]\n").settings
    assert found.keys == {"draft": "ctrl+r", "retry": "ctrl+t,f9"}


def test_a_letter_and_a_key_of_the_prompt_can_be_had_on_code(file: Path) -> None:
    found = holds(file, "keys:\n  copy_code: [X, f9]\n  leave_code: Esc, up\n  send: f9\n").settings
    assert found.keys == {"copy_code": "x,f9", "leave_code": "escape,up", "send": "f9"}


def test_two_things_with_the_same_key_are_not_in_reach_at_once_or_both_lead_out() -> None:
    owners = [(key, id) for id, keys in DEFAULT_KEYS.items() for key in keys]
    shared = {(key, one, other) for key, one in owners for same, other in owners if key == same and one < other}
    assert shared == {("enter", "copy_code", "send"), ("escape", "leave_code", "stop")}


async def test_code_is_copied_and_left_by_other_keys() -> None:
    async with chat(ChatOptions(Settings(keys={"copy_code": "x,f9", "leave_code": "f10"}))) as story:
        await story.exchange("q", "```sh\nmake it\n```")
        for key in ("x", "f9"):
            await story.pilot.press("shift+tab", key)
            await story.until_told("Copied the code")
            await story.pilot.press("f10")
            assert story.app.focused is story.prompt
        assert story.prompt.text == ""
        await story.pilot.press("shift+tab", "c")
        await story.until(lambda: story.app.focused is story.prompt)
        assert story.prompt.text == "c", "what is no key any more is typed"
        rows = key_table(story.app.own_keys)
        assert ("x on code", "copies the code block (f9 too)") in rows


def test_the_help_and_the_palette_know_the_keys() -> None:
    assert ("f9", f"{dict(key_table({}))['ctrl+t']} (f10 too)") in key_table({"draft": "f9,f10"})
    assert key_of_action("toggle_drafting", {"draft": "f9,f10"}) == "f9"
    assert dict(key_table({}))["esc"].startswith("stops the reply"), "as the key line names it"


@pytest.mark.parametrize("key", ["ctrl+x", "ctrl+r"])
async def test_another_key_works_also_where_a_text_area_has_it(key: str) -> None:
    async with chat(ChatOptions(Settings(draft=4, keys={"draft": key, "retry": "f10"})), size=(80, 40)) as story:
        await story.type("some text")
        await story.pilot.press(key)
        await story.until_seen("draft OFF")
        await story.pilot.press("ctrl+t")
        await story.pilot.pause()
        assert story.shows("draft OFF"), "the usual key does nothing any more"
        assert story.prompt.text == "some text"
        await story.pilot.press("f1")
        await story.until_seen(key)


async def test_own_keys_of_the_chat_leave_the_lists_to_theirs() -> None:
    keys = {"new": "f9", "retry": "f8", "draft": "ctrl+d"}
    async with chat(ChatOptions(Settings(keys=keys, draft=4))) as story:
        await story.exchange("Hi", "Hello.")
        await story.pilot.press("f4")
        await story.until_seen("enter: open")
        await story.pilot.press("f9", "f8", "ctrl+d")
        await story.until_seen("Deleted “Hi”")
        await story.pilot.press("ctrl+z", "escape")
        await story.until_seen("Hello.")
        assert story.dialogue.settings.draft_length == 4
        assert len(story.engine.requests) == 1
        await story.pilot.press("ctrl+d", "f8")
        await story.until(lambda: len(story.engine.requests) == 2)
        assert story.dialogue.settings.draft_length == 0


async def test_the_palette_can_have_another_key() -> None:
    async with chat(ChatOptions(Settings(keys={"palette": "f9"}))) as story:
        await story.until_seen("▏f9 palette")
        await story.pilot.press("ctrl+p")
        assert len(story.app.screen_stack) == 1
        await story.pilot.press("f9")
        await story.until_seen("Search for commands")
    assert ("f9", "command palette: every command by name") in key_table({"palette": "f9"})


async def sends(story: Story, key: str) -> bool:
    before = len(story.engine.requests)
    await story.pilot.press(key)
    await story.pilot.pause()
    return len(story.engine.requests) > before


@pytest.mark.parametrize("send_key", ["alt+enter", "ctrl+s"])
async def test_enter_can_be_left_to_the_input_method(send_key: SendKey) -> None:
    async with chat(ChatOptions(Settings(send_key=send_key))) as story:
        await story.until_seen(f"{send_key} sends it", f"{send_key}: send")
        await story.type("変換")
        assert not await sends(story, "enter")
        assert story.prompt.text == "変換\n"
        await story.type("二")
        assert await sends(story, send_key)
        assert story.engine.requests[-1].messages[-1].text == "変換\n二"
        story.engine.begin()
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.pilot.press("ctrl+up")
        await story.until_seen(f"{send_key} resends")


async def test_every_terminal_can_send() -> None:
    async with chat(ChatOptions(Settings(send_key="ctrl+enter"))) as story:
        await story.type("Hello")
        assert await sends(story, "ctrl+s")


async def test_sending_and_new_lines_have_the_keys_of_the_keymap() -> None:
    async with chat(ChatOptions(Settings(keys={"send": "f9", "newline": "f10"}))) as story:
        await story.type("one")
        await story.pilot.press("f10")
        assert story.prompt.text == "one\n"
        assert await sends(story, "f9")


def test_what_sends_and_what_breaks_lines_differ() -> None:
    for send_key in ("ctrl+enter", "alt+enter", "ctrl+s"):
        keymap = keymap_of(send_key, {})
        assert not set(keymap["send"].split(",")) & set(keymap["newline"].split(","))
        assert "enter" in keymap["newline"].split(",")
    assert keymap_of("enter", {"draft": "f9"}) == {"draft": "f9"}
    assert keymap_of("ctrl+s", {"send": "f9"})["send"] == "f9"


async def test_sentences_name_the_keys_of_the_keymap() -> None:
    ids = ("stop", "draft", "retry", "tint", "thoughts", "follow", "interrupt", "help")
    own = {id: f"f{number}" for number, id in enumerate(ids, 13)}
    async with chat(ChatOptions(Settings(draft=4, keys=own)), size=(120, 20)) as story:
        await story.until_seen(f"{own['stop']} stops the reply", f"{own['draft']} for drafting")
        await story.pilot.press(own["draft"])
        await story.until_seen(f"drafting is off · {own['draft']}: on")
        await story.send("Hello")
        story.engine.begin()
        story.engine.say("Hi there", thinking="Well")
        await story.until_seen(f"words · {own['thoughts']}")
        await story.type("Another")
        await story.pilot.press("enter")
        await story.until_seen("up: take back · queued: Another")
        await story.pilot.press("up", own["retry"])
        await story.until_told(f"A reply is running. Press {own['stop']} to stop it.")
        story.engine.say("\n\nword" * 40)
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.pilot.press("pageup")
        await story.until_seen(f"{own['follow']}: back to the newest")
        await story.pilot.press(own["tint"])
        await story.until_seen(f"{own['tint']}: formatted view")
        await story.run("walk(-1)")
        await story.until_told("/retry regenerates the last reply")
        await story.pilot.press(own["interrupt"])
        await story.until_told(f"Press {own['interrupt']} again to quit")


def test_the_named_keys_are_textuals() -> None:
    spelled = {key.value for key in Keys if "+" not in key.value and not key.value.startswith("<")}
    assert spelled == NAMED_KEYS
