"""Files that are dropped on the window, as terminals paste them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.dropped_paths import dropped_paths


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    paths = (tmp_path / "notes.md", tmp_path / "it's my fïle.md")
    for path in paths:
        path.write_text("x")
    return str(paths[0]), str(paths[1])


@pytest.mark.parametrize(
    "form",
    [
        "{plain}",
        "{plain} ",
        "'{plain}' ",
        '"{plain}"\n',
        "file://{plain}",
        "file://localhost{plain}\r\n",
        "{escaped} ",
        "{escaped} {plain}",
        "file://{percent}\nfile://{plain}\n",
        "{spaced}",
    ],
)
def test_every_form_is_known(files: tuple[str, str], form: str) -> None:
    plain, spaced = files
    escaped = spaced.replace("'", "\\'").replace(" ", "\\ ")
    percent = spaced.replace(" ", "%20").replace("ï", "%C3%AF")
    text = form.format(plain=plain, spaced=spaced, escaped=escaped, percent=percent)
    expected = [path for path, keys in ((spaced, ("{esc", "{perc", "{spa")), (plain, ("{plain}",))) if any(
        key in form for key in keys
    )]  # fmt: skip
    assert dropped_paths(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "notes.md", "/", "/no/such/file", "{plain} is long", "see {plain}", "{folder}", "file://elsewhere{plain}",
     "/" * 30_000, "/\0", "'/", "file://[", "{plain}\n/no/such/file"],
)  # fmt: skip
def test_other_text_is_no_path(files: tuple[str, str], text: str) -> None:
    plain = files[0]
    assert dropped_paths(text.format(plain=plain, folder=Path(plain).parent)) == []


def test_a_name_that_cannot_be_mentioned_stays_text(tmp_path: Path) -> None:
    path = tmp_path / 'a "quoted" name'
    path.write_text("x")
    assert dropped_paths(str(path)) == []
