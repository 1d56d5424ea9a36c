r"""Mathematics in Markdown, kept as its source: `\(x\)`, `\[x\]`, `$x$`, `$$x$$`.

To Markdown a formula is ordinary text, so it would lose backslashes, underscores and asterisks, and become lists
and table cells. The rules here make a token of each formula before any other rule sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline

CLOSING = {r"\(": r"\)", r"\[": r"\]", "$$": "$$"}
DISPLAYED = (r"\[", "$$")
"""These formulas may have several lines, and their line breaks are kept."""
DISPLAYED_FORMULA = "displayed"
"""The info of their tokens."""
MOST_CHARACTERS = 4000
"""Of one formula. A later closing delimiter belongs to something else."""

_CONTENT = r"(?:\\.|[^\\$`])+?"
_SINGLE_DOLLARS = re.compile(rf"\$(?![\s$])({_CONTENT})(?<!\s)\$(?![\d$])", re.DOTALL)
"""As in Pandoc: no space inside the dollars, and no digit after them, so that `$5 and $10` is money."""
_OPENING_IN_LINE = re.compile(r"\\\(|\\\[|\$\$|(?<![\w\\$])\$(?![\s$])")
_REST_OF_SINGLE = re.compile(r"(?:\\.|[^\\$`\n])+?(?<!\s)\$(?![\w$])")
_SETEXT_LINE = re.compile(r" {0,3}(=+|-+)\s*$")
_OPENING = re.compile(r"\\\\|\\\[|\$\$|`+")
CAN_GROW = "can grow"
"""The key in the parser's environment that says that the text being read is the end of a reply that streams in."""
MOST_OPEN_CHARACTERS = 300
"""Of a formula in a line whose end may still come. Until then its source is shown, as it will be then."""
MOST_LINE_CHARACTERS = 10_000
"""Of a line that begins a formula of several lines."""
_CLOSINGS = "closing delimiters"
"""The key of what is known about them, in the parser's environment."""
_PIPE = "\x02"
"""Stands for `|` in formulas while tables are split into cells. Sanitised text does not contain it."""


def keep_formulas(parser: MarkdownIt) -> None:
    """Add the rules to a parser."""
    parser.core.ruler.after("normalize", "hide_pipes", _hide_pipes)
    parser.core.ruler.push("show_pipes", _show_pipes)
    parser.block.ruler.before("lheading", "formula_paragraph", _formula_paragraph)
    parser.inline.ruler.before("escape", "formula", _formula)


def _hide_pipes(state: StateCore) -> None:
    if "|" in state.src:
        lines = state.src.split("\n")
        state.src = "\n".join(_with_hidden_pipes(line) if "|" in line else line for line in lines)


def _with_hidden_pipes(line: str) -> str:
    parts: list[str] = []
    end = 0
    for start, formula_end in _formulas_in(line):
        parts += (line[end:start], line[start:formula_end].replace("|", _PIPE))
        end = formula_end
    return "".join((*parts, line[end:]))


def _formulas_in(line: str) -> Iterator[tuple[int, int]]:
    """Start and end of every formula that is complete in a line. Searches once for a delimiter that is missing."""
    position = 0
    unclosed: set[str] = set()
    while opening := _OPENING_IN_LINE.search(line, position):
        start, position = opening.span()
        if opening[0] == "$":
            single = _REST_OF_SINGLE.match(line, position)
            end = single.end() if single else -1
        elif opening[0] in unclosed:
            end = -1
        else:
            closing = CLOSING[opening[0]]
            found = line.find(closing, position + 1)
            end = found + len(closing) if found >= 0 else -1
            if end < 0:
                unclosed.add(opening[0])
        if end >= 0:
            yield start, end
            position = end


def _show_pipes(state: StateCore) -> None:
    state.env.pop(_CLOSINGS, None)
    for token in state.tokens:
        for part in (token, *(token.children or ())):
            part.content, part.info = part.content.replace(_PIPE, "|"), part.info.replace(_PIPE, "|")
            for name, value in part.attrs.items():
                if isinstance(value, str):
                    part.attrs[name] = value.replace(_PIPE, "|")


