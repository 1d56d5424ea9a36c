#!/usr/bin/env bash
# transformers 5.24.0: AutoTokenizer and a model folder whose chat template is in `chat_template.json`, where processors of
# multimodal models (Gemma among them) kept it before `chat_template.jinja`.
#
# Expected: the tokenizer finds the template in any of the three places that published folders have it.
# Seen: it reads `chat_template.jinja` and the key in tokenizer_config.json, and passes over `chat_template.json` without
# a word; apply_chat_template then fails as if the model had no template. A program that reads the third place too renders
# prompts where transformers cannot.
# Fails if the tokenizer finds the template there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'transformers==5.24.0' 'tokenizers>=0.22' 'jinja2>=3.1'
cd "$folder"
HF_HUB_OFFLINE=1 venv/bin/python - <<'PYTHON' 2>&1 | grep -v "PyTorch"
import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }}{% endfor %}"


def folder(name, files):
    path = Path(name)
    path.mkdir()
    words = {word: id for id, word in enumerate(["<unk>", "<user>", "hello"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (path / "tokenizer_config.json").write_text(json.dumps(config | files.pop("tokenizer_config.json", {})))
    for file, text in files.items():
        (path / file).write_text(text)
    return path


def found(name, files):
    template = AutoTokenizer.from_pretrained(folder(name, files)).chat_template
    print(f"{name}: {'found' if template == TEMPLATE else template}")
    return template == TEMPLATE


assert found("tokenizer_config.json", {"tokenizer_config.json": {"chat_template": TEMPLATE}})
assert found("chat_template.jinja", {"chat_template.jinja": TEMPLATE})
assert not found("chat_template.json", {"chat_template.json": json.dumps({"chat_template": TEMPLATE})}), "found now"
PYTHON
