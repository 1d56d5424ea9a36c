#!/usr/bin/env bash
# mlx-lm 0.32.2, stream_generate with `logits_processors`: without a draft model they get prompt and reply, with one only the
# prompt's last token and the reply. So a penalty covers less text as soon as a draft model is given.
#
# Expected: the same greedy reply with and without a draft model, as the main model checks every token.
# Seen: with a presence penalty a model that likes red, green and blue best, in this order, replies to "red green" with "blue
# grey black" alone, and with "red blue grey" beside a draft model, its own copy: "red" is not penalised there.
# Fails if both replies are the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'mlx[cpu]==0.32.4' mlx-lm==0.32.2 transformers==5.24.0
"$folder/venv/bin/python" - <<'PYTHON' 2>&1 | grep -v "PyTorch"
import mlx.core as mx
import mlx.nn as nn
from mlx_lm import stream_generate
from mlx_lm.sample_utils import make_logits_processors
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ["<end>", "red", "green", "blue", "grey", "black", "white"]


class Painter(nn.Module):
    """Whatever it has read, it likes the earlier words better, and the end least."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Identity()]

    def __call__(self, tokens, cache):
        rows = mx.zeros((1, 1, tokens.shape[1], 1))
        cache[0].update_and_fetch(rows, rows)
        scores = mx.array([-9.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
        return mx.broadcast_to(scores, (*tokens.shape, len(WORDS)))


words = Tokenizer(models.WordLevel({word: id for id, word in enumerate(WORDS)}, unk_token="<end>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")


def reply(**drafting):
    penalty = make_logits_processors(presence_penalty=10.0)
    parts = stream_generate(Painter(), tokenizer, "red green", max_tokens=3, logits_processors=penalty, **drafting)
    return "".join(part.text for part in parts)


plain, drafted = reply(), reply(draft_model=Painter())
print(f"without a draft model: {plain!r}, with one: {drafted!r}")
assert plain == "blue grey black"
assert drafted == "red blue grey", "the processors see the whole prompt now"
PYTHON
