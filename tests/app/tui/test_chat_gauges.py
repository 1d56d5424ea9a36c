"""The gauges: what they show, that they follow the rounds, and that an update never costs a layout."""

from __future__ import annotations

import pytest

from app.core.chat_options import ChatOptions
from app.core.gauges import GaugeReading
from app.settings.table import Settings
from app.tui.bars.gauge_panel import PANEL_WIDTH, GaugePanel, caption, panel_lines
from app.tui.bars.gauge_strip import strip_line
from app.tui.transcript.transcript import Transcript
from mlx_engine.protocol.events import Generate, Round, Started
from tests.app.tui.pilot import Story, chat, layouts_asked_for
from tests.fakes.engine import FakeEngine

pytestmark = pytest.mark.sampled(2)

READING = GaugeReading(
    draft_length=4,
    has_drafter=True,
    speedup=1.82,
    acceptance=0.71,
    tokens_per_round=2.9,
    tokens_per_s=58.3,
    plain_tokens_per_s=32.0,
    pace_samples=tuple(float(number) for number in range(40)),
    ttft_s=0.41,
    prompt=Started(1, prompt_tokens=3210, cached_tokens=3100, disk_tokens=3100),
    context_tokens=3277,
    context_limit=32_768,
    memory_bytes=17_200_000_000,
    drafted_by_position=(10, 10, 8, 5, *[0] * 12),
    accepted_by_position=(9, 7, 5, 2, *[0] * 12),
)


def reading(**changes: object) -> GaugeReading:
    return GaugeReading(**{name: getattr(READING, name) for name in READING.__slots__} | changes)


def test_the_strip_shows_all_gauges_in_80_columns() -> None:
    line = strip_line(READING, 78).plain
    for words in ("draft ON 4", "1.82×", "acc  71%", "2.9 tok/rd", "58.3 tok/s", "▇█", "ctx 10%", "17.2 GB"):
        assert words in line
    assert len(line) <= 78


@pytest.mark.parametrize("width", range(1, 200, 7))
@pytest.mark.parametrize(
    "each", [READING, GaugeReading(0, has_drafter=False), reading(speedup=0.94, draft_length=16)]
)
def test_the_strip_fits_every_width(each: GaugeReading, width: int) -> None:
    line = strip_line(each, width)
    assert line.cell_length <= max(width, 11)


@pytest.mark.parametrize("ttft_s", [0.47, 123.45])
@pytest.mark.parametrize("is_served", [False, True])
def test_every_line_of_the_panel_fits_with_a_space_before_its_figure(is_served: bool, ttft_s: float) -> None:
    lines = panel_lines(reading(is_served=is_served, ttft_s=ttft_s)).plain.splitlines()
    assert max(map(len, lines)) <= PANEL_WIDTH - 4
    (line,) = (line for line in lines if "first token" in line.lower())
    assert line.endswith(f" {ttft_s:.2f} s")


def test_figures_keep_their_columns() -> None:
    few = strip_line(reading(acceptance=0.07, tokens_per_s=9.4, context_tokens=10, speedup=1.1), 78).plain
    many = strip_line(reading(acceptance=1.0, tokens_per_s=412.0, context_tokens=32_000, speedup=9.9), 78).plain
    unknown = strip_line(reading(acceptance=None, tokens_per_s=None, context_tokens=None, speedup=None), 78).plain
    for words in ("acc", "tok/rd", "tok/s", "ctx", "GB"):
        assert few.index(words) == many.index(words) == unknown.index(words)


def test_slower_is_written_out_in_the_warning_colour() -> None:
    line = strip_line(reading(speedup=0.94), 78)
    assert "0.94× (slower)" in line.plain
    assert any("warning" in str(span.style) for span in line.spans)
    assert "slower" not in strip_line(reading(speedup=1.0), 78).plain


@pytest.mark.parametrize("draft_length", [4, "auto"])
def test_slower_pushes_no_figure_out(draft_length: int | str) -> None:
    names = ("draft", "×", "acc", "tok/rd", "tok/s", "TTFT", "ctx", "GB")
    for width in range(22, 160):
        shown = strip_line(reading(draft_length=draft_length, typical_length=16), width).plain
        slower = strip_line(reading(draft_length=draft_length, typical_length=16, speedup=0.94), width).plain
        assert [name for name in names if name in shown] == [name for name in names if name in slower], width
        assert len(slower) <= width
    assert "(slower)" in strip_line(reading(draft_length=draft_length, typical_length=16, speedup=0.94), 78).plain


