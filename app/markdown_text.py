"""Markdown as the chat reads it: one parser for all renders, and one styled text for old turns."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.token import Token
from textual.content import Content
from textual.highlight import highlight

from app.figures import MUTED

_INLINE_STYLES = {"strong": "bold", "em": "italic", "s": "strike"}


def markdown_parser() -> MarkdownIt:
    """GitHub's dialect, with HTML as text: Textual drops tags, and nothing a model writes may vanish."""
    return MarkdownIt("gfm-like", {"html": False})


def code_blocks(source: str) -> list[str]:
    """The code in a Markdown text, block by block."""
    tokens = markdown_parser().parse(source)
    return [token.content.rstrip("\n") for token in tokens if token.type in ("fence", "code_block")]


def as_content(source: str) -> Content:
    """Markdown as one styled text, cheap to lay out: what a turn becomes when it is old.

    `source` must be sanitised.
    """
    lines: list[Content] = []
    markers: list[str] = []
    counters: list[int | None] = []
    quotes = 0
    heading = ""
    cells: list[Content] | None = None

    def add(content: Content) -> None:
        first = (
            "▌ " * quotes
            + "  " * max(0, len(counters) - 1)
            + (markers.pop() if markers else "  " * bool(counters))
        )
        rest = "▌ " * quotes + "  " * len(counters)
        for number, line in enumerate(content.split("\n", allow_blank=True)):
            lines.append(Content(rest if number else first) + line)

    def blank() -> None:
        if lines and lines[-1].plain:
            lines.append(Content())

    for token in markdown_parser().parse(source):
        match token.type:
            case "bullet_list_open":
                counters.append(None)
            case "ordered_list_open":
                counters.append(int(token.attrs.get("start", 1)))
            case "list_item_open":
                count = counters[-1]
                markers[:] = ["• " if count is None else f"{count}. "]
                if count is not None:
                    counters[-1] = count + 1
            case "bullet_list_close" | "ordered_list_close":
                counters.pop()
                if not counters:
                    blank()
            case "blockquote_open":
                quotes += 1
            case "blockquote_close":
                quotes -= 1
            case "heading_open":
                heading = "bold"
            case "tr_open":
                cells = []
            case "tr_close":
                add(Content(" │ ").join(cells or []))
                cells = None
            case "table_close" | "heading_close":
                heading = ""
                blank()
            case "paragraph_close" if not counters:
                blank()
            case "inline" if cells is not None:
                cells.append(_inline(token))
            case "inline":
                add(_inline(token).stylize(heading))
            case "fence" | "code_block":
                blank()
                language = token.info.split(maxsplit=1)[0] if token.info.strip() else None
                for line in highlight(token.content.rstrip("\n"), language=language).split("\n", allow_blank=True):
                    add(Content("  ") + line)
                blank()
            case "hr":
                add(Content.styled("─" * 20, MUTED))
                blank()
    while lines and not lines[-1].plain:
        lines.pop()
    return Content("\n").join(lines)


def _inline(token: Token) -> Content:
    parts: list[Content] = []
    styles: list[str] = []
    for child in token.children or []:
        kind, _, edge = child.type.rpartition("_")
        if kind in _INLINE_STYLES and edge == "open":
            styles.append(_INLINE_STYLES[kind])
        elif kind in _INLINE_STYLES:
            styles.remove(_INLINE_STYLES[kind])
        elif child.type == "softbreak":
            parts.append(Content(" "))
        elif child.type == "hardbreak":
            parts.append(Content("\n"))
        elif child.type == "code_inline":
            parts.append(Content.styled(child.content, "$text-accent"))
        elif child.content:
            parts.append(Content.styled(child.content, " ".join(styles)))
    return Content().join(parts)
