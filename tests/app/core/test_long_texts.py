"""Long texts that are collapsed in the prompt."""

from __future__ import annotations

from app.core.long_texts import MAX_SHOWN_CHARACTERS, LongTexts

LOG = "see @main.py\n" * 1000
ESSAY = "my words about @notes.md " * 400


def test_a_long_text_is_one_placeholder_that_has_it_in_full() -> None:
    long = LongTexts()
    placeholder = long.collapse_pasted(LOG)
    assert placeholder == "[pasted text 1: 13,000 characters, 1,000 lines]"
    assert long.collapse_pasted("x" * MAX_SHOWN_CHARACTERS) == "x" * MAX_SHOWN_CHARACTERS
    assert long.collapse_own("x" * 5000, []) == "[text 2: 5,000 characters, 1 line]"
    assert long.whole(f"What is {placeholder}?") == f"What is {LOG}?"
    assert [*long.spans(f"What is {placeholder}?")] == [(8, 8 + len(placeholder))]


def test_the_person_mentions_files_also_in_a_long_text_but_not_in_what_was_pasted() -> None:
    long = LongTexts()
    prompt = f"{long.collapse_pasted(LOG)} @a.md {long.collapse_own(ESSAY, ['@notes.md', '@other.md'])}"
    assert long.mentions(prompt) == ["@a.md", "@notes.md"]


def test_what_was_pasted_is_still_that_when_the_prompt_comes_back_in_full() -> None:
    long = LongTexts()
    longer, short = long.collapse_pasted(LOG + LOG), long.collapse_pasted(LOG)
    for prompt in (f"{short} and {longer} @a.md", f"{longer}{short}", f"look:\n{short}"):
        back = long.collapse_own(long.whole(prompt).rstrip(), ["@a.md"])
        assert back == prompt
        assert long.mentions(back) == ["@a.md"] * ("@a.md" in prompt)


def test_a_long_text_attaches_no_file_that_it_only_names() -> None:
    long = LongTexts()
    assert long.mentions(long.collapse_own(LOG, [])) == []


def test_blanks_are_no_end_of_every_text() -> None:
    long = LongTexts()
    placeholder = long.collapse_pasted(" " * 5000)
    assert long.collapse_own("words", []) == "words"
    assert long.whole(placeholder) == " " * 5000
