"""A chat template is a program from a stranger: it ends in time, stays small, and reaches nothing."""

from __future__ import annotations

import tracemalloc
from datetime import datetime
from itertools import count

import pytest

from mlx_engine.text.chat_template import MAX_TEMPLATE_CHARACTERS, ChatTemplate
from mlx_engine.text.sandbox import Limits, Sandbox, TemplateFailedError

GROW = "{% set ns = namespace(x='xxxxxxxx') %}{% for _ in range(60) %}{% set ns.x = "
MESSAGES = [{"role": "user", "content": "Hello"}]


SMALL = Limits(text_characters=4000, sum_characters=40_000, more_per_message_characters=0)


def failure(source: str) -> str:
    # A clock that goes on by a millisecond a look: five thousand steps are too many.
    ticks = count()
    with pytest.raises(TemplateFailedError) as caught:
        ChatTemplate(source, clock=lambda: next(ticks) / 1000).render(MESSAGES)
    return str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for a in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
        "{{ [[1, 2]] * 3 }}",
        GROW + "[ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    ],
)
def test_an_endless_template_is_ended(source: str) -> None:
    assert any(words in failure(source) for words in ("5 seconds", "recursion", "small numbers"))


@pytest.mark.parametrize(
    "source",
    [
        GROW + "ns.x + ns.x %}{% endfor %}",
        GROW + "ns.x ~ ns.x %}{% endfor %}",
        GROW + "[ns.x, ns.x] | join %}{% endfor %}",
        GROW + "[ns.x, ns.x] | join(ns.x) %}{% endfor %}",
        GROW + "ns.x.replace('x', ns.x) %}{% endfor %}",
        GROW + "ns.x.replace('', ns.x) %}{% endfor %}",
        GROW + "ns.x | replace('x', ns.x) %}{% endfor %}",
        GROW + "[ns.x] + [ns.x] %}{% endfor %}{{ ns.x }}",
        GROW + "[ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        GROW + "[ns.x, ns.x] %}{% endfor %}{{ ns.x ~ '' }}",
        GROW + "[ns.x, ns.x] %}{% endfor %}{{ ns.x | string }}",
        GROW + "[ns.x, ns.x] %}{% endfor %}{{ [ns.x] | join }}",
        GROW + "[ns.x, ns.x] %}{% endfor %}{{ raise_exception(ns.x) }}",
        GROW.replace("'xxxxxxxx'", "range(9) | list") + "ns.x + ns.x %}{% endfor %}",
        "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}" + GROW + "m(ns.x) %}{% endfor %}",
        GROW.replace(
            "{% set ns.x = ", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}"
        ),
        "{% for _ in range(4000) %}" + "x" * 9000 + "{% endfor %}",
        "{{ 'x' * 10 ** 8 * 4 }}",
        "{{ 'x' * 399999999 }}",
        "{{ [1] * 99999999 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% set ns = namespace(x=9) %}{% for _ in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{{ '%399999999d' % 1 }}",
        "{{ '%399999999d' | format(1) }}",
        "{{ '{:399999999}'.format(1) }}",
        "{{ 'x'.ljust(399999999) }}",
        "{{ 'x'.center(399999999) }}",
        "{{ 'x' | center(399999999) }}",
        "{{ 'x\\nx' | indent(399999999) }}",
        "{{ '\\t'.expandtabs(399999999) }}",
        "{{ '1'.zfill(399999999) }}",
        "{{ messages | tojson(indent=9999999) ~ 1 * '2' }}",
        "{{ lipsum(999999) }}",
        "{{ range(999999999) | list }}",
    ],
)
def test_a_growing_template_is_refused_before_it_has_grown(source: str) -> None:
    tracemalloc.start()
    try:
        failure(source)
        assert tracemalloc.get_traced_memory()[1] < 256 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ ''['__class__'] }}",
        "{{ messages | map(attribute='__class__') | first }}",
        "{{ messages | attr('__class__') }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ raise_exception.__globals__ }}",
        "{{ self._TemplateReference__context.environment }}",
        "{% for m in messages %}{{ loop.__init__ }}{% endfor %}",
        "{{ namespace(a=1)._Namespace__attrs }}",
        "{{ namespace(a=1).__class__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends '/etc/passwd' %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].clear() }}",
        "{% for %}",
        "{{",
        "{{ nothing.there }}",
        "{{ 1 // 0 }}",
        "{{ 'a' < 1 }}",
        "{{ raise_exception('no') }}",
        "{% if x %}" * 120 + "{% endif %}" * 120,
        "{% for x in y %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{{ [" * 500 + "] }}" * 500,
        "x" * (MAX_TEMPLATE_CHARACTERS + 1),
    ],
    ids=lambda source: source[:60],
)
def test_a_template_that_reaches_out_or_makes_no_sense_is_refused(source: str) -> None:
    try:
        assert ChatTemplate(source).render(MESSAGES) == ""
    except TemplateFailedError as error:
        words = str(error)
        assert 0 < len(words) < 400
    assert MESSAGES == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}{{ loop.index }}{{ loop.last }}{{ m.role ~ ': ' ~ m['content'] }}{% endfor %}",
         "1Trueuser: Hello"),
        ("{{ {'b': [1, none], 'a': 'ä'} | tojson }}", '{"b": [1, null], "a": "ä"}'),
        ("{{ ['a', 'b'] | join(', ') }}{{ messages | map(attribute='role') | join('|') }}", "a, buser"),
        ("{{ messages | join('-', attribute='content') }}", "Hello"),
        ("{{ 'a-b'.split('-')[1] | upper }}{{ 'aXb' | replace('X', '-') }}{{ 2 * 3 + 1 }}{{ 7 % 4 }}", "Ba-b73"),
        ("{% macro f(n) %}{% if n %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "321"),
        ("{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}", "a2b1"),
        ("{% set ns = namespace(n=0) %}{% for m in 'abc' %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "3"),
        ("{{ nothing }}{{ none }}{{ true }}{{ messages[-1].get('x', 'y') }}{{ messages | length }}", "NoneTruey1"),
        ("{% set ns = namespace(a=1) %}{{ ns.a }}{{ ns.b }}{% set ns.b = 2 %}{{ ns.b }}", "12"),
    ],
)  # fmt: skip
def test_what_templates_are_for_works(source: str, text: str) -> None:
    assert ChatTemplate(source).render(MESSAGES) == text


