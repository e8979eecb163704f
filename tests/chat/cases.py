"""What the chat template engine is compared with Jinja2 on: templates as published models use them, times
conversations; small templates, one for each piece of the language; and expressions made at random.
"""
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a place.",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "Name of\nthe city"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
        "days": {"type": "array", "items": {"type": "integer"}},
        "options": {"type": "object", "properties": {"deep": {"type": ["integer", "null"]}}},
        "anything": {}}}}}
ADD = {"type": "function", "function": {"name": "add", "description": "", "parameters": {
    "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}}}
CALL = {"id": "abcdef123", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2.5], "x": None, "y": True}}}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


CONVERSATIONS = {
    "one": [turn("user", "Hello, who are you?")],
    "system": [turn("system", "  Be brief.\n"), turn("user", "Hi\n\nthere  ")],
    "long": [turn("user", "a"), turn("assistant", " b "), turn("user", "c\r\nd"), turn("assistant", "é 日本 \U0001f600")],
    "system_long": [turn("system", "S"), turn("user", "1"), turn("assistant", "2"), turn("user", "3")],
    "two_users": [turn("user", "1"), turn("user", "2")],
    "quotes": [turn("user", "it's \"quoted\" <b>&amp;</b> \\ {{ not }} {% code %} \t\x07")],
    "thinking": [turn("user", "q"), turn("assistant", "<think>\nhm\n</think>\n\nanswer"), turn("user", "q2"),
                 turn("assistant", "<think>\nwell\n</think>\n\nmore")],
    "tool": [turn("user", "Weather?"), turn("assistant", "", tool_calls=[CALL]),
             turn("tool", "{\"temperature\": 21}"), turn("tool", "rain"), turn("assistant", "Rain, 21 degrees.")],
    "two_calls": [turn("user", "Both"), turn("assistant", "", tool_calls=[CALL, CALL]), turn("tool", "1")],
    "odd_role": [turn("user", "x"), turn("narrator", "Meanwhile")],
    "empty": [turn("user", "")],
}

BASE = {"bos_token": "<s>", "eos_token": "</s>"}


def model_cases():
    for path in sorted((HERE / "templates").glob("*.jinja")):
        for name, messages in CONVERSATIONS.items():
            for tools in (None, [WEATHER, ADD]):
                for prompt in (True, False):
                    variables = {**BASE, "messages": messages, "tools": tools, "documents": None,
                                 "add_generation_prompt": prompt}
                    if name == "system":
                        variables.update(enable_thinking=False, thinking=True, documents=[
                            {"title": "a tale", "text": "once", "n": 1}])
                    yield f"{path.stem}/{name}/{'tools' if tools else 'plain'}/{prompt}", path.read_text(), variables