def test_a_wide_strip_shows_more() -> None:
    line = strip_line(READING, 160).plain
    for words in ("without 32.0 tok/s", "TTFT 0.41 s", "3.3k of 32.8k tokens", "▇█"):
        assert words in line


@pytest.mark.parametrize(
    ("each", "words"),
    [
        (reading(has_drafter=False), "this model has no drafter"),
        (reading(draft_length=0), "drafting is off · ctrl+t: on"),
        (
            reading(draft_length="auto", typical_length=0, speedup=None, drafting_speedup=0.94),
            "auto is off: 0.94× (slower)",
        ),
        (reading(draft_length="auto", typical_length=0, speedup=None), "auto is off: no gain from drafting"),
        (reading(speedup=None), "not measured yet"),
        (reading(speedup=0.94), "slower · ctrl+t: drafting off"),
        (READING, "the speed without drafting"),
    ],
)
def test_the_panel_says_why_there_is_no_speedup(each: GaugeReading, words: str) -> None:
    assert caption(each, "ctrl+t").plain == words
    assert len(words) <= PANEL_WIDTH - 4, "the border and the padding"


def test_the_strip_says_why_auto_is_off() -> None:
    each = reading(draft_length="auto", typical_length=0, speedup=None, drafting_speedup=0.94)
    for width in (40, 80):
        assert strip_line(each, width).plain.startswith("draft AUTO off  0.94× (slower)")


def test_an_unmeasured_speedup_is_a_dash() -> None:
    line = strip_line(reading(speedup=None), 78).plain
    assert "—" in line
    assert "×" not in line


def test_the_panel_shows_acceptance_by_position() -> None:
    lines = panel_lines(READING).plain.splitlines()
    assert [line.split()[-1] for line in lines if line.lstrip()[:2] in ("1 ", "2 ", "3 ", "4 ")] == [
        "90%",
        "70%",
        "62%",
        "40%",
    ]
    assert all(len(line) == 34 for line in lines if line)


def test_sixteen_positions_take_eight_rows() -> None:
    full = reading(drafted_by_position=(9,) * 16, accepted_by_position=tuple(range(16, 0, -1)))
    assert len(panel_lines(full).plain.splitlines()) == len(panel_lines(READING).plain.splitlines()) + 4


def started(cached: int, disk: int = 0) -> Started:
    return Started(1, prompt_tokens=131_072, cached_tokens=cached, disk_tokens=disk)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (None, "—"),
        (started(0), "131k read"),
        (started(65_072), "65.1k kept + 66.0k read"),
        (started(131_050, 131_050), "131k disk + 22 read"),
    ],
)
def test_the_panel_says_where_the_prompt_came_from(prompt: Started | None, words: str) -> None:
    (line,) = (line for line in panel_lines(reading(prompt=prompt)).plain.splitlines() if line[:6] == "Prompt")
    assert line.split(maxsplit=1)[1] == words
    assert len(line) <= PANEL_WIDTH


def a_round(*, is_plain: bool = False, round_s: float = 0.05) -> Round:
    engine = FakeEngine()
    engine.generate(Generate(id=1, messages=()))
    return engine.round("", 4, 3, round_s, is_plain=is_plain)


async def stream(story: Story, rounds: int = 8) -> None:
    for _ in range(5):
        story.engine.say("", is_plain=True, round_s=0.1)
    for _ in range(rounds):
        story.engine.say("word ", round_s=0.2)


