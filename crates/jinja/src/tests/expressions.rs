//! Expressions with what jinja2 3.1 gives for them in the environment of `transformers` 5.23, under Python 3.11.

use super::*;

/// Expressions of issues that templates on the Hub ran into.
const ISSUES: [(&str, &str); 62] = [
    ("{{ 'text' is sequence }}", "True"),
    ("{{ {'a': 1} is sequence }}", "True"),
    ("{{ 'text' is iterable and 'text' is not mapping }}", "True"),
    ("{{ 'a.b.c'.rsplit('.', 1) | join(' ') }}", "a.b c"),
    ("{{ 'pre-x'.removeprefix('pre-') }}", "x"),
    ("{{ 'x.md'.removesuffix('.md') }}", "x"),
    ("{{ 'a-b-c'.partition('-') | join(' ') }}", "a - b-c"),
    ("{{ 'a-b-c'.rpartition('-') | join(' ') }}", "a-b - c"),
    ("{{ 'Ab'.swapcase() }}", "aB"),
    ("{{ '7'.zfill(3) }}", "007"),
    ("{{ 'ab'.ljust(4) }}.", "ab  ."),
    ("{{ 'ab'.rjust(4) }}.", "  ab."),
    ("{{ 'ab'.center(6) }}.", "  ab  ."),
    ("{{ 'abcabc'.rfind('b') }}", "4"),
    ("{{ 'abcabc'.rindex('b') }}", "4"),
    ("{{ 'abcabc'.index('c') }}", "2"),
    ("{{ 'ABC'.casefold() }}", "abc"),
    (
        "{{ 'abc'.isalnum() }} {{ 'abc'.isspace() }} {{ 'abc'.isupper() }} {{ 'abc'.islower() }} {{ '12'.isnumeric() }} {{ '12'.isdecimal() }}",
        "True False False True True True",
    ),
    ("{{ 'a b'.capitalize() }} {{ 'a b'.title() }}", "A b A B"),
    ("{{ 'a\\tb'.expandtabs(4) }}", "a   b"),
    ("{{ 'aXbXc'.replace('X', '-', 1) }}", "a-bXc"),
    ("{{ 'aXbXc'.split('X', 1) | join(' ') }}", "a bXc"),
    ("{{ 'aXbXc' | replace('X', '-', 1) }}", "a-bXc"),
    ("{{ '%s of %d' % ('a', 3) }}", "a of 3"),
    ("{{ '%03d' % 7 }}", "007"),
    ("{{ '%s of %d' | format('a', 3) }}", "a of 3"),
    ("{{ 'one two three' | wordcount }}", "3"),
    ("{{ 'x' | int }}", "0"),
    ("{{ 'x' | int(5) }}", "5"),
    ("{{ '2.9' | int }}", "2"),
    ("{{ 'x' | float }}", "0.0"),
    ("{{ 1e-7 | tojson }}", "1e-07"),
    ("{{ 'a long text of words' | truncate(10) }}", "a long..."),
    ("{{ 'a long text of words' | wordwrap(8) }}", "a long\ntext of\nwords"),
    ("{{ [['a', 1], ['b', 2], ['a', 3]] | groupby(0) | list | length }}", "2"),
    ("{{ 'x' | center(5) }}.", "  x  ."),
    ("{{ {'b': 1, 'a': 2} | dictsort(by='value') | list | length }}", "2"),
    ("{{ [3, 1, 2] | sort(reverse=true) | join }}", "321"),
    ("{{ ['b', 'A'] | sort(case_sensitive=true) | join }}", "Ab"),
    ("{{ [1, 2, 3] | sum(start=10) }}", "16"),
    ("{{ ['a', 'A'] | unique | list | length }}", "1"),
    ("{{ 'abc' | attr('upper') is defined }}", "True"),
    (
        "{{ none is sameas none }} {{ 'Ab' is lower }} {{ 'AB' is upper }} {{ 3 is not divisibleby 2 }} {{ range is callable }} {{ 'upper' is filter }} {{ 'odd' is test }}",
        "True False True True True True True",
    ),
    ("{{ 'a' 'b' }}", "ab"),
    ("{{ messages[0].content.format is defined }}", "True"),
    ("{{ messages[0].get('name', 'nobody') }} {{ messages[0].role }}", "nobody system"),
    ("{% for c in 'abc' %}{{ c }}.{% endfor %}", "a.b.c."),
    ("{% for x in undefined_thing %}x{% else %}empty{% endfor %}", "empty"),
    ("{{ undefined_thing | length }}", "0"),
    (
        "{{ undefined_thing is sequence }} {{ undefined_thing is iterable }} {{ undefined_thing is mapping }} {{ undefined_thing is string }}",
        "True True False False",
    ),
    ("{{ 'x' in undefined_thing }} {{ undefined_thing ~ 'x' }}", "False x"),
    (
        "{{ messages[9] is defined }} {{ messages[0]['nothing'] is defined }} {{ messages[0].nothing is none }}",
        "False False False",
    ),
    (
        "{{ undefined_thing == '' }} {{ undefined_thing == none }} {{ undefined_thing | list }} {{ undefined_thing | join(',') }}",
        "False False [] ",
    ),
    (
        "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %} {% for k in {'b': 1, 'a': 2} %}{{ k }}{% endfor %}",
        "1234 ba",
    ),
    (
        "{{ {'b': 1, 'a': 2} | list | join }} {{ {'b': 1} | first }} {{ {'b': 1, 'c': 2} | length }}",
        "ba b 2",
    ),
    ("{% for i in range(3) recursive %}{{ i }}{{ loop.depth }}{% endfor %}", "011121"),
    (
        "{% for i in [1, 2] %}{{ loop.cycle('a', 'b') }}{{ loop.length }}{{ loop.changed(1) }}{% endfor %}",
        "a2Trueb2False",
    ),
    ("{% set outer = 1 %}{% for i in [1] %}{% set outer = 2 %}{% endfor %}{{ outer }}", "1"),
    ("{% if true %}{% set inside = 3 %}{% endif %}{{ inside }}", "3"),
    (
        "{% macro a(x, y='d') %}{{ x }}{{ y }}{{ varargs | length }}{% endmacro %}{{ a(1) }}{{ a(1, 2) }}{{ a(x=3) }}",
        "1d01203d0",
    ),
    (
        "{{ 'é' | upper }} {{ 'ß' | upper }} {{ 'ﬁ'.upper() }} {{ 'İ' | lower | length }}",
        "É SS FI 2",
    ),
    ("{{ '\\x41\\u00e9\\U0001F600' }} {{ 'a\\\\b\\'c\\\"d' }}", "Aé😀 a\\b'c\"d"),
];

