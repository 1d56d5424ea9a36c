"""What a reduced head gains a large assistant, and which share of a text it can draft.

    python -m tests.bench.draft_head --bits 8
    python -m tests.bench.draft_head --tokenizer gemma/tokenizer.json --texts notes.md code.py

Time: an assistant of the real size of 12B's, with random weights, beside a thin target with the real vocabulary;
whole and reduced head in turn in one process. Share: of the tokens of real text, which has to be at hand.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx

from mlx_engine.network import checkpoint
from mlx_engine.network.assistant import Assistant, AssistantConfig
from mlx_engine.network.mlx_lm_gemma4 import gemma4_text
from mlx_engine.network.target import Gemma4Target
from mlx_engine.speculation.assistant_drafter import AssistantDrafter
from mlx_engine.speculation.drafter import Frontier
from mlx_engine.speculation.sampling import Sampler
from mlx_engine.text.frequent_tokens import frequent_tokens
from mlx_engine.text.tokenizer import parse_tokenizer
from tests.bench.measure import Effort, Run, abba
from tests.fakes import tiny

VOCAB = 262_144
SIZES = (16384, 32768, 65536, 131072)
DRAFTS, CONVERSATION_TOKENS = 4, 1000
STRIDE = 61
"""The conversation's tokens are so far apart: few of them are among the frequent ones."""
SAMPLERS = {"greedy": Sampler(0), "temperature 1, top-k 64, top-p 0.95": Sampler(1.0, top_k=64, top_p=0.95)}
HEADS = {"head_dim": 256, "global_head_dim": 512, "num_key_value_heads": 8, "sliding_window": 1024}
WINDOWS = (100, 1000, 4000)
"""Tokens of a text that are the conversation, for the share of the tokens after them."""
AFTER, LOOKS = 400, 60


def make_pair(bits: int | None) -> tuple[Gemma4Target, Assistant]:
    """A target of one layer of each kind, and an assistant with the layers and the head of 12B's."""
    sizes = tiny.text_config("12b-unified") | HEADS | {"vocab_size": VOCAB, "vocab_size_per_layer_input": VOCAB}
    kinds = ["sliding_attention", "full_attention"]
    thin = sizes | {"num_attention_heads": 8, "layer_types": kinds, "num_hidden_layers": len(kinds)}
    target = Gemma4Target(gemma4_text.Model(gemma4_text.ModelArgs.from_dict(thin)))
    own = sizes | {
        "layer_types": [*kinds[:1] * 3, *kinds[1:]],
        "num_hidden_layers": 4,
        "hidden_size": 1024,
        "intermediate_size": 8192,
        "num_attention_heads": 16,
    }
    config = {"text_config": own, "backbone_hidden_size": thin["hidden_size"]}
    assistant = Assistant(AssistantConfig.from_dict(config))
    mx.eval(assistant.parameters())
    if bits:
        checkpoint.quantize(assistant, bits)
    return target, assistant


def times(bits: int | None, sizes: Sequence[int], effort: Effort) -> Iterator[str]:
    """A row for each size and sampler: the whole head's time over the reduced one's, for a round's drafts."""
    target, assistant = make_pair(bits)
    conversation = [at * STRIDE % VOCAB for at in range(CONVERSATION_TOKENS)]
    cache = target.new_cache()
    hidden = target.forward(mx.array([conversation[:-1]]), cache)[:, -1:]
    frontier = Frontier(mx.array(conversation[-1:], dtype=mx.int32), hidden, None)

    def run_of(drafter: AssistantDrafter, sampler: Sampler) -> Run:
        def seconds() -> float:
            begun_at_s = time.perf_counter()
            mx.eval(drafter.propose(conversation, frontier, cache, DRAFTS, sampler).tokens)
            return time.perf_counter() - begun_at_s

        seconds()
        return seconds

    whole = AssistantDrafter(assistant, target)
    for size in sizes:
        # Which rows they are makes no difference to the time.
        reduced = AssistantDrafter(assistant, target, range(size))
        for name, sampler in SAMPLERS.items():
            ratio = abba(run_of(whole, sampler), run_of(reduced, sampler), effort)
            yield (
                f"| {size >> 10}k rows, {name} | {ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f}) "
                f"| {ratio.a * 1e3:.0f} ms against {ratio.b * 1e3:.0f} ms for {DRAFTS} drafts |"
            )


def shares(tokenizer_file: Path, texts: Sequence[Path], sizes: Sequence[int]) -> Iterator[str]:
    """A row for each text: the share of its tokens with a row, after no conversation and after longer ones."""
    tokenizer = parse_tokenizer(tokenizer_file.read_bytes(), tokenizer_file)
    vocabulary = tokenizer.get_vocab()
    controls = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    for path in texts:
        ids = tokenizer.encode(path.read_text(errors="replace"), add_special_tokens=False).ids
        for size in sizes:
            rows = frequent_tokens(vocabulary, controls, size)
            alone = sum(id in rows for id in ids) / len(ids)
            after = [f"{_share(ids, rows, tokens):.3f}" for tokens in WINDOWS if len(ids) > tokens + AFTER]
            yield f"| {path.name}, {size >> 10}k rows | {' | '.join([f'{alone:.3f}', *after])} |"


def _share(ids: Sequence[int], rows: set[int], tokens: int) -> float:
    """Of the tokens after so many others; what has been said since has a row as well."""
    last = len(ids) - tokens - AFTER
    found = looks = 0
    for begin in range(0, last, max(1, last // LOOKS)):
        said = set(ids[begin : begin + tokens])
        for id in ids[begin + tokens : begin + tokens + AFTER]:
            found += id in rows or id in said
            looks += 1
            said.add(id)
    return found / looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, choices=(4, 8), help="of the assistant's weights")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="rows of the reduced head")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokenizer", type=Path, help="a Gemma tokenizer.json: measure shares, and no times")
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    effort = Effort(asked.repeats, 60.0, replies=0, tokens=0, looks=0, learning_rounds=0, of_a_kind=0)
    rows = (
        shares(asked.tokenizer, asked.texts, asked.sizes)
        if asked.tokenizer
        else times(asked.bits, asked.sizes, effort)
    )
    for row in rows:
        print(row, flush=True)


if __name__ == "__main__":
    main()