# Each line is a template over VARIABLES below.
LANGUAGE = r'''
{{ 1 + 2 * 3 - 4 / 2 }}|{{ 7 // 2 }}|{{ -7 // 2 }}|{{ -7 % 3 }}|{{ 7 % -3 }}|{{ 2 ** 10 }}|{{ 2 ** -1 }}|{{ 7.5 // 2 }}|{{ -7.5 % 2 }}
{{ 1_000 }}|{{ 1.5e3 }}|{{ 1e16 }}|{{ 1e15 }}|{{ 0.0001 }}|{{ 0.00001 }}|{{ 1/3 }}|{{ 1.0 }}|{{ 100.0 * 3 }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.5 ~ [1, 'x'] ~ missing }}|{{ 'ab' * 3 }}|{{ 3 * 'ab' }}|{{ [1] * 2 + [3] }}|{{ (1, 2) + (3,) }}
{{ [1, 'a', "it's", 'say "x"', 'both \' and "', none, true, 1.5, {'k': [1]}, (), (1,), (1, 2)] }}
{{ 'tab\t new\n nul\x00 del\x7f e\u00e9 \U0001f600 \u200b back\\slash \q' }}|{{ ['tab\t new\n nul\x00 del\x7f e\u00e9 \U0001f600 \u200b back\\slash'] }}
{{ 'one' 'two' "three" }}|{{ {'a': 1, 'b': {'c': 2}}.b.c }}|{{ {'a': 1}['a'] }}|{{ [10, 20, 30][1] }}|{{ [10, 20, 30][-1] }}|{{ [1][5] }}
{{ true and false }}|{{ 1 and 2 }}|{{ 0 or 'x' }}|{{ not 0 }}|{{ not not 'a' }}|{{ none or missing or 3 }}|{{ '' and boom() }}|{{ boom is defined }}
{{ 1 < 2 < 3 }}|{{ 1 < 3 < 2 }}|{{ 1 == 1.0 }}|{{ true == 1 }}|{{ 'a' < 'b' }}|{{ [1, 2] < [1, 3] }}|{{ 'a' == 1 }}|{{ none == none }}|{{ none != false }}
{{ 'a' in 'cat' }}|{{ 'x' not in 'cat' }}|{{ 1 in [1, 2] }}|{{ 'a' in {'a': 1} }}|{{ 'a' in missing }}|{{ 2 in (1, 2) }}|{{ 'role' in messages[0] }}
{{ 'yes' if 1 else 'no' }}|{{ 'yes' if 0 }}|{{ 'a' if 0 else 'b' if 0 else 'c' }}|{{ ('a' if 1) ~ 'x' }}
{{ 'hello'[1:3] }}|{{ 'hello'[::-1] }}|{{ 'hello'[-3:] }}|{{ 'hello'[:-1] }}|{{ 'hello'[::2] }}|{{ [1,2,3,4][1:] }}|{{ [1,2,3,4][::-2] }}|{{ (1,2,3)[:2] }}|{{ 'é日本'[1:] }}|{{ 'é日本'[0] }}|{{ 'abc'[10:] }}|{{ 'abc'[3:1:-1] }}
{{ [1,2,3][none:2] }}|{{ 'abc'[-10:10] }}|{{ [][1:] }}|{{ range(10)[2:4]|list }}|{{ missing[1:]|default('u') if false else 'ok' }}
{% for i in range(3) %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }};{% endfor %}
{% for i in [1, 2, 3, 4] if i is even %}{{ i }}/{{ loop.length }} {% else %}none{% endfor %}|{% for i in [] %}x{% else %}empty{% endfor %}|{% for i in missing %}x{% else %}empty{% endfor %}
{% for a, b in [(1, 2), [3, 4]] %}{{ a }}-{{ b }} {% endfor %}|{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}={{ v }}{{ ',' if not loop.last }}{% endfor %}|{% for k in {'x': 1} %}{{ k }}{% endfor %}
{% for i in 'añ' %}[{{ i }}]{% endfor %}|{% for i in [1,2,3] %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}|{% for i in range(4) %}{{ loop.cycle('a', 'b') }}{% endfor %}
{% for i in [1,1,2,2,1] %}{{ 'c' if loop.changed(i) else '-' }}{% endfor %}|{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in [1,2] %}{% for j in [1,2] %}{{ i }}{{ j }}{{ loop.last }} {% endfor %}{{ loop.last }};{% endfor %}
{% set x = 1 %}{% for i in [1,2] %}{{ x }}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}
{% set ns = namespace(n=0, s='') %}{% for i in [1,2,3] %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}{{ ns.nope is defined }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, d) = [3, 4] %}{{ c }}{{ d }}|{% set t = 1, 2 %}{{ t }}|{% set x %}block {{ a }}{% endset %}{{ x }}|{% set y | upper | trim %} up {% endset %}[{{ y }}]
{% if 0 %}a{% elif 1 %}b{% else %}c{% endif %}|{% if missing %}a{% else %}b{% endif %}|{% if [] or {} or '' or 0.0 %}a{% else %}b{% endif %}|{% if 'a', %}t{% endif %}
{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c=5) }}{{ m(b=7, a=8) }}{{ m() }}|{{ m(1) | upper ~ 'x' }}
{% macro fact(n) %}{% if n <= 1 %}1{% else %}{{ n * (fact(n - 1) | int) }}{% endif %}{% endmacro %}{{ fact(10) }}
{% set z = 1 %}{% macro late() %}{{ z }}{{ w }}{% endmacro %}{% set z = 2 %}{% set w = 3 %}{{ late() }}
{% macro outer(x) %}{% macro inner(y) %}{{ x }}{{ y }}{% endmacro %}{{ inner(1) }}{% set x = 9 %}{{ inner(2) }}{% endmacro %}{{ outer('o') }}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}|{% filter upper | replace('B', 'x') %}abc{% endfilter %}|{% generation %}g{% set q = 1 %}{% endgeneration %}{{ q is defined }}
{# comment {{ x }} #}a{#- c -#}  b{# multi
line #}c|{% raw %}{{ raw }} {% if %}{% endraw %}|{%- raw -%}  x  {%- endraw -%}  y
{{ '{{' }} {{ '}}' }} {{ {'a': {}} }} {{ "%}" }} { { % } #}
{{ ' a b '|trim }}|{{ 'xxaxx'|trim('x') }}|{{ 'aBc'|upper }}|{{ 'aBc'|lower }}|{{ 'aBC dEF'|capitalize }}|{{ "foo bar-baz (qux [a] it's"|title }}|{{ 'straße ÉÀ'|upper }}|{{ 'ÉÀ'|lower }}
{{ 'a,b,c'|replace(',', ';') }}|{{ 'aaa'|replace('a', 'b', 2) }}|{{ 'abc'|replace('', '-') }}|{{ 'aaa'|replace('aa', 'b') }}|{{ 'héé'|replace('é', 'e') }}
{{ missing|default('d') }}|{{ ''|default('d') }}|{{ ''|default('d', true) }}|{{ none|default('d') }}|{{ none|d('d', boolean=true) }}|{{ missing|default }}|{{ missing.x|default('n') if false else 1 }}
{{ [1,2,3]|length }}|{{ 'é日'|length }}|{{ {'a': 1}|count }}|{{ missing|length }}|{{ range(5)|length }}
{{ [3,1,2]|first }}|{{ [3,1,2]|last }}|{{ 'abc'|first }}|{{ 'abc'|last }}|{{ []|first }}|{{ []|last }}|{{ {'a': 1}|first }}|{{ missing|first }}
{{ [1,2]|join }}|{{ [1,2]|join(', ') }}|{{ messages|join(';', attribute='role') }}|{{ 'abc'|join('-') }}|{{ {'a': 1, 'b': 2}|join('+') }}|{{ [none, true]|join(' ') }}
{{ 'abc'|list }}|{{ (1,2)|list }}|{{ {'a': 1}|list }}|{{ range(3)|list }}|{{ missing|list }}|{{ range(2, 10, 3)|list }}|{{ range(3, 0, -1)|list }}|{{ range(3) }}|{{ range(1, 7, 2) }}
{{ 1|string ~ 'x' }}|{{ [1]|string }}|{{ none|string }}|{{ '42'|int }}|{{ ' 42 '|int }}|{{ '4.7'|int }}|{{ 'x'|int }}|{{ 'x'|int(5) }}|{{ 4.7|int }}|{{ true|int }}|{{ 'ff'|int(0, 16) }}|{{ none|int(1) }}|{{ '-3'|int }}
{{ '1.5'|float }}|{{ 'x'|float }}|{{ 'x'|float(2.5) }}|{{ 3|float }}|{{ '1e3'|float }}|{{ -3|abs }}|{{ (-3)|abs }}|{{ (-2.5)|abs }}
{{ 2.5|round }}|{{ 3.5|round }}|{{ 42.55|round(1) }}|{{ 42.55|round(1, 'floor') }}|{{ 42.51|round(0, 'ceil') }}|{{ 42|round }}|{{ 2.675|round(2) }}
{{ messages|map(attribute='role')|list }}|{{ ['a', 'b']|map('upper')|join }}|{{ ['a-b']|map('replace', '-', '+')|list }}|{{ [{'a': {'b': 1}}, {'a': {}}]|map(attribute='a.b', default='n')|list }}|{{ [[1,2],[3,4]]|map(attribute=1)|list }}|{{ [[1,2]]|map('first')|first }}
{{ messages|selectattr('role', 'equalto', 'user')|list|length }}|{{ messages|rejectattr('role', 'in', ['user'])|map(attribute='role')|list }}|{{ [0,1,2]|select|list }}|{{ [0,1,2]|reject('odd')|list }}|{{ [{'a': 1}, {}]|selectattr('a', 'defined')|list }}|{{ [{'a': 0}, {'a': 1}]|selectattr('a')|list }}|{{ [1,5,9]|select('gt', 4)|list }}
{{ [3,1,2]|sort }}|{{ ['b','A','c']|sort }}|{{ ['b','A','c']|sort(case_sensitive=true) }}|{{ [3,1,2]|sort(reverse=true) }}|{{ [{'n': 2, 'm': 'b'}, {'n': 1, 'm': 'c'}, {'n': 2, 'm': 'a'}]|sort(attribute='n,m')|map(attribute='m')|join }}|{{ [1, 2]|reverse|list }}|{{ 'abc'|reverse }}
{{ {'b': 1, 'a': 2, 'C': 0}|dictsort }}|{{ {'b': 1, 'a': 2}|dictsort(by='value') }}|{{ {'b': 1, 'a': 2}|dictsort(reverse=true) }}|{{ [1,2,1,'a','A']|unique|list }}|{{ [1,2,3]|sum }}|{{ [{'a': 1}, {'a': 2}]|sum(attribute='a') }}|{{ [3,1]|min }}|{{ [3,1]|max }}|{{ ['b','A']|min }}|{{ []|max }}
{{ {'a': 1, 'b': [1, 2.5, none, true, "q\"é<>&'\n\x07"]}|tojson }}|{{ {'b': 1, 'a': 2}|tojson(sort_keys=true) }}|{{ 'é😀'|tojson(ensure_ascii=true) }}|{{ []|tojson }}{{ {}|tojson }}{{ (1, 2)|tojson }}
{{ {'a': [1, {'b': 2}], 'c': [], 'd': {}}|tojson(indent=2) }}|{{ [1, 2]|tojson(separators=(',', ':')) }}|{{ {'a': 1}|tojson(indent='\t') }}|{{ {1: 'x', none: 'y', true: 'z', 1.5: 'w'}|tojson }}
{{ {'a': 1, 'b': 2}|items|list }}|{{ missing|items|list }}|{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb\n'|indent('> ', blank=true) }}|{{ 'a'|center(5) }}|{{ 'ab'|center(5) }}
{{ '%s is %d and %.2f%%'|format('x', 3, 1.234) }}|{{ '%(a)s'|format(a=1) }}|{{ '%5s|%-5s|%05d' % ('a', 'b', 42) }}|{{ '%s' % 'x' }}|{{ '%r' % 'x' }}|{{ '%s' % [1] }}
{{ '{} {}'.format(1, 'a') }}|{{ '{0}{1}{0}'.format('a', 'b') }}|{{ '{x}{{}}'.format(x=3) }}|{{ '{!r}'.format('q') }}
{{ ' a '.strip() }}|{{ 'xaxx'.strip('x') }}|{{ 'xax'.lstrip('x') }}|{{ 'xax'.rstrip('x') }}|{{ 'a b  c'.split() }}|{{ 'a,b,c'.split(',') }}|{{ 'a,b,c'.split(',', 1) }}|{{ 'a,b,c'.rsplit(',', 1) }}|{{ ' a  b '.split(none, 1) }}|{{ ''.split(',') }}|{{ ''.split() }}|{{ 'a b c'.rsplit(maxsplit=1) }}
{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith(('x', 'c')) }}|{{ 'abc'.startswith('b', 1) }}|{{ 'Hello World'.upper() }}|{{ 'Hello'.lower() }}|{{ "they're bill's".title() }}|{{ 'hELLO wORLD'.capitalize() }}|{{ 'aB'.swapcase() }}
{{ 'banana'.find('an') }}|{{ 'banana'.rfind('an') }}|{{ 'banana'.find('x') }}|{{ 'banana'.count('an') }}|{{ 'banana'.count('') }}|{{ 'banana'.index('n') }}|{{ 'é日a'.find('a') }}|{{ 'banana'.find('an', 2) }}|{{ 'banana'.replace('a', 'o', 2) }}
{{ '-'.join(['a', 'b']) }}|{{ 'a\nb\r\nc\n'.splitlines() }}|{{ 'a\nb'.splitlines(true) }}|{{ 'a=b=c'.partition('=') }}|{{ 'a=b=c'.rpartition('=') }}|{{ 'abc'.partition('x') }}|{{ 'abc'.removeprefix('a').removesuffix('c') }}
{{ '12'.isdigit() }}|{{ 'a1'.isalnum() }}|{{ 'ab'.isalpha() }}|{{ ' \t'.isspace() }}|{{ 'ab'.islower() }}|{{ 'AB1'.isupper() }}|{{ ''.isdigit() }}|{{ 'Ab Cd'.istitle() }}|{{ '7'.zfill(3) }}|{{ '-7'.zfill(4) }}|{{ 'a'.ljust(3, '.') }}|{{ 'a'.rjust(3) }}|{{ 'ab'.center(5, '*') }}|{{ 'a'.center(4, '*') }}
{{ {'a': 1}.get('a') }}|{{ {'a': 1}.get('b') }}|{{ {'a': 1}.get('b', 2) }}|{{ {'a': 1, 'b': 2}.keys()|list }}|{{ {'a': 1}.values()|list }}|{{ {'a': 1}.items() }}|{{ {'a': 1}.keys() }}|{{ {'items': 5}['items'] }}|{{ {'x': 1}.copy() }}|{{ [1,2,1].count(1) }}|{{ [1,2].index(2) }}
{{ dict(a=1, b=2) }}|{{ dict([('x', 1)]) }}|{{ dict({'a': 1}, b=3) }}|{{ {'a': 1, 'a': 2} }}|{{ {1: 'a', 1.0: 'b'} }}|{{ {(1): 'p'} }}
{{ 1 is defined }}|{{ missing is defined }}|{{ missing is undefined }}|{{ none is none }}|{{ 0 is none }}|{{ 'a' is string }}|{{ 1 is string }}|{{ {} is mapping }}|{{ [] is mapping }}|{{ [] is iterable }}|{{ 1 is iterable }}|{{ 'a' is sequence }}|{{ 1 is not string }}|{{ not 1 is string }}
{{ 1 is number }}|{{ true is number }}|{{ true is boolean }}|{{ 1 is boolean }}|{{ 1 is integer }}|{{ true is integer }}|{{ 1.0 is float }}|{{ true is true }}|{{ 1 is true }}|{{ false is false }}|{{ 3 is odd }}|{{ 4 is even }}|{{ 9 is divisibleby 3 }}|{{ 9 is divisibleby(2) }}
{{ 1 is eq 1 }}|{{ 1 is eq(2) }}|{{ 1 is in [1] }}|{{ 'a' is in 'abc' }}|{{ 1 is ne 2 }}|{{ 1 is lt 2 }}|{{ 2 is ge 2 }}|{{ none is sameas none }}|{{ 1 is sameas true }}|{{ 'a' is lower }}|{{ 'A' is upper }}|{{ range is callable }}|{{ 'upper' is filter }}|{{ 'odd' is test }}
{{ strftime_now('%Y-%m-%d') }}|{{ strftime_now("%d %b %Y %H:%M") }}|{{ strftime_now('') }}|{{ strftime_now('%% é') }}
{{ messages[0].role }}{{ messages[0]['content'] }}{{ messages[0].nope is defined }}{{ messages[-1].role }}{{ messages.0.role }}{{ messages[9] is defined }}{{ (messages|first).role }}
{{ x_int + 1 }}|{{ x_float }}|{{ x_true }}|{{ x_null }}|{{ x_list }}|{{ x_dict }}|{{ x_dict.a.b }}|{{ x_text|safe }}|{{ {'a': 1}|tojson|safe }}|{{ x_big }}
{{- 'x' -}}   y   {{- 'z' }}  |  {%- if 1 %}  in  {%- endif %}  out
a
  {% if 1 %}
  b
  {% endif %}
c  {{ 1 }}
  {{ 2 }}
d
  {%+ if 1 %}x{% endif +%}
y
  {%- set q = 1 -%}
  z
{% if 1 -%}
   trimmed
{%- endif %}   
 end
x{% set y = 1 %}

two lines
	{# tab comment #}
after
{{ missing.attr }}
{{ missing() }}
{{ missing + 1 }}
{{ 1 + 'a' }}
{{ 'a' + 1 }}
{{ 1 / 0 }}
{{ 1 < 'a' }}
{{ none + 1 }}
{{ 'a' in 5 }}
{{ 5 in 'a' }}
{{ 5|length }}
{{ none|length }}
{{ 5|list }}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for a, b in [(1,2,3)] %}{% endfor %}
{{ missing|int }}
{{ missing|tojson }}
{{ none.x.y }}
{{ none.x is defined }}
{{ 'abc'.nope() }}
{{ messages.nope() }}
{{ 'a'.join([1]) }}
{{ 'abc'.index('z') }}
{{ raise_exception('stop here: ' ~ 1) }}
{{ 'x'.split('') }}
{{ [1, 'a']|sort }}
{{ {}['k'] }}|{{ {}.k }}
{{ 5 is odd and 'x' }}|{{ 'x' is odd }}
{% set a, b = 1, 2, 3 %}
{% set ns = 1 %}{% set ns.x = 2 %}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=2) }}
{{ range(1000000)|length }}
{{ [1,2]|map('upper', 3)|list }}
{{ '%d' % 'x' }}
{{ '%s %s' % ('x',) }}
{{ [].x }}|{{ 1 .x }}
{{ '%és %s' % ('x',) }}
{{ [1,2]|map('odd') }}
{{ {'a': 1}|tojson(indent=0) }}|{{ [x_dict, x_list]|tojson(indent=1, sort_keys=true) }}
{{ missing is string }}|{{ missing is none }}|{{ missing == none }}|{{ missing == missing2 }}|{{ missing != 1 }}|{{ missing ~ 'x' }}|{{ missing|upper }}|{{ missing|trim }}|{{ missing|join }}|{{ missing|string }}|{{ not missing }}|{{ missing is iterable }}
{{ 'a' is string and 'b' is string }}|{{ 'a' if x is defined else 'b' }}|{{ (1, 2)|first }}|{{ [[1, 2], [3]]|sum(start=[]) }}|{{ [1.5, 2]|sum }}
{{ ns is defined }}{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{% set ns.c = [1] %}{{ ns.c }}{{ ns['a'] }}
{% set x = 'a' %}{% if true %}{% set x = 'b' %}{% endif %}{{ x }}{% for i in [1] %}{% if true %}{% set x = 'c' %}{% endif %}{{ x }}{% endfor %}{{ x }}
{% for m in messages %}{% if loop.first %}{% set first = m.role %}{% endif %}{{ first is defined }} {% endfor %}
{% for i in [1, 2] -%} {{ i }} {%- endfor %}|{% for i in [1, 2] %} {{ i -}} {% endfor %}|
{{ [1,2,3]|map('string')|map('upper')|select('in', ['1','3'])|join(',') }}|{{ messages|map(attribute='content')|map('length')|sum }}|{{ messages | map(attribute='role') | unique | list | tojson }}
{{ ('a', 'b')|tojson }}{{ 'x' ~ ('y' if messages|length > 1 else 'z') ~ 'w' }}{{ (messages|length - 1) % 2 == 0 }}{{ messages[messages|length - 1].role }}
{{ 'a' 'b' ~ 'c' 'd' }}{{ -1 }}{{ - 1 + 3 }}{{ +5 }}{{ 2 - -2 }}{{ -2 ** 2 }}{{ 3 * -2 }}{{ not 1 == 2 }}{{ 'a' ~ 1 + 2 ~ 'b' }}{{ 10 - 2 - 3 }}{{ 2 ** 3 ** 2 }}{{ 100 // 7 // 2 }}
'''

