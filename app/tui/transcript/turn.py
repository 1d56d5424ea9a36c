"""A turn of the transcript: what the person wrote, and the reply as it streams in."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from app.core.attachments import split_message
from app.core.drafted_runs import DraftedRuns
from app.text.figures import MUTED
from app.text.sanitise import sanitise
from app.tui.pauses import DRAW_S, FIRST_DRAW_S
from app.tui.transcript.flow import FlowRow, TextRow, join_with_blank_rows
from app.tui.transcript.reply_body import MarkdownBody
from app.tui.transcript.scrollbarless import Scrollbarless
from app.tui.transcript.text_block import TextBlock
from app.tui.transcript.thoughts import Thoughts, folded_rows
from app.tui.transcript.tint import TintedText

COST_FACTOR = 4
"""Appending to an open code fence gets dearer with its length; the pauses grow with it, so that drawing
never takes more than about a fifth of one core."""
SHOWN_CHARACTERS = 4000
SHOWN_LINES = 60
"""More than this of one message of the person is not drawn: wrapping a megabyte takes seconds."""


def prompt_rows(text: str) -> list[FlowRow]:
    """The person's message, shortened for the eye only, its files by name."""
    text, files = split_message(text)
    shown = "\n".join(text[:SHOWN_CHARACTERS].splitlines()[:SHOWN_LINES])
    lines = [Content.styled(line, "bold") for line in sanitise(shown).split("\n")]
    if len(shown) < len(text.rstrip("\n")):
        lines.append(Content.styled(f"… {len(text):,} characters in all", MUTED))
    lines += [Content.styled(f"▤ {each.summary}", MUTED) for each in files]
    mark, margin = Content.styled("❯ ", "bold $text-primary"), Content("  ")
    return [TextRow(line, margin if number else mark, margin) for number, line in enumerate(lines)]


def turn_rows(
    prompt: Sequence[FlowRow], thinking: str, reply: Sequence[FlowRow], figures: str, errors: Sequence[str] = ()
) -> list[FlowRow]:
    """A turn as one text. errors: sanitised."""
    parts: list[Sequence[FlowRow]] = [prompt, folded_rows(thinking), reply]
    parts.append([TextRow(Content.styled(figures, MUTED))] if figures else [])
    parts += [[TextRow(Content.styled(f"! {text}", "$text-error"))] for text in errors]
    return join_with_blank_rows(parts)


