#!/usr/bin/env bash
# tokenizers 0.23.3: the ByteFallback decoder decodes each run of byte tokens as a whole. One byte that begins a
# character without ending it turns every byte of the run into a replacement character, those of complete characters
# before it too.
#
# Expected: the complete character is decoded, and the one byte behind it is replaced.
# Seen: five replacement characters for the four bytes of one emoji and one byte more. A program that decodes a reply
# while it streams, token by token, therefore shows a character that the whole text, decoded once, does not have.
# Fails if the complete character is decoded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PYTHON'
from tokenizers import Tokenizer, decoders, models

vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)}
tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
whole = list("🙂".encode())
complete, cut = tokenizer.decode(whole), tokenizer.decode([*whole, 0xF0])
print(f"complete: {complete!r}, with one byte more: {cut!r}")
assert complete == "🙂"
assert cut == "\ufffd" * 5, "the complete character survives now"
PYTHON
