//! Templates of hostile models, and that the limits change nothing else.

use std::panic::AssertUnwindSafe;

use super::super::functions::{environment, syntax};
use super::super::guarded::guarded;
use super::*;

/// The error of compiling or rendering `source`, with its causes.
fn refused(source: &str) -> String {
    let path = PathBuf::from("t.jinja");
    let rendered =
        ChatTemplate::compile(path, source.to_owned(), &json!({})).and_then(|template| {
            template.render(&json!(conversation()), GenerationPrompt::Append, &json!({}))
        });
    match rendered {
        Ok(text) => panic!("`{source:.200}` gives {} bytes", text.len()),
        Err(Error::ChatTemplate { source, .. }) => format!("{source:#}"),
        Err(other) => other.to_string(),
    }
}

#[test]
fn nested_loops_run_out_of_fuel() {
    let many = "{% for a in range(90000) %}{% for b in range(90000) %}{% set c = 1 %}{% endfor %}{% endfor %}";
    assert!(refused(many).contains("fuel"), "{}", refused(many));
    let recursive = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(refused(recursive).contains("recursion limit"), "{}", refused(recursive));
}

#[test]
fn strings_that_double_exceed_the_memory_limit() {
    for (start, step, end) in [
        ("x='ab'", "{% set ns.x = ns.x + ns.x %}", ""),
        ("x='ab'", "{% set ns.x = ns.x ~ ns.x %}", ""),
        ("x='ab'", "{% set ns.x = ns.x * 2 %}", ""),
        ("x='ab'", "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}", ""),
        ("x='ab'", "{% set ns.x = ns.x.replace('a', 'ab' * 9) %}", ""),
        ("x='ab'", "{% set ns.x = ns.x | replace('', ns.x) %}", ""),
        ("x='ab'", "{% set ns.x = [ns.x, ns.x] | join(ns.x) %}", ""),
        ("x='ab'", "{% set ns.x = ns.x.join([ns.x, ns.x]) %}", ""),
        ("x='ab'", "{% set ns.x = '%s%s' | format(ns.x, ns.x) %}", ""),
        ("x='ab'", "{% set ns.x = '{0}{0}'.format(ns.x) %}", ""),
        ("x='ab'", "{% set ns.x = ns.x | tojson | tojson | tojson | tojson %}", ""),
        // Shared items double only when they are printed.
        ("x=['ab']", "{% set ns.x = [ns.x, ns.x] %}", "{{ ns.x }}"),
        ("x=['ab']", "{% set ns.x = ns.x + ns.x %}", "{{ ns.x ~ '' }}"),
        ("x='ab'", "{% set ns.x = {'a': ns.x, 'b': ns.x} %}", "{{ ns.x | tojson }}"),
    ] {
        let source = format!(
            "{{% set ns = namespace({start}) %}}{{% for i in range(40) %}}{step}{{% endfor %}}{end}"
        );
        let error = refused(&source);
        assert!(error.contains("memory limit"), "{source}: {error}");
    }
    let doubling = "{% macro f(s, n) %}{% if n %}{{ f(s + s, n - 1) }}{% endif %}{% endmacro %}{{ f('ab', 60) }}";
    assert!(refused(doubling).contains("memory limit"));
    let text = format!(
        "{{% set x %}}{{% for i in range(60000) %}}{}{{% endfor %}}{{% endset %}}",
        "y".repeat(1000)
    );
    assert!(refused(&text).contains("memory limit"));
}

