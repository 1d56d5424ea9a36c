"""Formulas in replies are shown as their source, and everything around them as usual."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.selection import SELECT_ALL

from app.tui.transcript.flow import wrap_rows
from app.tui.transcript.markdown import GrowingMarkdown, Piece, as_rows, rows_of
from app.tui.transcript.text_block import TextBlock
from tests.app.tui.pilot import chat
from tests.app.tui.test_markdown import drawn, shown

FORMULAS = [
    r"\(a_1 * b_2 * c\)",
    r"\[\sum_{i=1}^{n} x_i * y_i\]",
    r"$$\int_0^1 x^2\,dx = \frac{1}{3}$$",
    r"$x_1 + x_2 = \{y\}$",
    r"$\alpha_i \cdot \beta_j$-space",
    r"$f_{*}(x)$ and $g_{*}(y)$",
    r"\(\{1, 2\} \setminus \{3\}\)",
    r"$a < b > c \& d$",
    r"\( |x| \)",
]
PLACES = ["{}", "Before {} after.", "1. Item {} more\n2. Next", "- {}", "> Quoted {} end", "# About {}", "**{}**"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_is_shown_as_it_was_written(formula: str, place: str) -> None:
    assert formula in drawn(place.format(formula))


@pytest.mark.parametrize("formula", [*FORMULAS, r"$|x|$", r"\(P(A|B)\)", r"$\|v\|$"])
def test_a_formula_in_a_table_is_whole(formula: str) -> None:
    lines = drawn(f"| name | value |\n|---|---|\n| one | {formula} |\n| two | 2 |").split("\n")
    assert lines[2].rstrip() == f"one  │ {formula}"
    assert lines[3].split(" │ ") == ["two ", "2"]


MULTILINE = [
    "\\[\na_1\n= b\n- c * d\n+ e\n# f\n\\]",
    "$$\n\\begin{aligned}\na &= b \\\\\n  &= c_1\n\\end{aligned}\n$$",
]


@pytest.mark.parametrize("formula", MULTILINE)
@pytest.mark.parametrize("before", ["", "So:\n", "So:\n\n", "Words\nand more:\n"])
def test_a_formula_of_several_lines_keeps_them(formula: str, before: str) -> None:
    text = drawn(f"{before}{formula}\nafter\n\n- a list")
    assert f"{formula}\nafter\n\n• a list" in text


@pytest.mark.parametrize("formula", MULTILINE)
@pytest.mark.parametrize(("marker", "prefix"), [("1. ", "   "), ("- ", "  "), ("> ", "> ")])
def test_it_keeps_them_in_lists_and_quotations(formula: str, marker: str, prefix: str) -> None:
    lines = [f"{marker}So:", *(prefix + line for line in formula.split("\n"))]
    text = drawn("\n".join(lines))
    shown_prefix = "▌ " if prefix == "> " else prefix
    assert "\n".join(shown_prefix + line for line in formula.split("\n")) in text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("It costs $5 and $10, **not** $20.", "It costs $5 and $10, not $20."),
        ("US$5 and CA$3 *each*", "US$5 and CA$3 each"),
        ("\\$5 *or* 6$", "$5 or 6$"),
        ("`$a_1` and `b_2$` *x*", "$a_1 and b_2$ x"),
        ("`\\(` *and* `\\)`", "\\( and \\)"),
        ("an open \\( *here*", "an open ( here"),
        ("$ a $ *b*", "$ a $ b"),
        ("Title\n=====\n\\(x\\)", "Title\n\n\\(x\\)"),
        ("\\[\n\n- one\n- two", "[\n\n• one\n• two"),
        ("1. a \\[ b\n2. c \\] *d*", "1. a [ b\n2. c ] d"),
    ],
)
def test_what_is_no_formula_is_markdown(source: str, text: str) -> None:
    assert drawn(source) == text


def test_prices_in_a_table_stay_in_their_cells() -> None:
    for row in ("| $5 | $10 |", "|$5|$10|", "|5$|6$|", "|$a|$b|"):
        lines = drawn(f"| a | b |\n|---|---|\n{row}").split("\n")
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert [cell.strip() for cell in lines[2].split("│")] == cells


@pytest.mark.parametrize("tag", ["<br>", "<br/>", "<BR />"])
def test_a_break_in_a_table_cell_begins_a_line(tag: str) -> None:
    lines = drawn(f"| a | b |\n|---|---|\n| one{tag}two | x |\n| `<br>` | y |").split("\n")
    assert lines == ["a    │ b", "─────┼──", "one  │ x", "two  │", "<br> │ y"]
    assert drawn(f"one{tag}two") == f"one{tag}two", "outside of tables it is text, as all HTML"


@pytest.mark.parametrize("width", [8, 12, 40])
def test_breaks_in_narrow_tables_lose_nothing(width: int) -> None:
    table = "| aa | bb | cc |\n|---|---|---|\n| one<br>two | three<br>four | five |"
    text = "".join(line.content.plain for line in wrap_rows(as_rows(table), width))
    assert all(word[0] in text for word in ("one", "two", "three", "four", "five"))


PARTS = [
    "word ", "\\[", "\\]", "$$", "$", "\\(", "\\)", "\n", "\n\n", "- item", "\n- ", "1. ", "> ", "x_1*", "|", "\\",
]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=20).map("".join), st.data())
def test_a_stream_with_formulas_ends_like_the_whole_text(source: str, data: st.DataObject) -> None:
    growing, start = GrowingMarkdown(), 0
    pieces = growing.append("")
    while start < len(source):
        size = data.draw(st.integers(1, 12))
        pieces = growing.append(source[start : start + size])
        start += size
    assert shown(pieces) == shown(GrowingMarkdown().append(source))
    assert shown(growing.parse_whole(source)) == shown(GrowingMarkdown().parse_whole(source))


@given(st.lists(st.sampled_from(PARTS), max_size=20).map("".join))
def test_no_word_is_lost_around_formulas(source: str) -> None:
    text = drawn(source)
    for word in ("word", "item"):
        assert text.count(word) == source.count(word)
    assert "\x02" not in text


async def test_the_mouse_copies_the_source_of_a_formula() -> None:
    reply = "So:\n\n\\[\na_1 = b * c * d\n\\]\n\nand \\(x_1\\)."
    async with chat() as story:
        await story.exchange("Solve it", reply)
        await story.until_seen("a_1 = b * c * d")
        block = story.app.query(".reply-text TextBlock").first(TextBlock)
        selected = block.get_selection(SELECT_ALL)
        assert selected is not None
        assert selected[0] == reply


def text_of(pieces: Sequence[Piece]) -> str:
    return "\n".join(line.content.plain for line in wrap_rows(rows_of(pieces), 80))


@pytest.mark.parametrize("formula", [r"\(\{a_1 * b_2 * c\}\)", r"\[x_1 * y * z\]"])
def test_a_formula_that_streams_in_never_changes(formula: str) -> None:
    growing = GrowingMarkdown()
    growing.append("First **words**.\n\nThen **bold** and ")
    growing.append(formula[:2])
    for character in formula[2:]:
        pieces = growing.append(character)
        assert text_of(pieces).endswith(f"and {formula[: len(growing.source) - 36].rstrip()}")
    assert text_of(growing.append(" and **more**\n")).endswith(f"{formula} and more")


def test_what_is_no_formula_is_text_in_the_end() -> None:
    source = "Escaped \\(**bold**\n\nNext"
    assert text_of(GrowingMarkdown().append(source)) == text_of(GrowingMarkdown().parse_whole(source))
    assert text_of(GrowingMarkdown().append("Escaped \\(**bold**")) == "Escaped \\(**bold**"
    assert text_of(GrowingMarkdown().parse_whole("Escaped \\(**bold**")) == "Escaped (bold"
