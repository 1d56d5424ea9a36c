"""What a person may mean, above the prompt. The prompt keeps the keyboard and says which way to go."""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from app.core.completion import Candidate, Completing
from app.text.figures import MUTED
from app.text.sanitise import sanitise_line

NAME_COLUMNS = 12


class CompletionList(OptionList, can_focus=False):
    """Not there while there is nothing to choose."""

    @dataclass
    class Clicked(Message):
        """The person has chosen with the mouse."""

        candidate: Candidate

    def __init__(self) -> None:
        super().__init__(id="completions", markup=False)
        self._offered: Completing | None = None

    @property
    def offered(self) -> Completing | None:
        """What is shown; None: the list is closed."""
        return self._offered

    @property
    def chosen(self) -> Candidate | None:
        """What the person would get."""
        at = self.highlighted
        return None if self._offered is None or at is None else self._offered.candidates[at]

    @property
    def first(self) -> Candidate | None:
        """What is on top."""
        return self._offered.candidates[0] if self._offered else None

    def offer(self, offered: Completing | None) -> None:
        """Show other candidates, or close."""
        if offered == self._offered:
            return
        self._offered = offered
        self.clear_options()
        if offered is not None:
            self.add_options([Option(_row(each)) for each in offered.candidates])
            self.highlighted = 0 if offered.is_chosen else None
        self.display = offered is not None

    def move(self, step: int) -> None:
        """Choose the next, or the one before."""
        if step > 0:
            self.action_cursor_down()
        else:
            self.action_cursor_up()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A click chooses."""
        event.stop()
        if self._offered is not None:
            self.post_message(self.Clicked(self._offered.candidates[event.option_index]))


def _row(candidate: Candidate) -> Content:
    name = sanitise_line(candidate.text)
    return Content.assemble(name.ljust(NAME_COLUMNS) if candidate.note else name, (f"  {candidate.note}", MUTED))
