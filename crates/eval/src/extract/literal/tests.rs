use super::*;

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn number(value: f64) -> Value {
    Value::Number(value)
}

fn other(is_true: bool, is_hashable: bool) -> Value {
    Value::Other { is_true, is_hashable }
}

#[test]
fn numbers_have_their_values() {
    for (source, expected) in [
        ("-1", -1.0),
        ("+1", 1.0),
        ("- 1", -1.0),
        ("00", 0.0),
        ("0_0", 0.0),
        ("01.5", 1.5),
        ("01e5", 1e5),
        ("1.e5", 1e5),
        ("1_0.5", 10.5),
        (".5E-1", 0.05),
        ("1e999", f64::INFINITY),
        ("0x_fF", 255.0),
        ("0o17", 15.0),
        ("0B11", 3.0),
        ("True", 1.0),
        ("(1)", 1.0),
        ("1\u{c}", 1.0),
        ("-(400)", -400.0),
        ("+\t( (\n4 ) )", 4.0),
    ] {
        assert_eq!(literal(source), Some(number(expected)), "{source}");
    }
}

#[test]
fn strings_have_their_texts() {
    for (source, expected) in [
        (r#"'a' "b""#, "ab"),
        ("'''a\r\nb'''", "a\nb"),
        ("'a\\\nb'", "ab"),
        (r"'\x41\u00e9\101\q\''", "Aé\u{41}\\q'"),
        (r"R'\n'", "\\n"),
        ("u'a'", "a"),
        (r"'\ud800'", "\u{fffd}"),
    ] {
        assert_eq!(literal(source), Some(text(expected)), "{source}");
    }
}

#[test]
fn collections_have_their_items() {
    let pair = vec![number(1.0), number(2.0)];
    for (source, expected) in [
        ("[1,\r2]", Value::List(pair.clone())),
        ("[ # c\n1\\\n,2,]", Value::List(pair.clone())),
        ("# c\n\n[1, 2] # c\n# d", Value::List(pair.clone())),
        ("1, 2", Value::Tuple(pair.clone())),
        ("1, 2,", Value::Tuple(pair.clone())),
        ("(1, 2)", Value::Tuple(pair)),
        ("(1,)", Value::Tuple(vec![number(1.0)])),
        ("()", Value::Tuple(vec![])),
        ("{'a': 1,}", Value::Dictionary(vec![(text("a"), number(1.0))])),
        ("{}", Value::Dictionary(vec![])),
    ] {
        assert_eq!(literal(source), Some(expected), "{source}");
    }
}

#[test]
fn other_values_are_true_or_not() {
    for (source, expected) in [
        ("None", other(false, true)),
        ("...", other(true, true)),
        ("0j", other(false, true)),
        ("2J", other(true, true)),
        ("-1 + 2j", other(true, true)),
        ("0-0j", other(false, true)),
        ("{1, 'a'}", other(true, false)),
        ("set( )", other(false, false)),
        ("b''", Value::Bytes(String::new())),
        ("Rb'a' b'\\xe9'", Value::Bytes("a?".to_owned())),
    ] {
        assert_eq!(literal(source), Some(expected), "{source}");
    }
}

#[test]
fn what_python_refuses_is_none() {
    for source in [
        "",
        "--1",
        "- ...",
        "1+1",
        "2j+1",
        "1+-2j",
        "1-2j+3j",
        "1.__5",
        ".",
        "1..",
        "01",
        "0_7",
        "1__0",
        "1_",
        "1._5",
        "1L",
        "1 2",
        "0x",
        "0xg",
        "-True",
        "-(True)",
        "-(-1)",
        "-(1",
        "-()",
        "-(1,)",
        "-None",
        "+'a'",
        "b'a' 'c'",
        "f'a'",
        "ur'a'",
        "'a\nb'",
        "'a",
        "'a\\",
        "'\\x1'",
        "'\\U00110000'",
        "b'é'",
        r"'\N{no such name}'",
        "'a'\n'b'",
        "{[1]: 2}",
        "{(1, [2]): 3}",
        "{1, [2]}",
        "{'a': 1 'b': 2}",
        "{**{}}",
        "{,}",
        "{'a'}: 1",
        "[1,,2]",
        "[,]",
        "[*[1]]",
        "[1",
        "1]",
        "[1]\n[2]",
        "[1];",
        "# c\n  [1]",
        "nan",
        "x",
        "set(())",
        "[1\u{a0},2]",
        "\u{feff}[1]",
        "'\0'",
        "１",
        "[1].x",
        "1 if 1 else 2",
    ] {
        assert_eq!(literal(source), None, "{source:?}");
    }
    assert_eq!(literal(&"9".repeat(4301)), None);
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(literal(&nested(200)).is_some());
    assert!(literal(&nested(201)).is_none());
    assert!(literal(&nested(100_000)).is_none());
}
