"""Old chat templates are recognised by what they render."""

from __future__ import annotations

import pytest

from mlx_engine.text.chat_template import ChatTemplate
from mlx_engine.text.template_age import old_habits
from models.pocket import TARGET_FOLDER

LOOP = "{% for m in messages %}<|turn>{{ m.role }}\n"
END = "{{ m.content }}<turn|>\n{% endfor %}"
OPENS = (
    "{% if add_generation_prompt %}<|turn>model\n"
    "{% if not enable_thinking %}<|channel>thought\n<channel|>{% endif %}{% endif %}"
)
IN_HISTORY = "{% if m.role == 'assistant' %}<|channel>thought\n<channel|>{% endif %}"
CALLS = (
    "{% for call in m.tool_calls or [] %}<|tool_call>call:{{ call.function.name }}{{ '{' }}"
    "{% for k, v in call.function.arguments | dictsort %}{{ k }}:WRITTEN{% endfor %}}<tool_call|>{% endfor %}"
)
AS_NONE = CALLS.replace("WRITTEN", "{{ v }}")
AS_NULL = CALLS.replace("WRITTEN", "{{ 'null' if v is none else v }}")


@pytest.mark.parametrize(
    ("source", "habits"),
    [
        ((TARGET_FOLDER / "chat_template.jinja").read_text(), []),
        (LOOP + AS_NULL + END + OPENS, []),
        (LOOP + IN_HISTORY + AS_NULL + END + OPENS, ["puts an empty thought into earlier replies"]),
        (LOOP + AS_NONE + END + OPENS, ["writes null as None"]),
        (
            LOOP + IN_HISTORY + AS_NONE + END,
            ["puts an empty thought into earlier replies", "writes null as None"],
        ),
        ("{{ raise_exception('no') }}", []),
    ],
)
def test_old_habits_are_seen_in_what_a_template_renders(source: str, habits: list[str]) -> None:
    assert old_habits(ChatTemplate(source).render) == habits
