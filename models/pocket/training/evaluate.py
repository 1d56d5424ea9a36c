"""How well a target answers the held-out paraphrases."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models import gemma4
from tokenizers import Tokenizer

from models.pocket.training.batches import make_batch
from models.pocket.training.conversations import encode_conversation, render_prompt
from models.pocket.training.copying import SHARES, Copying
from models.pocket.training.fast_ops import cross_entropy
from models.pocket.training.forward import answer_logits
from models.pocket.training.lessons import Corpus, Lesson
from models.pocket.training.tool_lessons import ToolLessons, declared, load_tools
from models.pocket.training.turns import Sample, Turn, answered, encode_turns

TURN_END = 106
STOPS = (1, TURN_END)
ROWS = 32
LONGEST_ANSWER = 128
EXERCISES, EXERCISE_SEED = 40, 20260503
"""Held-out ones of each kind."""


def held_out_metrics(model: gemma4.Model, tokenizer: Tokenizer, corpus: Corpus) -> dict[str, float]:
    """Loss per answer token, and per kind the share of answers in which every token is the likeliest."""
    return _metrics(
        model, [(e.kind, encode_conversation(tokenizer, [(q, e.answer)])) for q, e in corpus.held_out()]
    )


def exercise_metrics(model: gemma4.Model, tokenizer: Tokenizer, corpus: Corpus) -> dict[str, float]:
    """The same of exercises in wordings and of words that training never sees."""
    rng = random.Random(EXERCISE_SEED)
    copying, calls = Copying(corpus, is_held_out=True), ToolLessons(is_held_out=True)
    tools = load_tools()
    turns: list[tuple[str, Turn, str]] = [
        (kind, answered(*copying.draw(rng, kind)), "") for kind in SHARES for _ in range(EXERCISES)
    ]
    lessons = rng.sample(corpus.held_out(), EXERCISES)
    turns += [("lesson_twice", answered(*copying.twice(rng, q, e.answer)), "") for q, e in lessons]
    turns += [
        (f"call {t.name}", calls.draw(rng, [t.name]), declared(tools)) for t in tools for _ in range(EXERCISES)
    ]
    return _metrics(model, [(kind, encode_turns(tokenizer, [turn], system)) for kind, turn, system in turns])


def _metrics(model: gemma4.Model, labelled: Sequence[tuple[str, Sample]]) -> dict[str, float]:
    ordered = sorted(labelled, key=lambda pair: len(pair[1].ids))
    right: dict[str, list[bool]] = defaultdict(list)
    loss, tokens = 0.0, 0
    for start in range(0, len(ordered), ROWS):
        pairs = ordered[start : start + ROWS]
        batch = make_batch([sample for _, sample in pairs])
        logits = answer_logits(model, batch.tokens, batch.loss_rows)
        loss += float((cross_entropy(logits, batch.loss_targets) * batch.loss_weights).sum())
        learned = batch.learned_tokens
        tokens += learned
        hits = np.array(mx.argmax(logits, axis=-1) == batch.loss_targets)[:learned]
        owners = np.array(batch.loss_rows)[:learned] // batch.tokens.shape[1]
        for index, (kind, _) in enumerate(pairs):
            right[kind].append(bool(hits[owners == index].all()))
    shares = {kind: round(sum(flags) / len(flags), 3) for kind, flags in sorted(right.items())}
    return {"loss": round(loss / tokens, 4), **shares}


def greedy_answers(model: gemma4.Model, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy continuations of prompts of one length, up to a stop token."""
    cache: Any = model.make_cache()
    tokens = mx.argmax(model(mx.array(prompts), cache=cache)[:, -1], axis=-1)
    answers: list[list[int]] = [[] for _ in prompts]
    is_open = [True] * len(prompts)
    for _ in range(LONGEST_ANSWER):
        for index, token in enumerate(np.array(tokens).tolist()):
            is_open[index] = is_open[index] and token not in STOPS
            if is_open[index]:
                answers[index].append(token)
        if not any(is_open):
            break
        tokens = mx.argmax(model(tokens[:, None], cache=cache)[:, -1], axis=-1)
    return answers


def greedy_replies(
    model: gemma4.Model, tokenizer: Tokenizer, asked: list[tuple[str, Lesson]]
) -> list[tuple[str, Lesson, str]]:
    """(question, lesson, the model's greedy reply) for every question."""
    by_length: dict[int, list[tuple[str, Lesson, list[int]]]] = defaultdict(list)
    for question, entry in asked:
        ids = tokenizer.encode(render_prompt([], question), add_special_tokens=False).ids
        by_length[len(ids)].append((question, entry, ids))
    replies = []
    for group in by_length.values():
        answers = greedy_answers(model, [ids for _, _, ids in group])
        for (question, entry, _), answer in zip(group, answers):
            replies.append((question, entry, tokenizer.decode(answer, skip_special_tokens=False).strip()))
    return replies
