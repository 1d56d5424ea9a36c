"""A turn of the transcript: the person's message, and the reply as it streams in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from app.core.drafted_runs import DraftedRuns
from app.core.message_files import split_message
from app.core.turn_stats import CAN_GO_ON
from app.store.records import Role
from app.text.figures import MUTED
from app.text.sanitise import sanitise
from app.tui.pauses import DRAW_S, FIRST_DRAW_S
from app.tui.transcript.flow import FlowRow, TextRow, join_with_blank_rows
from app.tui.transcript.reply_body import MarkdownBody
from app.tui.transcript.scrollbarless import Scrollbarless
from app.tui.transcript.text_block import TextBlock
from app.tui.transcript.thoughts import Thoughts, folded_rows
from app.tui.transcript.tint import TintedText

PAUSE_PER_DRAW = 4
"""The longer an open code block, the longer an append takes. The pause grows with it, so that drawing never takes
more than about a fifth of one core."""
MAX_SHOWN_CHARACTERS = 4000
MAX_SHOWN_LINES = 60
MAX_SHOWN_FILES = 30
"""No more of a message is drawn: wrapping a megabyte takes seconds."""


@dataclass(frozen=True, slots=True)
class TurnRows:
    """All rows of a turn."""

    rows: Sequence[FlowRow]
    message_rows: int
    """How many of them, at the beginning, are the person's message."""


def version_mark(version: tuple[int, int]) -> str:
    """`‹ 2/3 ›` for the second of three versions; empty if there is only one."""
    return "‹ {}/{} ›".format(*version) if version[1] > 1 else ""


def message_rows(text: str, typed_characters: int | None = None) -> list[FlowRow]:
    """The person's message, shortened, with the names of its files. typed_characters: see `split_message`."""
    text, files = split_message(text, typed_characters)
    shown = "\n".join(text[:MAX_SHOWN_CHARACTERS].splitlines()[:MAX_SHOWN_LINES])
    lines = [Content.styled(line, "bold") for line in sanitise(shown).split("\n")]
    if len(shown) < len(text.rstrip("\n")):
        lines.append(Content.styled(f"… {len(text):,} characters in total", MUTED))
    lines += [Content.styled(f"▤ {file.summary}", MUTED) for file in files[:MAX_SHOWN_FILES]]
    if len(files) > MAX_SHOWN_FILES:
        lines.append(Content.styled(f"… {len(files):,} files in total", MUTED))
    mark, margin = Content.styled("❯ ", "bold $text-primary"), Content("  ")
    return [TextRow(line, margin if number else mark, margin) for number, line in enumerate(lines)]


def turn_rows(
    message: Sequence[FlowRow], thinking: str, reply: Sequence[FlowRow], figures: str, errors: Sequence[str] = ()
) -> list[FlowRow]:
    """All rows of a turn. errors: sanitised."""
    parts: list[Sequence[FlowRow]] = [message, folded_rows(thinking), reply]
    parts.append([TextRow(Content.styled(figures, MUTED))] if figures else [])
    parts += [[TextRow(Content.styled(f"! {text}", "$text-error"))] for text in errors]
    return join_with_blank_rows(parts)


class FiguresLine(Static):
    """The line below a reply: short until the person clicks it or asks for all figures."""

    is_full = reactive(False)

    def __init__(self, *, is_full: bool = False) -> None:
        super().__init__(classes="figures", markup=False)
        self.version = ""
        """Of the chat, such as `‹ 2/3 ›`; empty if there is only one."""
        self.can_go_on = False
        """Whether to name the command that continues the reply."""
        self._short, self._full = "", ""
        self.set_reactive(FiguresLine.is_full, is_full)

    def set_figures(self, short: str, full: str) -> None:
        """Shown at the next `draw`."""
        self._short, self._full = short, full

    @property
    def figures(self) -> str:
        """In the length that is shown."""
        return self._full or self._short if self.is_full else self._short

    def draw(self) -> None:
        figures = f"{self.figures} · {CAN_GO_ON}" if self.figures and self.can_go_on else self.figures
        line = " ".join(part for part in (self.version, figures) if part)
        self.update(line)
        self.display = bool(line)

    def watch_is_full(self) -> None:
        self.draw()

    def on_click(self) -> None:
        self.is_full = not self.is_full


