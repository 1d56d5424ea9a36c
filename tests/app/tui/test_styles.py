"""The style sheet and the widgets it is for."""

from __future__ import annotations

import re

import textual.widgets
from textual.app import App
from textual.widget import Widget

from app.tui import chat_app
from tests.paths import ROOT


def names_of(kind: type[Widget]) -> set[str]:
    """The class and all that derive from it."""
    return {kind.__name__}.union(*map(names_of, kind.__subclasses__()))


def test_every_class_that_the_style_sheet_names_exists() -> None:
    assert chat_app, "imports every widget"
    text = re.sub(r"/\*.*?\*/|\{[^}]*\}", " ", (ROOT / "app/tui/chat_app.tcss").read_text(), flags=re.DOTALL)
    named = set(re.findall(r"(?<![\w.#:$-])([A-Z]\w+)", text))
    assert named
    assert named <= names_of(Widget) | {App.__name__} | set(vars(textual.widgets)["__all__"])
