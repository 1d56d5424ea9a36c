"""The list of models: what each needs, whether it fits, what is here; fetch one, switch to one."""

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

KEYS = "enter: switch, or fetch what is not here · escape: close"
REPORT_S = 0.25


class ModelsScreen(ModalScreen[str | None]):
    """Returns the name of the model to switch to; None: stay."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f2", "close", "Close", tooltip="stops a download, or closes the list")
    ]

    def __init__(self, catalog: Catalog, cache: Path, machine: Machine, current: str) -> None:
        super().__init__()
        self._catalog, self._cache, self._machine, self._current = catalog, cache, machine, current
        self._rows: list[dict[str, Any]] = []
        self._confirmed = ""
        self._download: Pull | None = None
        self._list = _Names(id="models-list", markup=False)
        self._hint = Static("looking at what is here", id="models-hint", markup=False)

    def compose(self) -> ComposeResult:
        """The models, and a line or two about the chosen one."""
        with Vertical(id="models"):
            yield self._list
            yield self._hint

    def on_mount(self) -> None:
        """Land in the list."""
        self._list.focus()
        self._look()

    def on_unmount(self) -> None:
        """No download without a screen that shows it; what has come is kept."""
        self._stop()

    def action_close(self) -> None:
        """Stop a download, or close."""
        if self._download is not None:
            self._stop()
            self._say("Stopped. What has come is kept: enter goes on from there.")
        else:
            self.dismiss(None)

    @work(thread=True, exclusive=True)
    def _look(self) -> None:
        """The disk may be slow, and is not asked on the screen's time."""
        try:
            rows = model_rows(self._catalog, self._cache, self._machine)
        except SlipstreamError as error:
            self.app.call_from_thread(self._say, str(error))
        else:
            self.app.call_from_thread(self._show, rows)

    def _show(self, rows: list[dict[str, Any]]) -> None:
        at = self._list.highlighted
        self._rows = rows
        self._list.clear_options()
        self._list.add_options([Option(_row(row, self._current)) for row in rows])
        names = [row["name"] for row in rows]
        self._list.highlighted = (
            at if at is not None else names.index(self._current) if self._current in names else 0
        )
        self._say(KEYS)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Say what the model needs."""
        self._confirmed = ""
        if self._download is None and event.option_index < len(self._rows):
            self._say(f"{_needs(self._rows[event.option_index], self._machine)}\n{KEYS}")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Switch, after one more question where that is not plainly right."""
        row = self._rows[event.option_index]
        if self._download is not None:
            return
        question = _question(row)
        if question and self._confirmed != row["name"]:
            self._confirmed = row["name"]
            self._say(f"{_needs(row, self._machine)}\n{question}")
        elif row["here"] == "yes":
            self.dismiss(row["name"])
        else:
            self._fetch(row)

    def _fetch(self, row: dict[str, Any]) -> None:
        sources: list[Source] = [source for source in (row["target"], row["drafter"]) if source and source.repo]
        wanted = tuple(RepoRevision(str(source.repo), source.revision) for source in sources)
        job = PullJob(wanted, str(self._cache), report_every_s=REPORT_S)
        self._download = Pull(job, partial(self.app.call_from_thread, self._hear, row["name"]))
        self._say("asking the hub")
        self._download.start()

    def _hear(self, name: str, event: PullEvent) -> None:
        match event:
            case PullProgress():
                self._say(f"{progress_line(event)}\nescape stops it; what has come is kept")
            case Waiting(why=why):
                self._say(f"{why}\nescape stops it; what has come is kept")
            case PullFailed(message=words):
                self._download = None
                self._say(words)
            case PullFinished():
                self._download = None
                self.dismiss(name)

    def _stop(self) -> None:
        download, self._download = self._download, None
        if download is not None:
            # On a thread: the download's own may be waiting to tell this one something.
            self.app.run_worker(download.cancel, thread=True, exit_on_error=False)

    def _say(self, words: str) -> None:
        self._hint.update(sanitise(words))


class _Names(OptionList):
    """Keeps the chosen one in sight when the words below it need another line."""

    def on_resize(self) -> None:
        """The room has changed."""
        self.scroll_to_highlight()


def _row(row: dict[str, Any], current: str) -> Content:
    sign = "●" if row["name"] == current else " "
    here = {"yes": "here", "part": "part of it", "no drafter": "no drafter", "-": ""}[row["here"]]
    style = "bold" if row["name"] == current else "" if row["here"] == "yes" else figures.MUTED
    weights, verdict = figures.size(row["weights_bytes"]), row["fit"] or "not known"
    words = f"{sign} {row['name']:<14} {weights:>8}  {verdict:<13} {here:<11}"
    return Content.styled(sanitise(words), style) + Content.styled(
        sanitise(row["title"].removeprefix("Gemma 4 ")), figures.MUTED
    )


def _needs(row: dict[str, Any], machine: Machine) -> str:
    if row["needed_bytes"] is None:
        return f"{row['title']}: what it needs is not known before it is here"
    needed = figures.size(row["needed_bytes"]).strip()
    room = figures.size(machine.working_set_bytes).strip()
    return f"{row['title']}: needs {needed} of {room}, {row['fit']}"


def _question(row: dict[str, Any]) -> str:
    """What to ask before; empty where nothing speaks against it."""
    if row["here"] != "yes":
        size = row["weights_bytes"]
        how_much = "Its size is not known" if size is None else f"{figures.size(size).strip()} to fetch"
        return f"{how_much}. enter again fetches it."
    if row["fit"] == "does not fit":
        return "It does not fit beside what is running. enter again loads it anyway."
    return ""
