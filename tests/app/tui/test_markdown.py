"""Markdown as rows: at every width and every split of a stream, and without losing text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.content import Content

from app.tui.transcript.flow import RenderedLine, TextRow, WholeTable, wrap_rows
from app.tui.transcript.markdown import (
    MAX_STYLED_CHARACTERS,
    CodePiece,
    GrowingMarkdown,
    Piece,
    TextPiece,
    as_rows,
    code_blocks,
)
from tests.app.tui.corpus import EVERYTHING

FRAGMENTS = [
    "word ", "*em*", "**strong", "`code", "`", "\n", "\n\n", "- item", "\n- item", "\n1. item", "\n   1. deep",
    "> ", "# head\n", "\n## head\n", "```py\n", "\n```\n", "~~~\n", "    code", "| a | b |\n|---|---|\n",
    "| c | d |\n", "---\n", "http://a.b/c ", "[text](http://a.b)", "![alt](x.png)", "<b>", "&amp;", "\\",
    "漢字かな", "> " * 70, "- " * 40, "\n***\n", "🙂", "\n=", "-", "1. ", "  \n",
]  # fmt: skip
MARKDOWN = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)
WIDTHS = st.integers(1, 90)


def drawn(source: str, width: int = 80) -> str:
    return "\n".join(line.content.plain for line in wrap_rows(as_rows(source), width))


def shown(pieces: list[Piece]) -> list[object]:
    """Pieces in a form that can be compared."""
    return [
        piece if isinstance(piece, CodePiece) else [line.content.markup for line in wrap_rows(piece.rows, 40)]
        for piece in pieces
    ]


def test_a_text_with_everything() -> None:
    assert drawn(EVERYTHING) == (
        "A title\n\n"
        "Some words with code and weight.\n\n"
        "• one\n\n    def f(x):\n        return x\n\n"
        "• two\n\n  1. deeper\n  2. still\n\n"
        "a │ b\n──┼──\n1 │ 2\n\n"
        "▌ quoted\n\n"
        "<div>not markup</div> and <b>neither</b>\n\n"
        '  print("end")'
    )


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("- one\n- two", ["• one", "• two"]),
        ("- one\n\n- two", ["• one", "", "• two"]),
        ("9. nine\n10. ten", ["9. nine", "10. ten"]),
        ("1. a\n\n   b\n2. c", ["1. a", "", "   b", "", "2. c"]),
        ("> a\n>\n> b", ["▌ a", "▌ ", "▌ b"]),
        ("> - a\n>   - b", ["▌ • a", "▌   • b"]),
        ("-\n- b", ["• ", "• b"]),
        ("a  \nb", ["a", "b"]),
        ("a\nb", ["a b"]),
        ("a\n\n\n\nb", ["a", "", "b"]),
        ("![a cat](cat.png)", ["🖼 a cat"]),
        ("- [ ] to do", ["• [ ] to do"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_rows(source: str, lines: list[str]) -> None:
    assert drawn(source).split("\n") == (lines or [""])


def test_wrapped_lines_align_with_the_start_of_the_text() -> None:
    assert drawn("- some words to be wrapped\n  1. deeper ones that are", 16).split("\n") == [
        "• some words to",
        "  be wrapped",
        "  1. deeper ones",
        "     that are",
    ]


def test_deeply_indented_wrapped_lines_fit_too() -> None:
    code = "```py\n" + "> " * 70 + "\n```"
    assert max(line.content.cell_length for line in wrap_rows(as_rows(code), 39)) <= 39


def test_columns_of_a_table_are_as_wide_as_their_cells() -> None:
    table = "| name | number |\n|:-:|--:|\n| a longer name | 7 |\n| 漢字 | 12 |"
    assert drawn(table).split("\n") == [
        "    name      │ number",
        "──────────────┼───────",
        "a longer name │      7",
        "    漢字      │     12",
    ]


def test_the_widest_columns_of_a_table_are_wrapped() -> None:
    table = "| a | b |\n|---|---|\n| x | a cell with many words in it |"
    lines = drawn(table, 20).split("\n")
    assert lines == ["a │ b", "──┼─────────────────", "x │ a cell with many", "  │ words in it"]


def test_a_table_with_too_many_columns_becomes_rows_of_text() -> None:
    table = "| a word " * 30 + "|\n" + "|---" * 30 + "|\n" + "| b " * 30 + "|"
    lines = wrap_rows(as_rows(table), 40)
    assert max(line.content.cell_length for line in lines) <= 40
    text = " ".join(line.content.plain for line in lines)
    assert (text.count("a word"), text.count("b")) == (30, 30)


@pytest.mark.parametrize(
    "source",
    [
        "> " * 100 + "deep\n\nafter",
        "".join(f"{'  ' * depth}- item {depth}\n" for depth in range(100)) + "\nafter",
        "".join(f"{'   ' * depth}1. item {depth}\n" for depth in range(20)) + "\nafter",
    ],
)
def test_deeply_nested_text_does_not_disappear(source: str) -> None:
    text = " ".join(drawn(source).split())
    assert text.endswith("after")
    assert "deep" in text or all(f"item {depth}" in text for depth in range(source.count("item")))


def test_a_row_with_too_few_cells_is_a_row() -> None:
    cells = [[Content("a"), Content("b")], [Content("c")]]
    assert [line.content.plain for line in WholeTable(Content(), ["left", "left"], cells).wrap(20)][2] == "c │"


def test_links_lead_to_where_they_say() -> None:
    (row,) = as_rows("[text](http://a.b/'x) http://c.d")
    assert isinstance(row, TextRow)
    styles = [span.style for span in row.text.spans]
    clicks = [style.meta["@click"] for style in styles if not isinstance(style, str) and "@click" in style.meta]
    assert clicks == ['link("http://a.b/\'x")', "link('http://c.d')"]


def test_code_blocks_in_order() -> None:
    assert code_blocks(EVERYTHING) == ["def f(x):\n    return x", 'print("end")']


@given(MARKDOWN, WIDTHS)
def test_no_line_is_wider_than_the_window(source: str, width: int) -> None:
    for line in wrap_rows(as_rows(source), width):
        assert line.content.cell_length <= max(width, 40)


@given(MARKDOWN, st.integers(60, 90))
def test_no_word_is_lost(source: str, width: int) -> None:
    text = drawn(source, width)
    for word in ("word", "item", "deep", "head", "漢字かな", "🙂"):
        assert text.count(word) == source.count(word)


@given(MARKDOWN, WIDTHS)
def test_wrapped_lines_can_be_joined_again(source: str, width: int) -> None:
    for row in as_rows(source):
        if isinstance(row, TextRow) and "\t" not in row.text.plain:
            text = ""
            for line in row.wrap(width):
                text += (line.joiner or "") + line.content.plain[line.prefix_length :]
            assert re.sub(r" +", " ", text).strip() == re.sub(r" +", " ", row.text.plain).strip()


@given(MARKDOWN, st.data())
def test_a_stream_ends_like_the_whole_text(source: str, data: st.DataObject) -> None:
    growing, start = GrowingMarkdown(), 0
    pieces: list[Piece] = []
    while start < len(source):
        size = data.draw(st.integers(1, 30))
        pieces = growing.append(source[start : start + size])
        start += size
    assert shown(pieces) == shown(GrowingMarkdown().parse_whole(source))


def test_an_apparent_fence_may_belong_to_the_paragraph_above() -> None:
    growing = GrowingMarkdown()
    growing.append("para\n```")
    assert shown(growing.append("x`` more\n")) == shown(GrowingMarkdown().parse_whole("para\n```x`` more\n"))


def test_complete_pieces_are_reused() -> None:
    growing = GrowingMarkdown()
    growing.append("para\n\n```\ncode\n```\n\nmore\n")
    first = growing.append("and\n\n")
    second = growing.append("more")
    assert isinstance(first[0], TextPiece)
    assert second[:2] == first[:2]
    assert len(second) == 3


def test_a_late_definition_completes_an_earlier_link_at_the_end() -> None:
    growing = GrowingMarkdown()
    source = "See [it].\n\nMore.\n\n[it]: http://a.b\n"
    assert "[it]" in str(shown(growing.append(source[:20])))
    growing.append(source[20:])
    (text,) = growing.parse_whole(source)
    assert isinstance(text, TextPiece)
    assert wrap_rows(text.rows, 40)[0] == RenderedLine(wrap_rows(text.rows, 40)[0].content)
    assert "[it]" not in wrap_rows(text.rows, 40)[0].content.plain


def test_many_short_blocks_are_merged_into_few_pieces() -> None:
    pieces = GrowingMarkdown().parse_whole("A paragraph of some words.\n\n" * 500)
    assert len(pieces) < 12
    assert sum(len(piece.rows) for piece in pieces if isinstance(piece, TextPiece)) == 1000 - len(pieces)


@pytest.mark.parametrize("unit", ["*a _b [c ", "`a` ", "**b** c\n", "[a](b "])
def test_a_very_long_paragraph_is_shown_as_plain_text(unit: str) -> None:
    source = unit * (MAX_STYLED_CHARACTERS // len(unit) + 1)
    [row] = as_rows(source)
    assert isinstance(row, TextRow)
    assert row.text.plain == " ".join(source.split())
    assert "*" not in drawn("**b** c\n" * (MAX_STYLED_CHARACTERS // len("**b** c\n"))), (
        "just below, it has its styles"
    )
