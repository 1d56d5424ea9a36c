"""The pieces of a stream together are the decoded whole, whatever decoder a tokenizer has."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mlx_engine.text.reply_text import LONGEST_RUN, TextStream
from tests.cases import cases

WORDS = ["Hello", "▁Hello", "▁there", "▁", "▁▁", "a", "é", "<0x41>", "\n", "▁don", "'t", ".", "▁.", "�"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def with_decoder(decoder: decoders.Decoder, pieces: list[str]) -> Tokenizer:
    vocabulary = {piece: id for id, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


def byte_level() -> Tokenizer:
    return with_decoder(decoders.ByteLevel(), [*pre_tokenizers.ByteLevel.alphabet(), "ĠHello", "Ġthere", "ðŁ"])


TOKENIZERS = {
    "gemma": with_decoder(
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]), WORDS + BYTES
    ),
    "llama": with_decoder(
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
        WORDS + BYTES,
    ),
    "byte-level": byte_level(),
    "metaspace": with_decoder(decoders.Metaspace(), WORDS),
    "word pieces": with_decoder(decoders.WordPiece(), ["he", "##llo", "there", ".", "do", "n't", "'", "##s"]),
    "suffixes": with_decoder(decoders.BPEDecoder(), ["he", "llo</w>", "there</w>", ".</w>"]),
    "none": with_decoder(decoders.Fuse(), WORDS),
}
EMOJI = list("🙂".encode())


def ids_of(tokenizer: Tokenizer, *pieces: str) -> list[int]:
    ids = [tokenizer.token_to_id(piece) for piece in pieces]
    return [id for id in ids if id is not None]


def streamed(tokenizer: Tokenizer, ids: list[int], step: int) -> list[str]:
    stream = TextStream(tokenizer, frozenset(ids_of(tokenizer, "<end>")))
    pieces = [stream.add(ids[at : at + step]) for at in range(0, len(ids), step)]
    return [*pieces, stream.finish()]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=cases(60, 2000))
@given(st.data())
def test_the_pieces_of_a_stream_are_the_decoded_whole(name: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=30))
    step = data.draw(st.integers(1, 4))
    assert "".join(streamed(tokenizer, ids, step)) == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["gemma", "llama"])
@settings(max_examples=cases(60, 2000))
@given(st.lists(st.sampled_from([*EMOJI, 0xE2, 0x41, -1]), max_size=24), st.integers(1, 5))
def test_bytes_that_are_no_text_are_what_the_whole_decodes_to(name: str, bytes_: list[int], step: int) -> None:
    tokenizer = TOKENIZERS[name]
    ids = ids_of(tokenizer, *("a" if byte < 0 else f"<0x{byte:02X}>" for byte in bytes_))
    assert "".join(streamed(tokenizer, ids, step)) == tokenizer.decode(ids)


def test_a_word_comes_as_soon_as_it_is_there() -> None:
    tokenizer = TOKENIZERS["metaspace"]
    ids = ids_of(tokenizer, "▁Hello", "▁there", "▁", "a", ".")
    assert streamed(tokenizer, ids, 1) == ["Hello", " there", " ", "a", ".", ""]


def test_tokens_without_text_are_no_neighbours() -> None:
    tokenizer = TOKENIZERS["metaspace"]
    ids = ids_of(tokenizer, "<end>", "▁Hello", "<end>", "▁there")
    assert "".join(streamed(tokenizer, ids, 1)) == "Hello there"


def test_a_run_that_never_ends_is_not_held_back_for_ever() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    pieces = streamed(tokenizer, ids_of(tokenizer, "ð") * (LONGEST_RUN + 5), 1)
    assert len("".join(pieces[:-1])) == LONGEST_RUN
