"""No text reaches a screen or a shell past the places that make it safe: shown by reading the program itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.sampled(2)

APP = ROOT / "app"
SHELL = {"console.py"}
"""The only module that may write to the shell."""
DRIVERS = {"driver.py", "safe_app.py"}
"""The only modules that may speak to the terminal's driver or open addresses."""
WIDGETS = {"Digits", "Input", "OptionList", "Static", "TextArea"}
"""Those of Textual's that are known to be safe here; Digits, Input and TextArea know no markup."""
MARKUP_BY_DEFAULT = {"OptionList", "Static"}
MARKUP_MAKERS = {"from_markup", "from_rich_text", "render_markup", "markup"}


def findings(source: str, module: str) -> list[str]:
    """What a module does that only some modules may."""
    tree = ast.parse(source)
    return [
        f"{module}:{getattr(node, 'lineno', 0)}: {what}" for node in ast.walk(tree) for what in _of(node, module)
    ]


def _of(node: ast.AST, module: str) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Name(id=("print" | "input") as name)) if module not in SHELL:
            yield f"{name}() instead of app.system.console"
        case ast.Attribute(value=ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr"), attr=attr):
            if attr not in ("isatty", "reconfigure", "fileno") and module not in SHELL:
                yield f"sys.stdout or sys.stderr.{attr}"
        case ast.keyword(value=ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr")):
            yield "a stream handed on"
        case ast.Import(names=names) if any(name.name in ("webbrowser", "logging") for name in names):
            yield "webbrowser or logging"
        case ast.ImportFrom(module="textual.widgets", names=names):
            yield from (f"{name.name}, which nobody has looked at" for name in names if name.name not in WIDGETS)
        case ast.Attribute(attr=attr) if attr in MARKUP_MAKERS:
            yield f"text read as markup ({attr})"
        case ast.Attribute(attr=("_driver" | "open_url") as attr) if module not in DRIVERS:
            yield f"{attr} outside the modules that make it safe"
        case ast.Call(func=ast.Attribute(attr="ArgumentParser")):
            yield "a parser whose errors are not made safe: use app.system.console.Arguments"
        case ast.Call(func=ast.Name(id=name), keywords=keywords) if name in MARKUP_BY_DEFAULT:
            if not _is_off(keywords, "markup"):
                yield f"{name}() without markup=False"
        case ast.ClassDef(bases=bases):
            if any(isinstance(base, ast.Name) and base.id == "App" for base in bases) and module not in DRIVERS:
                yield "an app that is not a SafeApp"
            is_static = any(isinstance(base, ast.Name) and base.id == "Static" for base in bases)
            if is_static and "markup=False" not in ast.unparse(node):
                yield f"{node.name} is a Static without markup=False"
        case ast.Assign(targets=[ast.Attribute(attr="border_title" | "border_subtitle" | "tooltip")], value=value):
            is_content = isinstance(value, ast.Call) and ast.unparse(value.func) == "Content"
            if not isinstance(value, ast.Constant) and not is_content:
                yield "a title or tooltip, which Textual reads as markup"


def _is_off(keywords: list[ast.keyword], name: str) -> bool:
    return any(
        each.arg == name and isinstance(each.value, ast.Constant) and each.value.value is False
        for each in keywords
    )


@pytest.mark.parametrize("path", sorted(APP.rglob("*.py")), ids=lambda path: str(path.relative_to(APP)))
def test_text_takes_no_way_past_the_sanitiser(path: Path) -> None:
    assert findings(path.read_text(), path.name) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "print(title)",
        "input(question)",
        "sys.stdout.write(text)",
        "sys.stderr.buffer.write(text)",
        "sys.stdout.buffer.write(text)",
        "say(text, file=sys.stderr)",
        "argparse.ArgumentParser()",
        "import webbrowser",
        "import logging",
        "from textual.widgets import Label",
        "Static(title)",
        "Static(title, markup=True)",
        "OptionList()",
        "Content.from_markup(text)",
        "self.app._driver.write(text)",
        "self.app.open_url(text)",
        "widget.border_title = title",
        "widget.tooltip = title",
        "class Mine(App[None]): pass\nclass Other(App): pass",
        "class Mine(Static): pass",
    ],
)
def test_each_such_way_is_found(wrong: str) -> None:
    assert findings(wrong, "somewhere.py")


def test_what_is_right_is_let_through() -> None:
    right = "say(title)\nStatic(title, markup=False)\nsys.stdout.isatty()\n"
    assert findings(right, "somewhere.py") == []
