"""Who decides how many tokens are drafted: the person, or the estimates; and what these begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_engine.loading import on_device
from mlx_engine.loading.pair import load_pair
from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import LOOKUP, Load
from mlx_engine.speculation.steering import DraftPolicies, ReplyControl, Steering, estimates_file, start_length
from models.pocket import TARGET_FOLDER
from tests.mlx_engine.speculation.drafting_simulator import DRAFTER, next_length, round_facts


@pytest.mark.parametrize(
    ("architecture", "length"),
    [
        ("applegpu_g13s", 2),
        ("applegpu_g14d", 2),
        ("applegpu_g15g", 4),
        ("applegpu_g17s", 4),
        ("x86_64", 4),
        ("", 4),
    ],
)
def test_early_gpus_begin_with_shorter_drafts(architecture: str, length: int) -> None:
    assert start_length(architecture) == length


NOW, LATER = "0.32.4", "0.33.0"


@pytest.mark.parametrize(
    ("model", "queries_per_kv_head", "is_moe", "now", "later"),
    [
        ("E2B", 8, False, 3, 3),
        ("E4B", 4, False, 4, 5),
        ("12B", 2, False, 4, 5),
        ("26B-A4B", 2, True, 2, 2),
        ("31B", 2, False, 4, 5),
    ],
)
def test_later_gpus_begin_by_the_layout_and_by_what_the_version_can_do(
    model: str, queries_per_kv_head: int, is_moe: bool, now: int, later: int
) -> None:
    for architecture in ("applegpu_g15s", "applegpu_g16p", "applegpu_g17d"):
        assert start_length(architecture, NOW, queries_per_kv_head, is_moe) == now, model
        assert start_length(architecture, LATER, queries_per_kv_head, is_moe) == later, model
    assert start_length("applegpu_g13d", LATER, queries_per_kv_head, is_moe) == 2, "the weights are read per row"


def test_no_later_version_is_taken_for_an_earlier_one() -> None:
    lengths = {
        version: start_length("applegpu_g15s", version)
        for version in ("0.9.1", "0.32.4", "0.32.5", "0.32.4.dev20261101", "1.0", "")
    }
    assert lengths == {
        "0.9.1": 4, "0.32.4": 4, "0.32.5": 5, "0.32.4.dev20261101": 4, "1.0": 5, "": 4,
    }  # fmt: skip


def test_a_setting_counts_from_the_next_round_on() -> None:
    control = ReplyControl(3)
    steering = Steering(control, DraftPolicies(None, 4, (DRAFTER,)))
    assert next_length(steering) == 3
    control.draft_length = 0
    assert next_length(steering) == 0
    control.draft_length = "auto"
    assert next_length(steering) == 4, "what it begins with"
    assert not steering.is_cancelled
    control.is_cancelled = True
    assert steering.is_cancelled


@pytest.mark.parametrize("length", [-1, 17])
def test_a_setting_out_of_range_is_refused(length: int) -> None:
    steering = Steering(ReplyControl(length), DraftPolicies(None, 4, (DRAFTER,)))
    with pytest.raises(RequestError, match=r"0 \(off\) to 16"):
        next_length(steering)


def test_plain_rounds_are_spread_over_replies() -> None:
    lengths, chosen = DraftPolicies(None, 4, (DRAFTER,)), []
    for _ in range(20):
        steering = Steering(ReplyControl(5), lengths)
        for _ in range(10):
            chosen.append(next_length(steering))
            lengths.observe(round_facts(chosen[-1], 0, chosen[-1] == 0), 0.1)
    assert 0 < chosen.count(0) < 10


def test_without_them_every_round_is_what_was_asked_for() -> None:
    lengths = DraftPolicies(None, 4, (DRAFTER,))
    steering = Steering(ReplyControl(5), lengths, measures_baseline=False)
    for _ in range(300):
        assert next_length(steering) == 5
        lengths.observe(round_facts(5, 0, False), 0.1)


def test_every_pair_has_a_file_of_its_own(tmp_path: Path) -> None:
    names = {
        estimates_file(tmp_path, Path(target), (drafter,), bits, device)
        for target in ("/a/target", "/b/target")
        for drafter in ("/a/drafter", "lookup")
        for bits in (None, 4)
        for device in ("M1", "M3")
    }
    assert len(names) == 16
    assert all(name.parent == tmp_path and name.name.startswith("target--") for name in names)
    long = estimates_file(tmp_path, Path("/" + "x" * 250), ("/" + "y" * 250,), None, "M1")
    assert len(long.name) < 200


def test_what_was_learned_is_there_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "estimates" / "pair.json"
    lengths = DraftPolicies(path, 4, (DRAFTER,))
    steering = Steering(ReplyControl("auto"), lengths)
    for _ in range(300):  # every draft falls, and a drafted round takes twice as long
        length = next_length(steering)
        lengths.observe(round_facts(length, 0, length == 0), 2.0 if length else 1.0)
    lengths.save()
    again = DraftPolicies(path, 4, (DRAFTER,))
    assert again.notice is None
    assert next_length(Steering(ReplyControl("auto"), again)) == 0
    path.write_text("{}")
    broken = DraftPolicies(path, 4, (DRAFTER,))
    assert broken.notice is not None
    assert str(path) in broken.notice


def test_with_thinking_acceptance_is_learned_apart(tmp_path: Path) -> None:
    """A drafter that was trained on replies without thoughts: always right without thinking, never with it."""
    path = tmp_path / "pair.json"
    policies = DraftPolicies(path, 4, (DRAFTER,))

    def reply(is_thinking: bool, rounds: int) -> list[int]:
        steering = Steering(ReplyControl("auto"), policies, is_thinking=is_thinking)
        lengths = []
        for _ in range(rounds):
            lengths.append(next_length(steering))
            accepted = 0 if is_thinking else lengths[-1]
            policies.observe(round_facts(lengths[-1], accepted, lengths[-1] == 0), 1.0 + 0.3 * lengths[-1])
        return lengths

    reply(is_thinking=False, rounds=200)
    assert reply(is_thinking=True, rounds=200).count(0) > 150
    back = reply(is_thinking=False, rounds=12)
    assert min(back) >= 4, "what was learned with thinking changes nothing here"
    assert reply(is_thinking=True, rounds=4) == [0] * 4, "and is known at once"

    policies.save()
    policies = DraftPolicies(path, 4, (DRAFTER,))
    assert policies.notice is None
    assert reply(is_thinking=True, rounds=12)[-4:] == [0] * 4, "after a burst for the baseline"
    assert min(reply(is_thinking=False, rounds=12)[-4:]) >= 4


def test_a_new_version_of_mlx_learns_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its kernels may cost something else."""
    load, paths = Load(str(TARGET_FOLDER), (LOOKUP,), estimates_folder=str(tmp_path)), set()
    pair = load_pair(load, lambda event: None)
    for version in ("0.32.4", "0.33.0", "0.33.0"):
        monkeypatch.setattr(on_device, "version", {"mlx": version}.__getitem__)
        paths.add(on_device.estimates_path(load, pair))
    assert len(paths) == 2
