//! Statements with what jinja2 3.1 gives for them in the environment of `transformers` 5.23, under Python 3.11.

use super::expressions::with_variables;

/// Whitespace control, comments and raw blocks.
const WHITESPACE: [(&str, &str); 18] = [
    (
        "a\n  {% if true %}\nb\n  {% endif %}\n\n c {{- ' d ' -}}  e\n{#- x -#}\nf\n",
        "a\nb\n\n c d ef",
    ),
    ("a\n", "a"),
    ("a\n\n", "a\n"),
    ("{% if true %}\n\nx{% endif %}\n", "\nx"),
    ("  {{ 1 }}\n", "  1"),
    ("  {% if 1 %}  x  {% endif %}  \n y", "  x    \n y"),
    ("x  {%+ if 1 %}\n  y  {%+ endif +%}\nz", "x    y  \nz"),
    ("  {# c #}\nx", "x"),
    ("x {#- c -#} y", "xy"),
    ("a\r\nb\rc\n{{ 1 }}\r\n{{ 2 }}", "a\nb\nc\n1\n2"),
    ("{% raw %}{{ x }} {% if %}{% endraw %}y", "{{ x }} {% if %}y"),
    ("a  {%- raw -%}  {{ x }}  {%- endraw -%}  b", "a{{ x }}b"),
    ("{% raw %}\n x {% endraw %}\n y", "\n x  y"),
    ("  {% raw %}z{% endraw %}\n", "z"),
    ("{%raw%}{%endraw%}q", "q"),
    ("{# {{ x }} #}a", "a"),
    ("{% filter indent(2) %}a\nb{% endfilter %}", "a\n  b"),
    ("{{ 1 }}{# c #}\n{# d #}\n{{ 2 }}", "12"),
];