def test_a_long_conversation_is_no_growth() -> None:
    messages = [{"role": "user", "content": "x" * (20 << 20)}]
    source = "{% for m in messages %}{{ '<' + m.content | trim + '>' }}{% endfor %}"
    assert len(ChatTemplate(source).render(messages)) == (20 << 20) + 2


def test_a_long_conversation_may_take_longer() -> None:
    ticks = count()
    source = "{% for m in messages %}{% for _ in range(6) %}{% endfor %}{% endfor %}done"
    assert ChatTemplate(source, clock=lambda: next(ticks) / 1000).render(MESSAGES * 1000) == "done"


def test_asking_a_namespace_is_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma's template asks one for each message of all before it."""
    asked: list[str] = []

    def record(self: Sandbox, obj: object, attr: str, value: object) -> bool:
        asked.append(attr)
        return True

    monkeypatch.setattr(Sandbox, "is_safe_attribute", record)
    source = "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}"
    assert ChatTemplate(source).render(MESSAGES * 9) == "9"
    assert asked == []


@pytest.mark.parametrize(
    "source",
    [
        "{% set ns = namespace(x=[]) %}{% for i in range(99) %}{% set ns.x = ns.x + [text ~ i] %}{% endfor %}",
        "{% for i in range(99) %}{{ text[1:] | length }}{% endfor %}",
        "{% for i in range(99) %}{{ text.upper() | length }}{% endfor %}",
        "{% for i in range(99) %}{{ text | upper | length }}{% endfor %}",
        "{% for i in range(99) %}{{ text | trim | length }}{% endfor %}",
        "{% for i in range(99) %}{{ text | list | length }}{% endfor %}",
        "{% for i in range(99) %}{{ text | sort | length }}{% endfor %}",
        "{% for i in range(99) %}{{ text | reverse | length }}{% endfor %}",
        "{% for i in range(99) %}{{ text.split('x') | length }}{% endfor %}",
        "{% for i in range(99) %}{{ text | wordcount }}{% endfor %}",
        "{% for i in range(99) %}{{ text | replace('x', 'y') | length }}{% endfor %}",
        "{% for i in range(99) %}{{ dict.fromkeys(text) | length }}{% endfor %}",
        "{% for i in range(99) %}{{ text | map('upper') | list | length }}{% endfor %}",
        "{% for i in range(99) %}{{ '-'.join(text) | length }}{% endfor %}",
        "{% for i in range(99) %}{% set y %}{{ text }}{% endset %}{% endfor %}",
        "{% macro m() %}{{ text }}{% endmacro %}{% for i in range(99) %}{{ m() | length }}{% endfor %}",
        "{% for i in range(99) %}{{ [text] | tojson | length }}{% endfor %}",
        "{% for i in range(99) %}{{ (text.split('x') + [1])[:] | length }}{% endfor %}",
    ],
)
def test_what_is_built_is_bounded_in_all(source: str) -> None:
    """No single text is too long; their sum is."""
    template = ChatTemplate(source, SMALL)
    text = "x" * 1500
    with pytest.raises(TemplateFailedError, match=r"texts of more than .* in all"):
        template.render([], text=text)
    ChatTemplate(source.replace("99", "2"), SMALL).render([], text=text)


