//! Templates of hostile models, and long conversations that are within the limits.

use super::*;

/// The error of compiling or rendering `source`, with its causes.
fn refused(source: &str) -> String {
    match render(source, &conversation(), &json!({})) {
        Ok(text) => panic!("`{source:.200}` gives {} bytes", text.len()),
        Err(fault) => fault.to_string(),
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
                "{{ '%%%(a)-9999s' | format(a='a') }}",
                "{{ '{:>999999999}'.format('a') }}",
                "{{ '{{{a[:}].b:->9999}'.format(a={':}': {'b': 1}}) }}",
                "{{ 'a' | indent(999999999) }}",
                "{{ 'a\\nb' | indent(width=999999999, first=true) }}",
                "{{ '%*d' | format(999999999, 1) }}",
                "{{ '%.*f' % (999999999, 1) }}",
                "{{ [1, [2]] | tojson(indent=999999999) }}",
                "{{ 'a'.ljust(999999999) }}",
                "{{ '1'.zfill(999999999) }}",
                "{{ 'a\\tb'.expandtabs(999999999) }}",
                "{{ 'a' | center(999999999) }}",
                "{{ '{:{}}'.format('a', 999999999) }}",
            ][..],
        ),
        (
            "memory limit",
            &[
                "{{ 'a' * 99999999 }}",
                "{{ [1] * 99999999 }}",
                "{{ ('a' * 999999) * 999 }}",
                "{{ ['a' * 99999] * 9999 }}",
                "{{ range(99999) | join('a' * 9999) }}",
                "{{ ('a' * 99999).replace('a', 'b' * 9999) }}",
                "{{ 'a' * 99999 * 9999 }}",
                "{{ ('\\t' * 99999).expandtabs(999) }}",
                "{{ [1] | batch(999999999, 'x') | list }}",
                "{{ ('a' * 999999) | list }}",
                "{{ ([[1] * 999] * 999) * 999 }}",
                "{{ [1] * 9999 * 9999 }}",
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
        "{% set ns = namespace(x=range) %}{% for i in range(9000) %}{% set ns.x = [ns.x].count %}{% endfor %}".into(),
        "{% set ns = namespace(x=1) %}{% for i in range(9000) %}{% set ns.x = joiner(ns.x) %}{% endfor %}".into(),
        "{% set ns = namespace(x=1) %}{% for i in range(9000) %}{% for j in [ns.x] %}{% set ns.x = loop %}{% endfor %}{% endfor %}".into(),
        // Calls that nest.
        "{% for i in messages recursive %}{{ loop(messages) }}{% endfor %}".into(),
        "{% block a %}{{ self.a() }}{% endblock %}".into(),
        "{% macro f(x) %}{% for i in [1] %}{% filter upper %}{{ [f(x)] | list | join }}{% endfilter %}{% endfor %}{% endmacro %}{{ f(1) }}".into(),
        "{% macro f() %}{% call f() %}{{ f() }}{% endcall %}{{ caller }}{% endmacro %}{{ f() }}".into(),
    ] {
        // Flat chains give a value, all others an error; none crashes.
        let rendered = render(&source, &conversation(), &json!({}));
        let is_chain = ["{{ 1+", "{{ 1-", "{{ 1~", "{{ 1 and"].iter().any(|of| source.starts_with(of));
        let is_elif = source.contains("{% elif 1 %}{% elif 1 %}");
        assert_eq!(rendered.is_ok(), is_chain || is_elif, "{source:.100}");
    }
}

#[test]
fn macros_that_refer_to_each_other_are_dropped_without_recursion() {
    let source = "{% set ns = namespace(f=0) %}{% for i in range(20000) %}{% set before = ns.f %}\
                  {% macro m() %}{{ before }}{% endmacro %}{% set ns.f = m %}{% endfor %}ok";
    assert_eq!(render(source, &conversation(), &json!({})).unwrap(), "ok");
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

#[test]
fn an_error_names_the_line_of_the_source() {
    for (source, line) in [
        ("\n\n{% if true %}\n\n{{ 1 }}{{ messages.nothing.more }}\n{% endif %}", 5),
        ("{{ 1 }}\n{% if true %}\n{{ 1 +\n }}", 4),
        ("\n{% for m in messages %}\n{{ m | nope }}\n{% endfor %}", 3),
    ] {
        let error = refused(source);
        assert!(error.ends_with(&format!("(line {line} of the template)")), "{error}");
    }
}
