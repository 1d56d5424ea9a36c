"""The settings of one chat: an input for each, checked while typing, and the meaning of the focused one below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from app.settings.keys import NEWLINE_KEYS
from app.settings.kinds import Choice
from app.settings.table import Setting, per_chat
from app.text.sanitise import sanitise_line
from app.tui.screens.line_input import LineInput
from app.tui.screens.overlay import Overlay

KEYS = "enter or ctrl+s: apply · ctrl+r: as in all chats · esc: cancel"
SCOPE = "Changes here hold for this chat only. For all: `slipstream settings`."
MAX_ARROW_CHOICES = 8
"""A setting with more values than this is typed instead of chosen with the arrows."""


class ChoiceInput(Widget, can_focus=True):
    """One of a few values, changed with the arrow keys or a click."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "Previous", show=False),
        Binding("right,space", "step(1)", "Next", show=False),
    ]

    text = reactive("")

    class Changed(Message):
        """Another value was chosen."""

    def __init__(self, choices: tuple[str, ...]) -> None:
        super().__init__(classes="param-field")
        self._choices = choices

    def render(self) -> Content:
        return Content(f"‹ {self.text} ›")

    def action_step(self, step: int) -> None:
        """Choose the next or, with -1, the previous value, wrapping around at the ends."""
        self.text = self._choices[(self._choices.index(self.text) + step) % len(self._choices)]
        self.post_message(self.Changed())

    def on_click(self) -> None:
        self.action_step(1)


class MultilineInput(TextArea):
    """Leaves enter to the screen, so that it means the same in every input; the newline keys break the line."""

    async def _on_key(self, event: events.Key) -> None:
        if event.key in NEWLINE_KEYS:
            event.stop()
            event.prevent_default()
            self.replace("\n", *self.selection, maintain_selection_offset=False)
        elif event.key == "enter":
            event.prevent_default()


class SettingInput(Vertical):
    """One setting: its name, an input for its value, a note on where it holds, and what it does."""

    def __init__(self, setting: Setting, default: Any, of_this_run: Any = None) -> None:
        """default: the value in all chats. of_this_run: the one in all chats until the program ends, if any."""
        super().__init__(classes="param")
        self.setting = setting
        self._default = default
        self._of_this_run = of_this_run
        self._label = Static(setting.label, classes="param-name", markup=False)
        self._about = Static(setting.info.about, classes="param-about", markup=False)
        self._note = Static(classes="param-note", markup=False)
        self.where = Content("")
        """Where the value holds; in a narrow window the note has no room for it."""
        self._input = _input_for(setting)

    def compose(self) -> ComposeResult:
        with Horizontal(classes="param-line"):
            yield self._label
            yield self._input
            yield self._note
        yield self._about

    @property
    def text(self) -> str:
        """The value as typed."""
        return self._input.text if isinstance(self._input, TextArea | ChoiceInput) else self._input.value

    def fill(self, value: Any) -> None:
        """Put a value into the input; None empties it."""
        kind = self.setting.info.kind
        assert kind is not None
        text = "" if value is None else kind.to_text(value)
        if isinstance(self._input, Input):
            self._input.value = text
        else:
            self._input.text = text
        self.mark()

    @property
    def value(self) -> Any:
        """The parsed value; None if the input is empty and the setting may be unset.

        Raises ValueError if the text is not valid.
        """
        kind = self.setting.info.kind
        assert kind is not None
        if not self.text.strip() and self.setting.info.unset:
            return None
        return kind.parse(self.text)

    @property
    def is_valid(self) -> bool:
        try:
            self.value  # noqa: B018
        except ValueError:
            return False
        return True

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(ChoiceInput.Changed)
    def mark(self) -> None:
        """Show whether the value is valid, and whether it holds for this chat or for all."""
        is_changed = self.is_valid and self.value != self._default
        note = Content("all chats")
        if not self.is_valid:
            note = Content.styled("! not valid", "$text-error")
        elif is_changed:
            is_empty = self._default in (None, "")
            default = "empty" if is_empty else sanitise_line(self.setting.display_text(self._default))
            is_of_run = self._of_this_run is not None and self.value == self._of_this_run
            scope = "until you quit" if is_of_run else "this chat"
            note = Content.styled(f"{scope} · all: {default}", "$text-accent")
        label = Content.styled(f"{'•' if is_changed else ' '} {self.setting.label}", "bold" * is_changed)
        # The widths of both are fixed, so no layout is needed.
        self.where = Content("holds: ") + note if self.is_valid else note
        self._note.update(note, layout=False)
        self._label.update(label, layout=False)

    def meaning(self) -> Content:
        """What the setting does and which values it takes; as an error while the text is not valid."""
        info = self.setting.info
        assert info.kind is not None
        allowed = f"Use {info.kind.allowed}" + (f"; empty: {info.unset}." if info.unset else ".")
        if not self.is_valid:
            return Content.styled(f"! {allowed}", "$text-error")
        return Content(f"{info.help}. {allowed}")


