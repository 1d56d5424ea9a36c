"""Replies that match a schema, through a loaded pair: trained weights and random ones, drafted and not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mlx_engine.network.prefix import PrefixCache
from mlx_engine.protocol import events
from mlx_engine.protocol.errors import RequestError
from mlx_engine.protocol.events import FORCED, DraftSetting, Generate, Message, SamplingOptions, SamplingRule
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.cases import cases
from tests.fakes.dictated_target import DictatedTarget
from tests.fakes.folders import write_pair
from tests.mlx_engine.rig import Rig, only, token_ids

pytestmark = [pytest.mark.slow, pytest.mark.sampled(6)]

USER = (Message("user", "Describe drafting."),)
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
            "kind": {"enum": ["fast", "slow"]},
            "code": {"type": "string", "pattern": "^[A-C]{2}$"},
            "tags": {"type": "array", "items": {"type": ["boolean", "null"]}, "maxItems": 3},
        },
        "required": ["name", "count", "kind", "code", "tags"],
        "additionalProperties": False,
    }
)
CHANNEL, CHANNEL_END = 100, 101


@pytest.fixture(scope="module")
def pocket() -> Rig:
    return Rig(TARGET_FOLDER, DRAFTER_FOLDER)


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(*write_pair(tmp_path_factory.mktemp("pair"), 1024))


def answer(emitted: list[events.Event]) -> str:
    return "".join(event.text for event in emitted if isinstance(event, events.Round | events.Finished))


def check(text: str) -> None:
    value: dict[str, Any] = json.loads(text)
    assert list(value) == ["name", "count", "kind", "code", "tags"]
    assert isinstance(value["name"], str)
    assert len(value["name"]) <= 12
    assert isinstance(value["count"], int)
    assert 0 <= value["count"] <= 99
    assert value["kind"] in ("fast", "slow")
    assert re.fullmatch("[A-C]{2}", value["code"])
    assert len(value["tags"]) <= 3
    assert all(tag in (True, False, None) for tag in value["tags"])


SETTINGS: list[tuple[DraftSetting, float, SamplingRule]] = [
    (0, 1.5, "rejection"),
    (4, 1.5, "rejection"),
    (3, 1.0, "coupled"),
    (4, 0.0, "rejection"),
    ("auto", 1.0, "rejection"),
]


@pytest.mark.parametrize(("draft", "temperature", "rule"), SETTINGS)
@pytest.mark.parametrize("name", ["pocket", "random"])
def test_every_reply_matches(
    name: str, draft: DraftSetting, temperature: float, rule: SamplingRule, request: pytest.FixtureRequest
) -> None:
    rig: Rig = request.getfixturevalue(name)
    for seed in range(cases(2, 50)):
        sampling = SamplingOptions(temperature, top_k=0, top_p=1.0, seed=seed, rule=rule)
        emitted = rig.ask(Generate(1, USER, sampling, draft, max_tokens=400, schema=SCHEMA))
        (finished,) = only(events.Finished, emitted)
        rounds = only(events.Round, emitted)
        assert finished.reason == "stop"
        check(answer(emitted))
        from_device = sum(done.drafted > 0 and done.drafter != FORCED for done in rounds)
        assert finished.host_syncs == len(rounds) + from_device


@pytest.mark.parametrize("name", ["pocket", "random"])
def test_drafting_changes_no_token(name: str, request: pytest.FixtureRequest) -> None:
    rig: Rig = request.getfixturevalue(name)
    for sampling in (SamplingOptions(0), SamplingOptions(1.0, seed=5, rule="coupled")):
        replies = [
            token_ids(rig.ask(Generate(1, USER, sampling, draft, max_tokens=400, schema=SCHEMA)))
            for draft in (0, 2, 5)
        ]
        assert replies[0] == replies[1] == replies[2]


def test_twenty_fields_take_one_pass_for_each_value_and_few_more(pocket: Rig) -> None:
    """Passes are what a schema costs: without the forced spans it was one for nearly every token."""
    keys = [f"{word}_{number}" for number in range(5) for word in ("name", "is_open", "count", "kind")]
    kinds: list[dict[str, Any]] = [
        {"type": "string", "maxLength": 8},
        {"type": "boolean"},
        {"type": "integer", "minimum": 0, "maximum": 99},
        {"enum": ["fast", "slow"]},
    ]
    fields = {key: kinds[index % 4] for index, key in enumerate(keys)}
    schema = json.dumps({"type": "object", "properties": fields, "required": keys, "additionalProperties": False})
    emitted = pocket.ask(Generate(1, USER, SamplingOptions(0), "auto", max_tokens=600, schema=schema))
    assert list(json.loads(answer(emitted))) == keys
    (finished,) = only(events.Finished, emitted)
    assert finished.target_passes is not None
    assert finished.target_passes < len(token_ids(emitted)) / 4


def test_a_thought_is_free_and_the_answer_after_it_matches(tmp_path: Path) -> None:
    """Wherever in a round the thought ends."""
    rig = Rig(*write_pair(tmp_path, 1024))
    own, encode = rig.engine._target, rig.engine._format.encode
    for text in ("Hm.", "Hm...", "Let me see."):
        script = [CHANNEL, *encode(f"thought\n{text}"), CHANNEL_END]
        target = DictatedTarget(own)
        rig.engine._target = target  # type: ignore[assignment]
        rig.engine._prefix = PrefixCache(target)
        prompt = rig.engine._format.render(USER, is_thinking=True)
        target.script = dict(enumerate(script, len(prompt.ids)))
        emitted = rig.ask(Generate(1, USER, SamplingOptions(1.0, seed=1), 3, 400, is_thinking=True, schema=SCHEMA))
        check(answer(emitted))
        assert "".join(done.thinking for done in only(events.Round, emitted)) == text


def test_what_a_reply_with_a_schema_teaches_holds_for_no_other(pocket: Rig) -> None:
    """Its drafts are often wrong, and drafting must not be off for the chat afterwards."""
    policies = pocket.engine._policies
    before = policies._auto.estimates
    pocket.ask(Generate(1, USER, SamplingOptions(0), "auto", 60, schema=SCHEMA))
    assert policies._auto.estimates == before
    pocket.ask(Generate(2, USER, SamplingOptions(0), "auto", 60))
    assert policies._auto.estimates != before


def test_a_stopped_reply_is_continued_where_it_is_in_the_schema(pocket: Rig) -> None:
    for begin in ('{"name": "Sli', '{"name": "S", "count": 4', "{"):
        messages = (*USER, Message("assistant", begin))
        emitted = pocket.ask(Generate(1, messages, SamplingOptions(0), "auto", max_tokens=400, schema=SCHEMA))
        check(begin + answer(emitted))
    with pytest.raises(RequestError, match="start of the reply does not match"):
        pocket.ask(Generate(1, (*USER, Message("assistant", "Drafting is")), max_tokens=9, schema=SCHEMA))


def test_a_schema_that_cannot_be_used_fails_before_anything_is_read(pocket: Rig) -> None:
    with pytest.raises(RequestError, match='"not"'):
        pocket.ask(Generate(1, USER, schema='{"not": {}}'))
    assert pocket.emitted == []


def test_what_the_settings_suppress_is_told(tmp_path: Path) -> None:
    target, drafter = write_pair(tmp_path, 1024)
    rig = Rig(target, drafter)
    brace = [id for id in range(2048) if "{" in (rig.engine._format._tokenizer.id_to_token(id) or "")]
    byte = [id for id in range(2048) if rig.engine._format._tokenizer.id_to_token(id) == "<0x7B>"]
    (target / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [1, 106], "do_sample": False, "suppress_tokens": brace + byte})
    )
    rig = Rig(target, drafter)
    with pytest.raises(RequestError, match="suppress"):
        rig.ask(Generate(1, USER, draft_length=2, max_tokens=20, schema=SCHEMA))
    emitted = rig.ask(Generate(2, USER, max_tokens=5))
    assert only(events.Finished, emitted), "the next reply is made as ever"
