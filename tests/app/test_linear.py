"""Whatever people and models write: twice the text takes about twice the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from textual.content import Content

from app.core.attachments import mentions, spellings
from app.core.completion import complete
from app.core.drafted_runs import DraftedRuns
from app.core.dropped_paths import dropped_paths
from app.core.long_texts import LongTexts
from app.core.message_files import split_message
from app.core.slash import Refusal, from_paste, parse
from app.store.foreign.conversation import Conversation, Entry, as_chat
from app.store.markdown import read_chats, write_chat
from app.store.records import NewChat, NewMessage
from app.text.sanitise import sanitise_line
from app.text.wrapping import WordWrap
from app.tui.transcript import tint
from app.tui.transcript.flow import wrap_rows
from app.tui.transcript.markdown import GrowingMarkdown, as_rows
from app.tui.transcript.mathematics import _formulas_in
from app.tui.transcript.thoughts import GrowingText
from app.tui.transcript.turn import message_rows
from tests.steps import SearchedText, steps

MOST_GROWTH = 2.3
"""Of the work when the input doubles. Some parts grow with n log n."""

Make = Callable[[int], str]


def growth(run: Callable[[int], object], size: int) -> float:
    """How many times the work for `size` the work for twice of it is."""
    run(size)  # what is only done once
    return steps(lambda: run(2 * size)) / steps(lambda: run(size))


FILES: dict[str, Make] = {
    "files without an end": lambda n: "see" + "\n\n@a (1 bytes):\n```\nx\n```" * n + "\nend",
    "files with an end": lambda n: "see" + "\n\n@a (1 bytes):\n```\nx\n```" * n,
    "headings alone": lambda n: "\n\n@a (1 bytes):\n````\n" * n + "```",
    "fences of all lengths": lambda n: (
        "".join(f"\n\n@a (1 bytes):\n{'`' * (3 + k % 50)}\nx" for k in range(n)) + "\n```"
    ),
    "one long name": lambda n: f"\n\n@{'a ' * n}(1 bytes):\n```\nx\n```",
}


@pytest.mark.parametrize("kind", FILES)
def test_messages_that_look_like_files(kind: str) -> None:
    make = FILES[kind]
    assert growth(lambda n: split_message(make(n)), 200) < MOST_GROWTH
    assert growth(lambda n: message_rows(make(n)), 200) < MOST_GROWTH
    longest = make(400)
    assert steps(lambda: split_message(longest, len(longest))) < 100, "typed text is not searched for files"


TYPED: dict[str, tuple[Callable[[str], object], Make]] = {
    "mentions": (mentions, lambda n: "@a " * n),
    "mentions in quotes": (mentions, lambda n: '@"a ' * n),
    "punctuation behind a mention": (lambda text: [*spellings(text)], lambda n: "@a" + "." * n),
    "completion": (lambda text: complete(text, False, lambda _: ()), lambda n: "@a " * n),
    "completion in quotes": (lambda text: complete(text, False, lambda _: ()), lambda n: '@"a ' * n),
    "an unknown command": (lambda text: parse(text, lambda _: ()), lambda n: "/" + "a" * n),
    "a wrong argument": (lambda text: parse(text, lambda _: ()), lambda n: "/temp " + "a" * n),
    "a pasted command": (from_paste, lambda n: "/" + "a" * n),
    "dropped paths": (dropped_paths, lambda n: "/a " * n),
    "titles": (sanitise_line, lambda n: "\u202e " * n),
    "wrapping": (lambda text: WordWrap().add(text, 80), lambda n: "word " * n),
    "wrapping one word": (lambda text: WordWrap().add(text, 80), lambda n: "w" * n),
}


@pytest.mark.parametrize("kind", TYPED)
def test_what_is_typed(kind: str) -> None:
    run, make = TYPED[kind]
    assert growth(lambda n: run(make(n)), 300) < MOST_GROWTH


@pytest.mark.parametrize("kind", ["an unknown command", "a wrong argument"])
def test_an_error_does_not_repeat_a_megabyte(kind: str) -> None:
    run, make = TYPED[kind]
    refusal = run(make(1 << 20))
    assert isinstance(refusal, Refusal)
    assert len(refusal.reason) < 400


def test_long_texts_in_the_prompt() -> None:
    texts = LongTexts()
    for number in range(5):
        texts.collapse_pasted(f"{number}" * 5000)

    def collapse(n: int) -> None:
        text = "[" * n + "@a " * n
        texts.whole(text)
        [*texts.spans(text)]
        LongTexts().collapse_own(text, mentions("".join(f"@a{k} " for k in range(n))))

    assert growth(collapse, 2000) < MOST_GROWTH


MARKDOWN: dict[str, Make] = {
    "one long word": lambda n: "x" * 40 * n,
    "one long line": lambda n: "word " * 20 * n,
    "formulas with pipes": lambda n: "|" + "\\(" * 20 * n,
    "lines that open formulas": lambda n: "\\[a\n" * n + "\n\nend",
    "blocks that open formulas": lambda n: "\\[a\n# b\n" * n + "\n\nend",
    "formulas of two kinds": lambda n: "\\[a\n$$b\n" * n + "\n\nend",
    "dollars": lambda n: "$a " * 20 * n,
    "brackets": lambda n: "[" * 12_000 + "[" * 20 * n,
    "stars": lambda n: "*a **b " * 2000 + "*a **b " * n,
    "links in a long line": lambda n: (
        "www.example.com a@example.com " * 400 + "www.example.com a@example.com " * 5 * n
    ),
    "rules": lambda n: "---\n\n" * n,
    "empty headings": lambda n: "#\n" * n,
    "list": lambda n: "- a\n" * n,
    "loose list": lambda n: "- a\n\n" * n,
    "nested list": lambda n: "- " * 10 * n + "a",
    "nested quotes": lambda n: ">" * 20 * n + "a",
    "quotes that are too deep": lambda n: (">" * 70 + "a\n\n") * (n // 6),
    "definitions": lambda n: "".join(f"[a{k}]: b\n" for k in range(n)),
    "open definitions": lambda n: "[a\n" * 4 * n,  # more than the parser nests
    "fences in lists": lambda n: "- ```\n" * n,
    "code": lambda n: "```python\n" + "x = (1)\n" * n + "```",
    "one line of code": lambda n: "```python\n" + "x=(" * n + "\n```",
    "table": lambda n: "|a|b|\n|-|-|\n" + "|c|d|\n" * n,
    "wide table": lambda n: "|a" * n + "|\n" + "|-" * n + "|\n" + "|c" * n + "|\n",
    "long cell": lambda n: "|a|b|\n|-|-|\n|" + "c " * 20 * n + "|d|\n",
    "breaks in a cell": lambda n: "|a|b|\n|-|-|\n|" + "<br> " * n + "|d|\n",
    "tabs": lambda n: "\t" * 20 * n + "a",
}


@pytest.mark.parametrize("kind", MARKDOWN)
@pytest.mark.sampled(2)
def test_markdown(kind: str) -> None:
    make = MARKDOWN[kind]
    assert growth(lambda n: wrap_rows(as_rows(make(n)), 80), 30) < MOST_GROWTH
    assert growth(lambda n: GrowingMarkdown().append(make(n)), 30) < MOST_GROWTH


@pytest.mark.parametrize("opening", ["\\(", "\\[", "$$", "$a"])
def test_delimiters_that_nothing_closes(opening: str) -> None:
    line = SearchedText(opening * 5000)
    assert list(_formulas_in(line)) in ([], [(0, 4 + len(opening) - 2)]) or opening == "$$"
    assert line.searched <= 2 * len(line)


def test_thoughts_that_grow_word_by_word() -> None:
    def think(n: int) -> None:
        text = GrowingText()
        for number in range(n):
            text.add("word\n" if number % 9 == 0 else "word ")

    assert growth(think, 300) < MOST_GROWTH


class Drawn(tint.TintedText):
    """Draws nothing, and counts what it would."""

    characters = 0

    async def _draw_last(self) -> None:
        self._last_parts = [Content().join(self._last_parts)]
        self.characters += len(self._last_parts[0])


@pytest.mark.parametrize("text", ["word ", "line\n", "x"])
def test_the_tint_of_a_long_reply(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tint, "tint_styles", lambda app: tint.TintStyles("underline", "italic"))
    monkeypatch.setattr(tint.TintedText, "app", None)

    def draw(n: int, piece: int) -> int:
        drawn, runs = Drawn(), DraftedRuns()
        for _ in range(n):
            runs.add(text * piece, 2)
            asyncio.run(drawn.draw(runs))
        return drawn.characters

    assert draw(200, 200) / draw(100, 200) < MOST_GROWTH, "as it streams in"
    assert draw(1, 40_000) / draw(1, 20_000) < MOST_GROWTH, "at once"


def test_our_own_exports() -> None:
    def read(n: int) -> None:
        messages = tuple(
            NewMessage(at - 1 if at else None, "user", "x", "y" * (at % 2), "complete", 0.0, True, None)
            for at in range(n)
        )
        read_chats(write_chat(NewChat("t", "", None, {}, 0.0, 0.0, messages)), "x")

    assert growth(read, 200) < MOST_GROWTH


FOREIGN: dict[str, Callable[[int], list[Entry]]] = {
    "replies below many silent entries": lambda n: [
        *(Entry(str(k), str(k - 1) if k else None, "tool", "") for k in range(n)),
        *(Entry(f"r{k}", str(n - 1), "user", "x") for k in range(n)),
    ],
    "a reply in many parts": lambda n: [
        Entry(str(k), str(k - 1) if k else None, "assistant" if k else "user", "x") for k in range(n)
    ],
    "siblings": lambda n: [
        Entry("a", None, "assistant", "x"),
        *(Entry(str(k), "a", "assistant" if k % 2 else "user", "x") for k in range(n)),
    ],
    "a circle": lambda n: [Entry(str(k), str((k + 1) % n), "tool" if k % 9 else "user", "x") for k in range(n)],
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_exports_of_other_programs(kind: str) -> None:
    assert growth(lambda n: as_chat(Conversation(FOREIGN[kind](n)), 0.0), 200) < MOST_GROWTH
