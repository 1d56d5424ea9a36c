"""Makes the pocket tokenizer: Gemma's tokenizer.json in structure, with a vocabulary of our own corpus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VOCABULARY_TOKENS = 2048
FIRST_FREE_ID = 107
"""Ids below are Gemma 4's control tokens, at Gemma 4's positions, and fillers between them."""
CONTROL_TOKENS = {
    0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>", 46: "<|tool>", 47: "<tool|>",
    48: "<|tool_call>", 49: "<tool_call|>", 50: "<|tool_response>", 51: "<tool_response|>", 52: '<|"|>',
    98: "<|think|>", 100: "<|channel>", 101: "<channel|>", 105: "<|turn>", 106: "<turn|>",
}  # fmt: skip
ALPHABET = ["\n", "▁", *(chr(code) for code in range(0x21, 0x7F))]
WORD = Regex(r"▁?[A-Za-z]+|\d|\n+|▁+(?![^\d\n▁])|▁?[^A-Za-z\d\n▁]+")
"""What the merges may not cross while they are learned: words, single digits, runs of punctuation."""


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn merges from `texts` and lay the vocabulary out as Gemma does."""
    merges = _learn_merges(texts, VOCABULARY_TOKENS - FIRST_FREE_ID - 256 - len(ALPHABET))
    pieces = [CONTROL_TOKENS.get(i, f"<unused{i}>") for i in range(FIRST_FREE_ID)]
    pieces += [ALPHABET[0], *(f"<0x{byte:02X}>" for byte in range(256)), *ALPHABET[1:]]
    pieces += [left + right for left, right in merges]
    missing = VOCABULARY_TOKENS - len(pieces)
    pieces += [f"<unused{FIRST_FREE_ID + i}>" for i in range(missing)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(
        [AddedToken(piece, normalized=False, special=True) for _, piece in sorted(CONTROL_TOKENS.items())]
    )
    return tokenizer


def _learn_merges(texts: Iterable[str], count: int) -> list[tuple[str, str]]:
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split(WORD, "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=len(ALPHABET) + count,
        initial_alphabet=ALPHABET,
        limit_alphabet=len(ALPHABET),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    # Two merges may build one piece; only the first gives it its id.
    unique = {left + right: (left, right) for left, right in reversed(merges)}
    return [pair for pair in merges if unique[pair[0] + pair[1]] == pair]


def tokenizer_config() -> dict[str, Any]:
    """The tokenizer_config.json that goes with it; the template itself is in chat_template.jinja."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }


def write_tokenizer(texts: Iterable[str], folder: Path) -> None:
    """Train and write tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer(texts).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(), indent=2) + "\n")
    shutil.copyfile(Path(__file__).parent / "chat_template.jinja", folder / "chat_template.jinja")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that `write_tokenizer` left in `folder`."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