/// Values as Python prints them.
const VALUES: [(&str, &str); 19] = [
    ("{{ [1,'a',none,true,1.5] }}", "[1, 'a', None, True, 1.5]"),
    (
        "{{ {'a': none, 1: 'b', true: 2, none: 3, (1,2): [1]} }}",
        "{'a': None, 1: 2, None: 3, (1, 2): [1]}",
    ),
    ("{{ (1,) }}", "(1,)"),
    ("{{ ['it\\'s', 'a\"b', '\\n\\x00é\\u200b'] }}", "[\"it's\", 'a\"b', '\\n\\x00é\\u200b']"),
    ("{{ 1e16 }}", "1e+16"),
    ("{{ 1e15 }}", "1000000000000000.0"),
    ("{{ 1e-5 }}", "1e-05"),
    ("{{ 0.0001 }}", "0.0001"),
    ("{{ 5e-324 }}", "5e-324"),
    ("{{ -0.0 }}", "-0.0"),
    ("{{ 1e400 }}", "inf"),
    ("{{ n ~ 2.0 ~ true ~ none }}", "72.0TrueNone"),
    ("{{ range(5)[1:3] }}", "range(1, 3)"),
    ("{{ d.items() }}", "dict_items([('b', 1), ('a', [2, {'x': None}])])"),
    ("{{ d.keys() }}", "dict_keys(['b', 'a'])"),
    ("{{ namespace(a=1) }}", "<Namespace {'a': 1}>"),
    ("{{ messages[0] }}", "{'role': 'system', 'content': 'Be brief.'}"),
    ("{{ 2**100 }}", "1267650600228229401496703205376"),
    ("{{ 1_000 + 0x1F + 0b11 + 0o17 }}", "1049"),
];

