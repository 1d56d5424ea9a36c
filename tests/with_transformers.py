"""The pocket pair in Hugging Face transformers: both folders load there, and reply with the engine's tokens.

Apart from the other tests, because it needs torch: `pip install torch`, then `pytest tests/with_transformers.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from mlx_engine.network.target import load_target
from mlx_engine.protocol.events import Message
from mlx_engine.text.prompt import ChatFormat
from models.pocket import DRAFTER_FOLDER, TARGET_FOLDER
from tests.mlx_engine.helpers import rounds, tokens

torch = pytest.importorskip("torch", reason="needs torch: pip install torch")
pytestmark = pytest.mark.filterwarnings("ignore")

QUESTIONS = ("How do I turn drafting off?", "What is acceptance?", "Who are you?")
REPLY_TOKENS = 60


@pytest.fixture(scope="module")
def target() -> Any:
    from transformers import Gemma4ForConditionalGeneration

    return Gemma4ForConditionalGeneration.from_pretrained(TARGET_FOLDER)


@pytest.fixture(scope="module")
def drafter() -> Any:
    from transformers import Gemma4AssistantForCausalLM

    drafter = Gemma4AssistantForCausalLM.from_pretrained(DRAFTER_FOLDER)
    # Its own drafting fails without a number, which published assistants do not have either.
    drafter.generation_config.num_assistant_tokens = 4
    return drafter


def prompt_of(question: str) -> list[int]:
    return ChatFormat(TARGET_FOLDER).render([Message("user", question)]).ids


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("is_drafting", [False, True])
def test_greedy_tokens_are_the_engines(target: Any, drafter: Any, question: str, is_drafting: bool) -> None:
    prompt = prompt_of(question)
    expected = tokens(
        rounds(load_target(TARGET_FOLDER), None, prompt, REPLY_TOKENS, 0, stop_tokens=frozenset({106}))
    )
    reply = target.generate(
        torch.tensor([prompt]),
        assistant_model=drafter if is_drafting else None,
        do_sample=False,
        max_new_tokens=REPLY_TOKENS,
        eos_token_id=106,
    )[0].tolist()[len(prompt) :]
    assert len(reply) > 5
    assert reply == expected[: len(reply)]
    assert len(reply) == len(expected)
