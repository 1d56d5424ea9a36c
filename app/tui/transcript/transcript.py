"""The transcript: turns in order, following the end until the person scrolls."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Container, Vertical, VerticalScroll
from textual.reactive import reactive
from textual.widgets import Static

from app.core.conversation import Exchange
from app.core.turn_stats import reply_line
from app.text.sanitise import sanitise
from app.tui.keys import key_in
from app.tui.transcript.flow import FlowRow, join_with_blank_rows
from app.tui.transcript.markdown import as_rows
from app.tui.transcript.text_block import TextBlock
from app.tui.transcript.thoughts import Thoughts
from app.tui.transcript.turn import Turn, prompt_rows, turn_rows

LIVE_TURNS = 6
"""The newest turns stay as they are, each of some ten widgets; older ones share a few."""
LIVE_WIDGETS = 110
"""Every layout walks every widget: beyond some 260 in all, an append takes more than 20 ms. The running reply
and the rest of the screen take the other 150."""


class FrozenTurns(TextBlock):
    """Old turns as one widget."""

    def __init__(self) -> None:
        super().__init__(classes="frozen")

    def take(self, *turns: Sequence[FlowRow]) -> None:
        """Show more turns, below the others."""
        self.show(join_with_blank_rows((self.rows, *turns)))


class NewBelow(Static):
    """Says how much has been written below while the person reads further up."""

    def __init__(self) -> None:
        super().__init__(id="new-below", markup=False)

    def say(self, new_tokens: int) -> None:
        """Show the number of tokens, constant in width."""
        key = key_in(self.app, "follow")
        words = f"▼ {new_tokens:5d} new tokens · {key}: follow" if new_tokens else f"▼ {key}: back to the newest"
        self.update(words, layout=False)


class TurnList(VerticalScroll, can_focus=False):
    """The scrolling part. Follows its end until the person scrolls away from it, and again once back there."""

    is_following = reactive(True)

    def anchor(self, anchor: bool = True) -> None:
        """Go to the end and stay there."""
        super().anchor(anchor)
        self.is_following = anchor

    def release_anchor(self) -> None:
        """Called before every scroll, also one that leads nowhere or to the end."""
        super().release_anchor()
        self.call_after_refresh(self._settle)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Back at the end: follow again."""
        super().watch_scroll_y(old_value, new_value)
        if not self.is_following and new_value >= self.max_scroll_y:
            self.anchor()

    def on_resize(self) -> None:
        """A window that has grown may show the end."""
        if not self.is_following:
            self.call_after_refresh(self._settle)

    def _settle(self) -> None:
        if self.scroll_target_y >= self.max_scroll_y:
            self.anchor()
        else:
            self.is_following = False


