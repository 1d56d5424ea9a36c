"""`/report`: measures this machine with the loaded pair, and shows the report before it is written."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from app.core.chat_options import Examine
from app.report.contents import ReportedPair, TerminalFacts, as_text
from app.report.making import advice, make_report
from app.store.errors import StoreError
from app.store.transfer import write_file
from app.text.sanitise import sanitise
from app.tui.screens.overlay import Overlay
from mlx_engine.client import EngineHandle
from mlx_engine.protocol.events import Died, Event, Failed, Measured
from mlx_engine.protocol.micro_figures import MicroFigures

MEASURING = "Measuring this machine, which takes half a minute. esc stops that."
_NUMBERS = count(1)


class ReportScreen(Overlay[None]):
    """Tells nobody else what it has measured. `hear` gets the engine's events."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Close", tooltip="closes this without writing"),
        Binding("enter", "write", "Write", tooltip="writes the report"),
        Binding("down", "scroll(1)", "Down", show=False),
        Binding("up", "scroll(-1)", "Up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
    ]
    DEFAULT_CSS = """
    ReportScreen { align: center middle; }
    ReportScreen #report { width: 120; max-width: 100%; height: auto; max-height: 100%; padding: 0 1;
        background: $panel; }
    ReportScreen VerticalScroll { height: auto; max-height: 100%; }
    ReportScreen Static { height: auto; }
    """

    def __init__(
        self, engine: EngineHandle, pair: ReportedPair, examine: Examine, terminal: TerminalFacts, path: Path
    ) -> None:
        """path: where the report is written."""
        super().__init__()
        self._engine, self._pair, self._examine = engine, pair, examine
        self._terminal, self._path = terminal, path
        self._number = -next(_NUMBERS)  # no reply has such a number
        self._is_measured = False
        self._written = ""
        """The report; empty while there is none yet."""
        self._text = Static(MEASURING, markup=False)
        self._scroll = VerticalScroll(self._text, can_focus=False)
        self._hint = Static("", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(id="report"):
            yield self._hint
            yield self._scroll

    def on_mount(self) -> None:
        self._engine.measure(self._number)

    def hear(self, event: Event) -> None:
        """The engine has measured, or cannot."""
        match event:
            case Measured(id=self._number, figures=figures):
                self._measured(figures)
            case Failed(id=self._number, message=message) | Died(message=message):
                self._measured(None, message)

    def _measured(self, figures: MicroFigures | None, *notes: str) -> None:
        if self._is_measured:
            return
        self._is_measured = True
        self._text.update("Checking this machine.")

        def make() -> None:
            device, checks = self._examine()
            report = make_report(
                checks=checks,
                device=device,
                pair=self._pair,
                figures=figures,
                terminal=self._terminal,
                notes=notes,
            )
            self.app.call_from_thread(self._show, as_text(report), advice(report))

        self.run_worker(make, thread=True, exit_on_error=False)

    def _show(self, text: str, advice: str) -> None:
        self._written = text
        self._text.update(sanitise(text))
        keys = f"enter writes it to {self._path} · esc closes this"
        self._hint.update(sanitise("\n".join(filter(None, (advice, keys)))))

    def action_leave(self) -> None:
        """Stop the measurements if they are not over, and close."""
        if not self._is_measured:
            self._engine.cancel()
        self.dismiss()

    def action_write(self) -> None:
        """Write what is shown."""
        if not self._written:
            return
        try:
            write_file(self._path, self._written, may_replace=False, advice="Use /report with another name.")
        except StoreError as error:
            self._hint.update(sanitise(str(error)))
        else:
            self.app.notify(f"Written to {self._path}. Send it with an issue, if you like.")
            self.dismiss()

    def action_scroll(self, lines: int) -> None:
        self._scroll.scroll_relative(y=lines, animate=False)

    def action_page(self, pages: int) -> None:
        self._scroll.scroll_relative(y=pages * self._scroll.size.height, animate=False)