class ReplyWidget(Scrollbarless, Vertical):
    """A reply: Markdown that grows, and a line of figures when it is complete.

    Text is appended at most once per `DRAW_S`. `finish` parses the whole text again, because the end of a Markdown
    text can change the meaning of its beginning. While drafted words are tinted, the plain text is shown instead.
    """

    def __init__(self, *, is_tinted: bool = False, has_all_figures: bool = False) -> None:
        super().__init__(classes="reply")
        self._source_parts: list[str] = []
        self._undrawn = ""
        self._is_flush_due = False
        self._pause_s = FIRST_DRAW_S
        self._text = MarkdownBody()
        self._line = FiguresLine(is_full=has_all_figures)
        self._runs = DraftedRuns()
        self._tinted = TintedText()
        self._is_tinted = is_tinted
        self._is_finished = False
        self.thoughts = Thoughts()

    @property
    def source(self) -> str:
        """The text so far, sanitised."""
        self._source_parts = ["".join(self._source_parts)]
        return self._source_parts[0]

    def compose(self) -> ComposeResult:
        self._choose_view()
        yield self.thoughts
        yield self._text
        yield self._tinted
        yield self._line

    def think(self, text: str) -> None:
        """Append to the thoughts."""
        if text:
            self.thoughts.write(text)

    def write(self, text: str, drafted_characters: int = 0, *, is_copied: bool = False) -> None:
        """Append text, the beginning of which may be drafted. It is drawn at the next flush."""
        self._runs.add(text, drafted_characters, is_copied=is_copied)
        text = sanitise(text)
        if text:
            self.thoughts.finish()
        self._source_parts.append(text)
        self._undrawn += text
        if self._undrawn and not self._is_flush_due:
            self._is_flush_due = True
            self.set_timer(self._pause_s, self._flush)

    def finish(self, figures: str, all_figures: str = "", *, can_go_on: bool = False) -> None:
        """Draw the whole reply again, with `figures` below it.

        all_figures: shown on request. can_go_on: whether to name the command that continues the reply.
        """
        self._line.set_figures(figures, all_figures)
        self._line.can_go_on = can_go_on
        self._is_finished = True
        self.thoughts.finish()
        self.call_next(self._finish)

    @property
    def can_be_tinted(self) -> bool:
        """Whether its drafted words are known, or will be."""
        return self._runs.has_facts or not self._is_finished

    def show_tint(self, *, is_on: bool) -> None:
        """Tint the drafted words if they are known, or show the Markdown."""
        self.call_next(self._change_view, is_on and self.can_be_tinted)

    async def _flush(self) -> None:
        self._is_flush_due = False
        text, self._undrawn = self._undrawn, ""
        if not text:
            return
        started_s = perf_counter()
        if self._is_tinted:
            await self._tinted.draw(self._runs)
        else:
            await self._text.append(text)
        self._pause_s = max(DRAW_S, PAUSE_PER_DRAW * (perf_counter() - started_s))

    async def _finish(self) -> None:
        self._is_tinted = self._is_tinted and self._runs.has_facts
        await self._draw_whole()
        self._line.draw()

    async def _change_view(self, is_tinted: bool) -> None:
        if is_tinted != self._is_tinted:
            self._is_tinted = is_tinted
            await self._draw_whole()

    async def _draw_whole(self) -> None:
        self._undrawn = ""
        self._choose_view()
        if self._is_tinted:
            await self._tinted.draw(self._runs)
        else:
            await self._text.finish(self.source)

    def _choose_view(self) -> None:
        self._tinted.display = self._is_tinted
        self._text.display = not self._is_tinted

    def rows(self) -> list[FlowRow]:
        return self._text.rows(self.source)

    def show_version(self, version: tuple[int, int]) -> None:
        """Show the number of the chat's version and of all versions, if there are several: `‹ 2/3 ›`."""
        if (mark := version_mark(version)) != self._line.version:
            self._line.version = mark
            self._line.draw()

    def allow_going_on(self, *, is_allowed: bool) -> None:
        """Whether the line below names the command that continues the reply."""
        if is_allowed != self._line.can_go_on:
            self._line.can_go_on = is_allowed
            self._line.draw()

    def show_all_figures(self, *, is_on: bool) -> None:
        """Show all figures below the reply, or only the most important."""
        self._line.is_full = is_on

    @property
    def figures(self) -> str:
        """As they are shown below the reply."""
        return self._line.figures


