"""What all tests share: how long the long ones take."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`: suites that try many cases try all of them."""
    parser.addoption("--long", action="store_true", help="let suites that are bounded in CI try every case")


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether every case is to be tried."""
    return bool(request.config.getoption("--long"))
