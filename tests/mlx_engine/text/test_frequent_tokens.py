"""The most frequent tokens of a vocabulary laid out as Gemma's."""

from __future__ import annotations

from mlx_engine.text.frequent_tokens import CHARACTER_SHARE, frequent_tokens

CONTROLS = ["<pad>", "<eos>", "<turn|>"]
FILLERS = [f"<unused{at}>" for at in range(5)]
SPACES = ["\n", "\n\n", "▁▁", "▁▁▁"]
MERGES = [
    "▁t",
    "in",
    "▁a",
    "er",
    "▁the",
    "ing",
    "▁of",
    "▁and",
    "▁vegetation",
    "▁Piv",
    *(f"rare{at}" for at in range(60)),
]
CHARACTERS = ["▁", "e", "t", ".", ",", *map(chr, range(0x4E00, 0x4E20))]
LATER = ["\t\t", "<image|>", "<unused99>"]
PIECES = [*CONTROLS, *FILLERS, *SPACES, *MERGES, *CHARACTERS, *LATER]
VOCABULARY = {piece: id for id, piece in enumerate(PIECES)}
CERTAIN = {VOCABULARY[piece] for piece in (*CONTROLS, "<image|>", "rare50")}


def kept(count: int) -> set[str]:
    return {PIECES[id] for id in frequent_tokens(VOCABULARY, CERTAIN, count)}


def test_what_ends_a_reply_is_always_kept_and_fillers_never() -> None:
    for count in (1, 20, 48, 90, 1000):
        assert {*CONTROLS, *SPACES, "\t\t", "▁", "<image|>", "rare50"} <= kept(count)
        assert not any(piece.startswith("<unused") for piece in kept(count))
    assert kept(1000) == {piece for piece in PIECES if not piece.startswith("<unused")}


def test_characters_and_merges_are_kept_in_their_order() -> None:
    few = kept(48)
    assert len(few) == 48
    assert few & {*CHARACTERS} == {*CHARACTERS[: 48 // CHARACTER_SHARE - 1]}, "and the line feed"
    merges = [piece for piece in MERGES if piece in few and piece != "rare50"]
    assert merges == MERGES[: len(merges)]
    assert "▁vegetation" in few
    assert "rare49" not in few


def test_a_vocabulary_whose_characters_come_first() -> None:
    """As in byte-level vocabularies."""
    pieces = [*"abcdefgh", "ab", "abc", "<eos>"]
    ids = frequent_tokens({piece: id for id, piece in enumerate(pieces)}, {10}, 4)
    assert {pieces[id] for id in ids} == {"ab", "abc", "<eos>"}, "no room for a single character at this size"
    assert len(frequent_tokens({piece: id for id, piece in enumerate(pieces)}, {10}, 32)) == 5
