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
from mlx_engine.speculation.adaptive_draft import AdaptiveDraft
from mlx_engine.speculation.estimates import Estimates
from mlx_engine.speculation.steering import DraftPolicies, ReplyControl, Steering
from tests.mlx_engine.speculation.drafting_simulator import DRAFTER, adaptive, next_length, round_facts


def learned(rounds: int = 60) -> AdaptiveDraft:
    lengths = adaptive(4)
    for _ in range(rounds):
        drafted = next_length(lengths)
        lengths.observe(round_facts(drafted, drafted // 2, drafted == 0), 0.03 + 0.01 * drafted)
    return lengths


def altered(**fields: object) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(learned().estimates) | fields)


def altered_drafter(**fields: object) -> bytes:
    drafters = msgspec.to_builtins(learned().estimates)["drafters"]
    return altered(drafters={DRAFTER: drafters[DRAFTER] | fields})


def altered_acceptance(which: str = "acceptance", **fields: object) -> bytes:
    drafter = msgspec.to_builtins(learned().estimates)["drafters"][DRAFTER]
    return altered_drafter(**{which: drafter["acceptance"] | fields})


def test_what_is_saved_is_loaded_again_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "estimates" / "pair.json"
    kept = learned().estimates
    estimates.save(path, kept)
    assert estimates.load(path) == (kept, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    estimates.save(path, learned(90).estimates)
    assert [each.name for each in path.parent.iterdir()] == ["pair.json"]
    again = adaptive(4, kept)
    assert again.estimates == kept
    assert next_length(again) == next_length(learned())


def test_nothing_kept_is_no_reason_for_a_notice(tmp_path: Path) -> None:
    assert estimates.load(tmp_path / "pair.json") == (None, None)


FOLDERLESS = Estimates(estimates.VERSION, {}, [])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="nothing in it"),
        pytest.param(b"[" * 100_000, id="too deep and too long"),
        pytest.param(b"[" * 5_000, id="too deep"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(altered(version=1), id="another version"),
        pytest.param(altered_acceptance(first_draft=1.5), id="more than always"),
        pytest.param(altered_acceptance(drafted=[0.0] * 15), id="a position missing"),
        pytest.param(altered_acceptance(drafted=[0.0] * 16, accepted=[1.0] * 16), id="accepted without a try"),
        pytest.param(
            altered_acceptance("acceptance_thinking", drafted=[0.0] * 16, accepted=[1.0] * 16),
            id="accepted without a try, with thinking",
        ),
        pytest.param(altered_drafter(rounds_s=[[0.0]] * 16), id="a round in no time"),
        pytest.param(altered(plain_rounds_s=[-1.0]), id="before it began"),
        pytest.param(altered_drafter(rounds_s=[[1.0] * 32] * 16), id="more than is kept"),
        pytest.param(altered_drafter(rounds_s=[[]] * 15), id="a length missing"),
        pytest.param(altered(mood="good"), id="a field too many"),
        pytest.param(altered().replace(b'"first_draft":', b'"first_draft":1e999,"first":'), id="infinite"),
    ],
)
def test_a_file_that_cannot_be_true_is_told_of_by_name_and_replaced(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "pair.json"
    path.write_bytes(body)
    lengths = DraftPolicies(path, 4, (DRAFTER,))
    assert lengths.notice is not None
    assert str(path) in lengths.notice
    assert path.read_bytes() == body, "until something was learned"
    assert next_length(Steering(ReplyControl("auto"), lengths)) == 4
    lengths.save()
    assert DraftPolicies(path, 4, (DRAFTER,)).notice is None


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
    for each in kept.drafters.values():
        known = [acceptance for acceptance in (each.acceptance, each.acceptance_thinking) if acceptance]
        counts = [counted for acceptance in known for counted in (acceptance.drafted, acceptance.accepted)]
        assert all(math.isfinite(figure) for figure in chain(*counts, *each.rounds_s))
    lengths = adaptive(4, kept)
    for _ in range(30):
        drafted = next_length(lengths)
        assert 0 <= drafted <= 16
        lengths.observe(round_facts(drafted, 0, drafted == 0), 0.05)
    estimates.save(path, lengths.estimates)
    assert estimates.load(path) == (lengths.estimates, None)
