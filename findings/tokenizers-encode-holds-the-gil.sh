#!/usr/bin/env bash
# tokenizers 0.23.3: `Tokenizer.encode` keeps Python's lock until the whole text is encoded, `encode_batch` of the same
# single text does not. A program that encodes a long text in one thread has all its other threads stand still meanwhile,
# also those that only answer signs of life.
#
# Expected: both calls let other threads run, as they give the same ids.
# Seen: during `encode` another thread made no step in more than nine tenths of the time; during `encode_batch` its
# longest pause was a fraction of that.
# Fails if `encode` lets other threads run, or `encode_batch` no longer does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3
"$folder/venv/bin/python" - <<'PYTHON'
import threading
import time

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
tokenizer.train_from_iterator(
    ["the river runs past the old mill and the old bridge"] * 50, trainers.BpeTrainer(vocab_size=300, show_progress=False)
)
text = " ".join(f"the river {number} runs past the old mill" for number in range(60_000))


def longest_pause_share(call):
    """The other thread's longest pause while `call` runs, as a share of the call's time."""
    pauses, is_over = [0.0], threading.Event()

    def step():
        before = time.perf_counter()
        while not is_over.is_set():
            time.sleep(0.002)
            now = time.perf_counter()
            pauses.append(now - before)
            before = now

    thread = threading.Thread(target=step)
    thread.start()
    time.sleep(0.05)
    begun = time.perf_counter()
    result = call()
    took = time.perf_counter() - begun
    is_over.set()
    thread.join()
    return result, max(pauses) / took


one, alone = longest_pause_share(lambda: tokenizer.encode(text).ids)
many, batch = longest_pause_share(lambda: tokenizer.encode_batch([text])[0].ids)
print(f"longest pause of another thread: {alone:.2f} of encode's time, {batch:.2f} of encode_batch's")
assert one == many, "the ids differ"
assert alone > 0.8, "encode lets other threads run now"
assert batch < 0.5, "encode_batch holds the lock now"
PYTHON