class Reply(Scrollbarless, Vertical):
    """A reply: Markdown that grows, and a line of figures when it is complete.

    The text is drawn by appending, at most once per `DRAW_S`; `finish` reads the whole once more, because what
    comes late in a Markdown text can change how its beginning reads.
    While drafts are tinted it shows its text as written instead, and the Markdown waits.
    """

    def __init__(self, *, is_tinted: bool = False) -> None:
        super().__init__(classes="reply")
        self.source = ""
        """The text so far, sanitised."""
        self.figures = ""
        self._version = ""
        self._pending = ""
        self._is_flush_due = False
        self._pause_s = FIRST_DRAW_S
        self._text = MarkdownBody()
        self._line = Static(classes="figures", markup=False)
        self._runs = DraftedRuns()
        self._tinted = TintedText()
        self._is_tinted = is_tinted
        self._is_over = False
        self.thoughts = Thoughts()

    def compose(self) -> ComposeResult:
        """The thoughts, the text, then the figures."""
        self._choose_view()
        yield self.thoughts
        yield self._text
        yield self._tinted
        yield self._line

    def think(self, text: str) -> None:
        """Append to the thoughts."""
        if text:
            self.thoughts.write(text)

    def write(self, text: str, drafted_characters: int = 0) -> None:
        """Append text, of which the beginning may be drafted; it is drawn at the next flush."""
        self._runs.add(text, drafted_characters)
        text = sanitise(text)
        if text:
            self.thoughts.finish()
        self.source += text
        self._pending += text
        if self._pending and not self._is_flush_due:
            self._is_flush_due = True
            self.set_timer(self._pause_s, self._flush)

    def finish(self, figures: str) -> None:
        """Draw what is left, then the whole once more, and `figures` below it."""
        self.figures = figures
        self._is_over = True
        self.thoughts.finish()
        self.call_next(self._finish)

    @property
    def may_be_tinted(self) -> bool:
        """What was drafted of it is known, or still comes."""
        return self._runs.has_facts or not self._is_over

    def show_tint(self, *, is_on: bool) -> None:
        """Tint what was drafted, or show the Markdown again. What nobody knows the drafts of stays Markdown."""
        self.call_next(self._change_view, is_on and self.may_be_tinted)

    async def _flush(self) -> None:
        self._is_flush_due = False
        text, self._pending = self._pending, ""
        if not text:
            return
        started_s = perf_counter()
        if self._is_tinted:
            await self._tinted.draw(self._runs)
        else:
            await self._text.append(text)
        self._pause_s = max(DRAW_S, COST_FACTOR * (perf_counter() - started_s))

    async def _finish(self) -> None:
        self._is_tinted = self._is_tinted and self._runs.has_facts
        await self._draw_whole()
        self._show_line()

    async def _change_view(self, is_tinted: bool) -> None:
        if is_tinted != self._is_tinted:
            self._is_tinted = is_tinted
            await self._draw_whole()

    async def _draw_whole(self) -> None:
        self._pending = ""
        self._choose_view()
        if self._is_tinted:
            await self._tinted.draw(self._runs)
        else:
            await self._text.finish(self.source)

    def _choose_view(self) -> None:
        self._tinted.display = self._is_tinted
        self._text.display = not self._is_tinted

    def rows(self) -> list[FlowRow]:
        """The text as rows."""
        return self._text.rows(self.source)

    def say_version(self, place: tuple[int, int]) -> None:
        """Say which of several versions of the chat ends here, as `2/3`; nothing of a single one."""
        self._version = "‹ {}/{} ›".format(*place) if place[1] > 1 else ""
        self._show_line()

    def _show_line(self) -> None:
        line = " ".join(part for part in (self._version, self.figures) if part)
        self._line.update(line)
        self._line.display = bool(line)


class Turn(Scrollbarless, Vertical):
    """One exchange on the screen: the person's message, the reply, and errors in words."""

    def __init__(self, prompt: str, *, is_tinted: bool = False) -> None:
        super().__init__(classes="turn")
        self._prompt = prompt_rows(prompt)
        self.reply: Reply | None = None
        self._errors: list[str] = []
        self._is_tinted = is_tinted

    def compose(self) -> ComposeResult:
        """The person's message; the rest is added as it happens."""
        yield TextBlock(self._prompt, classes="prompt")

    async def show_reply(self, text: str, thinking: str, figures: str) -> None:
        """A reply that is complete."""
        reply = await self.begin_reply()
        reply.think(thinking)
        reply.write(text)
        reply.finish(figures)

    def say_version(self, place: tuple[int, int]) -> None:
        """Say which of several versions of the chat ends here; nothing of a single one."""
        if self.reply is not None:
            self.reply.say_version(place)

    async def begin_reply(self) -> Reply:
        """An empty reply in place of an earlier one and its errors."""
        self._errors.clear()
        await self.query(".reply, .error").remove()
        self.reply = Reply(is_tinted=self._is_tinted)
        await self.mount(self.reply)
        return self.reply

    def show_tint(self, *, is_on: bool) -> None:
        """Tint what was drafted of this reply and those in its place, or stop that."""
        self._is_tinted = is_on
        if self.reply is not None:
            self.reply.show_tint(is_on=is_on)

    async def add_error(self, text: str) -> None:
        """Say what went wrong."""
        self._errors.append(sanitise(text))
        await self.mount(Static(sanitise(text), classes="error", markup=False))

    @property
    def widget_count(self) -> int:
        """Widgets of this turn, itself included."""
        return 1 + len(self.query("*"))

    def rows(self) -> list[FlowRow]:
        """The whole turn as one text."""
        reply = self.reply
        said = (reply.thoughts.source, reply.rows(), reply.figures) if reply else ("", [], "")
        return turn_rows(self._prompt, *said, self._errors)
