"""The transcript: turns in order, following the end until the person scrolls."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.reactive import reactive
from textual.widgets import Static

from app.core.conversation import Exchange
from app.core.turn_stats import stored_lines
from app.store.records import Role
from app.text.figures import MUTED
from app.text.sanitise import sanitise
from app.tui.keys import key_in
from app.tui.transcript.flow import FlowRow, TextRow, join_with_blank_rows
from app.tui.transcript.markdown import as_rows
from app.tui.transcript.place import Place, place_at_top
from app.tui.transcript.text_block import TextBlock
from app.tui.transcript.thoughts import Thoughts
from app.tui.transcript.turn import Turn, TurnRows, message_rows, turn_rows, version_mark

LIVE_TURNS = 6
"""The newest turns keep their widgets, about ten each; all older ones share one."""
LIVE_WIDGETS = 110
"""A layout visits every widget: with more than about 260, an append takes over 20 ms. The running reply and the
rest of the screen need the other 150."""


class FrozenTurns(TextBlock):
    """The older turns as one widget."""

    def __init__(self) -> None:
        super().__init__(classes="frozen")
        self._turns: list[TurnRows] = []
        self._marked: FlowRow | None = None

    def add(self, *turns: TurnRows) -> None:
        """Add turns below the others."""
        self._turns += turns
        self.show(join_with_blank_rows((self.rows, *(turn.rows for turn in turns))))

    def show_version(self, version: tuple[int, int], turns_before_last: int, role: Role) -> None:
        """Mark a message with the version; a negative number of turns: none of these."""
        mark = version_mark(version) if 0 <= turns_before_last < len(self._turns) else ""
        if not mark and self._marked is None:
            return
        rows = [row for row in self.rows if row is not self._marked]
        self._marked = None
        if mark:
            turn = self._turns[-1 - turns_before_last]
            last = turn.rows[turn.message_rows - 1 if role == "user" else -1]
            self._marked = TextRow(Content.styled(mark, MUTED), Content("  " * (role == "user")))
            rows.insert(1 + next(at for at, row in enumerate(rows) if row is last), self._marked)
        self.show(rows)


class NewTokensLine(Static):
    """How much of the reply is new, while the person reads further up."""

    def __init__(self) -> None:
        super().__init__(id="new-below", markup=False)

    def show(self, new_tokens: int) -> None:
        """Show the number of tokens, at a constant width."""
        key = key_in(self.app, "follow")
        text = f"▼ {new_tokens:5d} new tokens · {key}: follow" if new_tokens else f"▼ {key}: back to the newest"
        self.update(text, layout=False)


class TurnList(VerticalScroll, can_focus=False):
    """The scrolling part. It follows its end, except while the person has scrolled away from it."""

    is_following = reactive(True)

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._place: Place | None = None
        """What the person reads, at the top; kept when a larger window shows the end, until it is followed."""
        self._placed_y = -1.0
        """Where `_place` put the window. Anywhere else, the person has scrolled."""
        self._placed_size = Size(0, 0)
        self._is_note_due = False

    def anchor(self, anchor: bool = True) -> None:
        """Go to the end and stay there."""
        super().anchor(anchor)
        self.is_following = anchor
        self.forget_place()

    def release_anchor(self) -> None:
        """Called before every scroll, even if it does not move anything or goes to the end."""
        super().release_anchor()
        self.call_after_refresh(self._settle)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Follow again once the end is reached. A new size moves it too, but nobody scrolled then."""
        super().watch_scroll_y(old_value, new_value)
        if self.is_following or self.size != self._placed_size:
            return
        if new_value >= self.max_scroll_y:
            self.anchor()
        elif not self._is_note_due:
            self._is_note_due = True
            self.call_after_refresh(self._note_place)

    def _size_updated(self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True) -> bool:
        """Keep the line at the top. Follow again if a larger window shows the end.

        Textual sends no Resize if something asked for a widget's region between a change and its layout.
        """
        is_changed = super()._size_updated(size, virtual_size, container_size, layout)
        if self.size != self._placed_size:  # the parameter has the padding too
            self.call_later(self._restore_place)
        return is_changed

    def forget_place(self) -> None:
        """The end is followed from here on."""
        self._place, self._placed_y = None, -1.0

    def note_place(self) -> None:
        """What is above the line at the top has changed: remember the line that is there now."""
        self._placed_y = -1.0
        self.call_after_refresh(self._note_place)

    def _note_place(self) -> None:
        self._is_note_due = False
        if not self.is_following and self.size == self._placed_size and self.scroll_y != self._placed_y:
            self._place, self._placed_y = place_at_top(self), self.scroll_y

    def _restore_place(self) -> None:
        self._placed_size = self.size
        place = self._place
        line = place.line_in(self.children[0]) if place else None
        if place is None or line is None:
            if not self.is_following:
                self._settle()
            return
        if line >= self.max_scroll_y:
            self.anchor()
            self._place = place
        else:
            super().release_anchor()
            self.is_following = False
            self.scroll_target_y = self.scroll_y = self._placed_y = max(0, line)

    def _settle(self) -> None:
        if self.scroll_target_y >= self.max_scroll_y:
            self.anchor()
        else:
            self.is_following = False
            self._note_place()


