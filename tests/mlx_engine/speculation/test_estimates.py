"""What is kept of a pair from run to run: any file is survived, and none is believed that cannot be true."""

from __future__ import annotations

import math
import stat
from itertools import chain
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlx_engine.speculation import estimates
from mlx_engine.speculation.adaptive_length import AdaptiveLength
from mlx_engine.speculation.estimates import Estimates
from mlx_engine.speculation.steering import DraftLengths, ReplyControl, Steering
from tests.mlx_engine.speculation.draft_length_simulator import round_facts


def learned(rounds: int = 60) -> AdaptiveLength:
    lengths = AdaptiveLength(4)
    for _ in range(rounds):
        drafted = lengths.next_length()
        lengths.observe(round_facts(drafted, drafted // 2, drafted == 0), 0.03 + 0.01 * drafted)
    return lengths


def altered(**fields: object) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(learned().estimates) | fields)


def test_what_is_saved_is_loaded_again_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "estimates" / "pair.json"
    kept = learned().estimates
    estimates.save(path, kept)
    assert estimates.load(path) == (kept, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    estimates.save(path, learned(90).estimates)
    assert [each.name for each in path.parent.iterdir()] == ["pair.json"]
    again = AdaptiveLength(4, kept)
    assert again.estimates == kept
    assert again.next_length() == learned().next_length()


def test_nothing_kept_is_no_reason_for_a_notice(tmp_path: Path) -> None:
    assert estimates.load(tmp_path / "pair.json") == (None, None)


FOLDERLESS = Estimates(0.5, [0.0] * 16, [0.0] * 16, [[] for _ in range(17)], estimates.VERSION)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="nothing in it"),
        pytest.param(b"[" * 100_000, id="too deep and too long"),
        pytest.param(b"[" * 5_000, id="too deep"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(altered(version=2), id="another version"),
        pytest.param(altered(usual=1.5), id="more than always"),
        pytest.param(altered(tried=[0.0] * 15), id="a position missing"),
        pytest.param(altered(tried=[0.0] * 16, stood=[1.0] * 16), id="accepted without a try"),
        pytest.param(altered(rounds_s=[[0.0]] * 17), id="a round in no time"),
        pytest.param(altered(rounds_s=[[-1.0]] * 17), id="before it began"),
        pytest.param(altered(rounds_s=[[1.0] * 32] * 17), id="more than is kept"),
        pytest.param(altered(rounds_s=[[]] * 16), id="a length missing"),
        pytest.param(altered(mood="good"), id="a field too many"),
        pytest.param(altered().replace(b'"usual":', b'"usual":1e999,"usually":'), id="infinite"),
    ],
)
def test_a_file_that_cannot_be_true_is_told_of_by_name_and_replaced(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "pair.json"
    path.write_bytes(body)
    lengths = DraftLengths(path, 4)
    assert lengths.notice is not None
    assert str(path) in lengths.notice
    assert path.read_bytes() == body, "until something was learned"
    assert Steering(ReplyControl("auto"), lengths).next_length() == 4
    lengths.save()
    assert DraftLengths(path, 4).notice is None


def test_a_folder_in_its_place_is_told_of(tmp_path: Path) -> None:
    kept, notice = estimates.load(tmp_path)
    assert kept is None
    assert notice is not None


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pair.json"
    estimates.save(path, FOLDERLESS)

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        estimates.save(path, learned().estimates)
    assert estimates.load(path) == (FOLDERLESS, None)
    assert list(tmp_path.iterdir()) == [path]


GOOD = altered()
SPLICES = st.builds(
    lambda at, cut, put: GOOD[:at] + put + GOOD[at + cut :],
    st.integers(0, len(GOOD)),
    st.integers(0, 40),
    st.binary(max_size=8) | st.sampled_from([b"1e308", b"-1", b"0", b"null", b"[]", b"NaN", b"Infinity"]),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | SPLICES)
@example(body=GOOD)
def test_any_bytes_give_figures_that_can_be_used_or_a_notice(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "pair.json"
    path.write_bytes(body)
    kept, notice = estimates.load(path)
    assert (kept is None) == (notice is not None)
    if kept is None:
        return
    assert all(math.isfinite(figure) for figure in chain(kept.drafted, kept.accepted, *kept.rounds_s))
    lengths = AdaptiveLength(4, kept)
    for _ in range(30):
        drafted = lengths.next_length()
        assert 0 <= drafted <= 16
        lengths.observe(round_facts(drafted, 0, drafted == 0), 0.05)
    estimates.save(path, lengths.estimates)
    assert estimates.load(path) == (lengths.estimates, None)
