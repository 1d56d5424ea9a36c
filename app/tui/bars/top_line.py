"""The top line: the program, the model, its drafter and the chat at the left, the current state at the right."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from app import __version__
from app.text.figures import MUTED
from app.text.sanitise import sanitise_line

NAME = f"Slipstream {__version__}"
NO_DRAFTER = "no drafter"
NOT_SAVED = "not saved"


class TopLine(Widget):
    """A change redraws the line without a new layout."""

    ALLOW_SELECT = False

    model = reactive("")
    drafter: reactive[str | None] = reactive(None)
    """The drafter's name, `NO_DRAFTER`, or None while the model is loading."""
    title = reactive("")
    """The chat's title; empty before its first message."""
    settings = reactive("")
    """What this chat does differently, in a few words."""
    is_cut_off = reactive(False)
    """Whether chats cannot be saved at present."""
    pull = reactive("")
    """The pull that goes on in the background; empty: none."""
    requests = reactive("")
    """How many requests of other programs the server answers, such as `2 requests`; empty: none."""
    version = reactive("")
    """Of the chat, such as `version 2/3`; empty if it has only one."""
    state = reactive("")
    is_error = reactive(False)
    """Whether the state is shown as an error."""

    def __init__(self, model: str) -> None:
        super().__init__(id="top-line")
        self.model = model

    def say(self, state: str, *, is_error: bool = False) -> None:
        self.state, self.is_error = state, is_error

    def render(self) -> Content:
        """Shortens the names, never the state. The program's name is shown where there is room for all."""
        pull = Content.styled(f"↓ {sanitise_line(self.pull)} · ", "$text-accent") if self.pull else Content()
        unsaved = Content.styled(f"{NOT_SAVED} · ", "bold $text-error") if self.is_cut_off else Content()
        requests = Content.styled(f"{self.requests} · " if self.requests else "", "$text-accent")
        state = Content.styled(sanitise_line(self.state), "$text-error" if self.is_error else MUTED)
        state = unsaved + pull + requests + state
        version = Content.styled(f" · {self.version}" if self.version else "", MUTED)
        names = Content.styled(sanitise_line(self.model), "bold")
        if self.drafter is not None:
            names += Content.styled(f" · {sanitise_line(self.drafter)}", MUTED)
        if self.settings:
            names += Content.styled(f" · {sanitise_line(self.settings)}", "$text-accent")
        if self.title:
            names += Content.styled(f" · {sanitise_line(self.title)}", MUTED)
        room = max(0, self.content_size.width - state.cell_length - 2)
        program = Content.styled(f"{NAME} · ", MUTED)
        if program.cell_length + names.cell_length + version.cell_length <= room:
            names = program + names
        left = names.truncate(max(0, room - version.cell_length), ellipsis=True) + version
        return left.truncate(room, pad=True) + Content("  ") + state
