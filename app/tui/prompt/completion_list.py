"""The list of completions above the prompt. The prompt keeps the focus and moves the highlight."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from app.core.completion import Candidate, Completions
from app.text.figures import MUTED
from app.text.sanitise import sanitise_line

NAME_COLUMNS = 12


class CompletionList(OptionList, can_focus=False):
    """Hidden while there is nothing to complete."""

    @dataclass
    class Clicked(Message):
        """A candidate was clicked."""

        candidate: Candidate

    def __init__(self) -> None:
        super().__init__(id="completions", markup=False)
        self._offered: Completions | None = None

    @property
    def offered(self) -> Completions | None:
        """The completions shown; None while the list is closed."""
        return self._offered

    @property
    def chosen(self) -> Candidate | None:
        """The highlighted candidate."""
        row = self.highlighted
        return None if self._offered is None or row is None else self._offered.candidates[row]

    @property
    def top(self) -> Candidate | None:
        return self._offered.candidates[0] if self._offered else None

    def offer(self, offered: Completions | None) -> None:
        """Show these completions; None closes the list."""
        if offered == self._offered:
            return
        self._offered = offered
        self.clear_options()
        if offered is not None:
            self.add_options([Option(_candidate_row(each)) for each in offered.candidates])
            self.highlighted = 0 if offered.is_first_selected else None
        self.display = offered is not None

    def move(self, step: int) -> None:
        """Highlight the next candidate or, with a negative step, the previous one."""
        if step > 0:
            self.action_cursor_down()
        else:
            self.action_cursor_up()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Pass a click on."""
        event.stop()
        if self._offered is not None:
            self.post_message(self.Clicked(self._offered.candidates[event.option_index]))


def _candidate_row(candidate: Candidate) -> Content:
    name = sanitise_line(candidate.text)
    if candidate.description:
        name = name.ljust(NAME_COLUMNS)
    return Content.assemble(name, (f"  {candidate.description}", MUTED))
