"""The process that loads a second large model is told about the first, for as long as that one lives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlx_engine.loading.claim import LARGE_BYTES, LONGEST_NAME_BYTES, Claim

HOLD = """
import sys
from pathlib import Path
from mlx_engine.loading.claim import Claim
claim = Claim(Path(sys.argv[1]), "gemma-4-31b", 20_000_000_000)
print(claim.notice, flush=True)
sys.stdin.read()
"""


def test_the_second_is_told_and_the_claim_ends_with_its_process_even_if_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"None\n"
        notice = Claim(tmp_path, "mine", 5_000_000_000).notice
        assert notice is not None
        assert "Another Slipstream has gemma-4-31b in memory, and this model takes another 5.0 GB" in notice
        other.kill()
        other.wait()
    assert Claim(tmp_path, "mine", 5_000_000_000).notice is None


def test_a_claim_ends_with_its_object(tmp_path: Path) -> None:
    claim = Claim(tmp_path, "first", LARGE_BYTES)
    assert "has first in memory" in (Claim(tmp_path, "second", LARGE_BYTES).notice or "")
    del claim
    assert Claim(tmp_path, "second", LARGE_BYTES).notice is None


def test_small_models_and_no_folder_claim_nothing(tmp_path: Path) -> None:
    claims = [
        Claim(tmp_path, "a", LARGE_BYTES - 1),
        Claim(tmp_path, "b", LARGE_BYTES - 1),
        Claim(None, "c", LARGE_BYTES),
    ]
    assert [claim.notice for claim in claims] == [None] * 3
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_used_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert Claim(tmp_path / "file", "a", LARGE_BYTES).notice is None


@pytest.mark.parametrize("name", ["", "é" * LONGEST_NAME_BYTES, "\ud800"])
def test_odd_names_are_kept_short_and_shown(tmp_path: Path, name: str) -> None:
    claim = Claim(tmp_path, name, LARGE_BYTES)
    notice = Claim(tmp_path, "other", LARGE_BYTES).notice or ""
    assert len(notice) < 300
    assert ("a model" in notice) == (not name)
    del claim