/// Operators, comparisons and subscripts.
const OPERATORS: [(&str, &str); 29] = [
    ("{{ -2**2 }}", "4"),
    ("{{ 2**3**2 }}", "64"),
    ("{{ 2**-1 }}", "0.5"),
    ("{{ 7//2 }}", "3"),
    ("{{ -7//2 }}", "-4"),
    ("{{ -7%3 }}", "2"),
    ("{{ 7%-3 }}", "-2"),
    ("{{ 7.5//2 }}", "3.0"),
    ("{{ -7.5%2 }}", "0.5"),
    ("{{ 1/3 }}", "0.3333333333333333"),
    ("{{ true + 1 }}", "2"),
    ("{{ 'a'*3 }}", "aaa"),
    ("{{ [1]*2 }}", "[1, 1]"),
    ("{{ 'a'*-1 }}", ""),
    ("{{ 1 ~ 2 ~ 3 ~ (1 + 2) }}", "1233"),
    ("{{ 1 < 3 < 2 }}", "False"),
    ("{{ 1 == 1.0 }}", "True"),
    ("{{ true in [1] }}", "True"),
    ("{{ [1] == (1,) }}", "False"),
    ("{{ {'a':1} == {'a':1.0} }}", "True"),
    ("{{ (1,2) <= (1,3) }}", "True"),
    ("{{ 'abcdef'[::-1] }}", "fedcba"),
    ("{{ 'abcdef'[1:5:2] }}", "bd"),
    ("{{ l[::-1] }}", "[2, 1, 3]"),
    ("{{ (1,2,3)[1:] }}", "(2, 3)"),
    ("{{ d.a.1.x }}", "None"),
    ("{{ messages[-1].role }}", "assistant"),
    ("{{ undef == undef2 }}", "True"),
    ("{{ undef.x | default('q') if undef is defined else 'no' }}", "no"),
];

/// Methods and formats of strings.
const STRINGS: [(&str, &str); 31] = [
    ("{{ 'ὈΔΥΣΣΕΎΣ'.lower() }}", "ὀδυσσεύς"),
    ("{{ 'ΑΣ ΣΑ'.title() }}", "Ας Σα"),
    ("{{ 'ǆ'.title() }}", "ǅ"),
    ("{{ 'ŉ ﬁ'.casefold() }}", "ʼn fi"),
    ("{{ 'they\\'re'.title() }}", "They'Re"),
    ("{{ 'they\\'re'|title }}", "They're"),
    ("{{ '²½一'.isnumeric() }}", "True"),
    ("{{ '²'.isdigit() }}", "True"),
    ("{{ 'a\\r\\nb\\x0bc\\u2028d'.splitlines() }}", "['a', 'b', 'c', 'd']"),
    ("{{ 'a\\r\\nb'.splitlines(true) }}", "['a\\r\\n', 'b']"),
    ("{{ ' a  b c '.split(none, 1) }}", "['a', 'b c ']"),
    ("{{ ' a  b c '.rsplit(none, 1) }}", "[' a  b', 'c']"),
    ("{{ s.partition(', ') }}", "('Hello', ', ', 'World')"),
    ("{{ s.find('o', 5) }}", "8"),
    ("{{ s.count('l', 3) }}", "2"),
    ("{{ s.startswith(('x','H')) }}", "True"),
    ("{{ s.translate(s.maketrans({'H': 'J', 'e': none})) }}", "Jllo, World"),
    ("{{ '-5'.zfill(5) }}", "-0005"),
    ("{{ 'ab'.center(5) }}", "  ab "),
    (
        "{{ '{0.role} {0[role]:>8} {x!r:*^9}'.format(messages[0], x='é') }}",
        "system   system ***'é'***",
    ),
    (
        "{{ '{:+,.2f} {:#x} {:.1%} {:05}'.format(1234.5, 255, 0.25, -3) }}",
        "+1,234.50 0xff 25.0% -0003",
    ),
    ("{{ '{a}'.format_map({'a': 1}) }}", "1"),
    ("{{ '%(a)05.1f|%(b)-4s|%(c)#x' % {'a': 2.25, 'b': 'x', 'c': 255} }}", "002.2|x   |0xff"),
    ("{{ '%r %c %e %g %%' % ('a', 65, 12345.678, 1e-5) }}", "'a' A 1.234568e+04 1e-05 %"),
    ("{{ '%*d' % (5, 42) }}", "   42"),
    ("{{ '% d %+d %.3s' % (1, 2, 'abcdef') }}", " 1 +2 abc"),
    ("{{ '１２'|int }}", "12"),
    ("{{ '0x1f'|int(base=16) }}", "31"),
    ("{{ '1_000'|int }}", "1000"),
    ("{{ 'inf'|float }}", "inf"),
    ("{{ '42.9'|int }}", "42"),
];

