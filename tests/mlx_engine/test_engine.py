"""A loaded pair, in this process: requests in, events out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tokenizers import Tokenizer

from mlx_engine import engine
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import ContextOverflowError, EmptyPromptError, ModelFolderError, RequestError
from mlx_engine.protocol.events import Generate, Message, SamplingOptions
from mlx_engine.protocol.stats import BaselineSpeed, ReplyStats
from mlx_engine.speculation.steering import DraftPolicies, ReplyControl
from mlx_engine.text.reply_text import TextStream
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.fakes.folders import write_pair
from tests.mlx_engine.helpers import load_tensors
from tests.mlx_engine.rig import Rig, only, token_ids

pytestmark = pytest.mark.slow

CONTEXT = 512
HELLO = (Message("user", "Hello there, how are you?"),)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"), CONTEXT)


@pytest.fixture(scope="module")
def rig(pair: tuple[Path, Path]) -> Rig:
    return Rig(*pair)


def test_loading_says_what_it_reads_and_what_is_ready(pair: tuple[Path, Path]) -> None:
    emitted = Rig(*pair).emitted
    steps = only(events.Loading, emitted)
    assert list(dict.fromkeys(event.step for event in steps)) == [
        "reading target", "reading target-assistant",
        "warming up, 1 of 3", "warming up, 2 of 3", "warming up, 3 of 3",
    ]  # fmt: skip
    (ready,) = only(events.Ready, emitted)
    assert (ready.target, ready.drafter, ready.precision) == ("target", "target-assistant", "float32")
    assert ready.context_tokens == CONTEXT


def test_a_pair_has_the_names_that_it_is_given(pair: tuple[Path, Path]) -> None:
    emitted = Rig(*pair, target_name="me/tiny-it", drafter_names={str(pair[1]): "me/tiny-it-assistant"}).emitted
    said = {event.step for event in only(events.Loading, emitted)}
    assert said >= {"reading me/tiny-it", "reading me/tiny-it-assistant"}
    (ready,) = only(events.Ready, emitted)
    assert (ready.target, ready.drafter) == ("me/tiny-it", "me/tiny-it-assistant")


def test_a_reply_is_events_in_order(rig: Rig) -> None:
    emitted = rig.ask(Generate(7, HELLO, max_tokens=20))
    kinds = [type(event).__name__ for event in emitted]
    assert kinds[:2] == ["Started", "Prefilled"]
    assert kinds[-1] == "Finished"
    assert set(kinds[2:-1]) == {"Round"}
    assert all(getattr(event, "id", None) == 7 for event in emitted)
    (started,), (finished,) = only(events.Started, emitted), only(events.Finished, emitted)
    assert only(events.Prefilled, emitted)[-1].total_tokens == started.prompt_tokens
    assert finished.reason == "length"
    assert len(token_ids(emitted)) == 20


def test_one_pass_and_one_wait_a_round(rig: Rig) -> None:
    emitted = rig.ask(Generate(1, HELLO, max_tokens=40, draft_length=4))
    (finished,) = only(events.Finished, emitted)
    assert finished.host_syncs == finished.target_passes == len(only(events.Round, emitted))


def test_drafting_does_not_change_the_words(rig: Rig) -> None:
    replies = {tuple(token_ids(rig.ask(Generate(1, HELLO, max_tokens=60, draft_length=k)))) for k in (0, 1, 4, 16)}
    assert len(replies) == 1


def test_toggling_in_the_middle_takes_effect_at_the_next_round(rig: Rig) -> None:
    control = ReplyControl(0)
    rounds: list[events.Round] = []

    def toggle(event: events.Event) -> None:
        if isinstance(event, events.Round):
            rounds.append(event)
            if len(rounds) == 5:
                control.draft_length = 3

    rig.engine._emit, emit = toggle, rig.engine._emit
    try:
        rig.engine.generate(Generate(1, HELLO, max_tokens=30, draft_length=0), control)
    finally:
        rig.engine._emit = emit
    assert [done.drafted for done in rounds[:8]] == [0, 0, 0, 0, 0, 0, 3, 3], "one plain round was under way"


def test_cancel_ends_at_the_next_round_and_keeps_what_there_is(rig: Rig) -> None:
    control = ReplyControl(4)
    seen: list[events.Event] = []

    def cancel(event: events.Event) -> None:
        seen.append(event)
        if len(only(events.Round, seen)) == 2:
            control.is_cancelled = True

    rig.engine._emit, emit = cancel, rig.engine._emit
    try:
        rig.engine.generate(Generate(1, HELLO), control)
    finally:
        rig.engine._emit = emit
    assert len(only(events.Round, seen)) == 3
    assert only(events.Finished, seen)[0].reason == "cancelled"


@pytest.mark.parametrize("length", [0, 4, 16])
def test_the_context_is_never_passed(rig: Rig, length: int) -> None:
    words = "key " * (CONTEXT - len(rig.engine._format.render(HELLO).ids) - 6)
    emitted = rig.ask(Generate(1, (Message("user", words + HELLO[0].text),), draft_length=length))
    (started,) = only(events.Started, emitted)
    assert CONTEXT - 40 < started.prompt_tokens < CONTEXT
    assert only(events.Finished, emitted)[0].reason == "length"
    assert started.prompt_tokens + len(token_ids(emitted)) == CONTEXT
    assert max(done.context_tokens for done in only(events.Round, emitted)) <= CONTEXT


def test_a_prompt_longer_than_the_context_names_both_numbers(rig: Rig) -> None:
    with pytest.raises(ContextOverflowError, match=rf"\d+ tokens long.*{CONTEXT}"):
        rig.ask(Generate(1, (Message("user", "word " * CONTEXT),)))
    assert token_ids(rig.ask(Generate(2, HELLO, max_tokens=3))), "the engine goes on"


@pytest.mark.parametrize("messages", [(), ("",), (" \n ",), ("one", "")])
def test_an_empty_prompt_is_refused(rig: Rig, messages: tuple[str, ...]) -> None:
    with pytest.raises(EmptyPromptError):
        rig.ask(Generate(1, tuple(Message("user", text) for text in messages)))


@pytest.mark.parametrize("roles", [("system",), ("user", "user"), ("system", "assistant", "user")])
def test_odd_conversations_are_answered(roles: tuple[Any, ...]) -> None:
    pocket = Rig(TARGET_FOLDER, DRAFTER_FOLDER)
    asked = Generate(1, tuple(Message(role, "Hello") for role in roles), max_tokens=4)
    assert only(events.Finished, pocket.ask(asked))


@pytest.mark.parametrize(
    "request_",
    [
        Generate(1, HELLO, draft_length=17),
        Generate(1, HELLO, draft_length=-1),
        Generate(1, HELLO, max_tokens=0),
        Generate(1, HELLO, SamplingOptions(temperature=-1)),
        Generate(1, HELLO, SamplingOptions(top_p=2)),
    ],
)
def test_settings_out_of_range_are_refused(rig: Rig, request_: Generate) -> None:
    with pytest.raises(RequestError, match="out of range"):
        rig.ask(request_)


@pytest.mark.parametrize("length", [0, 4])
def test_the_same_seed_gives_the_same_reply(rig: Rig, length: int) -> None:
    def reply(seed: int) -> list[int]:
        sampling = SamplingOptions(temperature=1.0, top_k=0, top_p=1.0, seed=seed)
        # Where a plain round falls, rejection draws otherwise; when they fall depends on the replies before.
        return token_ids(rig.ask(Generate(1, HELLO, sampling, length, max_tokens=30, measures_baseline=False)))

    assert reply(5) == reply(5) != reply(6)


@pytest.mark.parametrize(("room_bytes", "is_whole"), [(1 << 40, True), (1000, False)])
def test_weights_are_wired_only_where_a_person_asks_for_it(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, room_bytes: int, is_whole: bool
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "set_wired_limit", limits.append)
    monkeypatch.setattr(engine, "working_set_bytes", lambda: room_bytes)
    Rig(*pair, is_compiled=False)
    assert limits == []
    Rig(*pair, is_compiled=False, is_wired=True)
    (limit,) = limits
    assert limit > 100_000 if is_whole else limit == room_bytes


def test_estimates_that_cannot_be_kept_are_told_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "estimates"
    folder.write_text("a file where the folder should be")
    rig = Rig(*pair, estimates_folder=str(folder))
    first, second = (only(events.Notice, rig.ask(Generate(id, HELLO, max_tokens=3))) for id in (1, 2))
    assert [each.message for each in first] == [
        "The estimates for automatic drafting cannot be saved: File exists. The next run measures them again."
    ]
    assert second == []


def test_rounds_of_replies_with_thinking_are_learned_apart(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, begun = Rig(*pair), list[bool]()
    monkeypatch.setattr(rig.engine._policies, "begin_reply", begun.append)
    for id, is_thinking in enumerate((True, False), 1):
        rig.ask(Generate(id, HELLO, max_tokens=3, is_thinking=is_thinking))
    assert rig.engine._format.can_think
    assert begun == [True, False]


def test_without_a_drafter_every_round_is_plain(pair: tuple[Path, Path]) -> None:
    emitted = Rig(pair[0], None).ask(Generate(1, HELLO, max_tokens=10, draft_length=4))
    assert {done.drafted for done in only(events.Round, emitted)} == {0}


def test_speedup_has_plain_rounds_to_divide_by(pair: tuple[Path, Path]) -> None:
    rig = Rig(*pair)
    pace = BaselineSpeed()
    stats = ReplyStats(pace)
    for done in only(events.Round, rig.ask(Generate(1, HELLO, max_tokens=60, draft_length=4))):
        pace.add(done)
        stats.add(done)
    assert stats.drafted > 0
    assert stats.baseline_tokens_per_s is not None
    assert stats.speedup is not None
    assert stats.ttft_s is not None


def test_freed_buffers_are_released_on_the_way_and_after_a_reply(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(mx, "set_cache_limit", limits.append)
    rig = Rig(*pair)
    assert limits == [engine.CACHED_BUFFER_BYTES]

    happened: list[str] = []
    monkeypatch.setattr(engine, "CLEAR_EVERY_ROUNDS", 4)
    monkeypatch.setattr(mx, "clear_cache", lambda: happened.append("clear"))
    monkeypatch.setattr(rig.engine, "_emit", lambda event: happened.append(type(event).__name__))
    rig.engine.generate(Generate(1, HELLO, max_tokens=12, draft_length=0), ReplyControl(0))
    assert happened[-2:] == ["Finished", "clear"]
    assert happened.count("clear") == 1 + 12 // 4 + 1, "three on the way, twice for the last pass, one at the end"

    happened.clear()
    monkeypatch.setattr(rig.engine._target, "logits", lambda hidden: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rig.engine.generate(Generate(2, HELLO, max_tokens=12, draft_length=0), ReplyControl(0))
    assert happened[-1] == "clear"


@pytest.mark.parametrize("template", ["", "{# nothing #}", "{% for message in [] %}x{% endfor %}"])
def test_a_template_that_renders_nothing_is_named(pair: tuple[Path, Path], tmp_path: Path, template: str) -> None:
    folder = Path(shutil.copytree(pair[0], tmp_path / "t"))
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelFolderError, match="its chat template makes nothing of a message"):
        Rig(folder, None)


def test_weights_that_are_not_numbers_are_found_at_warm_up(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair[0], tmp_path / "t"))
    weights = load_tensors(folder / "model.safetensors")
    weights["model.language_model.norm.weight"] = weights["model.language_model.norm.weight"] * float("nan")
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    with pytest.raises(ModelFolderError, match="NaN"):
        Rig(folder, None)


def test_a_tokenizer_larger_than_the_weights_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair[0], tmp_path / "t"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["far away"] = 4000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelFolderError, match="4001 tokens, its weights 2048"):
        Rig(folder, None)


@pytest.mark.parametrize("length", [0, 4])
def test_rounds_say_how_much_of_their_text_was_drafted(length: int) -> None:
    pocket = Rig(TARGET_FOLDER, DRAFTER_FOLDER)
    question = (Message("user", "How do I turn drafting off?"),)
    rounds = only(events.Round, pocket.ask(Generate(7, question, draft_length=length, max_tokens=40)))
    stream = TextStream(Tokenizer.from_file(str(TARGET_FOLDER / "tokenizer.json")))
    for done in rounds:
        drafted, own = stream.add(done.token_ids[: done.accepted]), stream.add(done.token_ids[done.accepted :])
        assert done.drafted_characters == len(drafted)
        assert done.text == drafted + own
    assert any(done.drafted_characters for done in rounds) is bool(length)


def test_the_round_in_which_a_reply_ends_counts_for_the_draft_length(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[events.RoundFacts] = []
    monkeypatch.setattr(DraftPolicies, "observe", lambda _, done, round_s: seen.append(done))
    rig = Rig(TARGET_FOLDER, DRAFTER_FOLDER)
    question = (Message("user", "What is speculative decoding?"),)
    emitted = rig.ask(Generate(1, question, SamplingOptions(temperature=0), draft_length=16))
    assert only(events.Finished, emitted)[0].reason == "stop"
    rounds = only(events.Round, emitted)
    assert [(done.drafted, done.accepted) for done in seen] == [(done.drafted, done.accepted) for done in rounds]
    assert seen[-1].drafted > seen[-1].accepted, "drafts behind the stop brought nothing"
