"""Markdown as the chat shows it: texts of rows, and blocks of code between them. No widgets here."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from textual.content import Content
from textual.highlight import HighlightTheme, highlight
from textual.style import Style

from app.text.figures import MUTED
from app.tui.transcript.flow import Align, Line, Row, Rule, Table, parted

TEXT_CHARACTERS = 1500
"""A text of this length is drawn in a few milliseconds; what comes after it is a text of its own."""

INLINE_STYLES = {"strong": "bold", "em": "italic", "s": "strike"}
HEADING_STYLES = {"h1": "bold underline", "h2": "bold underline"}
CODE_INDENT = "  "
TAB_CELLS = 4
MOST_NESTING = 60
"""Of lists and quotations in one another, two for each list. The parser leaves out what stands deeper."""
LONGEST_STYLED = 10_000
"""Characters of one paragraph. What a parser does with marks that never close grows with the square of them."""


@cache
def _parser() -> MarkdownIt:
    """GitHub's dialect, with HTML as text: nothing a model writes may vanish."""
    parser = MarkdownIt("gfm-like", {"html": False, "maxNesting": MOST_NESTING})
    parser.core.ruler.at("inline", _read_inline)
    return parser


def _read_inline(state: StateCore) -> None:
    """Styles and links of every paragraph; one that is too long stays as it was written."""
    for token in state.tokens:
        if token.type == "inline":
            token.children = []
            if len(token.content) > LONGEST_STYLED:
                token.children.append(Token("text", "", 0, content=token.content))
            else:
                state.md.inline.parse(token.content, state.md, state.env, token.children)


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Rows that are shown together."""

    rows: tuple[Row, ...]
    characters: int
    """Of the source, about."""


@dataclass(frozen=True, slots=True)
class Code:
    """A block of code, shown by itself so that it can take the focus."""

    code: str
    language: str
    indent: int = 0
    """Columns, inside lists and quotes."""

    def rows(self, theme: type[HighlightTheme] = HighlightTheme, margin: str = "") -> list[Row]:
        """With its colours; what is wrapped of a line stands deeper than its beginning."""
        content = highlight(self.code, language=self.language or "text", theme=theme).expand_tabs(TAB_CELLS)
        rows: list[Row] = []
        for line in content.split("\n", allow_blank=True):
            depth = len(line.plain) - len(line.plain.lstrip(" "))
            first = Content(margin + " " * depth)
            rows.append(Line(line[depth:], first, first + "  "))
        return rows


Piece = Text | Code


@dataclass(slots=True)
class Block:
    """A heading, a paragraph, a whole list: what Markdown has at its top level."""

    line: int
    """Where it begins, counted from 0."""
    pieces: list[Piece]


def code_blocks(source: str) -> list[str]:
    """The code in a Markdown text, block by block."""
    return [piece.code for block in blocks(source) for piece in block.pieces if isinstance(piece, Code)]


def as_rows(source: str) -> list[Row]:
    """A whole text as rows, its code too: what a reply becomes when it is old.

    `source` must be sanitised.
    """
    return rows_of(piece for block in blocks(source) for piece in block.pieces)


def rows_of(pieces: Iterable[Piece]) -> list[Row]:
    """The same of pieces that were read already."""
    return parted(
        piece.rows if isinstance(piece, Text) else piece.rows(margin=" " * piece.indent + CODE_INDENT)
        for piece in pieces
    )


class GrowingMarkdown:
    """A Markdown text that grows at its end: only its last block is read again."""

    def __init__(self) -> None:
        self.source = ""
        self._settled: list[Piece] = []
        self._open_from = 0
        """Where in the source the last block begins."""
        self._references: dict[str, Any] = {}

    def append(self, text: str) -> list[Piece]:
        """All pieces. Those that have not changed are the same objects as before.

        `text` must be sanitised.
        """
        self.source += text
        tail = self.source[self._open_from :]
        found = blocks(tail, self._references)
        # A line that is not complete may still turn out to be part of the block above it.
        if len(found) > 1 and tail.count("\n") > found[-1].line:
            last = found.pop()
            self._settled = joined(self._settled, found)
            self._open_from += sum(len(line) + 1 for line in tail.split("\n")[: last.line])
            found = [last]
        return joined(self._settled, found)

    @property
    def open_characters(self) -> int:
        """How many the next append reads again: those of a list or a table without an end may be many."""
        return len(self.source) - self._open_from

    def whole(self, source: str) -> list[Piece]:
        """All pieces of the text, read anew: what comes late may say what an earlier link leads to."""
        self.source, self._settled, self._open_from, self._references = source, [], 0, {}
        return joined([], blocks(source))


def joined(pieces: Sequence[Piece], more: Iterable[Block]) -> list[Piece]:
    """Pieces with those of further blocks behind them, short texts made one."""
    together = list(pieces)
    for block in more:
        for number, piece in enumerate(block.pieces):
            last = together[-1] if together else None
            is_short = isinstance(last, Text) and last.characters < TEXT_CHARACTERS
            if number == 0 and is_short and isinstance(piece, Text) and isinstance(last, Text):
                together[-1] = Text(tuple(parted((last.rows, piece.rows))), last.characters + piece.characters)
            else:
                together.append(piece)
    return together


def blocks(source: str, references: MutableMapping[str, Any] | None = None) -> list[Block]:
    """The top level of a text. references: what links lead to, said so far; what is found is added."""
    found: list[Block] = []
    builder = _Builder()
    for token in _parser().parse(source, references):
        if token.level == 0 and token.nesting >= 0:
            begin, end = token.map or (0, 0)
            builder = _Builder()
            found.append(Block(begin, builder.pieces))
        builder.take(token)
        if token.level == 0 and token.nesting <= 0:
            builder.finish()
            if builder.is_too_deep:
                found[-1].pieces = [_as_written(source.split("\n")[begin:end])]
    return [block for block in found if block.pieces]


def _as_written(lines: Sequence[str]) -> Text:
    """What is nested too deep to be read: nothing that a model writes may vanish."""
    return Text(tuple(Line(Content(line)) for line in lines), sum(map(len, lines)))


@dataclass(slots=True)
class _Builder:
    """From the tokens of one block to its pieces."""

    pieces: list[Piece] = field(default_factory=list)
    _rows: list[Row] = field(default_factory=list)
    _characters: int = 0
    _marker: str = ""
    _counters: list[int | None] = field(default_factory=list)
    """Of the lists it is in, what the next item counts; None: bullets."""
    _indents: list[int] = field(default_factory=list)
    """Of the items it is in, how wide their markers are."""
    _quotes: int = 0
    _heading: str = ""
    _cells: list[list[Content]] = field(default_factory=list)
    _aligns: list[Align] = field(default_factory=list)
    _is_in_table: bool = False
    _is_parted: bool = False
    """Whether an empty row comes before the next one."""
    is_too_deep: bool = False
    """Whether something may have been left out."""

    def take(self, token: Token) -> None:
        """One more token."""
        self.is_too_deep = self.is_too_deep or token.level >= MOST_NESTING - 1
        match token.type:
            case "bullet_list_open":
                self._counters.append(None)
            case "ordered_list_open":
                self._counters.append(int(token.attrs.get("start", 1)))
            case "bullet_list_close" | "ordered_list_close":
                self._counters.pop()
            case "list_item_open":
                count = self._counters[-1]
                self._marker = "• " if count is None else f"{count}. "
                self._indents.append(len(self._marker))
                if count is not None:
                    self._counters[-1] = count + 1
            case "list_item_close":
                if self._marker:
                    self._add(Content())
                self._indents.pop()
            case "blockquote_open":
                self._quotes += 1
            case "blockquote_close":
                self._quotes -= 1
            case "heading_open":
                self._heading = HEADING_STYLES.get(token.tag, "bold")
            case "heading_close":
                self._heading, self._is_parted = "", True
            case "paragraph_close":
                # Those of a list without empty lines between its items are hidden.
                self._is_parted = not token.hidden
            case "table_open":
                self._is_in_table, self._cells, self._aligns = True, [], []
            case "tr_open":
                self._cells.append([])
            case "th_open":
                self._aligns.append(_align(str(token.attrs.get("style", ""))))
            case "inline" if self._is_in_table:
                self._cells[-1].append(inline(token))
            case "table_close":
                self._put(Table(self._beginning(), self._aligns, self._cells))
                self._is_in_table, self._is_parted = False, True
            case "inline":
                for line in inline(token).split("\n", allow_blank=True):
                    self._add(line.stylize(self._heading) if self._heading else line)
            case "fence" | "code_block":
                self._code(token)
            case "hr":
                self._put(Rule(self._beginning()))
                self._is_parted = True
        self._characters += len(token.content)

    def finish(self) -> None:
        """The block ends here."""
        if self._rows:
            self.pieces.append(Text(tuple(self._rows), self._characters))
            self._rows, self._characters = [], 0

    def _code(self, token: Token) -> None:
        if self._marker:
            self._add(Content())
        self.finish()
        language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
        indent = sum(self._indents) + 2 * self._quotes
        self.pieces.append(Code(token.content.rstrip("\n"), language, indent))
        self._is_parted = False

    def _add(self, text: Content) -> None:
        first = self._beginning()
        rest = self._bars + Content(" " * sum(self._indents))
        self._put(Line(text, first, rest))

    def _put(self, row: Row) -> None:
        if self._is_parted and self._rows:
            self._rows.append(Line(Content(), self._bars))
        self._is_parted = False
        self._rows.append(row)

    @property
    def _bars(self) -> Content:
        return Content.styled("▌ " * self._quotes, MUTED) if self._quotes else Content()

    def _beginning(self) -> Content:
        """What stands before the next row; a marker stands there once."""
        indent = sum(self._indents) - len(self._marker)
        marker, self._marker = self._marker, ""
        return self._bars + Content(" " * indent + marker)


def _align(style: str) -> Align:
    side: Literal["center", "right"]
    for side in ("center", "right"):
        if side in style:
            return side
    return "left"


def inline(token: Token) -> Content:
    """A line with its styles; what leads somewhere can be clicked on."""
    parts: list[Content] = []
    styles: list[str] = []
    links: list[Style] = []
    for child in token.children or []:
        kind, _, edge = child.type.rpartition("_")
        if kind in INLINE_STYLES and edge == "open":
            styles.append(INLINE_STYLES[kind])
        elif kind in INLINE_STYLES:
            styles.remove(INLINE_STYLES[kind])
        elif child.type == "link_open":
            links.append(_leading_to(str(child.attrs.get("href", ""))))
        elif child.type == "link_close":
            links.pop()
        else:
            text = _leaf(child, " ".join(styles))
            if child.type == "image":
                text = text.stylize(_leading_to(str(child.attrs.get("src", ""))))
            parts.append(text.stylize(links[-1]) if links else text)
    return Content().join(parts)


def _leaf(token: Token, styles: str) -> Content:
    match token.type:
        case "softbreak":
            return Content(" ")
        case "hardbreak":
            return Content("\n")
        case "code_inline":
            return Content.styled(token.content, f"{styles} $text-accent".strip())
        case "image":
            return Content.styled(f"🖼 {token.content}", styles)
    return Content.styled(re.sub(r"\s+", " ", token.content), styles)


def _leading_to(address: str) -> Style:
    return Style.from_meta({"@click": f"link({address!r})"})
