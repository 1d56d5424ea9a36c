"""The pairs that servers are compared on: with an agent's long context, and with tools.

`pocket-long` has the pocket pair's weights; what it says beyond the length of their training means little.
`thin` has ten thin layers of random weights; what its assistant drafts is never right. The template writes tools,
calls and results, so that every server reads the same.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from models import pocket
from tests.bench.pairs import PairFolders
from tests.fakes.folders import write_pair

POCKET, THIN = SERVED = ("pocket-long", "thin")
CONTEXT_TOKENS = 32_768
THIN_SIZES = {
    "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 2,
    "num_hidden_layers": 10,
    "num_kv_shared_layers": 5,
    "hidden_size": 128,
    "intermediate_size": 256,
    "head_dim": 16,
    "global_head_dim": 32,
    "sliding_window": 128,
}
TEMPLATE = r"""
{%- macro quoted(text) -%}{{- '<|"|>' + text + '<|"|>' -}}{%- endmacro -%}
{%- macro text_of(content) -%}
    {%- if content is string -%}{{- content | trim -}}
    {%- else -%}{%- for part in content or [] -%}{{- part['text'] | trim -}}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- macro declared(tool) -%}
    {{- '<|tool>declaration:' + tool['name'] + '{description:' + quoted(tool['description']) -}}
    {{- ',parameters:{properties:{' -}}
    {%- for name, value in tool['parameters']['properties'] | dictsort -%}
        {{- (',' if not loop.first else '') + name + ':{description:' + quoted(value['description']) -}}
        {{- ',type:' + quoted(value['type'] | upper) + '}' -}}
    {%- endfor -%}
    {{- '},required:[' -}}
    {%- for name in tool['parameters']['required'] -%}
        {{- (',' if not loop.first else '') + quoted(name) -}}
    {%- endfor -%}
    {{- '],type:' + quoted('OBJECT') + '}}<tool|>' -}}
{%- endmacro -%}
{{- bos_token -}}
{%- set has_system = messages and messages[0]['role'] in ['system', 'developer'] -%}
{%- if has_system or tools -%}
    {{- '<|turn>system\n' -}}
    {%- if has_system -%}{{- text_of(messages[0]['content']) -}}{%- endif -%}
    {%- for tool in tools or [] -%}{{- declared(tool['function']) -}}{%- endfor -%}
    {{- '<turn|>\n' -}}
{%- endif -%}
{%- set turn = namespace(is_open=false) -%}
{%- for message in messages[(1 if has_system else 0):] -%}
    {%- if message['role'] == 'tool' -%}
        {{- '<|tool_response>response:' + (message['name'] or 'read') + '{value:' -}}
        {{- quoted(text_of(message['content'])) + '}<tool_response|>' -}}
    {%- elif message['role'] == 'assistant' -%}
        {%- if not turn.is_open -%}{{- '<|turn>model\n' -}}{%- endif -%}
        {%- set turn.is_open = (message['tool_calls'] or []) | length > 0 -%}
        {%- for call in message['tool_calls'] or [] -%}
            {{- '<|tool_call>call:' + call['function']['name'] + '{' -}}
            {%- for name, value in call['function']['arguments'] | dictsort -%}
                {{- (',' if not loop.first else '') + name + ':' + quoted(value) -}}
            {%- endfor -%}
            {{- '}<tool_call|>' -}}
        {%- endfor -%}
        {{- text_of(message['content']) -}}
        {%- if not turn.is_open -%}{{- '<turn|>\n' -}}{%- endif -%}
    {%- else -%}
        {{- '<|turn>' + message['role'] + '\n' + text_of(message['content']) + '<turn|>\n' -}}
        {%- set turn.is_open = false -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt and not turn.is_open -%}{{- '<|turn>model\n' -}}{%- endif -%}
"""


def write_served_pair(name: str, folder: Path) -> PairFolders:
    """Write one of `SERVED` below an empty folder."""
    pair = PairFolders(name, folder / name, folder / f"{name}-assistant")
    if name == THIN:
        written = write_pair(folder, CONTEXT_TOKENS, sizes=THIN_SIZES)
        for source, place in zip(written, (pair.target, pair.drafter)):
            source.rename(place)
    else:
        shutil.copytree(pocket.TARGET_FOLDER, pair.target)
        shutil.copytree(pocket.DRAFTER_FOLDER, pair.drafter)
        for part in (pair.target, pair.drafter):
            config = json.loads((part / "config.json").read_text())
            config["text_config"]["max_position_embeddings"] = CONTEXT_TOKENS
            (part / "config.json").write_text(json.dumps(config))
    (pair.target / "chat_template.jinja").write_text(TEMPLATE.strip())
    return pair
