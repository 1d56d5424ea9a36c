"""Lists and the palette where messages come before they are laid out, or after they closed."""

from __future__ import annotations

from textual.app import App
from textual.command import CommandList, DiscoveryHit, Hits, Provider
from textual.widgets import OptionList

from app.tui.screens.palette import Palette
from app.tui.screens.row_list import RowList
from tests.app.tui.pilot import chat


async def test_pages_of_a_list_that_is_not_laid_out() -> None:
    app: App[None] = App()
    async with app.run_test():
        rows = RowList("one", "two")
        rows.display = False
        await app.mount(rows)
        rows.highlighted = 0
        rows.action_page_down()
        rows.action_page_up()
        assert rows.highlighted == 0


async def test_the_palette_runs_one_command_however_often_it_is_chosen() -> None:
    ran: list[str] = []

    class Commands(Provider):
        async def discover(self) -> Hits:
            yield DiscoveryHit("one", lambda: ran.append("one"))

        async def search(self, query: str) -> Hits:
            return
            yield

    async with chat() as story:
        palette = Palette([Commands])
        story.app.push_screen(palette)
        await story.until(lambda: palette.query(CommandList) and palette.query_one(CommandList).option_count == 1)
        rows = palette.query_one(CommandList)
        option = rows.get_option_at_index(0)
        for _ in range(2):
            rows.post_message(OptionList.OptionSelected(rows, option, 0))
        await story.until(lambda: not palette.is_attached)
        await story.pilot.pause()
        assert ran == ["one"]
