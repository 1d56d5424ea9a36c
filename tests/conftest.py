"""What all tests share: how long the long ones take, and the same examples each time."""

from __future__ import annotations

import pytest
from hypothesis import settings

import tests.cases


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`: suites that try many cases try all of them."""
    parser.addoption("--long", action="store_true", help="let suites that are bounded in CI try every case")


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis draws the same examples on every run; new ones with `--long`."""
    tests.cases.is_long = bool(config.getoption("--long"))
    settings.register_profile("same", deadline=None, derandomize=True, database=None)
    settings.register_profile("new", deadline=None)
    settings.load_profile("new" if tests.cases.is_long else "same")