/// Filters.
const FILTERS: [(&str, &str); 31] = [
    ("{{ rows|sort(attribute='k')|map(attribute='v')|list }}", "[1, 3, 2]"),
    ("{{ rows|sort(attribute='k,v',reverse=true)|map(attribute='v')|list }}", "[2, 3, 1]"),
    (
        "{{ rows|groupby('k') }}",
        "[('A', [{'k': 'A', 'v': 1}, {'k': 'a', 'v': 3}]), ('b', [{'k': 'b', 'v': 2}])]",
    ),
    ("{{ (rows|groupby('k',case_sensitive=true))[0].grouper }}", "A"),
    ("{{ d|dictsort(reverse=true) }}", "[('b', 1), ('a', [2, {'x': None}])]"),
    ("{{ ['a','A','b']|unique|list }}", "['a', 'b']"),
    ("{{ l|batch(2,'x')|list }}", "[[3, 1], [2, 'x']]"),
    ("{{ l|slice(2)|list }}", "[[3, 1], [2]]"),
    ("{{ l|select('odd')|list }}", "[3, 1]"),
    ("{{ rows|rejectattr('v','gt',2)|map(attribute='k')|list }}", "['b', 'A']"),
    ("{{ [['a',1]]|map(attribute=0)|list }}", "['a']"),
    ("{{ rows|map(attribute='z',default='?')|list }}", "['?', '?', '?']"),
    ("{{ [none,1.0]|join('|') }}", "None|1.0"),
    ("{{ 'a\\n\\nb'|indent('> ',true,true) }}", "> a\n> \n> b"),
    ("{{ s|truncate(9,true,leeway=0) }}", "Hello,..."),
    ("{{ 'hello  self-contained x'|wordwrap(6) }}", "hello\nself-c\nontain\ned x"),
    ("{{ 2.675|round(2) }}", "2.67"),
    ("{{ 2.5|round }}", "2.0"),
    ("{{ 1250|round(-2) }}", "1200"),
    ("{{ 2.1|round(0,'ceil') }}", "3.0"),
    ("{{ 123456789|filesizeformat }}", "123.5 MB"),
    ("{{ '<a>'|e ~ '<' }}", "&lt;a&gt;<"),
    ("{{ '<x>' + (l|tojson|safe) }}", "&lt;x&gt;[3, 1, 2]"),
    ("{{ ('<'|safe).join(['<','>']) }}", "&lt;<&gt;"),
    ("{{ '<p>a <b>b</b> &lt;</p>'|striptags }}", "a b <"),
    ("{{ {'a b':'c&d'}|urlencode }}", "a+b=c%26d"),
    ("{{ {'a':1,'b':none}|xmlattr }}", " a=\"1\""),
    ("{{ undef|length }}", "0"),
    ("{{ l|attr('nope') is defined }}", "False"),
    ("{{ l.append is defined }}", "False"),
    ("{{ s.__class__ is defined }}", "False"),
];

