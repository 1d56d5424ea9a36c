"""Coloured text stands out in every theme that is shipped."""

from __future__ import annotations

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from app.contrast import GROUNDS, LEAST, TEXTS, contrast, readable
from app.safe_app import SafeApp
from app.settings.table import THEMES

OF_THE_TERMINAL = [name for name in THEMES if name.startswith("ansi-")]


@pytest.mark.parametrize("theme", [name for name in THEMES if name not in OF_THE_TERMINAL])
def test_every_coloured_text_can_be_read(theme: str) -> None:
    app = SafeApp(None)
    app.theme = theme
    for variables in (app.get_css_variables(), app.theme_variables):
        for ground in GROUNDS:
            for text in TEXTS:
                ratio = contrast(Color.parse(variables[text]), Color.parse(variables[ground]))
                assert ratio >= LEAST, f"{text} on {ground}: {ratio:.2f}"


@pytest.mark.parametrize("theme", OF_THE_TERMINAL)
def test_the_terminals_own_colours_are_left_to_it(theme: str) -> None:
    variables = BUILTIN_THEMES[theme].to_color_system().generate()
    assert readable(variables, is_dark=True) == variables


def test_what_can_be_read_stays_as_the_theme_has_it() -> None:
    variables = BUILTIN_THEMES["textual-dark"].to_color_system().generate()
    assert Color.parse(readable(variables, is_dark=True)["text-warning"]) == Color.parse(variables["text-warning"])


def test_contrast_is_as_defined() -> None:
    assert contrast(Color.parse("#fff"), Color.parse("#000")) == pytest.approx(21)
    assert contrast(Color.parse("#777"), Color.parse("#fff")) == pytest.approx(4.48, abs=0.01)
    assert contrast(Color.parse("#777"), Color.parse("#777")) == 1