VARIABLES = {**BASE, "messages": CONVERSATIONS["system_long"], "x_int": 41, "x_float": 2.5, "x_true": True,
             "x_null": None, "x_list": [1, "a", None, {"k": 1.0}], "x_dict": {"z": 1, "a": {"b": "c"}},
             "x_text": "<b>&</b>", "x_big": 1234567890123456789, "add_generation_prompt": True}

# Templates of several lines within LANGUAGE: (first line, how many).
MULTI_LINE = {"{# comment {{ x }} #}a{#- c -#}  b{# multi": 2, "a": 10, "{% if 1 -%}": 4, "x{% set y = 1 %}": 5}


def language_cases():
    lines = LANGUAGE.strip("\n").split("\n")
    i = 0
    while i < len(lines):
        count = MULTI_LINE.get(lines[i], 1)
        yield f"language/{i + 1}", "\n".join(lines[i:i + count]), VARIABLES
        # With line ends after every tag as well: trim_blocks and lstrip_blocks.
        if count == 1:
            yield f"language/{i + 1}/spread", lines[i].replace("%}", "%}\n").replace("{%", "  {%"), VARIABLES
        i += count


class Expressions:
    """Random expressions of values, operators, filters, tests and methods."""

    ATOMS = ["1", "0", "-3", "2.5", "'a'", "''", "'a b,c'", "'Éa'", "' x\\n'", "true", "false", "none", "missing",
             "[]", "[1, 2, 3]", "['b', 'a']", "{}", "{'a': 1, 'b': [2]}", "(1, 'x')", "messages", "messages[0]",
             "x_list", "x_dict", "x_text"]
    FILTERS = ["trim", "upper", "lower", "length", "first", "last", "list", "string", "join", "join('-')", "tojson",
               "default('d')", "default('d', true)", "int", "float", "abs", "capitalize", "title", "reverse",
               "sort", "unique", "replace('a', 'bb')", "map('string')", "map('upper')", "map(attribute='role')",
               "select", "reject", "select('string')", "selectattr('a', 'defined')", "items", "dictsort", "sum", "min",
               "max", "round", "indent(2)", "map('first')", "reject('none')", "tojson(indent=1)"]
    TESTS = ["defined", "undefined", "none", "string", "number", "mapping", "iterable", "sequence", "true", "false",
             "boolean", "integer", "float", "in [1, 'a']", "eq(1)", "odd", "lower", "upper", "not string", "not none"]
    METHODS = [".strip()", ".upper()", ".split()", ".split(',')", ".title()", ".get('a')", ".items()", ".keys()",
               ".startswith('a')", ".replace('a', '')", ".find('b')", "[0]", "[-1]", "['a']", "[1:]", "[::-1]", ".a",
               ".role", ".splitlines()", ".count('a')", ".capitalize()", ".values()", ".lstrip()", ".rsplit(' ', 1)"]
    OPERATORS = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", ">=", "and", "or", "in", "not in"]

    def __init__(self, seed):
        self.random = random.Random(seed)

    def make(self, depth):
        r = self.random
        kind = r.randrange(9) if depth > 0 else 0
        if kind <= 1:
            return r.choice(self.ATOMS)
        if kind <= 3:
            return f"({self.make(depth - 1)})|{r.choice(self.FILTERS)}"
        if kind == 4:
            return f"({self.make(depth - 1)}) is {r.choice(self.TESTS)}"
        if kind == 5:
            return f"({self.make(depth - 1)}){r.choice(self.METHODS)}"
        if kind == 6:
            return f"({self.make(depth - 1)} if {self.make(depth - 1)} else {self.make(depth - 1)})"
        return f"({self.make(depth - 1)}) {r.choice(self.OPERATORS)} ({self.make(depth - 1)})"


def random_cases(count, seed=1):
    expressions = Expressions(seed)
    for i in range(count):
        yield f"random/{i}", "{{ " + expressions.make(4) + " }}", VARIABLES
