"""Markdown as the chat shows it: rows of text, and code blocks between them. Contains no widgets."""

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
from app.tui.transcript.flow import Align, FlowRow, RuleRow, TextRow, WholeTable, join_with_blank_rows
from app.tui.transcript.mathematics import CAN_GROW, DISPLAYED_FORMULA, keep_formulas

MERGED_CHARACTERS = 1500
"""Text pieces are merged up to this length, which draws in a few milliseconds."""
ROW_CHARACTERS = 8
"""At least this many are counted for a row: rules and empty headings have none."""

INLINE_STYLES = {"strong": "bold", "em": "italic", "s": "strike"}
HEADING_STYLES = {"h1": "bold underline", "h2": "bold underline"}
CODE_INDENT = "  "
TAB_CELLS = 4
MAX_NESTING = 60
"""Levels of nested lists and quotes; a list counts twice. The parser drops anything deeper."""
LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
MAX_STYLED_CHARACTERS = 10_000
"""Of one paragraph. The parser's time grows with the square of the number of markers that are never closed."""
PLAIN_TEXT = "plain_text"
"""The type of such a paragraph's token: the parser searches tokens of its own type `text` for links."""


@cache
def _parser() -> MarkdownIt:
    """GitHub's dialect, with HTML shown as text, so that nothing a model writes disappears."""
    parser = MarkdownIt("gfm-like", {"html": False, "maxNesting": MAX_NESTING})
    parser.core.ruler.at("inline", _read_inline)
    keep_formulas(parser)
    return parser


def _read_inline(state: StateCore) -> None:
    """Parse styles and links; a paragraph that is too long stays plain text."""
    last = _last_text(state.tokens) if state.env.pop(CAN_GROW, False) else None
    for token in state.tokens:
        if token.type == "inline":
            token.children = []
            if token is last:
                state.env[CAN_GROW] = True
            if len(token.content) > MAX_STYLED_CHARACTERS:
                token.children.append(Token(PLAIN_TEXT, "", 0, content=token.content))
            elif token.content:
                state.md.inline.parse(token.content, state.md, state.env, token.children)


def _last_text(tokens: Sequence[Token]) -> Token | None:
    """The last inline token of the last block; None if the block has none."""
    for token in reversed(tokens):
        if token.type == "inline":
            return token
        if token.level == 0 and token.nesting >= 0:
            break
    return None


@dataclass(frozen=True, slots=True, eq=False)
class TextPiece:
    """Rows that one widget shows."""

    rows: tuple[FlowRow, ...]
    characters: int
    """Approximate length of its source."""


@dataclass(frozen=True, slots=True)
class CodePiece:
    """A code block, which has its own widget so that it can take the focus."""

    code: str
    language: str
    indent: int = 0
    """Cells, inside lists and quotes."""

    def rows(self, theme: type[HighlightTheme] = HighlightTheme, margin: str = "") -> list[FlowRow]:
        """The highlighted lines. A wrapped line continues deeper than its start."""
        content = highlight(self.code, language=self.language or "text", theme=theme).expand_tabs(TAB_CELLS)
        rows: list[FlowRow] = []
        for line in content.split("\n", allow_blank=True):
            depth = len(line.plain) - len(line.plain.lstrip(" "))
            prefix = Content(margin + " " * depth)
            rows.append(TextRow(line[depth:], prefix, prefix + "  "))
        return rows


Piece = TextPiece | CodePiece


@dataclass(slots=True)
class MarkdownBlock:
    """A top-level element: a heading, a paragraph, a whole list."""

    line: int
    """Its first line in the source, counted from 0."""
    pieces: list[Piece]


def code_blocks(source: str) -> list[str]:
    """The source of each code block in a Markdown text."""
    return [piece.code for block in blocks(source) for piece in block.pieces if isinstance(piece, CodePiece)]


def as_rows(source: str) -> list[FlowRow]:
    """A whole text, code included, as rows in which nothing can take the focus.

    `source` must be sanitised.
    """
    return rows_of(piece for block in blocks(source) for piece in block.pieces)


def rows_of(pieces: Iterable[Piece]) -> list[FlowRow]:
    """The rows of pieces that are parsed already."""
    return join_with_blank_rows(
        piece.rows if isinstance(piece, TextPiece) else piece.rows(margin=" " * piece.indent + CODE_INDENT)
        for piece in pieces
    )