class Turn(Scrollbarless, Vertical):
    """The person's message, the reply, and errors."""

    def __init__(
        self, message: Sequence[FlowRow], *, is_tinted: bool = False, has_all_figures: bool = False
    ) -> None:
        super().__init__(classes="turn")
        self._message = message
        self._message_block = TextBlock(self._message, classes="prompt")
        self.reply: ReplyWidget | None = None
        self._errors: list[str] = []
        self._is_tinted = is_tinted
        self._has_all_figures = has_all_figures

    def compose(self) -> ComposeResult:
        """Only the message; the rest is mounted as it happens."""
        yield self._message_block

    async def show_reply(
        self, text: str, thinking: str, figures: str, all_figures: str = "", *, can_go_on: bool = False
    ) -> None:
        """Show a reply that has ended."""
        reply = await self.begin_reply()
        reply.think(thinking)
        reply.write(text)
        reply.finish(figures, all_figures, can_go_on=can_go_on)

    def show_version(self, version: tuple[int, int], role: Role) -> None:
        """Mark the message, or the reply to it, with the version; see ReplyWidget."""
        mark = version_mark(version) if role == "user" else ""
        margin = Content("  ")
        marked = [*self._message, TextRow(Content.styled(mark, MUTED), margin)] if mark else self._message
        if len(marked) != len(self._message_block.rows) or mark:
            self._message_block.show(marked)
        if self.reply is not None:
            self.reply.show_version(version if role == "assistant" else (1, 1))

    def allow_going_on(self, *, is_allowed: bool) -> None:
        """See ReplyWidget."""
        if self.reply is not None:
            self.reply.allow_going_on(is_allowed=is_allowed)

    async def begin_reply(self) -> ReplyWidget:
        """Mount an empty reply, replacing an earlier one and its errors."""
        self._errors.clear()
        await self.query(".reply, .error").remove()
        self.reply = ReplyWidget(is_tinted=self._is_tinted, has_all_figures=self._has_all_figures)
        await self.mount(self.reply)
        return self.reply

    def show_tint(self, *, is_on: bool) -> None:
        """Tint the drafted words of this reply and of those that replace it, or show the Markdown."""
        self._is_tinted = is_on
        if self.reply is not None:
            self.reply.show_tint(is_on=is_on)

    def show_all_figures(self, *, is_on: bool) -> None:
        """Show all figures below this reply and those that replace it, or only the most important."""
        self._has_all_figures = is_on
        if self.reply is not None:
            self.reply.show_all_figures(is_on=is_on)

    async def add_error(self, text: str) -> None:
        self._errors.append(sanitise(text))
        await self.mount(Static(sanitise(text), classes="error", markup=False))

    @property
    def widget_count(self) -> int:
        """The widgets of this turn, including itself."""
        return 1 + len(self.query("*"))

    def rows(self) -> list[FlowRow]:
        """All rows of the turn."""
        reply = self.reply
        parts = (reply.thoughts.source, reply.rows(), reply.figures) if reply else ("", [], "")
        return turn_rows(self._message, *parts, self._errors)

    def frozen(self) -> TurnRows:
        """All rows, for the time when it has no widgets any more."""
        return TurnRows(self.rows(), len(self._message))