def test_a_long_conversation_raises_the_bound_on_the_sum() -> None:
    source = "{% for m in messages %}{% set x = m.content | trim %}{% set y = x | trim %}{{ y }}{% endfor %}"
    messages = [{"role": "user", "content": "x" * 4000}] * 40
    assert len(ChatTemplate(source, SMALL).render(messages)) == 160_000


def test_many_small_things_are_bounded_by_memory() -> None:
    source = "{% set ns = namespace(x=0) %}{% for i in range(99999) %}{% set ns.x = [ns.x, i] %}{% endfor %}"
    with pytest.raises(TemplateFailedError, match="too much memory"):
        ChatTemplate(source, Limits(memory_bytes=-(1 << 40))).render(MESSAGES)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "Hello!"),
        ("a {%- generation -%} b {%- endgeneration -%} c", "abc"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% for i in range(5) %}{% if i == 3 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "0124"),
        ("{{ strftime_now('%d %b %Y') }}", "03 Feb 2026"),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}", '{"a": 2, "b": 1}'),
        ("{{ ['ä'] | tojson(ensure_ascii=true) }}", '["\\u00e4"]'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ [1] | tojson(indent=2) }}{{ [1] | tojson(indent='-') }}", "[\n  1\n][\n-1\n]"),
        ("{{ [1] | tojson(indent=0) }}", "[\n1\n]"),
        ("{{ tools is none }}{{ documents is defined }}", "TrueTrue"),
        ("{{ 'abcabc'.replace('b', 'x', 1) }}{{ 'abcabc' | replace('b', 'x', none) }}", "axcabcaxcaxc"),
        ("{{ messages[0:1] | length }}{{ 'abcd'[1:3] }}{{ 'abcd'[::-1] }}", "1bcdcba"),
        ("{{ ', '.join(['a', 'b']) }}{{ 'a=b'.partition('=')[2] }}", "a, bb"),
    ],
)
def test_it_renders_what_transformers_renders(source: str, text: str) -> None:
    """See also test_template_goldens.py."""
    assert ChatTemplate(source).render(MESSAGES, datetime(2026, 2, 3)) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ [1] | tojson(indent=65) }}",
        "{{ 'a\nb' | indent(99999999) }}",
        "{{ [[1], [2]] | sum(start=[]) }}",
        "{{ ['a'] | sum }}",
        "{{ [1] | tojson(indent='" + "-" * 65 + "') }}",
        "{{ [1] | tojson(separators=('" + "-" * 65 + "', ':')) }}",
        "{{ strftime_now('" + "x" * 1001 + "') }}",
        "{{ strftime_now(1) }}",
    ],
)
def test_options_that_make_texts_longer_are_bounded(source: str) -> None:
    with pytest.raises(TemplateFailedError):
        ChatTemplate(source).render(MESSAGES)