/// `tojson` with the options of `json.dumps`.
const JSON: [(&str, &str); 14] = [
    ("{{ [1.0,1e-7,1e16,1e22]|tojson }}", "[1.0, 1e-07, 1e+16, 1e+22]"),
    (
        "{{ {'b':1,'a':{'d':1,'c':2}}|tojson(sort_keys=true) }}",
        "{\"a\": {\"c\": 2, \"d\": 1}, \"b\": 1}",
    ),
    ("{{ {1:2,none:3,true:4,1.5:5}|tojson }}", "{\"1\": 4, \"null\": 3, \"1.5\": 5}"),
    ("{{ 'é\\U0001F600\\x7f\\u2028<&\\'/'|tojson }}", "\"é😀\u{7f}\u{2028}<&'/\""),
    (
        "{{ 'é\\U0001F600\\x7f\\u2028<&\\'/'|tojson(ensure_ascii=true) }}",
        "\"\\u00e9\\ud83d\\ude00\\u007f\\u2028<&'/\"",
    ),
    ("{{ '\\b\\f\\n\\r\\t\\\\\"\\x01'|tojson }}", "\"\\b\\f\\n\\r\\t\\\\\\\"\\u0001\""),
    ("{{ d|tojson(separators=(',',':')) }}", "{\"b\":1,\"a\":[2,{\"x\":null}]}"),
    (
        "{{ d|tojson(indent=2) }}",
        "{\n  \"b\": 1,\n  \"a\": [\n    2,\n    {\n      \"x\": null\n    }\n  ]\n}",
    ),
    ("{{ [[],{}]|tojson(indent='\\t') }}", "[\n\t[],\n\t{}\n]"),
    (
        "{{ d|tojson(indent=0,separators=(', ','=')) }}",
        "{\n\"b\"=1, \n\"a\"=[\n2, \n{\n\"x\"=null\n}\n]\n}",
    ),
    ("{{ (2**70)|tojson }}", "1180591620717411303424"),
    ("{{ [1e400,-1e400]|tojson }}", "[Infinity, -Infinity]"),
    ("{{ d|tojson(true) }}", "{\"b\": 1, \"a\": [2, {\"x\": null}]}"),
    ("{{ (1,2)|tojson(indent=none) }}", "[1, 2]"),
];

/// Tests.
const TESTS: [(&str, &str); 14] = [
    ("{{ 'text' is sequence }}", "True"),
    ("{{ d.items() is sequence }}", "False"),
    ("{{ d is mapping }}", "True"),
    ("{{ true is integer }}", "False"),
    ("{{ true is number }}", "True"),
    ("{{ undef is callable }}", "True"),
    ("{{ s.upper is callable }}", "True"),
    ("{{ 3 is divisibleby 3 }}", "True"),
    ("{{ 'a' is in 'abc' }}", "True"),
    ("{{ 3 is gt(2) }}", "True"),
    ("{{ none is not none }}", "False"),
    ("{{ 1 is sameas true }}", "False"),
    ("{{ 'Ab' is not lower }}", "True"),
    ("{{ 'nope' is filter }}", "False"),
];

/// Escapes of string literals.
const LITERALS: [(&str, &str); 3] = [
    ("{{ '\\x41\\101\\u00e9\\U0001F600\\a\\q\\\nb\\é' }}", "AAé😀\u{7}\\qb\\xe9"),
    ("{{ 'a' \"b\" }}", "ab"),
    ("{{ '{% generation %}' }}", "{% generation %}"),
];