/// Loops, conditions, variables, macros and blocks.
const STATEMENTS: [(&str, &str); 137] = [
    ("x  {%- if 1 -%}  y  {%- endif -%}  z", "xyz"),
    ("{{ '{{' }}{{ '}}' }}{{ '%}' }}", "{{}}%}"),
    ("{{ {'a': {'b': 1}}.a.b }}", "1"),
    ("{{ {'a': {'b': 1}} }}", "{'a': {'b': 1}}"),
    ("{{ \"}}\" }}", "}}"),
    ("{%if 1%}a{%endif%}", "a"),
    ("{% if 1 %}a{% else %}b{% endif %}", "a"),
    ("{% if 0 %}a{% elif 1 %}c{% else %}b{% endif %}", "c"),
    ("{{ [1,2,] }}{{ (1,2,) }}{{ {'a':1,} }}{{ dict(a=1,) }}", "[1, 2](1, 2){'a': 1}{'a': 1}"),
    ("{{ 1, 2 }}", "(1, 2)"),
    ("{{ 1, }}", "(1,)"),
    ("{% set a, b = 1, 'x' %}{{ a }}{{ b }}", "1x"),
    ("{% set (a, b) = [1, 2] %}{{ a }}", "1"),
    ("{% set a, (b, c) = 1, (2, 3) %}{{ c }}", "3"),
    ("{% set a, b = 'xy' %}{{ b }}{{ a }}", "yx"),
    ("{% set a = 1, 2 %}{{ a }}", "(1, 2)"),
    (
        "{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{% set ns.b = [ns.a] %}{{ ns }}{{ ns.a }}{{ ns.b }}",
        "<Namespace {'a': 2, 'b': [2]}>2[2]",
    ),
    ("{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}", "12"),
    ("{% set x %} a {{ 1 }}{% endset %}[{{ x }}]", "[ a 1]"),
    ("{% set x | upper | replace('A','b') %}a{% endset %}{{ x }}", "b"),
    ("{% set x %}{% set y = 2 %}{% endset %}{{ y is defined }}", "False"),
    ("{% for i in [1,2,3] %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}", "1, 2, 3"),
    ("{% for i in [] %}x{% else %}e{% endfor %}", "e"),
    (
        "{% for i in [1,2,3,4] if i is even %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %}",
        "1/2:2 2/2:4 ",
    ),
    ("{% for i in [1,3] if i is even %}x{% else %}none{% endfor %}", "none"),
    ("{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "b=1;a=[2, {'x': None}];"),
    ("{% for k in d %}{{ k }}{% endfor %}", "ba"),
    ("{% for a, (b, c) in [(1,(2,3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "123"),
    (
        "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.previtem }}{{ loop.nextitem }}|{% endfor %}",
        "1032TrueFalse3101|2121FalseFalse31032|3210FalseTrue3101|",
    ),
    (
        "{% for i in l %}{{ loop.cycle('a','b') }}{{ loop.changed(i > 1) }}{{ loop.foo is defined }}{% endfor %}",
        "aTrueFalsebTrueFalseaTrueFalse",
    ),
    (
        "{% for i in l %}{{ loop }}{% endfor %}",
        "<LoopContext 1/3><LoopContext 2/3><LoopContext 3/3>",
    ),
    (
        "{% for i in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}",
        "FalseTrueTrueTrueTrueFalse",
    ),
    (
        "{% for i in l %}{% for j in 'ab' %}{{ loop.index }}{{ i }}{{ j }} {% endfor %}{{ loop.index }};{% endfor %}",
        "13a 23b 1;11a 21b 2;12a 22b 3;",
    ),
    (
        "{% for i in l %}{% set outer = loop %}{% for j in 'ab' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
        "11 12 21 22 31 32 ",
    ),
    (
        "{% for i in [1,[2,[3]]] recursive %}{% if i is number %}{{ i }}{{ loop.depth }}{% else %}({{ loop(i) }}){% endif %}{% endfor %}",
        "11(22(33))",
    ),
    ("{% for i in [1,2,3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}", "13"),
    ("{% for i in [1,2,3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
    ("{% for i in undef %}x{% else %}y{% endfor %}", "y"),
    ("{% for i in 'ab' %}{{ i }}{% endfor %}", "ab"),
    ("{% for i in l|map('string') %}{{ i }}{{ loop.length }}{% endfor %}", "331323"),
    ("{% for i in range(3) %}{{ i }}{% endfor %}{{ i is defined }}", "012False"),
    ("{% for i in [1] %}{% set x = i %}{% endfor %}{{ x is defined }}", "False"),
    ("{% set x = 0 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "120"),
    ("{% if 1 %}{% set x = 5 %}{% endif %}{{ x }}", "5"),
    ("{% if 0 %}{% set n = 5 %}{% endif %}{{ n }}", "7"),
    ("{% for i in [1,2] %}{{ i }}{% else %}x{% endfor %}", "12"),
    ("{% for i in l, %}{{ i }}{% endfor %}", "[3, 1, 2]"),
    ("{% for i in 1, 2 %}{{ i }}{% endfor %}", "12"),
    ("{% for i in (l if true else []) %}{{ i }}{% endfor %}", "312"),
    ("{% with a=1, b=a %}{{ a }}{{ b is defined }}{% endwith %}{{ a is defined }}", "1FalseFalse"),
    ("{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q is defined }}", "1False"),
    ("{% with n = n + 1 %}{{ n }}{% endwith %}{{ n }}", "87"),
    ("{% filter upper %}a{{ 'b' }}{% endfilter %}", "AB"),
    ("{% filter upper | replace('A','x') %}ab{% endfilter %}", "xB"),
    ("{% filter trim %}  {% set z = 1 %} a {% endfilter %}{{ z is defined }}", "aFalse"),
    (
        "{% macro f(a, b='d') %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1,2) }}{{ f(b=3,a=4) }}{{ f() }}",
        "1d1243d",
    ),
    ("{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}", "False"),
    ("{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1,2,x=3) }}", "(1, 2){'x': 3}"),
    (
        "{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{{ caller is defined }}{% endmacro %}{{ f(1,2,x=3) }}",
        "1(2,){'x': 3}False",
    ),
    ("{% macro f(a, b=a) %}{{ b }}{% endmacro %}{{ f(1) }}", "1"),
    ("{% macro f(n) %}{{ n }}{% if n %}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(3) }}", "3210"),
    ("{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}x{{ n }}{% endcall %}", "x7"),
    (
        "{% macro f() %}{{ caller(1, b=2) }}{% endmacro %}{% call(a, b, c=9) f() %}{{ a }}{{ b }}{{ c }}{% endcall %}",
        "129",
    ),
    (
        "{% macro f() %}{% if caller %}y{{ caller() }}{% else %}n{% endif %}{% endmacro %}{{ f() }}{% call f() %}x{% endcall %}",
        "nyx",
    ),
    (
        "{% macro f() %}a{% endmacro %}{{ f }}{{ f.name }}{{ f.arguments }}{{ f.catch_kwargs }}{{ f.catch_varargs }}{{ f.caller }}",
        "<Macro 'f'>f()FalseFalseFalse",
    ),
    (
        "{% macro f() %}a{% endmacro %}{{ f() is string }}{{ f is callable }}{{ f() | upper }}",
        "TrueTrueA",
    ),
    ("{% macro f() %}{{ n }}{% set n = 3 %}{{ n }}{% endmacro %}{{ f() }}{{ n }}", "737"),
    ("{% set q = 1 %}{% macro f() %}{{ q }}{% endmacro %}{% set q = 2 %}{{ f() }}", "2"),
    (
        "{% for i in [1,2] %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}{{ f is defined }}",
        "12False",
    ),
    (
        "{% macro f() %}{% for x in varargs %}{{ x }},{% endfor %}{{ kwargs.get('z') }}{% endmacro %}{{ f(1,2,z=3) }}",
        "1,2,3",
    ),
    ("{% macro f(varargs) %}{{ varargs }}{% endmacro %}{{ f(1) }}", "1"),
    ("{% macro f(caller=none) %}{{ caller }}{% endmacro %}{{ f() }}", "None"),
    ("{% print 1, 2 %}", "12"),
    ("{% print %}x", "x"),
    ("{% block a %}{{ n }}{% endblock %}", "7"),
    ("{% block a %}1{% endblock a %}{{ self.a() }}", "11"),
    ("{% for i in [1] %}{% block b %}{{ i is defined }}{% endblock %}{% endfor %}", "False"),
    ("{% for i in [1] %}{% block b scoped %}{{ i }}{% endblock %}{% endfor %}", "1"),
    ("{% set z = 4 %}{% block c %}{{ z }}{% set z = 5 %}{{ z }}{% endblock %}{{ z }}", "454"),
    ("{{ self.zz is defined }}", "False"),
    (
        "{% autoescape true %}{% set x %}<{{ '<' }}{% endset %}{{ x }}{% macro m() %}<{{ '>' }}{% endmacro %}{{ m() }}{{ ['<','>'|safe]|join('&') }}{{ '<a>'|replace('<','>') }}{{ '<a>'|replace('<'|safe,'>') }}{% endautoescape %}",
        "<&lt;<&gt;&lt;&amp;>&gt;a&gt;&lt;a&gt;",
    ),
    ("{% autoescape false %}{{ '<' }}{% endautoescape %}", "<"),
    ("{% if false %}{% include 'x' %}{% endif %}ok", "ok"),
    ("{% if false %}{{ 1 | nope }}{% endif %}ok", "ok"),
    ("{{ (1 | nope) if false else 2 }}", "2"),
    ("{{ 2 if true else (1 | nope) }}", "2"),
    ("{% if false %}{{ 1 is nope }}{% endif %}ok", "ok"),
    (
        "{{ [1,2,3] | map('string') | join(', ') }}{{ messages | map(attribute='role') | join('|') }}",
        "1, 2, 3system|user|assistant",
    ),
    (
        "{% set x = messages | selectattr('role','equalto','user') | list %}{{ x | length }}{{ x[0].content | trim }}",
        "1Where?",
    ),
    ("{% set g = l | map('string') %}{{ g | list }}{{ g | list }}", "['3', '1', '2'][]"),
    ("{% set g = l | select('odd') %}{{ 3 in g }}{{ g | list }}", "True[1]"),
    (
        "{% set c = cycler('a','b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}",
        "ababNonea",
    ),
    ("{% set j = joiner(', ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}", "3, 1, 2"),
    (
        "{{ messages[0]|tojson(indent=2) }}{{ tools|tojson }}",
        "{\n  \"role\": \"system\",\n  \"content\": \"Be brief.\"\n}null",
    ),
    (
        "{% for m in messages[1:] %}{{ m['role'] }}{% endfor %}{{ messages[::-1][0].role }}",
        "userassistantassistant",
    ),
    ("{{ d['a'][1]['x'] is none }}{{ d.get('q', {}).get('z') }}", "TrueNone"),
    ("{{ 'a' if messages[0]['role'] == 'system' else 'b' }}", "a"),
    ("{{ (messages|last).content.split('é')[-1].lstrip('\\n') }}", "\" <b>."),
    ("{{ s.split(',')[0] }}{{ s.split(',')[-1].strip() }}", "HelloWorld"),
    (
        "{%- set ns = namespace(found=false) -%}{%- for m in messages -%}{%- if m.role == 'user' and not ns.found -%}{%- set ns.found = true -%}{{ m.content.strip() }}{%- endif -%}{%- endfor -%}",
        "Where?",
    ),
    ("{{ [n, f, s] | map('string') | list }}", "['7', '', 'Hello, World']"),
    ("{{ ns.x if ns is defined else 'no' }}", "no"),
    (
        "{% if messages[0].content is string and messages[0].content is not mapping %}y{% endif %}",
        "y",
    ),
    (
        "{% if tools is not none and tools | length > 0 %}y{% endif %}{% if not tools %}n{% endif %}",
        "n",
    ),
    ("{{ '\\n'.join(['a','b']) }}{{ ['a','b'] | join('\\n') }}", "a\nba\nb"),
    ("{{ loop_messages | default([]) | length }}", "0"),
    (
        "{% set content = messages[2].content %}{% if '<b>' in content %}{{ content.split('<b>')[0].rstrip() }}{% endif %}",
        "There \"é\"",
    ),
    ("{% set x = {'a': 1} %}{% set y = dict(x, b=2) %}{{ y }}{{ x }}", "{'a': 1, 'b': 2}{'a': 1}"),
    ("{{ {'a':1}.items() | map('join', '=') | join(';') }}", "a=1"),
    ("{{ x }}{% for m in messages %}{{ n }}{% set n = 9 %}{{ n }}{% endfor %}{{ n }}", "7979797"),
    ("{% for i in l %}{{ q is defined }}{% set q = i %}{% endfor %}", "FalseFalseFalse"),
    ("{% macro f() %}{{ zz }}{% endmacro %}{% set zz = 3 %}{{ f() }}", "3"),
    ("{{ f2() if f2 is defined else 'x' }}", "x"),
    ("{% if a is defined and a.b %}1{% endif %}2", "2"),
    ("{{ ('%s' | format('a')) ~ '%d' % 3 }}", "a3"),
    (
        "{% for x in messages if x.role != 'system' %}{{ loop.index0 }}{{ x.role }}{{ loop.first }}{% endfor %}",
        "0userTrue1assistantFalse",
    ),
    ("{% set a = [] %}{% set a = a + [1] %}{{ a }}", "[1]"),
    ("{% for i in l recursive %}{{ i }}{% endfor %}", "312"),
    ("{{ 'a'.join(l | map('string')) }}", "3a1a2"),
    ("{{ ' '.join(messages | map(attribute='role')) }}", "system user assistant"),
    (
        "{{ messages | map(attribute='content') | map('trim') | list }}",
        "['Be brief.', 'Where?', 'There \"é\" <b>.']",
    ),
    ("{{ messages | selectattr('tool_calls', 'defined') | list | length }}", "0"),
    (
        "{{ messages | rejectattr('role', 'in', ['system', 'user']) | map(attribute='role') | list }}",
        "['assistant']",
    ),
    ("{% set a = 1 if n > 5 else 2 %}{{ a }}", "1"),
    ("{{ n if n is defined and n > 5 else 'no' }}", "7"),
    ("{% if n == 7 and (f == 2.5 or not t) %}ok{% endif %}", "ok"),
    ("{% if t %}{{ n }}{% set n = 8 %}{% endif %}{{ n }}", "7"),
    ("{% macro f() %}{{ n }}{% endmacro %}{{ f() }}{% set n = 1 %}{{ f() }}", "1"),
    ("{{ n }}{% for m in [1] %}{{ n }}{% endfor %}{% set n = 1 %}{{ n }}", "771"),
    ("{% set n = n + 1 %}{{ n }}", "8"),
    ("{% for i in [1,2] %}{% set n = n + i %}{{ n }} {% endfor %}", "8 9 "),
    ("{% for i in [1,2] %}{% if i == 1 %}{% set n = 50 %}{% endif %}{{ n }} {% endfor %}", "50 7 "),
    (
        "{% for i in [1,2] %}{% if i == 1 %}{% set qq = 50 %}{% endif %}{{ qq }} {% endfor %}",
        "50  ",
    ),
    (
        "{% for i in [1] %}{% for j in [1] %}{{ n }}{% endfor %}{% set n = 3 %}{% for j in [1] %}{{ n }}{% endfor %}{% endfor %}",
        "3",
    ),
    ("{% if false %}{% set n = 1 %}{% else %}{% set q1 = 2 %}{% endif %}{{ n }}{{ q1 }}", "72"),
    ("{% with %}{{ n }}{% set n = 2 %}{{ n }}{% endwith %}{{ n }}", "727"),
    ("{% macro f(n) %}{{ n }}{% set n = 2 %}{{ n }}{% endmacro %}{{ f(1) }}{{ n }}", "127"),
];

/// `{% generation %}`, and where its words are text.
const GENERATION: [(&str, &str); 21] = [
    ("{% generation %}a{% endgeneration %}b", "ab"),
    ("x\n{% generation %}\na\n{% endgeneration %}\nb", "x\na\nb"),
    ("x {%- generation -%}  a  {%- endgeneration -%} b", "xab"),
    (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.role }}{% endif %}{% endfor %}",
        "systemuserThere \"é\" <b>.",
    ),
    ("{% generation %}{% set gg = 1 %}{{ gg }}{% endgeneration %}{{ gg is defined }}", "1False"),
    ("{% macro f(a) %}{% generation %}<{{ a }}>{% endgeneration %}{% endmacro %}{{ f(1) }}", "<1>"),
    (
        "{% for i in l %}{% generation %}{{ loop.index }}{{ i }}{% endgeneration %}{% endfor %}",
        "132132",
    ),
    ("{% generation %}{% generation %}x{% endgeneration %}{% endgeneration %}", "x"),
    (
        "{% raw %}{% generation %}{% endgeneration %}{% endraw %}",
        "{% generation %}{% endgeneration %}",
    ),
    (
        "{# {% generation %} #}{{ '{% generation %}' }}{{ \"endgeneration\" }}",
        "{% generation %}endgeneration",
    ),
    ("{% set generation = 1 %}{{ generation }}", "1"),
    ("{{ generation is defined }}", "False"),
    ("{% generation -%}\n  x\n{%- endgeneration %}\ny", "xy"),
    (
        "{% generation %}{% for i in l %}{{ i }}{% if i == 1 %}{% break %}{% endif %}{% endfor %}{% endgeneration %}",
        "31",
    ),
    (
        "{% set ns = namespace(x=0) %}{% generation %}{% set ns.x = 5 %}{% endgeneration %}{{ ns.x }}",
        "5",
    ),
    (
        "{% generation %}{% autoescape true %}{{ '<' }}{% endautoescape %}{% endgeneration %}",
        "&lt;",
    ),
    (
        "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{% generation %}q{% endgeneration %}{% endcall %}",
        "q",
    ),
    ("{% set t %}{% generation %}q{% endgeneration %}{% endset %}[{{ t }}]", "[q]"),
    ("{%+ generation +%}\nq{% endgeneration +%}\nr", "\nq\nr"),
    ("  {% generation %}  q  {% endgeneration %}  r", "  q    r"),
    (
        "{%- for turn in messages %}\n    {%- if turn.role == 'assistant' %}\n        {{- '<|im_start|>assistant\\n' }}\n        {%- generation %}\n        {{- turn.content + '<|im_end|>' }}\n        {%- endgeneration %}\n        {{- '\\n' }}\n    {%- else %}\n        {{- '<|im_start|>' + turn.role + '\\n' + turn.content + '<|im_end|>\\n' }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n  Where?\n<|im_end|>\n<|im_start|>assistant\nThere \"é\" <b>.<|im_end|>\n<|im_start|>assistant\n",
    ),
];

/// Every statement and expression, in ways that published templates use and in some that none does.
const TEMPLATES: [(&str, &str); 22] = [
    (
        "a\n  {% if true %}\nb\n  {% endif %}\n\n c {{- ' d ' -}}  e\n{#- x -#}\nf",
        "a\nb\n\n c d ef",
    ),
    (
        "{% for m in messages %}{{ loop.index0 * 2 }}{{ loop.first }}{{ m.role }}{% else %}none{% endfor %}{% for x in [] %}y{% else %}z{% endfor %}",
        "0Truesystem2Falseuser4Falseassistantz",
    ),
    (
        "{% for m in messages if m.role != 'system' %}{{ m['content'] | trim }}{% if loop.last %}.{% endif %}{% endfor %}",
        "Where?There \"é\" <b>..",
    ),
    (
        "{% for k, v in {'a': 1, 'b': [2, (3,)]}.items() %}{{ k }}={{ v }};{% endfor %}{% for (a, b) in [(1, 2)] %}{{ a - b }}{% endfor %}",
        "a=1;b=[2, (3,)];-1",
    ),
    (
        "{% set a, b = 1, 'x' %}{{ a }}{{ b }}{% set t = (1, 2,) %}{{ t }}{% set (c, d) = [3, 4] %}{{ c ** d // 5 % 7 / 2 }}",
        "1x(1, 2)1.0",
    ),
    (
        "{% set x %}<{{ messages[0].content }}>{% endset %}{{ x }}{% set y | upper | replace('A', 'bb') %}a{{ 'c' }}{% endset %}{{ y }}",
        "<Be brief.>bbC",
    ),
    (
        "{% with a=1, b=a %}{{ a }}{{ b is defined }}{% endwith %}{% filter upper | trim %} x {{ 'y' }}{% endfilter %}",
        "1FalseX Y",
    ),
    (
        "{% macro f(a, b='d', c=none) %}{{ a }}{{ b }}{{ c }}{% if caller %}{{ caller(1) }}{% endif %}{% endmacro %}{{ f(1) }}{{ f(1, c=2) }}{% call(z) f('q') %}[{{ z }}]{% endcall %}{% macro g() %}{{ caller() }}{% endmacro %}{% call g() %}s{% endcall %}",
        "1dNone1d2qdNone[1]s",
    ),
    (
        "{{ (1 + 2) ~ 3 }}{{ 'x' + 2 ~ 3 }}{{ 'a' ~ 'b' ~ 'c' + 'd' }}{{ 2 * 3 - 4 }}{{ 7 - 2 - 1 }}{{ 7 - (2 - 1) }}{{ -2 ** 2 }}{{ -(1 + 2) }}{{ - 1 | abs }}{{ 2.5 * 2 }}{{ 1e3 }}{{ 0.1 + 0.2 }}",
        "33x23abcd2464-315.01000.00.30000000000000004",
    ),
    (
        "{{ 1 < 2 < 3 }}{{ 1 in [1, 2] and not 3 in [1] or false }}{{ 4 not in [1] }}{{ (1 or 2) and 3 }}{{ none or 'x' }}{{ 'a' in 'abc' }}{{ not (1 == 2) }}",
        "TrueTrueTrue3xTrueTrue",
    ),
    (
        "{{ 'y' if messages[0].role == 'system' else 'n' }}{{ ('a' if false) | default('d') }}{{ (1 if true else 2) + 1 }}",
        "yd2",
    ),
    (
        "{{ messages[1:] | length }}{{ messages[::-1][0].role }}{{ messages[-1].role[1:3] }}{{ 'abcdef'[1:5:2] }}{{ (messages | first).role }}{{ messages[0]['content'].split(' ')[1] }}",
        "2assistantssbdsystembrief.",
    ),
    (
        "{{ {'a': [1, 2.0, none, true, \"q\\\"\\n\"], 'b': {}} | tojson }}{{ messages | tojson(indent=2) }}{{ [1, 2] | map('string') | join(', ') }}",
        "{\"a\": [1, 2.0, null, true, \"q\\\"\\n\"], \"b\": {}}[\n  {\n    \"role\": \"system\",\n    \"content\": \"Be brief.\"\n  },\n  {\n    \"role\": \"user\",\n    \"content\": \"  Where?\\n\"\n  },\n  {\n    \"role\": \"assistant\",\n    \"content\": \"There \\\"é\\\" <b>.\"\n  }\n]1, 2",
    ),
    (
        "{{ messages | map(attribute='role') | join('|') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ [3, 1, 2] | sort | last }}{{ 'ab' | list }}{{ range(3) | list }}",
        "system|user|assistant13['a', 'b'][0, 1, 2]",
    ),
    (
        "{%- set ns = namespace(a=1, b='x') -%}{%- for i in range(5) -%}{%- set ns.a = ns.a + i -%}{%- if i == 3 -%}{%- break -%}{%- elif i == 1 -%}{%- continue -%}{%- else -%}{%- set ns.b = ns.b ~ i -%}{%- endif -%}{%- endfor -%}{{ ns.a }}{{ ns.b }}",
        "7x02",
    ),
    (
        "{% if messages | length == 0 %}a{% elif messages[0].role == 'user' %}b{% elif messages[0].role == 'system' %}c{% else %}d{% endif %}",
        "c",
    ),
    (
        "{% for item in [1, [2, [3]]] recursive %}{% if item is number %}{{ item }}{% else %}({{ loop(item) }}){% endif %}{% endfor %}",
        "1(2(3))",
    ),
    (
        "{{ 'a' 'b' }}{{ \"it's\" }}{{ 'say \"é\" \\u00e9 \\\\ \\t|' }}{% raw %}{{ x }}{% endraw %}{{ '{{' }}",
        "abit'ssay \"é\" é \\ \t|{{ x }}{{",
    ),
    (
        "{% autoescape false %}{{ '<b>' }}{% endautoescape %}{% block body %}{{ messages[2].content }}{% endblock %}",
        "<b>There \"é\" <b>.",
    ),
    (
        "{{ 'x'.join(['a', 'b']) }}{{ ' a '.strip().upper().replace('A', 'b') }}{{ 'a-b'.split('-') | last }}{{ '{}-{:>4}'.format(1, 'a') }}{{ '%s: %05.1f' | format('a', 2.25) }}{{ 'a\\nb' | indent(2) }}{{ 'a\\nb' | indent(width=1, first=true) }}",
        "axbbb1-   aa: 002.2a\n  b a\n b",
    ),
    (
        "{{ 1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1 }}{{ 'a'+'b'+'c'+'d'+'e'+'f'+'g'+'h'+'i'+'j'+'k'+'l'+'m'+'n'+'o'+'p'+'q'+'r' }}{{ 1 and 2 and 3 and 4 and 5 or 6 or 7 }}",
        "20abcdefghijklmnopqr5",
    ),
    (
        "{%- set tools = tools or [] -%}{%- if tools is iterable and tools | length > 0 -%}t{%- endif -%}{{ strftime_now('%Y') | length }}{% set f = loop_missing | default({}) %}{{ f }}",
        "4{}",
    ),
];

#[test]
fn statements_render_as_in_python() {
    let tables: [&[(&str, &str)]; 4] = [&WHITESPACE, &STATEMENTS, &GENERATION, &TEMPLATES];
    for (source, expected) in tables.into_iter().flatten() {
        match with_variables(source) {
            Ok(text) => assert_eq!(text, *expected, "{source}"),
            Err(error) => panic!("{source}: {error}"),
        }
    }
}

/// Templates that are invalid, with what the error names.
const INVALID: [(&str, &str); 17] = [
    ("{% generation %}x", "`generation` has no end, expected `endgeneration`"),
    ("{% endgeneration %}", "the tag `endgeneration`"),
    ("{% generation foo %}x{% endgeneration %}", "unexpected `foo`"),
    (
        "{% for i in l %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
        "outside of a loop",
    ),
    ("{% if 1 %}", "`if` has no end"),
    ("{% endif %}", "the tag `endif`"),
    ("{% if %}x{% endif %}", "expected an expression"),
    ("{% nope %}", "the tag `nope` is not supported"),
    ("{{ 1", "the template ends within a tag"),
    ("{{ 'a }}", "a string literal has no end"),
    ("{# x", "the comment `{#` has no end"),
    ("{% raw %}x", "`{% raw %}` has no end"),
    ("{{ 1) }}", "`)` closes nothing"),
    ("{{ a b }}", "unexpected `b`"),
    ("{% break %}", "`break` is outside of a loop"),
    ("{% block a %}{% endblock %}{% block a %}{% endblock %}", "the block `a` is defined twice"),
    ("{% for i in [] %}{{ 1 | nope }}{% endfor %}", "the filter `nope` does not exist"),
];

#[test]
fn an_invalid_template_is_named_in_the_error() {
    for (source, expected) in INVALID {
        let error = with_variables(source).unwrap_err().to_string();
        assert!(error.contains(expected), "{source}: {error}");
    }
}
