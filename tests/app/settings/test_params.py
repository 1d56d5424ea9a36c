"""Stories of a chat's own settings, and of what the app remembers of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from textual import events
from textual.widgets import Input

from app.core.chat_options import ChatOptions
from app.core.chat_settings import ChatSettings
from app.core.reply_options import ReplyOptions, per_chat_values, reply_options
from app.settings.remembered import RememberedChoices
from app.settings.table import Settings, per_chat
from app.store.chat_store import ChatStore
from app.tui.screens.params import ParamsScreen, SettingInput
from mlx_engine.protocol.events import Failed, Message, SamplingOptions
from tests.app.tui.pilot import PAIR, Story, chat, choose

OPTIONS = ChatOptions(Settings(draft=4, temp=0.7))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "chats.db"


def own(database: Path, chat_id: int = 1) -> dict[str, object]:
    """What is kept with a chat, as another process sees it."""
    store = ChatStore.open(database)
    try:
        return store.chat(chat_id).params
    finally:
        store.close()


def field(story: Story, name: str) -> SettingInput:
    return next(each for each in story.app.screen.query(SettingInput) if each.setting.name == name)


async def open_params(story: Story) -> None:
    await story.pilot.press("f6")
    await story.until(lambda: isinstance(story.app.screen, ParamsScreen))
    await story.until_seen("Repetition penalty")


async def fill(story: Story, name: str, text: str) -> None:
    line = field(story, name).query_one(Input)
    line.focus()
    await story.pilot.press("ctrl+u")
    line.post_message(events.Paste(text))
    await story.until(lambda: line.value == text)


async def set_in_chat(story: Story, **texts: str) -> None:
    """Open the settings of the chat, type, use."""
    await open_params(story)
    for name, text in texts.items():
        await fill(story, name, text)
    await story.pilot.press("enter")
    await story.until(lambda: len(story.app.screen_stack) == 1)


@pytest.mark.parametrize(("columns", "is_narrow"), [(44, True), (61, True), (80, False)])
async def test_where_a_value_holds_is_seen_in_a_narrow_window_too(columns: int, is_narrow: bool) -> None:
    async with chat(OPTIONS, size=(columns, 24)) as story:
        await open_params(story)
        await fill(story, "temp", "1.2")
        await story.until_seen("this chat · all: 0.7")
        assert story.shows("holds: this chat") is is_narrow
        await fill(story, "temp", "0.7")
        await story.until(lambda: not story.shows("this chat · all"))
        await story.until_seen("holds: all chats" if is_narrow else "all chats")
        await fill(story, "temp", "999")
        await story.until_seen("! not valid")


async def test_what_is_set_in_a_chat_goes_with_the_next_request_and_is_there_again(database: Path) -> None:
    async with chat(OPTIONS, database=database) as story:
        await set_in_chat(story, temp="1.2", top_k="40", seed="7", max_tokens="99", draft="off")
        await story.until_told("temperature 1.2")
        await story.send("Hello")
        asked = story.engine.requests[-1]
        assert asked.sampling == SamplingOptions(temperature=1.2, top_k=40, seed=7)
        assert (asked.max_tokens, asked.draft_length) == (99, 0)
        kept = {"temp": 1.2, "top_k": 40, "seed": 7, "max_tokens": 99, "draft": 0}
        assert own(database) == kept
        story.engine.begin()
        story.engine.finish()
        await story.until(lambda: story.state == "ready")
        await story.pilot.press("ctrl+n")
        await story.send("Something else")
        assert story.engine.requests[-1].sampling == SamplingOptions(temperature=0.7), (
            "a new chat has the defaults"
        )
        assert story.engine.requests[-1].draft_length == 4
        assert own(database, 2) == {}
    async with chat(ChatOptions(chat_id=1), database=database, size=(90, 44)) as story:
        await story.until_seen("Hello", "draft OFF")
        await open_params(story)
        await story.until_seen("• Temperature", "all: empty", "• Longest reply", "Thinking ‹ off › all chats")
        await story.pilot.press("escape")
        await story.send("Again")
        assert story.engine.requests[-1].sampling == asked.sampling
        assert story.engine.requests[-1].max_tokens == 99


async def test_what_cannot_be_used_is_told_while_it_is_typed_and_not_used() -> None:
    async with chat(OPTIONS) as story:
        await open_params(story)
        await fill(story, "top_p", "1.5")
        await story.until_seen("! not valid", "! Use a number above 0, up to 1; empty: set by the model.")
        await fill(story, "seed", "5")
        await story.pilot.press("enter")
        assert isinstance(story.app.screen, ParamsScreen)
        assert field(story, "top_p").has_focus_within, "it leads to what has to be corrected"
        await story.pilot.press("backspace", "backspace", "backspace")
        await story.until(lambda: "not valid" not in story.screen())
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        await story.send("Hello")
        assert story.engine.requests[-1].sampling == SamplingOptions(temperature=0.7), "escape leaves it as it was"


async def test_back_to_the_defaults(database: Path) -> None:
    async with chat(OPTIONS, database=database) as story:
        await story.exchange("Hello", "Hi.")
        await set_in_chat(story, temp="1.2", min_p="0.1")
        assert own(database) == {"temp": 1.2, "min_p": 0.1}
        await open_params(story)
        await story.until_seen("this chat · all: 0.7", "this chat · all: 0")
        await story.pilot.press("ctrl+r")
        await story.until(lambda: "all: 0.7" not in story.screen())
        await story.pilot.press("enter")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        assert own(database) == {}


async def test_the_key_that_opens_them_uses_them_and_opens_nothing_over_another_list() -> None:
    async with chat(replace(OPTIONS, settings=replace(OPTIONS.settings, keys={"chats": "f9"}))) as story:
        await set_in_chat(story)
        await open_params(story)
        await fill(story, "temp", "1.5")
        field(story, "system").query_one(".param-field").focus()
        await story.pilot.press("f9", "f6")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        await story.until_told("Temperature 1.5")
        await story.pilot.press("f9")
        await story.until_seen("No chats yet.")
        await story.pilot.press("f6", "f9")
        assert len(story.app.screen_stack) == 2
        await story.pilot.press("escape", "ctrl+p", *"settings of this", "enter")
        await story.until(lambda: isinstance(story.app.screen, ParamsScreen))


async def test_enter_uses_them_from_the_system_text_too() -> None:
    async with chat() as story:
        await open_params(story)
        field(story, "system").query_one(".param-field").focus()
        await story.until_seen("none · ctrl+j: new line")
        await story.pilot.press(*"Brief", "enter")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        await story.send("Hello")
        assert story.engine.requests[-1].messages[0] == Message("system", "Brief")


async def test_what_is_typed_right_behind_tab_belongs_to_the_next_field() -> None:
    async with chat(OPTIONS) as story:
        await open_params(story)
        field(story, "temp").query_one(Input).focus()
        for key in ("tab", "5", "0", "tab", "tab", "shift+tab", "1", "ctrl+s"):
            story.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await story.until(lambda: len(story.app.screen_stack) == 1)
        await story.send("Hello")
        assert story.engine.requests[-1].sampling == SamplingOptions(temperature=0.7, top_k=50, top_p=1)


async def test_the_defaults_hold_again_after_drafting_was_switched_in_passing(database: Path) -> None:
    async with chat(OPTIONS, database=database) as story:
        await story.exchange("Hello", "Hi.")
        await story.pilot.press("ctrl+t")
        await story.until_seen("draft OFF")
        await open_params(story)
        await story.until_seen("• Draft length", "until you quit · all: 4")
        await story.pilot.press("escape")
        await set_in_chat(story, temp="1.5")
        assert own(database) == {"temp": 1.5}, "what was switched in passing is still no setting of the chat"
        await open_params(story)
        await story.pilot.press("ctrl+r", "enter")
        await story.until_seen("draft ON 4")
        assert own(database) == {}


async def test_the_draft_length_takes_effect_in_mid_reply() -> None:
    async with chat(OPTIONS) as story:
        await story.send("Hello")
        story.engine.begin()
        story.engine.say("one ")
        await set_in_chat(story, draft="8")
        assert story.engine.draft_lengths == [8]
        await set_in_chat(story, temp="0.5")
        assert story.engine.draft_lengths == [8], "the rest waits for the next request"
        story.engine.say("two")
        story.engine.finish()
        await story.until_seen("one two")


async def test_a_system_text_of_several_lines_and_what_is_picked() -> None:
    async with chat(ChatOptions(Settings(system="Be long."))) as story:
        await open_params(story)
        field(story, "system").query_one(".param-field").focus()
        await story.pilot.press("ctrl+a", "ctrl+k", *"One", "ctrl+j", *"Two")
        await story.until_seen("all: Be long.")
        field(story, "sampling").query_one(".param-field").focus()
        await story.pilot.press("right")
        field(story, "think").query_one(".param-field").focus()
        await story.pilot.press("left", "ctrl+s")
        await story.until(lambda: len(story.app.screen_stack) == 1)
        await story.send("Hello")
        asked = story.engine.requests[-1]
        assert asked.messages[0].role == "system"
        assert set(asked.messages[0].text.split()) == {"One", "Two"}
        assert asked.sampling.rule == "coupled"
        assert asked.is_thinking


async def test_a_chat_can_do_without_the_usual_system_text(database: Path) -> None:
    async with chat(ChatOptions(Settings(system="Be long.")), database=database) as story:
        await story.type("/system off")
        await story.pilot.press("enter")
        await story.send("Hello")
        assert [each.role for each in story.engine.requests[-1].messages] == ["user"]
    async with chat(ChatOptions(Settings(system="Be long."), chat_id=1), database=database) as story:
        await story.until_seen("Hello")
        await story.send("Again")
        assert all(each.role != "system" for each in story.engine.requests[-1].messages)


async def test_drafting_switched_in_passing_stays_from_chat_to_chat(database: Path) -> None:
    async with chat(OPTIONS, database=database) as story:
        await story.pilot.press("ctrl+t")
        await story.until_seen("draft OFF")
        await story.pilot.press("ctrl+n")
        await story.send("Hello")
        assert story.engine.requests[-1].draft_length == 0
        assert own(database) == {}, "it is no setting of the chat"


async def test_own_settings_that_make_no_sense_are_told_and_kept(database: Path) -> None:
    store = ChatStore.open(database)
    stored = {
        "temp": "hot",
        "top_k": 40,
        "draft": True,
        "seed": None,
        "min_p": None,
        "repetition_penalty": 10**400,
        "max_tokens": 3.0,
        "of_tomorrow": [1],
    }
    made = store.create_chat(params=stored)
    store.ask(made.id, None, "Hello")
    store.close()
    async with chat(ChatOptions(chat_id=made.id), database=database) as story:
        await story.until_told(
            "cannot be used here, so the defaults apply: Temperature, Draft length, Min P, Repetition penalty, "
            "Longest reply."
        )
        await story.send("Again")
        assert story.engine.requests[-1].sampling == SamplingOptions(top_k=40)
        assert story.engine.requests[-1].max_tokens is None
        await set_in_chat(story, max_tokens="5")
    assert own(database) == {"top_k": 40, "max_tokens": 5, "of_tomorrow": [1]}


async def test_a_store_that_cannot_be_written_still_lets_settings_hold(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with chat(OPTIONS, database=tmp_path / "file" / "chats.db") as story:
        await set_in_chat(story, temp="1.5")
        await story.send("Hello")
        assert story.engine.requests[-1].sampling.temperature == 1.5


async def test_every_setting_has_a_name_for_people_a_line_and_a_scope() -> None:
    async with chat(ChatOptions(Settings(draft=4)), size=(90, 44)) as story:
        await open_params(story)
        for setting in per_chat().values():
            assert setting.label != setting.name
            assert len(setting.info.about) < 74
            await story.until_seen(setting.label, setting.info.about)
        await story.until_seen("Changes here hold for this chat only.")
        assert story.screen().count(" all chats  ") == len(per_chat())
        await fill(story, "temp", "0.3")
        await story.until_seen("• Temperature", "this chat · all: empty")


async def test_what_a_chat_does_differently_is_on_the_screen(database: Path) -> None:
    async with chat(database=database, size=(120, 30)) as story:
        await story.exchange("Hello", "Hi.")
        line = story.screen().splitlines()[0]
        assert not any(word in line for word in ("temp", "system", "thinking"))
        for command in ("/think on", "/system Be brief.", "/temp 0.3"):
            await story.type(command)
            await story.pilot.press("enter")
        await story.until_seen("fake-assistant · thinking · system prompt · temp 0.3 · Hello")
        await story.pilot.press("ctrl+n")
        await story.until(lambda: "temp 0.3" not in story.screen().splitlines()[0])


@pytest.mark.parametrize("by", ["pocket", "template"])
async def test_thinking_with_a_model_that_cannot_think_is_told(by: str) -> None:
    async with chat() as story:
        pair = story.dialogue.pair
        if by == "pocket":
            pair.choice = replace(pair.choice, is_pocket=True)
        else:
            story.engine.emit(structs.replace(story.engine.ready(), can_think=False))
            await story.until(lambda: pair.ready and not pair.ready.can_think)
        await story.type("/think on")
        await story.pilot.press("enter")
        await story.until_told("gemma-4-e2b cannot think, so its replies stay the same. Other models can: /model.")


async def test_thinking_with_a_model_that_can_is_not_doubted() -> None:
    async with chat() as story:
        await story.type("/think on")
        await story.pilot.press("enter")
        await story.until_told("Thinking on from your next message.")
        assert not any("cannot think" in each.message for each in story.app._notifications)


@pytest.mark.parametrize("size", [(120, 36), (40, 10), (1, 1)])
async def test_any_window(size: tuple[int, int]) -> None:
    async with chat(OPTIONS, size=size) as story:
        await story.pilot.press("f6")
        await story.until(lambda: isinstance(story.app.screen, ParamsScreen))
        story.app.screen.query(Input).last().focus()
        await story.pilot.pause()
        await story.pilot.press("escape")
        await story.until(lambda: len(story.app.screen_stack) == 1)


def test_values_and_options_are_the_same_thing() -> None:
    settings = Settings(
        draft=0, temp=0.5, top_k=1, top_p=0.9, min_p=0.1, repetition_penalty=1.1, seed=3, sampling="coupled",
        max_tokens=9, system="Be brief.", think=True,
    )  # fmt: skip
    values = per_chat_values(settings)
    assert set(values) == set(per_chat())
    assert reply_options(values) == ReplyOptions(
        SamplingOptions(0.5, 1, 0.9, 0.1, 1.1, 3, "coupled"), 0, 9, is_thinking=True, system="Be brief."
    )


def test_what_holds_anyway_is_no_change() -> None:
    params = ChatSettings(per_chat_values(OPTIONS.settings))
    params.change({"temp": 0.7, "seed": 3})
    assert params.stored == {"seed": 3}
    params.change({"seed": None})
    assert params.stored == {}


async def test_a_theme_that_was_chosen_is_there_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with chat(ChatOptions(Settings(theme="nord"), state=RememberedChoices.read(path))) as story:
        assert story.app.theme == "nord"
        await story.pilot.pause()
        assert not path.exists(), "nothing was chosen yet"
        await story.type("/theme dracula")
        await story.pilot.press("enter")
        await story.until(lambda: RememberedChoices.read(path).values.theme == "dracula")
        await story.pilot.press("f3")
    state = RememberedChoices.read(path)
    async with chat(ChatOptions(Settings(theme=state.values.theme), state=state)) as story:
        assert story.app.theme == "dracula"


async def test_a_theme_that_the_file_names_comes_back(tmp_path: Path) -> None:
    options = ChatOptions(Settings(theme="nord"), sources={"theme": "config.yaml, line 3"})
    async with chat(options) as story:
        story.app.theme = "dracula"
        await story.until_told("For this run only: config.yaml, line 3 sets the theme at the start.")


async def test_no_color_is_not_painted_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with chat(ChatOptions(Settings(theme="nord"))) as story:
        assert story.app.theme == "ansi-dark"


async def test_the_panel_is_as_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with chat(ChatOptions(state=RememberedChoices.read(path)), size=(120, 36)) as story:
        await story.until_seen("Time to first token")
        await story.pilot.press("f3")
        await story.until(lambda: RememberedChoices.read(path).values.has_panel is False)
    async with chat(ChatOptions(state=RememberedChoices.read(path)), size=(120, 36)) as story:
        await story.pilot.pause()
        assert "Time to first token" not in story.screen()


async def test_the_model_that_was_chosen_is_remembered_once_it_is_loaded(tmp_path: Path) -> None:
    state = RememberedChoices.read(tmp_path / "state.json")
    async with chat(ChatOptions(state=state)) as story:
        story.app.chat_screen.action_switch_model("e4b")
        await story.until(lambda: story.engine.loads)
        assert state.values.model is None
        story.engine.emit(Failed(id=None, message="It does not fit."))
        await story.until(lambda: len(story.engine.loads) == 2)
        story.engine.emit(story.engine.ready())
        await story.until(lambda: story.state == "ready")
        assert state.values.model is None, "what cannot be loaded is not begun with"
        story.app.chat_screen.action_switch_model("12b")
        await story.until(lambda: len(story.engine.loads) == 3)
        story.engine.emit(story.engine.ready())
        await story.until(lambda: state.values.model == "12b")


async def test_a_remembered_model_that_cannot_be_loaded_gives_way() -> None:
    async with chat(ChatOptions(fallback=choose("pocket")), is_loaded=False) as story:
        story.engine.emit(Failed(id=None, message="It is damaged."))
        await story.until_told("Going back to pocket.")
        await story.until(lambda: story.engine.loads == [choose("pocket").load])
        assert story.engine.loads != [PAIR.load]


async def test_what_is_to_be_told_first_is_told() -> None:
    async with chat(ChatOptions(notices=("config.yaml, line 2: 'tmep' is not a setting.",))) as story:
        await story.until_told("'tmep' is not a setting.")
        await story.send("Hello")
        assert story.engine.requests[-1].messages == (Message("user", "Hello"),)
