"""The list of models: what each needs, whether it fits and is here; switch to one, pull one, delete one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from app.core.downloads import Downloads
from app.core.models_list import model_rows, removable_repos
from app.text import figures
from app.text.sanitise import sanitise, sanitise_line
from app.tui.screens.columns import Column, Columns, cells, fitting, titles
from app.tui.screens.line_input import LineInput
from app.tui.screens.list_moves import MOVE_KEYS, move_highlight
from app.tui.screens.overlay import Overlay
from app.tui.screens.row_list import RowList
from mlx_engine.protocol.errors import SlipstreamError
from models import hub_cache
from models.catalog import Catalog
from models.memory_fit import Machine, suggest
from models.pull import PullEvent, PullFailed, PullFinished

KEYS = "enter: switch to it, or pull it first · ctrl+d: delete · esc: close"
PULL_KEYS = "esc: close, the pull goes on · ctrl+x: stop it"
NARROW_KEYS = "enter: use · ctrl+d: delete · esc: close"
NARROW_PULL_KEYS = "esc: pull goes on · ctrl+x: stop it"
FILTER_HINT = "Type to filter"
NARROW_COLUMNS = 74
REASON_ROWS = 16
"""A lower window shows which model is recommended, but not why."""
CURRENT, RECOMMENDED = "●", "★"
ModelRow = dict[str, Any]


class PullReported(Message):
    """A pull has news. Sent to the chat, which outlives the list."""

    def __init__(self, number: int, event: PullEvent) -> None:
        super().__init__()
        self.number = number
        self.event = event


class ModelsScreen(Overlay[str | None]):
    """Returns the name of the model to switch to; None when closed without choosing one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f2", "dismiss(None)", "Close", tooltip="closes the list; a pull goes on"),
        *MOVE_KEYS,
        # With priority, because the input uses these keys for editing. Letters typed before one of them may still
        # be in the input's queue, so the actions wait in that queue too.
        Binding("ctrl+d", "delete", "Delete", priority=True, tooltip="deletes the model's files"),
        Binding("ctrl+x", "stop_pull", "Stop", priority=True, tooltip="stops the pull, keeping its files"),
    ]

    def __init__(
        self, catalog: Catalog, cache: Path, machine: Machine, current: str, downloads: Downloads
    ) -> None:
        """current: the name of the model in use."""
        super().__init__()
        self._catalog, self._cache, self._machine, self._current = catalog, cache, machine, current
        self._downloads = downloads
        self._recommended, self._reason = suggest(catalog, machine)
        self._rows: list[ModelRow] = []
        self._shown: list[ModelRow] = []
        """The rows that match the filter."""
        self._listed_filter = ""
        """The filter that the list shows the matches of."""
        self._confirmed = ""
        """What a second press of the same key confirms: the key and the name of a model."""
        self._is_switch_due = False
        """Whether to switch to the model that is being pulled: it was chosen in this list."""
        self._message = "Checking which models are here"
        self._explained = ""
        """The model that the message and the question are about."""
        self._filter = LineInput("", FILTER_HINT, id="models-search", compact=True)
        self._titles = Static(id="models-titles", markup=False)
        self._list = _ModelList(id="models-list", markup=False)
        self._hint = Static(id="models-hint", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="models"):
            yield self._filter
            yield self._titles
            yield self._list
            yield self._hint

    def on_mount(self) -> None:
        """Focus the filter and read which models are here."""
        self._list.can_focus = False
        self._filter.focus()
        self._show_hint()
        self._read_rows("")

    def on_resize(self) -> None:
        """Show the columns that the window has room for."""
        if self._rows:
            self.call_after_refresh(self._show_rows)

    # What the person does

    @on(Input.Changed)
    def _filter_now(self) -> None:
        """List the matches, if the filter has changed; at once, before keys that were typed behind it."""
        if self._filter.value != self._listed_filter:
            self._confirmed = self._message = ""
            self._show_rows()
            self._explain(self._highlighted_row())

    def action_enter(self) -> None:
        """Switch to the highlighted model, or pull it."""
        self._filter_now()
        if (row := self._highlighted_row()) is not None:
            self._choose(row)

    @on(OptionList.OptionSelected)
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        self._choose(self._shown[event.option_index])

    @on(OptionList.OptionHighlighted)
    def _highlighted(self) -> None:
        self._explain(self._highlighted_row())
        self._show_hint()

    def _explain(self, row: ModelRow | None) -> None:
        """What was said and asked was about another model."""
        if row is not None and row["name"] != self._explained:
            self._explained, self._confirmed, self._message = row["name"], "", ""

    def action_move(self, direction: str) -> None:
        """Move the highlight; the filter keeps the focus."""
        self._filter_now()
        move_highlight(self._list, direction)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer to stop a pull only while there is one."""
        return action != "stop_pull" or self._downloads.is_running

    def action_delete(self) -> None:
        self._filter.call_later(self._delete)

    def action_stop_pull(self) -> None:
        """Stop the pull; its files are kept."""
        if self._downloads.is_running:
            name = self._downloads.name
            # In a thread, because the process takes a moment to end.
            self.app.run_worker(self._downloads.stop(), thread=True, exit_on_error=False)
            self._is_switch_due = False
            self.refresh_bindings()
            self._read_rows(f"Stopped. Enter on {name} resumes; what has arrived is kept.")

    def _choose(self, row: ModelRow) -> None:
        """Switch or pull; where `_question` has a question, only after a second enter."""
        name, question = row["name"], _question(row)
        if row["here"] != "yes" and self._downloads.is_running:
            self._tell(f"{self._downloads.name} is being pulled; one pull runs at a time.")
        elif question and self._confirmed != f"enter {name}":
            self._confirmed = f"enter {name}"
            self._tell(question)
        elif row["here"] == "yes":
            self.dismiss(name)
        else:
            self._is_switch_due, self._confirmed, self._message = True, "", ""
            self._downloads.start(name, (row["target"], row["drafter"]), self._cache)
            self.refresh_bindings()
            self._show_hint()

    def _delete(self) -> None:
        """Delete the files of the highlighted model after a second press."""
        self._filter_now()
        row = self._highlighted_row()
        if row is None:
            return
        name = row["name"]
        try:
            repos = removable_repos(name, self._catalog, self._cache)
        except SlipstreamError as error:
            self._tell(str(error))
            return
        if name == self._current:
            self._tell(f"{name} is in use. Switch to another model first.")
        elif name == self._downloads.name:
            self._tell(f"{name} is being pulled. Press ctrl+x to stop that first.")
        elif self._confirmed != f"delete {name}":
            self._confirmed = f"delete {name}"
            size = sum(hub_cache.size_on_disk(self._cache, repo)[0] for repo in repos)
            self._tell(f"Delete {name} from this machine ({figures.size(size).strip()})? Press ctrl+d again.")
        else:
            self._confirmed = ""
            self._tell(f"Deleting {name}")
            self._remove(name, repos)

    # What happens meanwhile

    def pull_changed(self, event: PullEvent, name: str) -> None:
        """The chat reports what the pull of `name` has done."""
        self.refresh_bindings()
        match event:
            case PullFinished() if self._is_switch_due and self.is_active:
                self.dismiss(name)
            case PullFinished():
                self._read_rows(f"{name} is here. Press enter on it to switch to it.")
            case PullFailed(message=message):
                self._read_rows(message)
            case _:
                self._show_hint()

    @work(thread=True, exclusive=True)
    def _read_rows(self, message: str) -> None:
        # In a thread, because the disk may be slow.
        try:
            rows = model_rows(self._catalog, self._cache, self._machine)
        except SlipstreamError as error:
            self.app.call_from_thread(self._tell, str(error))
        else:
            self.app.call_from_thread(self._rows_read, rows, message)

    @work(thread=True, group="remove")
    def _remove(self, name: str, repos: Sequence[str]) -> None:
        try:
            freed = sum(hub_cache.remove(self._cache, repo) for repo in repos)
        except SlipstreamError as error:
            self.app.call_from_thread(self._tell, str(error))
        else:
            message = f"Deleted {name}; {figures.size(freed).strip()} freed."
            self.app.call_from_thread(self._read_rows, message)

    def _rows_read(self, rows: list[ModelRow], message: str) -> None:
        if not self.is_attached:
            return
        self._rows = rows
        self._show_rows()
        row = self._highlighted_row()
        self._explained, self._message = row["name"] if row else "", message
        self._show_hint()

    # The screen

    def _highlighted_row(self) -> ModelRow | None:
        row = self._list.highlighted
        return self._shown[row] if row is not None and row < len(self._shown) else None

    def _show_rows(self) -> None:
        """List the rows that match the filter; the highlight stays on its model."""
        before = self._highlighted_row()
        self._listed_filter = self._filter.value
        wanted = self._listed_filter.lower().split()
        self._shown = [row for row in self._rows if all(word in _searched(row) for word in wanted)]
        columns = fitting_columns(max(1, self._list.content_region.width - 1))  # the scrollbar
        self._titles.update(titles(columns))
        self._list.clear_options()
        self._list.add_options([Option(self._line(row, columns)) for row in self._shown])
        names = [row["name"] for row in self._shown]
        name = before["name"] if before else self._current
        if names:
            self._list.highlighted = names.index(name) if name in names else 0
        else:
            self._show_hint()

    def _line(self, row: ModelRow, columns: Columns[ModelRow]) -> Content:
        is_current = row["name"] == self._current
        mark = CURRENT if is_current else RECOMMENDED if row["name"] == self._recommended else " "
        return Content.styled(mark + cells(columns, row), "bold" if is_current else "")

    def _tell(self, message: str) -> None:
        self._message = message
        self._show_hint()

    def _show_hint(self) -> None:
        """What is asked or reported, the pull, the highlighted model, and the keys."""
        row, is_narrow = self._highlighted_row(), self.app.size.width < NARROW_COLUMNS
        lines = [self._message]
        if self._downloads.is_running:
            lines.append(f"{self._downloads.name}: {self._downloads.line}")
        if row is not None:
            lines.append(_memory_line(row, self._machine))
            has_room = self.app.size.height >= REASON_ROWS and not self._downloads.is_running
            if row["name"] == self._recommended and has_room:
                lines.append(f"{RECOMMENDED} recommended: {self._reason}")
        elif self._rows:
            lines.append("No model matches.")
        if self._downloads.is_running:
            lines.append(NARROW_PULL_KEYS if is_narrow else PULL_KEYS)
        else:
            lines.append(NARROW_KEYS if is_narrow else KEYS)
        self._hint.update(sanitise("\n".join(filter(None, lines))))


class _ModelList(RowList):
    """Keeps the highlighted model in view when the hint below grows by a line."""

    def on_resize(self) -> None:
        self.scroll_to_highlight()


def _here(row: ModelRow) -> str:
    return {"yes": "yes", "part": "partly", "no drafter": "partly"}.get(row["here"], "no")


def _fits(row: ModelRow) -> str:
    return {"fits": "yes", "tight": "tight", "does not fit": "no"}.get(row["fit"] or "", "?")


MODEL: Column[ModelRow] = Column("Model", 12, lambda row: sanitise_line(row["name"]))
DOWNLOAD: Column[ModelRow] = Column("Download", 8, lambda row: _size(row["weights_bytes"]), is_right=True, gap=1)
MEMORY: Column[ModelRow] = Column("Memory", 7, lambda row: _size(row["needed_bytes"]), is_right=True, gap=1)
FITS: Column[ModelRow] = Column("Fits", 5, _fits)
HERE: Column[ModelRow] = Column("Here", 6, _here)
ABOUT: Column[ModelRow] = Column(
    "Size and precision", 18, lambda row: sanitise_line(row["title"].removeprefix("Gemma 4 "))
)
COLUMN_CHOICES = (
    (MODEL, DOWNLOAD, MEMORY, FITS, HERE, ABOUT),
    (MODEL, DOWNLOAD, MEMORY, FITS, HERE),
    (MODEL, MEMORY, FITS, HERE),
    (MODEL, FITS, HERE),
    (MODEL,),
)
"""The first of these that fits is shown."""


def fitting_columns(width: int) -> Columns[ModelRow]:
    """The columns for a list of `width` cells."""
    return fitting(COLUMN_CHOICES, width)


def _size(size: int | None) -> str:
    return "?" if size is None else figures.size(size).strip()


def _searched(row: ModelRow) -> str:
    """What the filter looks at."""
    return " ".join((row["name"], row["title"], *row["aliases"], "here" * (row["here"] == "yes"))).lower()


def _memory_line(row: ModelRow, machine: Machine) -> str:
    drafter = "; its drafter is not here yet" if row["here"] == "no drafter" else ""
    if row["needed_bytes"] is None:
        return f"{row['title']}: memory unknown until it is pulled{drafter}"
    needed, available = (figures.size(count).strip() for count in (row["needed_bytes"], machine.working_set_bytes))
    return f"{row['title']}: needs {needed} of {available}, {row['fit']}{drafter}"


def _question(row: ModelRow) -> str:
    """What to confirm with a second enter; empty when the model can be loaded right away."""
    if row["here"] != "yes":
        size = row["weights_bytes"]
        to_pull = "Size unknown" if size is None else f"{figures.size(size).strip()} to pull"
        return f"{to_pull}. Press enter again to pull it."
    if row["fit"] == "does not fit":
        return "It does not fit in memory. Press enter again to load it anyway."
    return ""
