"""A turn of the transcript: what the person wrote, and the reply as it streams in."""

from __future__ import annotations

from time import perf_counter

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Markdown, Static

from app.figures import MUTED
from app.markdown_text import as_content, markdown_parser
from app.sanitise import sanitise
from app.thoughts import Thoughts

FLUSH_S = 0.1
"""Between two appends: fast enough to read along, slow enough to leave the processor to the engine."""
FIRST_FLUSH_S = 0.02
"""The first words appear at once."""
COST_FACTOR = 4
"""Appending to an open code fence gets dearer with its length; the pauses grow with it, so that drawing
never takes more than about a fifth of one core."""
LONG_REPLY_WIDGETS = 120
"""A reply that needs more widgets than this (500 list items do) goes on as one styled text."""
SHOWN_CHARACTERS = 4000
SHOWN_LINES = 60
"""More than this of one message of the person is not drawn: wrapping a megabyte takes seconds."""


def prompt_content(text: str) -> Content:
    """The person's message, shortened for the eye only."""
    shown = "\n".join(text[:SHOWN_CHARACTERS].splitlines()[:SHOWN_LINES])
    content = Content.styled("❯ ", "$text-primary") + Content(sanitise(shown).replace("\n", "\n  "))
    if len(shown) < len(text.rstrip("\n")):
        content += Content.styled(f"\n  … {len(text):,} characters in all", MUTED)
    return content


class Reply(Vertical):
    """A reply: Markdown that grows, and a line of figures when it is complete.

    The text is drawn by appending, at most once per `FLUSH_S`; `finish` renders the whole once more,
    because streaming by appending can differ from a full render. A very long reply changes to one widget.
    """

    def __init__(self) -> None:
        super().__init__(classes="reply")
        self.source = ""
        """The text so far, sanitised."""
        self.figures = ""
        self._sibling = ""
        self._pending = ""
        self._is_flush_due = False
        self._pause_s = FIRST_FLUSH_S
        self._markdown = Markdown(open_links=False, parser_factory=markdown_parser)
        self._long: Static | None = None
        self._line = Static(classes="figures", markup=False)
        self.thoughts = Thoughts()

    def compose(self) -> ComposeResult:
        """The thoughts, the text, then the figures."""
        yield self.thoughts
        yield self._markdown
        yield self._line

    def think(self, text: str) -> None:
        """Append to the thoughts."""
        if text:
            self.thoughts.write(text)

    def write(self, text: str) -> None:
        """Append text; it is drawn at the next flush."""
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
        self.thoughts.finish()
        self.call_next(self._finish)

    async def _flush(self) -> None:
        self._is_flush_due = False
        text, self._pending = self._pending, ""
        if not text:
            return
        started_s = perf_counter()
        if self._long is None:
            await self._markdown.append(text)
            if len(self._markdown.query("*")) > LONG_REPLY_WIDGETS:
                await self._become_long()
        else:
            self._long.update(as_content(self.source))
        self._pause_s = max(FLUSH_S, COST_FACTOR * (perf_counter() - started_s))

    async def _become_long(self) -> None:
        self._long = Static(as_content(self.source), classes="long", markup=False)
        await self.mount(self._long, before=self._line)
        await self._markdown.remove()

    async def _finish(self) -> None:
        self._pending = ""
        if self._long is None:
            await self._markdown.update(self.source)
        else:
            self._long.update(as_content(self.source))
        self._show_line()

    def say_sibling(self, place: tuple[int, int] | None) -> None:
        """Say which of several replies this is, as `2/3`."""
        self._sibling = f"‹ {place[0]}/{place[1]} ›" if place else ""
        self._show_line()

    def _show_line(self) -> None:
        line = " ".join(part for part in (self._sibling, self.figures) if part)
        self._line.update(line)
        self._line.display = bool(line)


class Turn(Vertical):
    """One exchange on the screen: the person's message, the reply, and errors in words."""

    def __init__(self, prompt: str) -> None:
        super().__init__(classes="turn")
        self._prompt = prompt_content(prompt)
        self.reply: Reply | None = None
        self._errors: list[str] = []

    def compose(self) -> ComposeResult:
        """The person's message; the rest is added as it happens."""
        yield Static(self._prompt, classes="prompt", markup=False)

    async def show_reply(self, text: str, thinking: str, figures: str) -> None:
        """A reply that is complete."""
        reply = await self.begin_reply()
        reply.think(thinking)
        reply.write(text)
        reply.finish(figures)

    def hold_reply(self, text: str, figures: str) -> None:
        """A reply that is complete, of a turn that is never mounted: for `frozen` only."""
        self.reply = Reply()
        self.reply.source, self.reply.figures = sanitise(text), figures

    def say_sibling(self, place: tuple[int, int] | None) -> None:
        """Say which of several replies this is; None: the only one."""
        if self.reply is not None:
            self.reply.say_sibling(place)

    async def begin_reply(self) -> Reply:
        """An empty reply in place of an earlier one and its errors."""
        self._errors.clear()
        await self.query(".reply, .error").remove()
        self.reply = Reply()
        await self.mount(self.reply)
        return self.reply

    async def add_error(self, text: str) -> None:
        """Say what went wrong."""
        self._errors.append(sanitise(text))
        await self.mount(Static(sanitise(text), classes="error", markup=False))

    @property
    def widget_count(self) -> int:
        """Widgets of this turn, itself included."""
        return 1 + len(self.query("*"))

    def frozen(self) -> Content:
        """The whole turn as one text."""
        parts = [self._prompt.stylize("bold")]
        if self.reply is not None:
            parts.append(as_content(self.reply.source))
            parts.append(Content.styled(self.reply.figures, MUTED))
        parts += [Content.styled(f"! {text}", "$text-error") for text in self._errors]
        return Content("\n\n").join(part for part in parts if part.plain)