def _formula(state: StateInline, silent: bool) -> bool:
    """An inline rule: a formula becomes a token with its source, delimiters included."""
    opening = state.src[state.pos : state.pos + 2]
    if opening in CLOSING:
        closing = CLOSING[opening]
        end = state.src.find(closing, state.pos + 2, state.pos + MOST_CHARACTERS)
        end = end + len(closing) if end > state.pos + 2 else -1
    else:
        match = _SINGLE_DOLLARS.match(state.src, state.pos, state.posMax) if opening[:1] == "$" else None
        end = match.end() if match and "**" not in match[1] else -1
    if opening in (r"\(", r"\[") and end < 0 and state.env.get(CAN_GROW):
        end = state.posMax if state.posMax - state.pos <= MOST_OPEN_CHARACTERS else -1
    if end < 0 or end > state.posMax:
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content = state.src[state.pos : end]
        token.info = DISPLAYED_FORMULA if opening in DISPLAYED else ""
    state.pos = end
    return True


def _formula_paragraph(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A block rule: a paragraph with a formula of several lines, whose lines start nothing else: no list, no rule.

    Otherwise the same as the parser's own rule for paragraphs, which handles those without such a formula.
    """
    line, closing, has_formula = start, "", False
    parent, state.parentType = state.parentType, "paragraph"
    while line < state.lineMax and not state.isEmpty(line):
        text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
        if not closing and line > start:
            if _is_interrupted(state, line):
                break
            if not has_formula and _SETEXT_LINE.match(text):
                break
        closing = _still_open(text[:MOST_LINE_CHARACTERS], closing)
        if closing and not has_formula:
            has_formula = _is_closed(state, line, closing)
            closing = closing if has_formula else ""
        line += 1
    state.parentType = parent
    if not has_formula:
        return False
    state.line = line
    opened = state.push("paragraph_open", "p", 1)
    inline = state.push("inline", "", 0)
    opened.map = inline.map = [start, line]
    inline.content = state.getLines(start, line, state.blkIndent, False).strip()
    inline.children = []
    state.push("paragraph_close", "p", -1)
    return True


def _is_interrupted(state: StateBlock, line: int) -> bool:
    """Whether another block begins here; see the parser's rule for paragraphs."""
    if state.sCount[line] - state.blkIndent > 3 or state.sCount[line] < 0:
        return False
    rules = state.md.block.ruler.getRules("paragraph")
    return any(rule(state, line, state.lineMax, True) for rule in rules)


def _still_open(text: str, closing: str) -> str:
    """The delimiter that closes the formula left open at the end of a line; empty if none is open."""
    position = 0
    while True:
        if closing:
            position = text.find(closing, position)
            if position < 0:
                return closing
            position, closing = position + len(closing), ""
        match = _OPENING.search(text, position)
        if match is None:
            return ""
        position = match.end()
        if match[0] in DISPLAYED:
            closing = CLOSING[match[0]]
        elif match[0].startswith("`"):
            code_end = text.find(match[0], position)
            position = position if code_end < 0 else code_end + len(match[0])


def _is_closed(state: StateBlock, start: int, closing: str) -> bool:
    """Whether a formula that is open at the end of line `start` ends in the same paragraph, or may still end.

    The answer is the same for all lines up to the one that decides it, so every line is searched once.
    """
    is_inside = state.sCount[start] >= state.blkIndent
    known = state.env.setdefault(_CLOSINGS, {})
    key = (closing, is_inside, state.blkIndent, state.lineMax)
    first, last, is_closed = known.get(key, (0, 0, False))
    if not first <= start < last:
        last, is_closed = _end_of(state, start, closing, is_inside)
        known[key] = start, last, is_closed
    return bool(is_closed)


def _end_of(state: StateBlock, start: int, closing: str, is_inside: bool) -> tuple[int, bool]:
    """The line that decides whether a formula is closed, and whether it is."""
    for line in range(start + 1, state.lineMax):
        if state.isEmpty(line) or (is_inside and state.sCount[line] < state.blkIndent):
            return line, False
        if closing in state.src[state.bMarks[line] : state.eMarks[line]]:
            return line, True
    return state.lineMax, True
