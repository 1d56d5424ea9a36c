"""Renders chat templates with transformers and writes `templates.json`, which the tests compare with.

usage: python -m tests.golden.make_template_goldens    (transformers 5.24.0 and jinja2 installed by hand)
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from models.pocket import TARGET_FOLDER
from tests.paths import GOLDEN

GOLDENS = GOLDEN / "templates.json"
TALK = [
    {"role": "system", "content": "Be brief.  "},
    {"role": "user", "content": "Hi 'there' <b> é\n"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "And?"},
]
LOOP = "{% for m in messages %}"
TEMPLATES = [
    LOOP + "{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}",
    LOOP + "\n  {%- if m.role == 'assistant' %}\n  {% generation %}\n    {{ m.content }}\n  {% endgeneration %}\n"
    "  {%- else %}\n{{ m.content }}\n{% endif %}\n{% endfor %}",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    LOOP + "{% generation %}{{ loop.index }}{{ loop.last }}{% endgeneration %}{% endfor %}",
    LOOP + "{% if m.role == 'assistant' %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    LOOP + "{% if m.role == 'system' %}{% continue %}{% endif %}{{ loop.index }}{{ m.content }}{% endfor %}",
    "{{ strftime_now('%Y-%m-%d') | length }}{{ strftime_now('%%') }}{{ strftime_now('') }}",
    "{{ messages | tojson }}",
    "{{ messages | tojson(indent=2) }}",
    "{{ messages | tojson(indent=0) }}",
    "{{ messages | tojson(indent='\t') }}",
    "{{ messages[1] | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
    "{{ {'a': none, 'b': [true, 1.5, {}], 'c': ''} | tojson }}",
    "{{ [1, 2] | tojson(sort_keys=true) }}{{ none | tojson }}{{ 'a\"b' | tojson }}",
    "{{ tools }}|{{ tools is none }}|{{ documents is defined }}|{{ nothing is defined }}|{{ nothing }}",
    "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}{{ mask_token }}",
    "{{ messages[1:] | map(attribute='content') | map('trim') | join(', ') }}",
    "{{ messages[::-1] | map(attribute='role') | list | tojson }}{{ 'abcd'[1:3] }}{{ 'abcd'[:-1] }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages | rejectattr('role', 'in', ['user']) | map(attribute='content') | first }}",
    "{{ 'a-b'.split('-') | join('+') }}{{ 'abab'.replace('a', 'x', 1) }}{{ ', '.join(['p', 'q']) }}",
    "{{ 'Ab'.swapcase() }}{{ 'ß'.casefold() }}{{ 'a=b'.partition('=')[2] }}{{ ' x '.strip() }}",
    "{{ 'hello world' | title }}{{ 'x' | upper }}{{ [3, 1] | sort | join }}{{ 2.567 | round(1) }}",
    "{{ 'one two' | wordcount }}{{ 'abc' | reverse }}{{ [1, 2, 1] | unique | join }}{{ [1, 5] | max }}",
    "{% for k, v in {'b': 1, 'A': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}",
    "{{ {'a': 1}.items() | list | length }}",
    "{{ 'a\nb\n\nc' | indent }}{{ 'a\nb' | indent(2, first=true) }}{{ 'a\n\nb' | indent('> ', blank=true) }}",
    "{{ [1, 2.5] | sum }}{{ messages | map(attribute='content') | map('length') | sum }}",
    "{{ [{'n': 2}, {'n': 3}] | sum(attribute='n') }}{{ [1] | sum(start=10) }}",
    "{% for role, group in messages | groupby('role') %}{{ role }}{{ group | length }}{% endfor %}",
    "{{ 'one two three four' | truncate(9) }}",
    "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f('a') ~ f(1) ~ none ~ true }}",
    "{% set ns = namespace(n=0) %}" + LOOP + "{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}{{ 'x' }}",
    "{{ raise_exception('no') }}",
    "{{ messages[9].content }}",
    "{{ messages.append(1) }}",
    "{{ nothing.at_all }}",
    "{% generation %}{{ 1 }}",
    "a\n{% if true %}\n  b\n{% endif %}\nc\n",
    "{{- bos_token }}\n  {#- note -#}\n  {{ messages[0]['content'] | trim }}\n",
]
LISTED = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "listed"}]
FOLDERS: list[dict[str, Any]] = [
    {"chat_template.jinja": "own", "tokenizer_config.json": {"chat_template": "config"}},
    {"chat_template.jinja": "own", "additional_chat_templates/tool_use.jinja": "tools"},
    {"additional_chat_templates/default.jinja": "more"},
    {"additional_chat_templates/tool_use.jinja": "tools"},
    {"tokenizer_config.json": {"chat_template": "config"}},
    {"tokenizer_config.json": {"chat_template": LISTED}},
    {"tokenizer_config.json": {"chat_template": LISTED[:1]}},
    {"tokenizer_config.json": {"chat_template": {"default": "by name", "rag": "other"}}},
    {"chat_template.jinja": "{{ eos_token }}", "tokenizer_config.json": {"eos_token": "<|im_end|>"}},
    {"chat_template.jinja": "{{ eos_token }}", "tokenizer_config.json": {
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "special": True, "lstrip": False,
                      "rstrip": False, "normalized": False, "single_word": False}}},
    {},
]  # fmt: skip


def rendered(tokenizer: Any, template: str | None) -> str | None:
    """The text; None where transformers raises."""
    try:
        return str(tokenizer.apply_chat_template(TALK, chat_template=template, tokenize=False))
    except Exception as error:
        print(f"{template!r}: {type(error).__name__}: {str(error)[:80]}")
        return None


def folder_rendered(files: dict[str, Any], tokenizers: Any) -> str | None:
    """What the default template of a folder with these files renders."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(TARGET_FOLDER / "tokenizer.json", folder)
        write_files(folder, files)
        return rendered(tokenizers.from_pretrained(folder), None)


def write_files(folder: Path, files: dict[str, Any]) -> None:
    """Write the files of a case, beside a tokenizer_config.json as the pocket pair has it."""
    config = json.loads((TARGET_FOLDER / "tokenizer_config.json").read_text())
    files = {**files, "tokenizer_config.json": config | files.get("tokenizer_config.json", {})}
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def main() -> None:
    """Write the goldens."""
    import transformers

    tokenizers = transformers.PreTrainedTokenizerFast
    tokenizer = tokenizers.from_pretrained(TARGET_FOLDER)
    goldens = {
        "made_with": f"transformers {transformers.__version__}",
        "talk": TALK,
        "templates": [{"template": template, "text": rendered(tokenizer, template)} for template in TEMPLATES],
        "folders": [{"files": files, "text": folder_rendered(files, tokenizers)} for files in FOLDERS],
    }
    GOLDENS.write_text(json.dumps(goldens, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
