"""The list of models: size, memory, and whether each one is here; switch to one, or pull it first."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from app.core.downloads import progress_line
from app.core.models_list import model_rows
from app.text import figures
from app.text.sanitise import sanitise
from mlx_engine.protocol.errors import SlipstreamError
from models.catalog import Catalog, Source
from models.memory_fit import Machine
from models.pull import Pull, PullEvent, PullFailed, PullFinished, PullJob, PullProgress, RepoRevision, Waiting

KEYS = "enter: switch to it, or pull it first · esc: close"
REPORT_S = 0.25
PULL_HINT = "esc: stop and keep the files pulled so far"


class ModelsScreen(ModalScreen[str | None]):
    """Returns the name of the model to switch to; None when closed without choosing one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f2", "close", "Close", tooltip="stops the pull, or closes the list")
    ]

    def __init__(self, catalog: Catalog, cache: Path, machine: Machine, current: str) -> None:
        super().__init__()
        self._catalog, self._cache, self._machine, self._current = catalog, cache, machine, current
        self._rows: list[dict[str, Any]] = []
        self._confirmed = ""
        self._download: Pull | None = None
        self._list = _ModelList(id="models-list", markup=False)
        self._hint = Static("Checking which models are here", id="models-hint", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="models"):
            yield self._list
            yield self._hint

    def on_mount(self) -> None:
        self._list.focus()
        self._read_rows()

    def on_unmount(self) -> None:
        """Stop the download: no screen would show it any more. Its files are kept."""
        self._stop_pull()

    def action_close(self) -> None:
        """Stop the download; without one, close."""
        if self._download is not None:
            self._stop_pull()
            self._show_hint("Stopped. Press enter to resume; the files pulled so far are kept.")
        else:
            self.dismiss(None)

    @work(thread=True, exclusive=True)
    def _read_rows(self) -> None:
        # In a thread, because the disk may be slow.
        try:
            rows = model_rows(self._catalog, self._cache, self._machine)
        except SlipstreamError as error:
            self.app.call_from_thread(self._show_hint, str(error))
        else:
            self.app.call_from_thread(self._show_rows, rows)

    def _show_rows(self, rows: list[dict[str, Any]]) -> None:
        highlighted = self._list.highlighted
        self._rows = rows
        self._list.clear_options()
        self._list.add_options([Option(_model_row(row, self._current)) for row in rows])
        names = [row["name"] for row in rows]
        self._list.highlighted = (
            highlighted if highlighted is not None else names.index(self._current) if self._current in names else 0
        )
        self._show_hint(KEYS)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show how much memory the model needs."""
        self._confirmed = ""
        if self._download is None and event.option_index < len(self._rows):
            self._show_hint(f"{_memory_line(self._rows[event.option_index], self._machine)}\n{KEYS}")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Switch or pull; where `_confirmation` has a question, only after a second enter."""
        row = self._rows[event.option_index]
        if self._download is not None:
            return
        question = _confirmation(row)
        if question and self._confirmed != row["name"]:
            self._confirmed = row["name"]
            self._show_hint(f"{_memory_line(row, self._machine)}\n{question}")
        elif row["here"] == "yes":
            self.dismiss(row["name"])
        else:
            self._pull(row)

    def _pull(self, row: dict[str, Any]) -> None:
        sources: list[Source] = [source for source in (row["target"], row["drafter"]) if source and source.repo]
        repos = tuple(RepoRevision(str(source.repo), source.revision) for source in sources)
        job = PullJob(repos, str(self._cache), report_every_s=REPORT_S)
        self._download = Pull(job, partial(self.app.call_from_thread, self._download_reported, row["name"]))
        self._show_hint("Contacting the hub")
        self._download.start()

    def _download_reported(self, name: str, event: PullEvent) -> None:
        match event:
            case PullProgress():
                self._show_hint(f"{progress_line(event)}\n{PULL_HINT}")
            case Waiting(why=why):
                self._show_hint(f"{why}\n{PULL_HINT}")
            case PullFailed(message=message):
                self._download = None
                self._show_hint(message)
            case PullFinished():
                self._download = None
                self.dismiss(name)

    def _stop_pull(self) -> None:
        download, self._download = self._download, None
        if download is not None:
            # In a thread: the download's own thread may be waiting for this one to take its report.
            self.app.run_worker(download.cancel, thread=True, exit_on_error=False)

    def _show_hint(self, text: str) -> None:
        self._hint.update(sanitise(text))


class _ModelList(OptionList):
    """Keeps the highlighted model in view when the hint below grows by a line."""

    def on_resize(self) -> None:
        self.scroll_to_highlight()


def _model_row(row: dict[str, Any], current: str) -> Content:
    marker = "●" if row["name"] == current else " "
    here = {"yes": "here", "part": "partly here", "no drafter": "no drafter", "-": ""}[row["here"]]
    style = "bold" if row["name"] == current else "" if row["here"] == "yes" else figures.MUTED
    weights, verdict = figures.size(row["weights_bytes"]), row["fit"] or "unknown"
    text = f"{marker} {row['name']:<14} {weights:>8}  {verdict:<13} {here:<11}"
    return Content.styled(sanitise(text), style) + Content.styled(
        sanitise(row["title"].removeprefix("Gemma 4 ")), figures.MUTED
    )


def _memory_line(row: dict[str, Any], machine: Machine) -> str:
    if row["needed_bytes"] is None:
        return f"{row['title']}: memory unknown until it is pulled"
    needed = figures.size(row["needed_bytes"]).strip()
    available = figures.size(machine.working_set_bytes).strip()
    return f"{row['title']}: needs {needed} of {available}, {row['fit']}"


def _confirmation(row: dict[str, Any]) -> str:
    """What to confirm with a second enter; empty when the model can be loaded right away."""
    if row["here"] != "yes":
        size = row["weights_bytes"]
        to_pull = "Size unknown" if size is None else f"{figures.size(size).strip()} to pull"
        return f"{to_pull}. Press enter again to pull it."
    if row["fit"] == "does not fit":
        return "It does not fit in memory. Press enter again to load it anyway."
    return ""