class GrowingMarkdown:
    """A Markdown text that grows at its end. An append parses only the last block again."""

    def __init__(self) -> None:
        self.source = ""
        self._complete: list[Piece] = []
        self._open_start = 0
        """Offset of the last block in the source, which may still grow."""
        self._references: dict[str, Any] = {}

    def append(self, text: str) -> list[Piece]:
        """All pieces so far. Unchanged pieces are the same objects as before.

        `text` must be sanitised.
        """
        self.source += text
        tail = self.source[self._open_start :]
        tail_blocks = blocks(tail, self._references, can_grow=True)
        # A last line without its line break may still become part of the block above it.
        if len(tail_blocks) > 1 and tail.count("\n") > tail_blocks[-1].line:
            last = tail_blocks.pop()
            self._complete = merge(self._complete, tail_blocks)
            self._open_start += sum(len(line) + 1 for line in tail.split("\n")[: last.line])
            tail_blocks = [last]
        return merge(self._complete, tail_blocks)

    @property
    def open_characters(self) -> int:
        """Characters that the next append parses again: many in a long list or table."""
        return len(self.source) - self._open_start

    def parse_whole(self, source: str) -> list[Piece]:
        """All pieces of a finished text, parsed from scratch: a late definition may complete an earlier link."""
        self.source, self._complete, self._open_start, self._references = source, [], 0, {}
        return merge([], blocks(source))


def merge(pieces: Sequence[Piece], following: Iterable[MarkdownBlock]) -> list[Piece]:
    """The pieces and those of the following blocks, short neighbouring texts merged into one."""
    merged = list(pieces)
    for block in following:
        for number, piece in enumerate(block.pieces):
            last = merged[-1] if merged else None
            is_short = isinstance(last, TextPiece) and last.characters < MERGED_CHARACTERS
            if number == 0 and is_short and isinstance(piece, TextPiece) and isinstance(last, TextPiece):
                rows = tuple(join_with_blank_rows((last.rows, piece.rows)))
                merged[-1] = TextPiece(rows, last.characters + piece.characters)
            else:
                merged.append(piece)
    return merged


def blocks(
    source: str, references: MutableMapping[str, Any] | None = None, *, can_grow: bool = False
) -> list[MarkdownBlock]:
    """The top-level blocks of a text. references: link definitions known so far; new ones are added.

    can_grow: more may follow at its end.
    """
    references = {} if references is None else references
    references[CAN_GROW] = can_grow
    parsed: list[MarkdownBlock] = []
    lines: list[str] | None = None
    builder = _PieceBuilder()
    for token in _parser().parse(source, references):
        if token.level == 0 and token.nesting >= 0:
            start, end = token.map or (0, 0)
            builder = _PieceBuilder()
            parsed.append(MarkdownBlock(start, builder.pieces))
        builder.add(token)
        if token.level == 0 and token.nesting <= 0:
            builder.finish()
            if builder.is_too_deep:
                lines = source.split("\n") if lines is None else lines
                parsed[-1].pieces = [_as_source(lines[start:end])]
    return [block for block in parsed if block.pieces]


def _as_source(lines: Sequence[str]) -> TextPiece:
    """A block that is nested too deeply to parse, shown as its source."""
    return TextPiece(tuple(TextRow(Content(line)) for line in lines), sum(map(len, lines)))


