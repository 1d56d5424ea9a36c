"""The pair in the box: its lessons are sound, its files are small, and it knows what it was taught."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from mlx_engine.engine import Engine
from mlx_engine.protocol import events
from mlx_engine.protocol.stats import BaselineSpeed, ReplyStats
from mlx_engine.speculation.steering import ReplyControl
from models import pocket
from models.pocket.training import assistant_config, target_config
from models.pocket.training.lessons import Lesson, load_corpus, normalised
from tests.cases import cases

CORPUS = load_corpus()
MOST_BYTES = 16 * 10**6


def ids(entry: Lesson) -> str:
    return entry.id


@pytest.mark.parametrize("entry", CORPUS.entries, ids=ids)
def test_an_entry_is_sound(entry: Lesson) -> None:
    assert len(entry.ask) >= 8
    assert len(entry.held_out) == 2
    assert all(must in entry.answer for must in entry.must)
    assert bool(entry.must) == (entry.kind == "fact")
    assert entry.answer.isascii()
    assert entry.answer.count("```") % 2 == 0


def test_there_are_several_hundred_questions_and_none_is_asked_twice() -> None:
    assert len(CORPUS.entries) >= 300
    assert len({entry.id for entry in CORPUS.entries}) == len(CORPUS.entries)
    asked = Counter(normalised(question) for entry in CORPUS.entries for question in (*entry.ask, *entry.held_out))
    assert [question for question, count in asked.items() if count > 1] == []


def test_held_out_questions_are_in_no_lesson() -> None:
    trained = {normalised(question) for entry in CORPUS.entries for question in entry.ask}
    trained |= {normalised(question) for turns in CORPUS.dialogues for question, _ in turns}
    assert not trained & CORPUS.held_out_keys()


def test_the_weights_are_small() -> None:
    folders = (pocket.TARGET_FOLDER, pocket.DRAFTER_FOLDER)
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) <= MOST_BYTES


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(events.Load(str(pocket.TARGET_FOLDER), (str(pocket.DRAFTER_FOLDER),)), lambda event: None)


def ask(engine: Engine, question: str, draft_length: int) -> tuple[str, ReplyStats]:
    """The greedy answer and its figures."""
    rounds: list[events.Round] = []
    engine._emit = lambda event: rounds.append(event) if isinstance(event, events.Round) else None
    greedy = events.SamplingOptions(temperature=0)
    message = events.Message("user", question)
    request = events.Generate(1, (message,), greedy, draft_length, 160, measures_baseline=False)
    engine.generate(request, ReplyControl(draft_length))
    stats = ReplyStats(BaselineSpeed())
    for done in rounds:
        stats.add(done)
    return "".join(done.text for done in rounds), stats


@pytest.mark.slow
def test_it_names_the_right_key_or_command_in_other_words(engine: Engine) -> None:
    facts = CORPUS.held_out("fact")[:: cases(16, 5)]
    assert len(facts) >= cases(20, 30)
    wrong = {q: said for q, e in facts if not all(m in (said := ask(engine, q, 4)[0]) for m in e.must)}
    assert len(wrong) <= 0.2 * len(facts), wrong


@pytest.mark.slow
def test_its_drafter_is_worth_having(engine: Engine) -> None:
    drafted = accepted = rounds = tokens = 0
    for question, _ in CORPUS.held_out()[:: cases(40, 12)]:
        _, stats = ask(engine, question, 4)
        drafted, accepted = drafted + stats.drafted, accepted + stats.accepted
        rounds, tokens = rounds + stats.rounds, tokens + stats.generated_tokens
    assert accepted / drafted >= 0.65
    assert tokens / rounds >= 3.0


@pytest.mark.slow
@pytest.mark.parametrize("question", ["what is the capital of France?", "who won the football match yesterday?"])
def test_asked_something_else_it_says_what_it_is(engine: Engine, question: str) -> None:
    said, _ = ask(engine, question, 4)
    assert "pocket" in said
    assert "--model" in said


@pytest.mark.slow
def test_other_tools_accept_its_configs() -> None:
    """transformers checks an assistant's config when it reads it. tests/with_transformers.py loads the weights."""
    code = (
        "from transformers import AutoConfig\n"
        "from models import pocket\n"
        "for folder in (pocket.TARGET_FOLDER, pocket.DRAFTER_FOLDER):\n"
        "    AutoConfig.from_pretrained(folder).validate_architecture()\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_configs_are_those_that_the_training_writes() -> None:
    for folder, module in ((pocket.TARGET_FOLDER, target_config), (pocket.DRAFTER_FOLDER, assistant_config)):
        assert json.loads((folder / "config.json").read_text()) == module.CONFIG
