"""The settings file: what it may contain, and the errors for anything else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.settings.effective import read_settings
from app.settings.errors import SettingsError
from app.settings.yaml_file import MAX_FILE_BYTES
from tests.app.settings.support import holds, refusal

EVERYTHING = """\
# mine
model: e4b
drafter: none
drafter_bits: 4
drafter_vocabulary: 32k
compile: on
draft: off
draft_start: 3
temperature: 0.7
top_k: 40
top_p: 0.9
min_p: 0.05
repetition_penalty: 1.1
rule: coupled
seed: 7
max_tokens: 500
think: yes
system: |
  Be brief.
  Be kind.
theme: nord
send_key: ctrl+s
keys:
  draft: ctrl+x
  copy: [f9, alt+y]
  retry: f8, f10
"""


def test_everything_that_can_be_set(file: Path) -> None:
    found = holds(file, EVERYTHING)
    values = found.settings
    assert (values.model, values.drafter, values.drafter_bits) == ("e4b", "none", 4)
    assert (values.drafter_vocabulary, values.draft, values.draft_start, values.compile) == (32768, 0, 3, True)
    assert (values.temp, values.top_k, values.top_p, values.min_p) == (0.7, 40, 0.9, 0.05)
    assert (values.repetition_penalty, values.sampling, values.seed) == (1.1, "coupled", 7)
    assert (values.max_tokens, values.think, values.system) == (500, True, "Be brief.\nBe kind.\n")
    assert (values.theme, values.send_key) == ("nord", "ctrl+s")
    assert values.keys == {"draft": "ctrl+x", "copy": "f9,alt+y", "retry": "f8,f10"}
    assert found.warnings == ()
    assert found.sources["temp"] == "config.yaml, line 9"
    assert found.sources["keys"] == "config.yaml, line 23"


@pytest.mark.parametrize(
    "text", ["", "\n", "# only words\n", "---\n", "~\n", "seed:\n", "seed: null\nkeys:\n", "\ufeff"]
)
def test_nothing_set_is_as_it_is_without_a_file(file: Path, text: str) -> None:
    assert holds(file, text).settings == read_settings(path=file.with_name("none"), environment={}).settings


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("temp: hot", "temp is 'hot'. Use a number from 0 to 100."),
        ("temp: -1", "temp is '-1'. Use a number from 0 to 100."),
        ("temp: .nan", "Use a number from 0 to 100."),
        ("temp: nan", "Use a number from 0 to 100."),
        ("temp: 1e999", "Use a number from 0 to 100."),
        ("temp: [1, 2]", "temp takes a single value. Use a number from 0 to 100."),
        ("temp: {a: 1}", "temp takes a single value. Use a number from 0 to 100."),
        ("top_k: 1.5", "Use a whole number from 0."),
        ("top_p: 0", "Use a number above 0, up to 1."),
        ("min_p: 2", "Use a number from 0 to 1."),
        ("repetition_penalty: 0", "Use a number from 0.01 to 100."),
        ("seed: 4294967296", "Use a whole number from 0 to 4294967295."),
        (f"seed: {'9' * 5000}", "Use a whole number from 0 to 4294967295."),
        ("draft: 17", "draft is '17'. Use auto, off or 1 to 16."),
        ("draft: 0", "Use auto, off or 1 to 16."),
        ("draft: on", "Use auto, off or 1 to 16."),
        ("draft_start: 0", "Use a whole number from 1 to 16."),
        ("drafter_bits: 5", "Use 4, 8 or stored."),
        ("drafter_vocabulary: 32000", "Use 16k, 32k, 64k, 128k or all."),
        ("sampling: maybe", "Use rejection or coupled."),
        ("max_tokens: 0", "Use a whole number from 1."),
        ("think: perhaps", "Use on or off."),
        ("theme: pink", "Use textual-dark, textual-light, nord"),
        ("send_key: shift+enter", "Use enter, ctrl+enter, alt+enter or ctrl+s."),
        ("model: ''", "Use a name from `slipstream models list`, a folder or a hub id."),
    ],
)
def test_what_is_not_allowed_is_told_with_file_line_and_what_is(file: Path, line: str, allowed: str) -> None:
    words = refusal(file, f"# mine\n\n{line}\n")
    assert words.startswith(f"{file}, line 3: ")
    assert allowed in words
    assert len(words) < 600


def test_all_that_is_wrong_is_told_at_once(file: Path) -> None:
    lines = refusal(file, "temp: hot\nseed: 1\nseed: 2\nthink: perhaps\n").splitlines()
    assert [line.split(": ")[0].rpartition(" ")[2] for line in lines] == ["1", "3", "4"]


def test_a_setting_given_twice(file: Path) -> None:
    assert "line 3: 'seed' is already set in line 1." in refusal(file, "seed: 1\ntemp: 1\nseed: 1\n")
    assert "line 2: temperature sets temp again, after line 1." in refusal(file, "temp: 1\ntemperature: 1\n")
    assert "line 3: 'draft' is already set in line 2." in refusal(file, "keys:\n  draft: f6\n  draft: f7\n")


def test_what_is_not_known_is_left_out_and_told_with_what_is_like_it(file: Path) -> None:
    found = holds(file, "temprature: 1\nMax-Tokens: 3\nxyzzy: 3\nkeys: {darft: f6}\n")
    assert [each.partition(": ")[2] for each in found.warnings] == [
        "'temprature' is not a setting and was ignored. Did you mean temperature?",
        "'Max-Tokens' is not a setting and was ignored. Did you mean max_tokens?",
        "'xyzzy' is not a setting and was ignored. Run `slipstream settings` to list all settings.",
        "'darft' is not an action that can have keys and was ignored. Did you mean draft?",
    ]
    assert all(str(file) in each for each in found.warnings)
    assert found.settings.temp is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\ntemp: [1\n", "line 3, column 1: invalid YAML"),
        ("seed: 1\n\ttemp: 1\n", "line 2, column 1: invalid YAML"),
        ('model: "e4b\n', "invalid YAML"),
        ("a: b: c\n", "line 1, column 5: invalid YAML: mapping values are not allowed here"),
        ("--- 1\n--- 2\n", "line 2, column 1: invalid YAML"),
        ("- temp\n", "line 1: this is not a setting. Write settings as `name: value`."),
        ("temp\n", "line 1: this is not a setting"),
        ("? [a]\n: 1\n", "line 1: expected a name"),
        ("temp: !!python/object/apply:os.system [x]\n", "line 1: the tag"),
        ("seed: !mine 1\n", "line 1: the tag '!mine' is not supported."),
        ("a: &a [x]\nb: *a\n", "line 2, column 4: invalid YAML: anchors and aliases are not supported"),
        ("seed: 1\nmodel: a\x07b\n", "line 2, column 9: YAML does not allow the character U+0007."),
        ("keys: {draft: [[f6]]}\n", "line 1: a list can only contain single values."),
        ("keys: [f6]\n", "line 1: keys needs one line per action"),
        ("keys: f6\n", "line 1: keys needs one line per action"),
    ],
)
def test_what_is_not_a_settings_file(file: Path, text: str, words: str) -> None:
    told = refusal(file, text)
    assert str(file) in told
    assert words in told


def test_other_encodings(file: Path) -> None:
    file.write_bytes(b"seed: 1\nsystem: caf\xe9\n")
    with pytest.raises(SettingsError, match=r"line 2: byte 0xe9 is not valid UTF-8. Save the file as UTF-8"):
        read_settings(path=file, environment={})
    file.write_bytes("seed: 1\n".encode("utf-16"))
    with pytest.raises(SettingsError, match="is not valid UTF-8"):
        read_settings(path=file, environment={})


def test_small_files_that_would_grow_and_files_that_are_too_large(file: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{m}, *{m}]\n" for m, n in zip("abcdefgh", "bcdefghi"))
    assert "anchors and aliases are not supported" in refusal(file, bomb)
    assert "nested too deep" in refusal(file, "[" * 2_000)
    assert "nested too deep" in refusal(file, "{a: " * 2_000)
    assert f"is larger than {MAX_FILE_BYTES >> 10} KiB" in refusal(file, "#" * (MAX_FILE_BYTES + 1))
    assert holds(file, "#" + "\n" * (MAX_FILE_BYTES - 1)).warnings == ()


def test_what_is_not_a_file_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    with pytest.raises(SettingsError, match="is not a regular file"):
        read_settings(path=file, environment={})
    file.unlink()
    file.mkdir()
    with pytest.raises(SettingsError, match="is not a regular file"):
        read_settings(path=file, environment={})
    file.with_name("f").write_text("")
    with pytest.raises(SettingsError, match="cannot be read: Not a directory"):
        read_settings(path=file.with_name("f") / "config.yaml", environment={})


def test_nothing_of_the_file_steers_the_terminal(file: Path) -> None:
    assert "\x1b" not in refusal(file, 'temp: "\\e[31mred"\n')
    assert "\x1b" not in holds(file, '"\\e[31mred": 1\n').warnings[0]
    assert "\x1b" not in refusal(file, 'keys: {draft: "\\e[31mred"}\n')


SNIPPETS = st.sampled_from(
    [b"temp: ", b"seed", b": ", b"\n", b"- ", b"[", b"]", b"{", b"}", b"&a ", b"*a", b"!!", b"keys:\n  draft: ",
     b"ctrl+", b"x", b"'", b'"', b"|\n ", b"%YAML 9.9\n", b"%TAG ! x\n", b"--- ", b"...\n", b"\\x", b"? ", b"\xff",
     b"\xe2\x80\xa8", b"\x00", b"<<", b"0o9", b"1_0", b"\t", b"#", b",", b"=", b"~"]
)  # fmt: skip


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=300), st.lists(SNIPPETS, max_size=30).map(b"".join)))
def test_any_bytes_are_settings_or_a_sentence(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_bytes(data)
        try:
            found = read_settings(path=path, environment={})
            assert all("\n" not in each for each in found.warnings)
        except SettingsError as error:
            for line in str(error).splitlines():
                assert line.startswith(str(path))
                assert line.endswith(".")
        assert path.read_bytes() == data, "the file is the person's own"
