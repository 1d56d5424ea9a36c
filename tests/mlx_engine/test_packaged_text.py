"""Folders whose text files are written as people have them reply as the same weights do in the usual form."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mlx_engine.protocol import events
from mlx_engine.protocol.events import Generate, Message, SamplingOptions
from models.pocket import TARGET_FOLDER
from tests.mlx_engine.helpers import load_tensors
from tests.mlx_engine.rig import Rig, only, token_ids

pytestmark = pytest.mark.slow

QUESTION = Generate(
    1, (Message("user", "How do I turn drafting off?"),), SamplingOptions(temperature=0), 0, max_tokens=24
)
END_OF_TURN, OWN_END = 106, 2048


@pytest.fixture(scope="module")
def usual() -> list[events.Event]:
    return Rig(TARGET_FOLDER, None).ask(QUESTION)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(TARGET_FOLDER, tmp_path / "target"))
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def truncating_tokenizer(folder: Path) -> None:
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    edit(folder / "tokenizer.json", lambda values: values.update(truncation=cut))


def generation_block(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    answer = "{{- strip_thinking(message['content']) -}}"
    template = path.read_text()
    assert answer in template
    path.write_text(template.replace(answer, "{%- generation -%}" + answer + "{%- endgeneration -%}"))


def numbers_as_written(folder: Path) -> None:
    written = {"eos_token_id": [1.0, 106.0, 50.0], "top_k": -1, "temperature": "1.0", "do_sample": True}
    edit(folder / "generation_config.json", lambda values: values.update(written))


def listed_templates(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    listed = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]
    edit(folder / "tokenizer_config.json", lambda values: values.update(chat_template=listed))


@pytest.mark.parametrize("change", [truncating_tokenizer, generation_block, numbers_as_written, listed_templates])
def test_the_reply_is_the_usual_one(
    folder: Path, usual: list[events.Event], change: Callable[[Path], None]
) -> None:
    change(folder)
    emitted = Rig(folder, None).ask(QUESTION)
    assert only(events.Started, emitted) == only(events.Started, usual)
    assert token_ids(emitted) == token_ids(usual)


def grow_tables(folder: Path) -> None:
    """Move the row of the end of a turn to a new token, as a fine-tune with an end token of its own has it."""
    path = folder / "model.safetensors"
    weights = load_tensors(path)
    for name, table in list(weights.items()):
        if name.endswith("embed_tokens.weight"):
            nothing = mx.zeros((63, table.shape[1]))
            silent = mx.zeros((1, table.shape[1]))
            end = table[END_OF_TURN : END_OF_TURN + 1]
            weights[name] = mx.concatenate([table[:END_OF_TURN], silent, table[END_OF_TURN + 1 :], end, nothing])
        if name.endswith("embed_tokens_per_layer.weight"):
            end = table[END_OF_TURN : END_OF_TURN + 1]
            weights[name] = mx.concatenate([table, end, mx.zeros((63, table.shape[1]))])
    mx.eval(weights)
    path.unlink()
    mx.save_safetensors(str(path), weights)
    size = {"vocab_size": OWN_END + 64}
    edit(
        folder / "config.json",
        lambda values: (
            values.update(size),
            values["text_config"].update(size, vocab_size_per_layer_input=OWN_END + 64),
        ),
    )


def test_a_fine_tunes_own_end_token_ends_the_reply(folder: Path) -> None:
    question = Generate(1, QUESTION.messages, QUESTION.sampling, 0)
    usual = token_ids(Rig(TARGET_FOLDER, None).ask(question))
    grow_tables(folder)
    edit(
        folder / "tokenizer.json",
        lambda values: values["added_tokens"].append(
            values["added_tokens"][0] | {"id": OWN_END, "content": "<|im_end|>"}
        ),
    )
    edit(folder / "tokenizer_config.json", lambda values: values.update(eos_token="<|im_end|>"))
    edit(folder / "generation_config.json", lambda values: values.update(eos_token_id=[1, END_OF_TURN]))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<turn|>", "<|im_end|>"))
    emitted = Rig(folder, None).ask(question)
    assert usual[-1] == END_OF_TURN
    assert token_ids(emitted) == [*usual[:-1], OWN_END]
    assert only(events.Finished, emitted)[0].reason == "stop"


def test_thoughts_that_the_template_opens_are_never_shown_as_the_answer(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    opens = "{%- if add_generation_prompt -%}{{- '<|channel>thought\\n' -}}{%- endif -%}"
    path.write_text(path.read_text().rstrip("\n") + opens)
    emitted = Rig(folder, None).ask(QUESTION)
    rounds = [event for event in emitted if isinstance(event, events.Round | events.Finished)]
    assert not any(event.text for event in rounds)
    assert any(event.thinking for event in rounds)