async def test_the_gauges_move() -> None:
    async with chat() as story:
        await story.until(lambda: "17.2 GB" in story.strip)
        assert "—" in story.strip
        await story.send("hello")
        await stream(story)
        await story.until(lambda: "1.76×" in story.strip)
        for words in ("acc  75%", "tok/s", "ctx 10%", "17.3 GB"):
            assert words in story.strip
        assert "—" not in story.strip
        before = story.strip
        for _ in range(70):
            story.engine.say("word ", accepted=0, round_s=0.2)
        await story.until(lambda: story.strip != before)
        await story.until(lambda: "slower" in story.strip)
        story.engine.finish()
        await story.until_seen("slower")


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
async def test_gauge_updates_ask_for_no_layout(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat(size=size) as story:
        await story.send("hello")
        await stream(story)
        await story.until(lambda: story.gauges.reading().speedup is not None)
        story.view.show_gauges()
        await story.until(lambda: (reply := story.app.chat_screen.reply_view.reply) and not reply._is_flush_due)
        await story.pilot.pause()
        layouts = layouts_asked_for(monkeypatch)
        for number in range(20):
            before = story.view._strip.reading
            story.gauges.add(a_round(round_s=0.01 * (number + 1)), 0.4)
            story.view.has_news = True
            story.view.show_gauges()
            assert story.view._strip.reading != before
            await story.pilot.pause()
        assert not layouts


async def test_nothing_is_sampled_while_nothing_happens() -> None:
    async with chat() as story:
        await story.send("hello")
        await stream(story)
        await story.until(lambda: story.view._strip.reading and story.view._strip.reading.pace_samples)
        story.view.show_gauges()
        before = story.gauges.reading()
        for _ in range(3):
            story.view.show_gauges()
        assert story.gauges.reading() == before


async def test_gauges_move_at_most_four_times_a_second() -> None:
    async with chat() as story:
        await story.send("hello")
        shown = 0

        def count() -> None:
            nonlocal shown
            shown += 1

        story.app.watch(story.view._strip, "reading", count, init=False)
        for _ in range(300):
            story.engine.say("")
        await story.until(lambda: story.dialogue.facts.stats.rounds == 300)
        assert shown <= 8, "the strip follows a timer, not the rounds"


async def test_the_panel_comes_by_itself_when_there_is_room() -> None:
    async with chat(size=(120, 36)) as story:
        panel = story.app.query_one(GaugePanel)
        assert panel.display
        assert panel.size.width + 4 == 38 or panel.outer_size.width == 38
        assert not story.view._strip.display
        assert story.app.query_one(Transcript).size.width >= 60
        await story.pilot.press("f3")
        await story.until(lambda: not panel.display)
        assert story.view._strip.display
        await story.pilot.resize_terminal(80, 24)
        await story.pilot.press("f3")
        await story.until(lambda: panel.display)
        await story.until_seen("Time to first token")


@pytest.mark.parametrize("size", [(60, 20), (120, 15)])
async def test_the_panel_says_when_there_is_no_room(size: tuple[int, int]) -> None:
    async with chat(size=size) as story:
        await story.pilot.press("f3")
        await story.until_told(f"needs a window of 72 columns and 16 rows; this one has {size[0]} and {size[1]}.")
        assert not story.app.query_one(GaugePanel).display
        await story.pilot.resize_terminal(80, 24)
        await story.pilot.pause()
        assert not story.app.query_one(GaugePanel).display, "what was refused is not remembered"


async def test_context_and_memory_are_on_the_panel_in_a_usual_window() -> None:
    async with chat(size=(80, 24)) as story:
        await story.pilot.press("f3")
        await story.send("hello")
        await stream(story)
        await story.until_seen("Context", "Memory", "17.3 GB", "Acceptance", "3.3k of 32.8k")


async def test_a_new_chat_has_used_no_context() -> None:
    async with chat(size=(80, 24)) as story:
        await story.exchange("Hi", "Hello")
        await story.until(lambda: "ctx 10%" in story.strip)
        await story.pilot.press("ctrl+n")
        await story.until(lambda: "ctx   —" in story.strip)


async def test_drafting_starts_off_when_asked_to() -> None:
    async with chat(ChatOptions(Settings(draft=0))) as story:
        assert "draft OFF" in story.strip
        await story.pilot.press("ctrl+t")
        assert "draft AUTO" in story.strip


async def test_auto_shows_the_chosen_length() -> None:
    async with chat(ChatOptions(), size=(120, 36)) as story:
        await story.send("Hi")
        assert story.engine.requests[-1].draft_length == "auto"
        story.engine.begin()
        for _ in range(4):
            story.engine.say("word ", drafted=5)
        await story.until_seen("AUTO 5")
        for _ in range(12):
            story.engine.say("word ", is_plain=True)
        await story.until_seen("AUTO off", "auto is off: no gain from drafting")


@pytest.mark.parametrize("shares", [(("lookup", 1.0),), (("assistant", 0.8), ("lookup", 0.2))])
def test_the_panel_has_a_row_for_each_drafter_that_fits_beside_its_share(
    shares: tuple[tuple[str, float], ...],
) -> None:
    lines = panel_lines(reading(draft_length="auto", accepted_share=shares)).plain.split("\n")
    rows = [line for line in lines if line.startswith("Accepted from")]
    assert [row.split() for row in rows] == [["Accepted", "from", name, f"{share:.0%}"] for name, share in shares]
    assert {len(row) for row in rows} == {34}