class Transcript(Container):
    """All turns of the conversation on the screen."""

    def __init__(self, welcome: str) -> None:
        super().__init__(id="transcript")
        self._welcome = welcome
        self._list = TurnList(id="turns")
        self._stack = Vertical(id="stack")
        self._new_below = NewBelow()
        self._new_tokens = 0
        self._turns: list[Turn] = []
        self._frozen: FrozenTurns | None = None
        self.is_tinted = False
        """Whether replies show what of them was drafted."""

    def compose(self) -> ComposeResult:
        """The welcome first; it scrolls away with the rest."""
        with self._list, self._stack:
            yield Static(sanitise(self._welcome), id="welcome", markup=False)
        yield self._new_below

    def on_mount(self) -> None:
        """Say when following stops."""
        self.watch(self._list, "is_following", self._following_changed)

    @property
    def is_following(self) -> bool:
        """Whether the end is in view and stays so."""
        return self._list.is_following

    @property
    def last_turn(self) -> Turn | None:
        """The newest turn, None at the start."""
        return self._turns[-1] if self._turns else None

    async def add_turn(self, prompt: str) -> Turn:
        """Show a message of the person; follows the end again."""
        if self.last_turn:
            # Where the arrows begin is further down now.
            self.last_turn.say_version((1, 1))
        await self._freeze_old()
        turn = Turn(prompt, is_tinted=self.is_tinted)
        self._turns.append(turn)
        await self._stack.mount(turn)
        self.follow()
        return turn

    async def drop_turn(self) -> None:
        """Take the newest turn away: another one comes in its place."""
        if self._turns:
            await self._turns.pop().remove()

    async def add_error(self, text: str) -> None:
        """Say what went wrong, below everything."""
        if self._turns:
            await self._turns[-1].add_error(text)
        else:
            await self._stack.mount(Static(sanitise(text), classes="error", markup=False))

    async def show(self, exchanges: Sequence[Exchange]) -> None:
        """Show a whole conversation in place of what was there, the newest turns live."""
        await self.clear()
        if old := exchanges[:-LIVE_TURNS]:
            self._frozen = FrozenTurns()
            self._frozen.take(*map(_rows_of, old))
            await self._stack.mount(self._frozen)
        for each in exchanges[-LIVE_TURNS:]:
            turn = await self.add_turn(each.prompt.text)
            if each.reply:
                await turn.show_reply(each.text, each.thinking, _line_of(each))
            if trouble := _trouble_of(each):
                await turn.add_error(trouble)

    async def clear(self) -> None:
        """Empty, as at the start."""
        self._turns.clear()
        self._frozen = None
        await self._stack.query(".turn, .frozen, .error").remove()
        self.follow()

    def count_new(self, tokens: int) -> None:
        """So many tokens were written; counted while the person reads further up."""
        if not self.is_following:
            self._new_tokens += tokens
            self._new_below.say(self._new_tokens)

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._list.anchor()

    def page(self, pages: int) -> None:
        """Scroll by screens, up when negative."""
        if not self._list.max_scroll_y:
            return
        if pages < 0:
            self._list.scroll_page_up(animate=False)
        else:
            self._list.scroll_page_down(animate=False)

    def toggle_thoughts(self) -> bool:
        """Fold or unfold all thoughts alike; False if there are none."""
        shown = [each for each in self.query(Thoughts) if each.display]
        is_folded = bool(shown) and not shown[-1].is_folded
        for each in shown:
            each.is_folded = is_folded
        return bool(shown)

    def toggle_tint(self) -> bool:
        """Tint what was drafted of the newest replies and those to come, or stop that.

        False if it is on, there are replies, and of none of them is known what was drafted.
        """
        self.is_tinted = not self.is_tinted
        for turn in self._turns:
            turn.show_tint(is_on=self.is_tinted)
        replies = [turn.reply for turn in self._turns if turn.reply]
        return not (self.is_tinted and replies) or any(reply.may_be_tinted for reply in replies)

    def _following_changed(self, is_following: bool) -> None:
        self._new_tokens = 0
        self._new_below.say(0)
        self._new_below.display = not is_following

    async def _freeze_old(self) -> None:
        """Keep the newest turns live, as many as the budget allows."""
        counts = [turn.widget_count for turn in self._turns]
        while len(counts) >= LIVE_TURNS or sum(counts) > LIVE_WIDGETS:
            counts.pop(0)
            turn = self._turns.pop(0)
            if self._frozen is None:
                self._frozen = FrozenTurns()
                await self._stack.mount(self._frozen, before=turn)
            self._frozen.take(turn.rows())
            await turn.remove()


def _line_of(exchange: Exchange) -> str:
    """The figures that were kept with a reply."""
    reply = exchange.reply
    if reply is None or reply.stats is None:
        return ""
    if _trouble_of(exchange) and not (exchange.text or exchange.thinking):
        return ""
    return reply_line(reply.stats, broke_off=reply.state in ("failed", "interrupted"))


def _trouble_of(exchange: Exchange) -> str:
    """Why a reply failed, as it was kept; empty if it did not."""
    reply = exchange.reply
    return (reply.stats.finish_reason or "") if reply and reply.state == "failed" and reply.stats else ""


def _rows_of(exchange: Exchange) -> list[FlowRow]:
    trouble = _trouble_of(exchange)
    return turn_rows(
        prompt_rows(exchange.prompt.text),
        exchange.thinking,
        as_rows(sanitise(exchange.text)),
        _line_of(exchange),
        [sanitise(trouble)] if trouble else [],
    )
