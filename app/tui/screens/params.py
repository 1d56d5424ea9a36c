"""The settings of one chat: each in a field, checked while it is typed, with what it means below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from app.settings.keys import NEWLINE_KEYS
from app.settings.kinds import Choice
from app.settings.table import Setting, per_chat
from app.text.figures import MUTED
from app.text.sanitise import sanitise_line

KEYS = "enter, ctrl+s: use these · ctrl+r: the defaults · escape: leave it"
MOST_PICKED = 8
"""Values of a setting that is picked with the arrows; those with more are typed."""


class Pick(Widget, can_focus=True):
    """One of a few words, changed with the arrows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "Before", show=False),
        Binding("right,space", "step(1)", "Next", show=False),
    ]

    text = reactive("")

    class Changed(Message):
        """Another word stands here."""

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__(classes="param-field")
        self._words = words

    def render(self) -> Content:
        """The word between the arrows that change it."""
        return Content(f"‹ {self.text} ›")

    def action_step(self, step: int) -> None:
        """The word after, or before; the last one is followed by the first."""
        self.text = self._words[(self._words.index(self.text) + step) % len(self._words)]
        self.post_message(self.Changed())

    def on_click(self) -> None:
        """The word after."""
        self.action_step(1)


class Lines(TextArea):
    """A text of several lines. Enter is not for it, so that it means the same in every field."""

    async def _on_key(self, event: events.Key) -> None:
        if event.key in NEWLINE_KEYS:
            event.stop()
            event.prevent_default()
            self.replace("\n", *self.selection, maintain_selection_offset=False)
        elif event.key == "enter":
            event.prevent_default()


class Field(Horizontal):
    """One setting: its name, its value, and how it stands to the default."""

    def __init__(self, setting: Setting, usual: Any) -> None:
        super().__init__(classes="param")
        self.setting = setting
        self._usual = usual
        self._label = Static(setting.name, classes="param-name", markup=False)
        self._note = Static(classes="param-note", markup=False)
        self._field = _field_for(setting)

    def compose(self) -> ComposeResult:
        """In one line."""
        yield self._label
        yield self._field
        yield self._note

    @property
    def text(self) -> str:
        """As it is typed."""
        return self._field.text if isinstance(self._field, TextArea | Pick) else self._field.value

    def put(self, value: Any) -> None:
        """Have a value in the field."""
        kind = self.setting.info.kind
        assert kind is not None
        text = "" if value is None else kind.to_text(value)
        if isinstance(self._field, Input):
            self._field.value = text
        else:
            self._field.text = text
        self.look()

    @property
    def value(self) -> Any:
        """What the text means; ValueError for one that is not allowed."""
        kind = self.setting.info.kind
        assert kind is not None
        if not self.text.strip() and self.setting.info.unset:
            return None
        return kind.parse(self.text)

    @property
    def is_allowed(self) -> bool:
        """Whether the text means anything."""
        try:
            self.value  # noqa: B018
        except ValueError:
            return False
        return True

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(Pick.Changed)
    def look(self) -> None:
        """Say whether it can be used, and whether it differs from the default."""
        is_other = self.is_allowed and self.value != self._usual
        note = Content("")
        if not self.is_allowed:
            note = Content.styled("! cannot be used", "$text-error")
        elif is_other:
            usual = "empty" if self._usual in (None, "") else sanitise_line(self.setting.display_text(self._usual))
            note = Content.styled(f"default: {usual}", "$text-accent")
        label = Content.styled(f"{'•' if is_other else ' '} {self.setting.name}", "bold" * is_other)
        # Both have their room, whatever they say.
        self._note.update(note, layout=False)
        self._label.update(label, layout=False)

    def meaning(self) -> Content:
        """What the setting does and takes; in the colour of errors while it cannot be used."""
        about = self.setting.info
        assert about.kind is not None
        takes = f"Use {about.kind.allowed}" + (f"; empty: {about.unset}." if about.unset else ".")
        if not self.is_allowed:
            return Content.styled(f"! {takes}", "$text-error")
        return Content.assemble(f"{about.help}. ", (takes, MUTED))


def _field_for(setting: Setting) -> Input | TextArea | Pick:
    kind = setting.info.kind
    if setting.name == "system":
        area = Lines(tab_behavior="focus", highlight_cursor_line=False, classes="param-field")
        area.placeholder = f"{setting.info.unset} · {NEWLINE_KEYS[0]}: new line"
        return area
    if isinstance(kind, Choice) and len(kind.meanings) <= MOST_PICKED:
        return Pick(tuple(dict.fromkeys(kind.to_text(value) for value in kind.meanings.values())))
    return Input(placeholder=setting.info.unset, compact=True, classes="param-field")


class ParamsScreen(ModalScreen[Mapping[str, Any] | None]):
    """Returns the values to use in this chat; None: leave it as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Leave it", tooltip="changes nothing"),
        Binding("ctrl+s", "use", "Use these", priority=True, tooltip="uses these from the next request on"),
        # Ahead of a text area, which selects a line with it.
        Binding("f6", "use", show=False, priority=True),
        Binding("enter", "use", show=False),
        Binding("ctrl+r", "reset", "Defaults", priority=True, tooltip="puts the defaults into the fields"),
        # Ahead of what is typed next, which belongs to the next field.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(self, values: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
        """values: what holds in the chat; usual: what would without it."""
        super().__init__()
        self._values, self._usual = values, usual
        self._fields = [Field(setting, usual[name]) for name, setting in per_chat().items()]
        self._meaning = Static(id="params-meaning", markup=False)

    def compose(self) -> ComposeResult:
        """A field for every setting, what the one in focus means, and the keys."""
        with Vertical(id="params") as box:
            box.border_title = "This chat"
            # Not one with keys of its own: up and down are for the fields.
            with Vertical(id="params-fields"):
                yield from self._fields
            yield self._meaning
            yield Static(KEYS, id="params-keys", markup=False)

    def on_mount(self) -> None:
        """Show what holds."""
        for field in self._fields:
            field.put(self._values[field.setting.name])

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(Pick.Changed)
    def _typed(self) -> None:
        self._explain()

    def on_descendant_focus(self) -> None:
        """Say what the setting is for."""
        self._explain()

    def _explain(self) -> None:
        field = next(self._with_focus(), None)
        if field is not None:
            self._meaning.update(field.meaning(), layout=False)

    def _with_focus(self) -> Iterator[Field]:
        return (field for field in self._fields if field.has_focus_within)

    @on(Input.Submitted)
    def _enter(self) -> None:
        self.action_use()

    def action_reset(self) -> None:
        """Put the defaults into the fields; nothing is used yet."""
        for field in self._fields:
            field.put(self._usual[field.setting.name])
        self._explain()

    def action_use(self) -> None:
        """Use what stands in the fields, if all of it can be used, and what is still on its way to one of them."""
        (self.focused or self).call_later(self._use)

    def _use(self) -> None:
        for field in self._fields:
            if not field.is_allowed:
                field.query_one(".param-field").focus()
                self._explain()
                return
        self.dismiss({field.setting.name: field.value for field in self._fields})