class Transcript(Container):
    """The turns of the conversation that is shown."""

    def __init__(self, welcome: str) -> None:
        super().__init__(id="transcript")
        self._welcome = welcome
        self._list = TurnList(id="turns")
        self._stack = Vertical(id="stack")
        self._new_tokens_line = NewTokensLine()
        self._new_tokens = 0
        self._turns: list[Turn] = []
        self._frozen: FrozenTurns | None = None
        self.is_tinted = False
        """Whether replies show which of their words were drafted."""
        self.has_all_figures = False
        """Whether replies show all their figures, not only the most important."""

    def compose(self) -> ComposeResult:
        with self._list, self._stack:
            name, _, rest = sanitise(self._welcome).partition("\n")
            yield Static(Content.assemble((name, "bold $text-primary"), f"\n{rest}"), id="welcome", markup=False)
        yield self._new_tokens_line

    def on_mount(self) -> None:
        self.watch(self._list, "is_following", self._following_changed)

    @property
    def is_following(self) -> bool:
        """Whether the end stays in view while the reply grows."""
        return self._list.is_following

    @property
    def last_turn(self) -> Turn | None:
        return self._turns[-1] if self._turns else None

    async def add_turn(self, prompt: str, typed_characters: int | None = None) -> Turn:
        """Show a message of the person, and follow the end again. typed_characters: see `split_message`."""
        self.show_version((1, 1), None)  # while a reply runs, no version can be walked to
        if self.last_turn:
            self.last_turn.allow_going_on(is_allowed=False)  # only the newest reply can be continued
        await self._freeze_old()
        rows = message_rows(prompt, typed_characters)
        turn = Turn(rows, is_tinted=self.is_tinted, has_all_figures=self.has_all_figures)
        self._turns.append(turn)
        await self._stack.mount(turn)
        self.follow()
        return turn

    def show_version(self, version: tuple[int, int], branch: tuple[int, Role] | None) -> None:
        """Mark the message that has siblings with the chat's version and the number of versions: `‹ 2/3 ›`.

        branch: how many turns before the last it is, and whose; None: no message is marked.
        """
        turns_before_last, role = branch or (0, "user")
        for number, turn in enumerate(reversed(self._turns)):
            is_marked = branch is not None and number == turns_before_last
            turn.show_version(version if is_marked else (1, 1), role)
        if self._frozen:
            self._frozen.show_version(version, turns_before_last - len(self._turns), role)

    async def drop_turn(self) -> None:
        """Remove the newest turn, to replace it."""
        if self._turns:
            await self._turns.pop().remove()

    async def add_error(self, text: str) -> None:
        """Show an error below everything else."""
        if self._turns:
            await self._turns[-1].add_error(text)
        else:
            await self._stack.mount(Static(sanitise(text), classes="error", markup=False))

    async def show(self, exchanges: Sequence[Exchange]) -> None:
        """Show another conversation. The newest turns keep their widgets, the older ones are frozen."""
        await self.clear()
        if old := exchanges[:-LIVE_TURNS]:
            self._frozen = FrozenTurns()
            self._frozen.add(*map(_rows_of, old))
            await self._stack.mount(self._frozen)
        for exchange in exchanges[-LIVE_TURNS:]:
            turn = await self.add_turn(exchange.prompt.text, exchange.prompt.typed_characters)
            if reply := exchange.reply:
                can_go_on = reply.state in ("stopped", "interrupted")
                short, full = _figures_of(exchange)
                await turn.show_reply(exchange.text, exchange.thinking, short, full, can_go_on=can_go_on)
            if error := _error_of(exchange):
                await turn.add_error(error)

    async def clear(self) -> None:
        """Remove everything but the welcome."""
        self._turns.clear()
        self._frozen = None
        await self._stack.query(".turn, .frozen, .error").remove()
        self.follow()

    def count_new(self, tokens: int) -> None:
        """Count new tokens while the person reads further up."""
        if self.is_following:
            self._list.forget_place()
        else:
            self._new_tokens += tokens
            self._new_tokens_line.show(self._new_tokens)

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._list.anchor()

    def page(self, pages: int) -> None:
        """Scroll by pages; negative: up."""
        if not self._list.max_scroll_y:
            return
        # At once, so that the next key of a burst scrolls on from there.
        lines = pages * self._list.scrollable_content_region.height
        self._list.scroll_to(y=self._list.scroll_y + lines, animate=False, immediate=True)

    def toggle_thoughts(self) -> bool:
        """Fold or unfold the thoughts of all replies alike. False if there are none."""
        shown = [thoughts for thoughts in self.query(Thoughts) if thoughts.display]
        is_folded = bool(shown) and not shown[-1].is_folded
        for thoughts in shown:
            thoughts.is_folded = is_folded
        self._list.note_place()
        return bool(shown)

    def toggle_tint(self) -> bool:
        """Tint the drafted words of the newest replies and later ones, or show the Markdown again.

        False if no reply on the screen can be tinted, because it is not known what was drafted.
        """
        self.is_tinted = not self.is_tinted
        for turn in self._turns:
            turn.show_tint(is_on=self.is_tinted)
        self._list.note_place()
        replies = [turn.reply for turn in self._turns if turn.reply]
        return not (self.is_tinted and replies) or any(reply.can_be_tinted for reply in replies)

    def toggle_figures(self) -> None:
        """Show all figures below the newest replies and later ones, or only the most important."""
        self.has_all_figures = not self.has_all_figures
        for turn in self._turns:
            turn.show_all_figures(is_on=self.has_all_figures)

    def _following_changed(self, is_following: bool) -> None:
        self._new_tokens = 0
        self._new_tokens_line.show(0)
        self._new_tokens_line.display = not is_following

    async def _freeze_old(self) -> None:
        """Freeze the oldest turns, as far as needed for one more turn."""
        counts = [turn.widget_count for turn in self._turns]
        while len(counts) >= LIVE_TURNS or sum(counts) > LIVE_WIDGETS:
            counts.pop(0)
            turn = self._turns.pop(0)
            if self._frozen is None:
                self._frozen = FrozenTurns()
                await self._stack.mount(self._frozen, before=turn)
            self._frozen.add(turn.frozen())
            await turn.remove()


def _figures_of(exchange: Exchange) -> tuple[str, str]:
    """The figures that were stored with a reply: the most important ones, and all."""
    reply = exchange.reply
    if reply is None or (_error_of(exchange) and not (exchange.text or exchange.thinking)):
        return "", ""
    return stored_lines(reply)


def _error_of(exchange: Exchange) -> str:
    """Why a reply failed, as it was stored; empty if it did not fail."""
    reply = exchange.reply
    return (reply.stats.finish_reason or "") if reply and reply.state == "failed" and reply.stats else ""


def _rows_of(exchange: Exchange) -> TurnRows:
    error = _error_of(exchange)
    message = message_rows(exchange.prompt.text, exchange.prompt.typed_characters)
    rows = turn_rows(
        message,
        exchange.thinking,
        as_rows(sanitise(exchange.text)),
        _figures_of(exchange)[0],
        [sanitise(error)] if error else [],
    )
    return TurnRows(rows, len(message))