@dataclass(slots=True)
class _PieceBuilder:
    """Makes pieces from the tokens of one block."""

    pieces: list[Piece] = field(default_factory=list)
    _rows: list[FlowRow] = field(default_factory=list)
    _characters: int = 0
    _marker: str = ""
    _counters: list[int | None] = field(default_factory=list)
    """Next number of each enclosing list; None for bullets."""
    _indents: list[int] = field(default_factory=list)
    """Marker width of each enclosing list item."""
    _quotes: int = 0
    _heading: str = ""
    _cells: list[list[Content]] = field(default_factory=list)
    _aligns: list[Align] = field(default_factory=list)
    _is_in_table: bool = False
    _needs_blank_row: bool = False
    """Whether a blank row comes before the next row."""
    is_too_deep: bool = False
    """Whether the parser may have dropped something."""

    def add(self, token: Token) -> None:
        self.is_too_deep = self.is_too_deep or token.level >= MAX_NESTING - 1
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
                    self._add_text(Content())
                self._indents.pop()
            case "blockquote_open":
                self._quotes += 1
            case "blockquote_close":
                self._quotes -= 1
            case "heading_open":
                self._heading = HEADING_STYLES.get(token.tag, "bold")
            case "heading_close":
                self._heading, self._needs_blank_row = "", True
            case "paragraph_close":
                # The paragraphs of a tight list are hidden.
                self._needs_blank_row = not token.hidden
            case "table_open":
                self._is_in_table, self._cells, self._aligns = True, [], []
            case "tr_open":
                self._cells.append([])
            case "th_open":
                self._aligns.append(_align(str(token.attrs.get("style", ""))))
            case "inline" if self._is_in_table:
                self._cells[-1].append(inline(token, is_cell=True))
            case "table_close":
                self._add_row(WholeTable(self._next_prefix(), self._aligns, self._cells))
                self._is_in_table, self._needs_blank_row = False, True
            case "inline":
                for line in inline(token).split("\n", allow_blank=True):
                    self._add_text(line.stylize(self._heading) if self._heading else line)
            case "fence" | "code_block":
                self._add_code(token)
            case "hr":
                self._add_row(RuleRow(self._next_prefix()))
                self._needs_blank_row = True
        self._characters += len(token.content)

    def finish(self) -> None:
        """Turn the remaining rows into a piece at the end of the block."""
        if self._rows:
            characters = max(self._characters, len(self._rows) * ROW_CHARACTERS)
            self.pieces.append(TextPiece(tuple(self._rows), characters))
            self._rows, self._characters = [], 0

    def _add_code(self, token: Token) -> None:
        if self._marker:
            self._add_text(Content())
        self.finish()
        language = token.info.split(maxsplit=1)[0] if token.info.strip() else ""
        indent = sum(self._indents) + 2 * self._quotes
        self.pieces.append(CodePiece(token.content.rstrip("\n"), language, indent))
        self._needs_blank_row = False

    def _add_text(self, text: Content) -> None:
        first_prefix = self._next_prefix()
        rest_prefix = self._quote_bars + Content(" " * sum(self._indents))
        self._add_row(TextRow(text, first_prefix, rest_prefix))

    def _add_row(self, row: FlowRow) -> None:
        if self._needs_blank_row and self._rows:
            self._rows.append(TextRow(Content(), self._quote_bars))
        self._needs_blank_row = False
        self._rows.append(row)

    @property
    def _quote_bars(self) -> Content:
        return Content.styled("▌ " * self._quotes, MUTED) if self._quotes else Content()

    def _next_prefix(self) -> Content:
        """The prefix of the next row. Uses up the list marker."""
        indent = sum(self._indents) - len(self._marker)
        marker, self._marker = self._marker, ""
        return self._quote_bars + Content(" " * indent + marker)


def _align(style: str) -> Align:
    side: Literal["center", "right"]
    for side in ("center", "right"):
        if side in style:
            return side
    return "left"


def inline(token: Token, *, is_cell: bool = False) -> Content:
    """The content of an inline token, styled, with links that can be clicked.

    is_cell: it is a cell of a table, where `<br>` is the only way to begin a new line.
    """
    children = token.children or []
    parts: list[Content] = []
    styles: list[str] = []
    links: list[Style] = []
    for number, child in enumerate(children):
        kind, _, edge = child.type.rpartition("_")
        if kind in INLINE_STYLES and edge == "open":
            styles.append(INLINE_STYLES[kind])
        elif kind in INLINE_STYLES:
            styles.remove(INLINE_STYLES[kind])
        elif child.type == "link_open":
            links.append(_link_style(str(child.attrs.get("href", ""))))
        elif child.type == "link_close":
            links.pop()
        elif child.type == "softbreak" and any(map(_is_displayed, children[max(0, number - 1) : number + 2])):
            parts.append(Content("\n"))
        elif child.type in ("text", PLAIN_TEXT) and is_cell:
            style = " ".join(styles)
            text = Content("\n").join(_leaf(child, style, line) for line in _lines_of_cell(child.content))
            parts.append(text.stylize(links[-1]) if links else text)
        else:
            text = _leaf(child, " ".join(styles))
            if child.type == "image":
                text = text.stylize(_link_style(str(child.attrs.get("src", ""))))
            parts.append(text.stylize(links[-1]) if links else text)
    return Content().join(parts)


def _lines_of_cell(text: str) -> list[str]:
    """The parts between line breaks, without the blanks around the breaks."""
    first, *rest = LINE_BREAK.split(text)
    if not rest:
        return [first]
    return [first.rstrip(), *(line.strip() for line in rest[:-1]), rest[-1].lstrip()]


def _is_displayed(token: Token) -> bool:
    """Whether it is a formula on lines of its own."""
    return token.type == "formula" and token.info == DISPLAYED_FORMULA


def _leaf(token: Token, styles: str, text: str | None = None) -> Content:
    """text: a part of a text token's content."""
    match token.type:
        case "softbreak":
            return Content(" ")
        case "hardbreak":
            return Content("\n")
        case "code_inline":
            return Content.styled(token.content, f"{styles} $text-accent".strip())
        case "image":
            return Content.styled(f"🖼 {token.content}", styles)
        case "formula":
            return Content.styled(token.content, styles)
    return Content.styled(re.sub(r"\s+", " ", token.content if text is None else text), styles)


def _link_style(address: str) -> Style:
    return Style.from_meta({"@click": f"link({address!r})"})
