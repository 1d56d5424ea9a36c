"""Precedence of all settings: defaults < chosen in the chat < file < environment < flags."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.theme import BUILTIN_THEMES

from app.settings.effective import DEFAULT, REMEMBERED, read_settings
from app.settings.kinds import AutoOr, Choice, FreeText, Kind, Number
from app.settings.table import THEMES, Setting, Settings, per_chat, table
from app.shell.settings import example
from mlx_engine.protocol.events import SamplingOptions
from tests.app.settings.support import holds, refusal

TYPED = [setting for setting in table().values() if setting.info.kind]


def kind_of(setting: Setting) -> Kind:
    assert setting.info.kind
    return setting.info.kind


def numbers(kind: Number) -> st.SearchStrategy[int | float]:
    return st.integers(int(kind.least), int(kind.most)) if kind.is_whole else st.floats(kind.least, kind.most)


def values_of(setting: Setting) -> st.SearchStrategy[Any]:
    kind = kind_of(setting)
    if isinstance(kind, AutoOr):
        return st.one_of(st.just("auto"), numbers(kind.number))
    if isinstance(kind, Number):
        return numbers(kind)
    if isinstance(kind, Choice):
        return st.sampled_from(list(kind.meanings.values()))
    assert isinstance(kind, FreeText)
    return st.text("aZ0 .:#'\"-/äß字😀{}[]&*!|>%@", min_size=1, max_size=20).filter(lambda text: text.strip())


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@settings(max_examples=60)
@given(st.data())
def test_the_last_layer_that_names_a_setting_is_the_one_that_holds(data: st.DataObject) -> None:
    expected = {setting.name: setting.default for setting in TYPED}
    sources = dict.fromkeys(expected, DEFAULT)
    layers: list[dict[str, Any]] = []
    for source in (REMEMBERED, "config.yaml", "SLIPSTREAM_", "--"):
        names = [name for name in expected if source != "--" or table()[name].flag]
        picked = data.draw(st.lists(st.sampled_from(names), max_size=4, unique=True))
        layer = {name: data.draw(values_of(table()[name])) for name in picked}
        layers.append(layer)
        expected |= layer
        sources |= dict.fromkeys(layer, source)
    remembered, in_file, in_environment, typed = layers
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        lines = [(name, kind_of(table()[name]).to_text(value)) for name, value in in_file.items()]
        path.write_text("".join(f"{name}: {quoted(text)}\n" for name, text in lines), encoding="utf-8")
        environment = {
            table()[name].variable: kind_of(table()[name]).to_text(value) for name, value in in_environment.items()
        }
        found = read_settings(typed, remembered, environment, path)
    assert {name: asdict(found.settings)[name] for name in expected} == expected
    assert all(found.sources[name].startswith(source) for name, source in sources.items())


@given(st.data())
def test_what_is_written_is_read_back(data: st.DataObject) -> None:
    setting = data.draw(st.sampled_from(TYPED))
    value = data.draw(values_of(setting))
    kind = kind_of(setting)
    again = kind.parse(kind.to_text(value))
    assert again == value
    assert isinstance(again, bool) == isinstance(value, bool)


@pytest.mark.parametrize("setting", TYPED, ids=lambda setting: setting.name)
def test_every_setting_is_described(setting: Setting) -> None:
    kind = kind_of(setting)
    assert setting.info.help
    assert kind.allowed
    assert setting.default is not None or setting.info.unset
    assert setting.variable == f"SLIPSTREAM_{setting.name.upper()}"
    if setting.default is not None:
        assert kind.parse(kind.to_text(setting.default)) == setting.default
    if setting.info.example:
        kind.parse(setting.info.example)
    annotated = get_args(get_type_hints(Settings, include_extras=True)[setting.name])[0]
    sample = kind.parse(setting.info.example or kind.to_text(setting.default))
    assert msgspec.convert(sample, annotated) == sample
    for nonsense in (object(), [1], float("nan"), "\0"):
        with pytest.raises(ValueError):  # noqa: PT011
            kind.to_text(nonsense)


def test_the_names_of_others_are_theirs() -> None:
    assert set(THEMES) == set(BUILTIN_THEMES)
    assert {"temp", "sampling"} | set(SamplingOptions.__struct_fields__) - {"temperature", "rule"} <= set(
        per_chat()
    )


def test_an_empty_variable_is_none(file: Path) -> None:
    assert holds(file, "seed: 3\n", environment={"SLIPSTREAM_SEED": ""}).settings.seed == 3


def test_a_variable_that_cannot_be_used_is_named_with_what_can(file: Path) -> None:
    words = refusal(file, "seed: x\n", environment={"SLIPSTREAM_TEMP": "hot", "SLIPSTREAM_MIN_P": "0.5"})
    assert words.splitlines()[1] == "SLIPSTREAM_TEMP is 'hot'. Use a number from 0 to 100, or unset it."


def test_another_name_is_as_good_in_the_environment(file: Path) -> None:
    found = holds(file, environment={"SLIPSTREAM_TEMPERATURE": "0.5", "SLIPSTREAM_RULE": "coupled"})
    assert (found.settings.temp, found.settings.sampling) == (0.5, "coupled")
    assert found.sources["temp"] == "SLIPSTREAM_TEMPERATURE"


def test_a_variable_that_is_almost_one_is_told_of(file: Path) -> None:
    found = holds(file, environment={"SLIPSTREAM_TEMPP": "1", "SLIPSTREAM_HOME": "/x", "SLIPSTREAM_OTHER": "1"})
    assert found.warnings == (
        "The environment variable 'SLIPSTREAM_TEMPP' has no effect. Did you mean SLIPSTREAM_TEMP?",
    )


def test_the_example_is_a_file_that_can_be_used(file: Path) -> None:
    lines = list(example())
    assert holds(file, "\n".join(lines)).settings == Settings()
    found = holds(
        file, "\n".join(line.removeprefix("# ") for line in lines if line.startswith("# ") and ":" in line)
    )
    assert found.warnings == ()
    assert {name for name, source in found.sources.items() if source == DEFAULT} == set()