#[test]
fn one_step_makes_no_long_string() {
    for (expected, sources) in [
        (
            "is above the limit, 1000",
            &[
                "{{ '%999999999d' | format(1) }}",
                "{{ '%.999999999f' | format(1.5) }}",
                "{{ '%%%(a)-9999s' | format({'a': 'a'}) }}",
                "{{ '{:>999999999}'.format('a') }}",
                "{{ '{{{a[:}].b:}>9999}'.format(a=1) }}",
                "{{ 'a' | indent(999999999) }}",
                "{{ 'a\\nb' | indent(width=999999999, first=true) }}",
            ][..],
        ),
        ("widths from arguments", &["{{ '%*d' | format(999999999, 1) }}"]),
        ("`indent` must be at most 16", &["{{ [1, [2]] | tojson(indent=999999999) }}"]),
        (
            "memory limit",
            &[
                "{{ 'a' * 99999999 }}",
                "{{ [1] * 99999999 }}",
                "{{ ('a' * 999999) * 999 }}",
                "{{ ['a' * 99999] * 9999 }}",
                "{{ range(99999) | join('a' * 9999) }}",
                "{{ ('a' * 99999).replace('a', 'b' * 9999) }}",
            ],
        ),
    ] {
        for source in sources {
            let error = refused(source);
            assert!(error.contains(expected), "{source}: {error}");
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_overflows_no_stack() {
    let of = |start: &str, end: &str, n: usize| {
        format!("{{{{ {}1{} }}}}", start.repeat(n), end.repeat(n))
    };
    for source in [
        of("(", ")", 60_000),
        of("[", "]", 60_000),
        of("not ", "", 60_000),
        of("-", "", 100_000),
        of("1+", "", 100_000),
        of("1~", "", 100_000),
        of("1-", "", 100_000),
        of("1 and ", "", 40_000),
        of("", "|f", 100_000),
        of("", ".f", 100_000),
        of("", "[0]", 60_000),
        of("", "()", 100_000),
        of("", " is f", 40_000),
        of("1 if 1 else ", "", 20_000),
        format!("{}{}", "{% if 1 %}".repeat(12_000), "{% endif %}".repeat(12_000)),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(20_000)),
        format!("{}{}", "{% for i in [1] %}".repeat(8_000), "{% endfor %}".repeat(8_000)),
        "x".repeat(300_000),
        // Values that nest.
        "{% set ns = namespace(x=[]) %}{% for i in range(9000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}".into(),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".into(),
    ] {
        // Flat chains give a value, all others an error; none crashes.
        let template = ChatTemplate::compile(PathBuf::from("t.jinja"), source, &json!({}));
        let rendered =
            template.and_then(|of| of.render(&json!(conversation()), GenerationPrompt::Append, &json!({})));
        assert!(rendered.map_or(0, |text| text.len()) <= 20);
    }
}

#[test]
fn a_panic_of_the_engine_is_an_error() {
    assert!(refused("{{ [][::-1] | list }}").contains("the template engine failed"));
}

#[test]
fn a_template_cannot_load_another() {
    for source in [
        "{% include 'chat template' %}",
        "{% extends 'x' %}",
        "{% import 'x' as x %}",
        "{% from 'x' import y %}",
    ] {
        assert!(refused(source).contains("cannot load other templates"), "{source}");
    }
}

/// Every statement and expression, in ways that published templates use and in some that none does.
const SYNTAX: [&str; 29] = [
    CHATML,
    "a\n  {% if true %}\nb\n  {% endif %}\n\n c {{- ' d ' -}}  e\n{#- x -#}\nf",
    "{% for m in messages %}{{ loop.index0 * 2 }}{{ loop.first }}{{ m.role }}{% else %}none{% endfor %}{% for x in [] %}y{% else %}z{% endfor %}",
    "{% for m in messages if m.role != 'system' %}{{ m['content'] | trim }}{% if loop.last %}.{% endif %}{% endfor %}",
    "{% for k, v in {'a': 1, 'b': [2, (3,)]}.items() %}{{ k }}={{ v }};{% endfor %}{% for (a, b) in [(1, 2)] %}{{ a - b }}{% endfor %}",
    "{% set a, b = 1, 'x' %}{{ a }}{{ b }}{% set t = (1, 2,) %}{{ t }}{% set (c, d) = [3, 4] %}{{ c ** d // 5 % 7 / 2 }}",
    "{% set x %}<{{ messages[0].content }}>{% endset %}{{ x }}{% set y | upper | replace('A', 'bb') %}a{{ 'c' }}{% endset %}{{ y }}",
    "{% with a=1, b=a %}{{ a }}{{ b is defined }}{% endwith %}{% filter upper | trim %} x {{ 'y' }}{% endfilter %}",
    "{% macro f(a, b='d', c=none) %}{{ a }}{{ b }}{{ c }}{% if caller %}{{ caller(1) }}{% endif %}{% endmacro %}{{ f(1) }}{{ f(1, c=2) }}{% call(z) f('q') %}[{{ z }}]{% endcall %}{% macro g() %}{{ caller() }}{% endmacro %}{% call g() %}s{% endcall %}",
    "{{ 1 + 2 ~ 3 }}",
    "{{ 1 ~ 2 + 3 | int }}",
    "{{ (1 + 2) ~ 3 }}{{ 'x' + 2 ~ 3 }}{{ 'a' ~ 'b' ~ 'c' + 'd' }}{{ 2 * 3 - 4 }}{{ 7 - 2 - 1 }}{{ 7 - (2 - 1) }}{{ -2 ** 2 }}{{ -(1 + 2) }}{{ - 1 | abs }}{{ 2.5 * 2 }}{{ 1e3 }}{{ 0.1 + 0.2 }}",
    "{{ 1 < 2 < 3 }}{{ 1 in [1, 2] and not 3 in [1] or false }}{{ 4 not in [1] }}{{ (1 or 2) and 3 }}{{ none or 'x' }}{{ 'a' in 'abc' }}{{ not (1 == 2) }}",
    "{{ 'y' if messages[0].role == 'system' else 'n' }}{{ ('a' if false) | default('d') }}{{ (1 if true else 2) + 1 }}",
    "{{ messages[1:] | length }}{{ messages[::-1][0].role }}{{ messages[-1].role[1:3] }}{{ 'abcdef'[1:5:2] }}{{ (messages | first).role }}{{ messages[0]['content'].split(' ')[1] }}",
    "{{ undefined_name is defined }}{{ undefined_name | default('x') }}{{ messages[0].missing is undefined }}{{ messages[0].get('missing', 'y') }}{{ 3 is divisibleby 3 }}{{ 3 is not odd }}{{ 'x' is in(['x']) }}{{ undefined_name }}",
    "{{ {'a': [1, 2.0, none, true, \"q\\\"\\n\"], 'b': {}} | tojson }}{{ messages | tojson(indent=2) }}{{ [1, 2] | map('string') | join(', ') }}",
    "{{ messages | map(attribute='role') | join('|') }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ [3, 1, 2] | sort | last }}{{ 'ab' | list }}{{ range(3) | list }}",
    "{%- set ns = namespace(a=1, b='x') -%}{%- for i in range(5) -%}{%- set ns.a = ns.a + i -%}{%- if i == 3 -%}{%- break -%}{%- elif i == 1 -%}{%- continue -%}{%- else -%}{%- set ns.b = ns.b ~ i -%}{%- endif -%}{%- endfor -%}{{ ns.a }}{{ ns.b }}",
    "{% if messages | length == 0 %}a{% elif messages[0].role == 'user' %}b{% elif messages[0].role == 'system' %}c{% else %}d{% endif %}",
    "{% for item in [1, [2, [3]]] recursive %}{% if item is number %}{{ item }}{% else %}({{ loop(item) }}){% endif %}{% endfor %}",
    "{{ 'a' 'b' }}{{ \"it's\" }}{{ 'say \"é\" \\u00e9 \\\\ \\t|' }}{% raw %}{{ x }}{% endraw %}{{ '{{' }}",
    "{% autoescape false %}{{ '<b>' }}{% endautoescape %}{% block body %}{{ messages[2].content }}{% endblock %}",
    "{{ 'x'.join(['a', 'b']) }}{{ ' a '.strip().upper().replace('A', 'b') }}{{ 'a-b'.split('-') | last }}{{ '{}-{:>4}'.format(1, 'a') }}{{ '%s: %05.1f' | format('a', 2.25) }}{{ 'a\\nb' | indent(2) }}{{ 'a\\nb' | indent(width=1, first=true) }}",
    "{{ 'Cutoff 2023-10: %s, 100%%2000' | format('x') }}{{ '%(k2000)s' | format({'k2000': 1}) }}{{ 'In 20240101: {} {a[2000]} {{5000:5000}} {:9>4}'.format('x', 'y', a={'2000': 1}) }}",
    "{% do namespace(a=1) %}{% set d = dict(a=1, b=2) %}{{ d.a }}{{ d['b'] }}{{ d | items | list }}{{ 'aXb'.lower() }}{{ [1] + [2, 3] }}{{ [0] * 3 }}{{ 'ab' * 2 }}{{ 3 * 'x' }}",
    "{{ messages[0].content | trim | upper }}{{ (messages[0].content | length) > 3 }}{{ messages[0].content[:2] + '..' }}{{ bos_token + 'x' + eos_token ~ 1 + 2 }}{{ 9007199254740993 * 3 }}{{ 99999999999999999999 }}",
    "{{ 1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1 }}{{ 'a'+'b'+'c'+'d'+'e'+'f'+'g'+'h'+'i'+'j'+'k'+'l'+'m'+'n'+'o'+'p'+'q'+'r' }}{{ 1 and 2 and 3 and 4 and 5 or 6 or 7 }}",
    "{%- set tools = tools or [] -%}{%- if tools is iterable and tools | length > 0 -%}t{%- endif -%}{{ strftime_now('%Y') | length }}{% set f = loop_missing | default({}) %}{{ f }}",
];

/// What a template gives with the limits and without, and its source with the checks.
fn with_and_without(
    source: &str,
    messages: &[ChatMessage],
) -> ([Result<String, minijinja::ErrorKind>; 2], String) {
    let kind = |error: minijinja::Error| error.kind();
    let context = context! {
        messages => Serde(messages),
        add_generation_prompt => true,
        tools => (),
        documents => (),
        bos_token => "<s>",
        eos_token => "<|im_end|>",
    };
    let plain = move || {
        let mut plain = environment()?;
        plain.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        plain.add_template_owned("plain", source.to_owned())?;
        let template = plain.get_template("plain")?;
        let panicked = |_| minijinja::Error::from(minijinja::ErrorKind::InvalidOperation);
        let rendered = std::panic::catch_unwind(AssertUnwindSafe(|| template.render(context)));
        rendered.map_err(panicked)?
    };
    let config = json!({ "eos_token": "<|im_end|>", "bos_token": "<s>" });
    let limited = ChatTemplate::compile(PathBuf::from("t.jinja"), source.to_owned(), &config)
        .and_then(|of| of.render(&json!(messages), GenerationPrompt::Append, &json!({})));
    let limited = limited.map_err(|error| match error {
        Error::ChatTemplate { source, .. } => source.kind(),
        other => panic!("{other}"),
    });
    let printed = syntax().and_then(|syntax| guarded(source, syntax));
    ([limited, plain().map_err(kind)], printed.unwrap_or_default())
}

#[test]
fn the_limits_change_nothing_that_a_template_gives() {
    for source in SYNTAX {
        let ([limited, plain], printed) = with_and_without(source, &conversation());
        assert_eq!(limited, plain, "{source}\n{printed}");
    }
}

/// For the templates in a directory, such as `models/templates` of llama.cpp, which the project does not have:
/// `EMBODIED_R_CHAT_TEMPLATES=DIR cargo test -p embodied-r-policy published_templates -- --nocapture`.
#[test]
fn published_templates_give_the_same_with_the_limits() {
    let Ok(dir) = std::env::var("EMBODIED_R_CHAT_TEMPLATES") else {
        eprintln!("skipped: EMBODIED_R_CHAT_TEMPLATES names no directory of templates");
        return;
    };
    let mut counts = (0, 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        for messages in [&conversation()[..], &conversation()[1..2], &[]] {
            let ([limited, plain], printed) = with_and_without(&source, messages);
            assert_eq!(limited, plain, "{}\n{printed}", path.display());
            counts.0 += usize::from(plain.is_ok());
            counts.1 += usize::from(plain.is_err());
        }
    }
    println!("{} renderings and {} errors are the same", counts.0, counts.1);
    assert!(counts.0 > 0);
}

#[test]
fn an_error_names_the_line_of_the_source() {
    let source = "\n\n{% if true %}\n\n{{ 1 }}{{ messages.nothing.more }}\n{% endif %}";
    let path = PathBuf::from("t.jinja");
    let template = ChatTemplate::compile(path, source.to_owned(), &json!({})).unwrap();
    match template.render(&json!(conversation()), GenerationPrompt::Append, &json!({})) {
        Err(Error::ChatTemplate { source, .. }) => assert_eq!(source.line(), Some(5)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_long_conversation_is_within_the_limits() {
    let messages: Vec<ChatMessage> = (0..2000)
        .flat_map(|_| [ChatMessage::user("x".repeat(500)), ChatMessage::assistant("y".repeat(500))])
        .collect();
    let text =
        template(CHATML).render(&json!(messages), GenerationPrompt::Append, &json!({})).unwrap();
    assert_eq!(text.matches("<|im_start|>").count(), 2 * 2000 + 2);
    let long = [ChatMessage::user("x".repeat(40 << 20))];
    assert!(
        template(CHATML).render(&json!(long), GenerationPrompt::Append, &json!({})).unwrap().len()
            > 40 << 20
    );
}