/// What `source` gives with the variables of the tables.
pub(super) fn with_variables(source: &str) -> Result<String, TemplateFault> {
    let variables = json!({
        "n": 7, "s": "Hello, World", "l": [3, 1, 2], "d": {"b": 1, "a": [2, {"x": null}]},
        "rows": [{"k": "b", "v": 2}, {"k": "A", "v": 1}, {"k": "a", "v": 3}],
    });
    render(source, &conversation(), &variables)
}

#[test]
fn expressions_render_as_in_python() {
    let tables: [&[(&str, &str)]; 8] =
        [&ISSUES, &VALUES, &OPERATORS, &STRINGS, &FILTERS, &JSON, &TESTS, &LITERALS];
    for (source, expected) in tables.into_iter().flatten() {
        match with_variables(source) {
            Ok(text) => assert_eq!(text, *expected, "{source}"),
            Err(error) => panic!("{source}: {error}"),
        }
    }
}

/// What fails in Python too, or is not supported; with what the error names.
const REFUSED: [(&str, &str); 36] = [
    ("{{ undef + 1 }}", "`undef` is undefined"),
    ("{{ undef.x }}", "`undef` is undefined"),
    ("{{ d.x.y }}", "`dict` object has no attribute or item `x`"),
    ("{{ l.append(4) }}", "`append` of `list` object is unsafe"),
    ("{{ d.update({}) }}", "`update` of `dict` object is unsafe"),
    ("{{ s.nope() }}", "`str` object has no attribute or item `nope`"),
    ("{{ s.index('zz') }}", "`index` found no such part"),
    ("{{ s.encode() }}", "the method `encode` of `str` is not supported"),
    ("{{ s | nope }}", "the filter `nope` does not exist"),
    ("{{ s is nope }}", "the test `nope` does not exist"),
    ("{{ s | pprint }}", "the filter `pprint` is not supported"),
    ("{{ l | random }}", "the filter `random` is not supported"),
    ("{{ lipsum() }}", "the function `lipsum` is not supported"),
    ("{{ l | map('string') }}", "a `generator` has no text"),
    ("{{ s.upper }}", "a `builtin_function_or_method` has no text"),
    ("{{ 1 + 'a' }}", "`+` is not supported between `int` and `str`"),
    ("{{ 'a' + 1 }}", "`+` is not supported between `str` and `int`"),
    ("{{ 1 < 'a' }}", "`<` is not supported between `int` and `str`"),
    ("{{ [1, 'a'] | sort }}", "`<` is not supported between `str` and `int`"),
    ("{{ 1 // 0 }}", "division by zero"),
    ("{{ (-1) ** 0.5 }}", "complex numbers are not supported"),
    ("{{ 10 ** 40 }}", "integers of more than 128 bits are not supported"),
    ("{{ {[1]: 2} }}", "unhashable type: `list`"),
    ("{{ '%d' % 'a' }}", "`%d` needs a number, not `str`"),
    ("{{ '%s %s' % 1 }}", "more specifiers than values"),
    ("{{ '{}'.format() }}", "no value for the field"),
    ("{{ '{:>5}'.format(none) }}", "the format specifier `>5` is not supported for `NoneType`"),
    ("{{ s | tojson(foo=1) }}", "`tojson` has no argument `foo`"),
    ("{{ undef | tojson }}", "a `Undefined` cannot be written as JSON"),
    ("{{ none | length }}", "a `NoneType` has no length"),
    ("{{ '\\N{BULLET}' }}", "the escape `\\N{…}` is not supported"),
    ("{{ '\\ud83d' }}", "no Unicode character"),
    ("{% do l %}", "the tag `do` is not supported"),
    ("{% for i in 5 %}{% endfor %}", "`int` object is not iterable"),
    ("{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "the macro `f` takes at most 1 arguments"),
    ("{% set x.y = 1 %}", "`x` is no namespace"),
];

#[test]
fn what_is_not_supported_is_named_in_the_error() {
    for (source, expected) in REFUSED {
        let error = with_variables(source).unwrap_err().to_string();
        assert!(error.contains(expected), "{source}: {error}");
    }
}
