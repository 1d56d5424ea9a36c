"""What all tests share: an environment without a person's settings, `--long`, and the same examples each time."""

from __future__ import annotations

import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings

import tests.cases

OUTSIDE_PREFIXES = ("HF_", "HUGGINGFACE_", "HUGGING_FACE_", "MLX_", "SLIPSTREAM_", "TRANSFORMERS_", "XDG_")
OUTSIDE_NAMES = ("DISABLE_TELEMETRY", "DO_NOT_TRACK", "FORCE_COLOR", "NO_COLOR")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--long`: suites that try many cases try all of them."""
    parser.addoption("--long", action="store_true", help="let suites that are bounded in CI try every case")


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis draws the same examples on every run; new ones with `--long`."""
    _leave_outside(config)
    tests.cases.is_long = bool(config.getoption("--long"))
    settings.register_profile("same", deadline=None, derandomize=True, database=None)
    settings.register_profile("new", deadline=None)
    settings.load_profile("new" if tests.cases.is_long else "same")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `--long`, only every n-th case of a test marked `sampled(n)` runs, the first one always."""
    if tests.cases.is_long:
        return
    seen: Counter[str] = Counter()
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        marker = item.get_closest_marker("sampled")
        name = item.nodeid.partition("[")[0]
        (left_out if marker and seen[name] % marker.args[0] else kept).append(item)
        seen[name] += 1
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """SIGINT interrupts, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _leave_outside(config: pytest.Config) -> None:
    """Tests and the processes that they start see neither a person's variables nor their models and chats.

    Here and not in a fixture: huggingface_hub reads its variables once, when it is imported.
    """
    environment = pytest.MonkeyPatch()
    config.add_cleanup(environment.undo)
    for name in list(os.environ):
        if name.startswith(OUTSIDE_PREFIXES) or name in OUTSIDE_NAMES or name.upper().endswith("_PROXY"):
            environment.delenv(name)
    home = tempfile.TemporaryDirectory(prefix="slipstream-tests-")
    config.add_cleanup(home.cleanup)
    environment.setenv("HF_HOME", os.path.join(home.name, "hub"))
    environment.setenv("SLIPSTREAM_HOME", os.path.join(home.name, "home"))