def _input_for(setting: Setting) -> Input | TextArea | ChoiceInput:
    kind = setting.info.kind
    if setting.name == "system":
        area = MultilineInput(tab_behavior="focus", highlight_cursor_line=False, classes="param-field")
        area.placeholder = f"{setting.info.unset} · {NEWLINE_KEYS[0]}: new line"
        return area
    if isinstance(kind, Choice) and len(kind.meanings) <= MAX_ARROW_CHOICES:
        return ChoiceInput(tuple(dict.fromkeys(kind.to_text(value) for value in kind.meanings.values())))
    return LineInput(placeholder=setting.info.unset, compact=True, classes="param-field")


class ParamsScreen(Overlay[Mapping[str, Any] | None]):
    """Returns the values to apply to this chat; None when cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel", tooltip="closes without changing anything"),
        Binding("ctrl+s", "apply", "Apply", priority=True, tooltip="applies these from your next message"),
        # With priority, because a text area selects a line with it.
        Binding("f6", "apply", show=False, priority=True),
        Binding("enter", "apply", show=False),
        Binding("ctrl+r", "reset", "Defaults", priority=True, tooltip="fills in the defaults"),
        # With priority, so that what is typed after it goes to the next input.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(
        self, values: Mapping[str, Any], defaults: Mapping[str, Any], of_this_run: Mapping[str, Any] | None = None
    ) -> None:
        """values: the chat's current values; defaults: those of a chat without settings of its own; of_this_run:
        changes that hold in all chats until the program ends."""
        super().__init__()
        self._values, self._defaults = values, defaults
        run = of_this_run or {}
        self._inputs = [SettingInput(each, defaults[name], run.get(name)) for name, each in per_chat().items()]
        self._where = Static(id="params-where", markup=False)
        self._meaning = Static(id="params-meaning", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="params") as box:
            box.border_title = "Settings of this chat"
            yield Static(SCOPE, id="params-scope", markup=False)
            # Not a VerticalScroll, whose own bindings would take up and down.
            with Vertical(id="params-fields"):
                yield from self._inputs
            yield self._where
            yield self._meaning
            yield Static(KEYS, id="params-keys", markup=False)

    def on_mount(self) -> None:
        """Fill in the chat's current values."""
        for setting_input in self._inputs:
            setting_input.fill(self._values[setting_input.setting.name])

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(ChoiceInput.Changed)
    def _value_changed(self) -> None:
        self._explain_focused()

    def on_descendant_focus(self) -> None:
        """Explain the setting that now has the focus."""
        self._explain_focused()

    def _explain_focused(self) -> None:
        for setting_input in self._inputs:
            if setting_input.has_focus_within:
                self._where.update(setting_input.where, layout=False)
                self._meaning.update(setting_input.meaning(), layout=False)

    def action_reset(self) -> None:
        """Fill in the defaults, without applying them yet."""
        for setting_input in self._inputs:
            setting_input.fill(self._defaults[setting_input.setting.name])
        self._explain_focused()

    def action_apply(self) -> None:
        """Return the values if all are valid; otherwise focus the first that is not.

        Runs in the focused input's queue, after any keys that it has not handled yet.
        """
        (self.focused or self).call_later(self.action_enter)

    def action_enter(self) -> None:
        """Return the values, as `action_apply`, but at once."""
        for setting_input in self._inputs:
            if not setting_input.is_valid:
                setting_input.query_one(".param-field").focus()
                self._explain_focused()
                return
        self.dismiss({each.setting.name: each.value for each in self._inputs})
