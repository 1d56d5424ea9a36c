"""Which tokens of a vocabulary are the most frequent ones, as far as the vocabulary itself tells.

Byte-pair encoding merges the most frequent pair first and numbers its tokens in that order. The single
characters, from which it started, come after all of them in Gemma's vocabulary, by their own frequency: the full
stop is number 236,761 of 262,144. Control tokens stand at both ends, and thousands of fillers at the second.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Set
from itertools import chain, islice

CHARACTER_SHARE = 16
"""One of so many tokens is a single character. More would serve scripts with many of them, fewer the alphabets,
but by little: a conversation adds its own."""
SPACES = "▁" + string.whitespace
"""The first is how SentencePiece writes a space."""
FILLER = "<unused"


def frequent_tokens(vocabulary: Mapping[str, int], certain: Set[int], count: int) -> set[int]:
    """About `count` ids: the certain ones, white space, and the most frequent ones of the vocabulary."""
    by_id = sorted(vocabulary.items(), key=lambda item: item[1])
    usable = [(piece, id) for piece, id in by_id if not piece.startswith(FILLER)]
    kept = {id for piece, id in usable if id in certain or not piece.strip(SPACES)}
    characters = islice((id for piece, id in usable if len(piece) == 1), count // CHARACTER_SHARE)
    for id in chain(characters, (id for piece, id in usable if len(piece) > 1)):
        if len(kept) >= count:
            break
        kept.add(id)
    return kept
