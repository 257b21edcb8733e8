use proptest::prelude::*;

use super::super::{AnswerError, number, read_number, whole_number};

#[test]
fn a_number_is_read_with_or_without_its_unit() {
    for (text, number) in [
        ("3.5", 3.5),
        (" 3.5.\n", 3.5),
        ("3", 3.0),
        ("007", 7.0),
        ("0", 0.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("3...", 3.0),
        ("about 3.5 meters", 3.5),
        ("3.5m", 3.5),
        ("3 m/s", 3.0),
        ("3/s", 3.0),
        ("3 m/s^2", 3.0),
        ("3 m s^-1", 3.0),
        ("3 m·s⁻¹", 3.0),
        ("12.5 m2", 12.5),
        ("12.5m2", 12.5),
        ("12.5 m^2", 12.5),
        ("12.5 m^{2}", 12.5),
        ("12.5 m²", 12.5),
        ("12.5㎡", 12.5),
        ("12.5平方米²", 12.5),
        ("12.5 m<sup>2</sup>", 12.5),
        (r"$12.5\,\text{m}^2$", 12.5),
        (r"$12.5\ \mathrm{m\,s^{-1}}$", 12.5),
        ("50%", 50.0),
        (r"50\%", 50.0),
        ("90°", 90.0),
        (r"$90^\circ$", 90.0),
        (r"$90^{\circ}$ left", 90.0),
        ("$3", 3.0),
        ("€3", 3.0),
        ("3!", 3.0),
        ("1st", 1.0),
        ("3-legged", 3.0),
        ("3 - the chairs", 3.0),
        ("3 eggs", 3.0),
        ("3eggs", 3.0),
        ("x = 3", 3.0),
        ("Answer:3", 3.0),
        ("~7", 7.0),
        ("≈ 7", 7.0),
        ("chairs, 3", 3.0),
        ("chairs,3", 3.0),
        ("There are 4 chairs, so 4", 4.0),
        ("10 (ten)", 10.0),
        ("room2 has 3", 3.0),
        ("x_1 is 3", 3.0),
        ("H₂O: 3", 3.0),
        ("3 km", 3.0),
        ("3\n\n3 chairs", 3.0),
    ] {
        assert_eq!(read_number(text), Ok(number), "`{text}`");
    }
}

#[test]
fn markup_around_a_number_is_dropped() {
    for (text, number) in [
        ("**4**", 4.0),
        ("_4_", 4.0),
        ("`4`", 4.0),
        ("“4”", 4.0),
        ("(4)", 4.0),
        ("[4]", 4.0),
        ("【4】", 4.0),
        ("$4$", 4.0),
        ("<b>4</b>", 4.0),
        ("4<br>", 4.0),
        (r"$\boxed{3.5}$", 3.5),
        (r"\boxed{-3}", -3.0),
        (r"\boxed{3.5\text{ m}}", 3.5),
        (r"\[\boxed{\mathbf{3}}\]", 3.0),
        (r"$3.5\,\text{m}$", 3.5),
        (r"\(\approx 3\)", 3.0),
        ("**−3**", -3.0),
        ("4\u{200b}", 4.0),
    ] {
        assert_eq!(read_number(text), Ok(number), "`{text}`");
    }
}

#[test]
fn thousands_are_separated_by_commas() {
    for (text, number) in [
        ("1,200 cm", 1200.0),
        ("1,234,567.5", 1_234_567.5),
        ("1200", 1200.0),
        ("-1,200", -1200.0),
        ("1{,}200", 1200.0),
        ("1，200", 1200.0),
        ("١٬٢٠٠", 1200.0),
        ("1.200", 1.2),
    ] {
        assert_eq!(read_number(text), Ok(number), "`{text}`");
    }
}

#[test]
fn a_sign_is_any_dash_before_the_digits() {
    for dash in ["-", "−", "－", "–", "—", "‒", "―", "‐", "‑", "﹣", "﹘", "➖", "ー"]
    {
        for (text, number) in [
            ("@3", -3.0),
            ("@.5", -0.5),
            ("(@3)", -3.0),
            ("x = @3 m", -3.0),
            ("Answer:@3", -3.0),
            ("是@3米", -3.0),
            ("＠\u{3000}@３", -3.0),
            (r"$\boxed{@3}$", -3.0),
            ("3e@2", 0.03),
        ] {
            if dash == "ー" && (text.starts_with('是') || text.starts_with("3e")) {
                continue;
            }
            let text = text.replace('@', dash);
            assert_eq!(read_number(&text), Ok(number), "`{text}`");
        }
    }
    for text in ["+3", "＋3", "(+3)"] {
        assert_eq!(read_number(text), Ok(3.0), "`{text}`");
    }
}

#[test]
fn digits_are_of_any_script_and_beside_any_script() {
    for (text, number) in [
        ("３", 3.0),
        ("３．５", 3.5),
        ("－３", -3.0),
        ("３ｅ２", 300.0),
        ("３ｍ", 3.0),
        ("٣", 3.0),
        ("٣٫٥", 3.5),
        ("३", 3.0),
        ("𝟛", 3.0),
        ("3。", 3.0),
        ("3个", 3.0),
        ("3平方米", 3.0),
        ("3千米", 3.0),
        ("答案是3", 3.0),
        ("答案：3个", 3.0),
        ("约3米", 3.0),
        ("共有3把椅子。", 3.0),
        ("3です", 3.0),
        ("정답은 3개입니다", 3.0),
        ("정답은3", 3.0),
        ("Ответ: 3 м", 3.0),
        ("الجواب3", 3.0),
    ] {
        assert_eq!(read_number(text), Ok(number), "`{text}`");
    }
}

#[test]
fn exponents_are_those_of_computers() {
    for (text, number) in
        [("1e2", 100.0), ("3E+2 m", 300.0), ("2.5E-1 m", 0.25), ("1e-3", 0.001), ("1,200e1", 12e3)]
    {
        assert_eq!(read_number(text), Ok(number), "`{text}`");
    }
}

#[test]
fn a_part_that_is_not_understood_leaves_no_number() {
    for text in [
        // Signs.
        "--3",
        "- -3",
        "+-3",
        "±3",
        "± 3",
        "+/-3",
        r"\pm 3",
        "- 3",
        "− 3",
        "-(3)",
        "−$3",
        "-<b>3</b>",
        r"\-\text{3}",
        "3-",
        "3−",
        "3+",
        "⁻3",
        "minus 3",
        "negative 3",
        "负3",
        "マイナス3",
        "x-3",
        "x − 3",
        "room-2",
        "(1)-2",
        "3--",
        // Exponents and roots.
        "10^3",
        "10 ^ 3",
        "10**3",
        "10^{3}",
        "10^-3",
        "10³",
        "10⁻³",
        "10 ³",
        "(10)^3",
        "(10)³",
        "10<sup>3</sup>",
        "3×10^2",
        "3x10^2",
        "3·10²",
        r"3\times10^{2}",
        "3e",
        "3e-",
        "3E",
        "3e 2",
        "3e2.5",
        "1e400",
        "-1e400",
        "1e-400",
        "√3",
        "√ 3",
        "2√3",
        "sqrt(3)",
        r"\sqrt{3}",
        r"2 \sqrt { 221 }",
        "3²",
        "101₂",
        "^3",
        "3 squared",
        "2π",
        r"2\pi",
        "3 pi",
        // Fractions and decimals.
        "1/2",
        "1 / 2",
        "1⁄2",
        "2/2",
        "／2",
        "3½",
        "3 ½",
        "½",
        "½ m",
        "1 1/2",
        r"\frac{1}{2}",
        r"\frac12",
        r"\dfrac{2}{2}",
        "3 and a half",
        "3 quarters",
        "3个半",
        ",5",
        "$,5$",
        "2,2",
        "1,20 m",
        "1,2345",
        "0,200",
        "1.200,5",
        "1.2.3",
        "1..2",
        "...5",
        "3·5",
        "3/ 3",
        // Separators.
        "1'000",
        "1’001",
        "1_000",
        "1,2,3",
        "1 000",
        "1 001",
        "1\u{202f}001",
        "1.000.000",
        "12,34,567",
        "1:30",
        "1:1",
        "1;1",
        "5'6\"",
        // Ranges and operations.
        "2-4",
        "2–4",
        "2−4",
        "2－4",
        "2 - 2",
        "2–2",
        "2m-4m",
        "2 m – 2 m",
        "2~2",
        "2～2",
        "3 * 3",
        "3 x 3",
        "3 × 3",
        "3+3",
        "3 = 3",
        "3…5",
        // Scales, bases and times.
        "3 thousand",
        "3-million",
        "3k",
        "3万",
        "3 百",
        "3만",
        "0x10",
        "0b11",
        "1h30",
        "1 h30",
        "3x2",
    ] {
        let found = read_number(text);
        assert_eq!(found, Err(AnswerError::NumberForm), "`{text}`");
    }
}

#[test]
fn several_different_numbers_are_ambiguous() {
    for text in [
        "2 or 3",
        "2 to 4",
        "2, 3",
        "2至4",
        "2到4米",
        "3分之1",
        "3 m (300 cm)",
        "10的3次方",
        "2\n3",
        "3 of 4",
    ] {
        assert_eq!(read_number(text), Err(AnswerError::AmbiguousNumbers), "`{text}`");
    }
}

#[test]
fn texts_without_a_number_are_errors() {
    for text in
        ["three", "N/A", "B", "m2", "m²", "x_1", "-", ".", "inf", "nan", "∞", "e5", "三", "③"]
    {
        assert_eq!(read_number(text), Err(AnswerError::NoNumber), "`{text}`");
    }
    assert_eq!(read_number(" "), Err(AnswerError::Empty));
}

#[test]
fn a_number_in_no_form_that_is_read_spoils_every_tag() {
    let text = "<answer>10</answer><answer>10^3</answer>";
    assert_eq!(number(text), Err(AnswerError::NumberForm));
}

#[test]
fn a_whole_number_has_no_unit() {
    for (text, number) in [
        (" 3\n", 3.0),
        ("−3", -3.0),
        ("３", 3.0),
        ("1,200", 1200.0),
        ("+2.5e−1", 0.25),
        ("5.", 5.0),
    ] {
        assert_eq!(whole_number(text), Some(number), "`{text}`");
    }
    for text in
        ["", "-", "3 m", "--3", "10^3", "1/2", "1,2", "1e400", "1e", "nan", "B", "3 3", "(3)"]
    {
        assert_eq!(whole_number(text), None, "`{text}`");
    }
}

proptest! {
    #[test]
    fn a_number_round_trips_exactly(number in -1e6_f64..1e6, unit in "( m| cm| chairs|个)?") {
        prop_assert_eq!(read_number(&format!("{number}{unit}")), Ok(number));
        prop_assert_eq!(whole_number(&number.to_string()), Some(number));
    }

    #[test]
    fn any_text_gives_a_finite_number_or_none(
        text in "[-−–+±*/^_0-9.,'eEx ²³½{}()\\\\$a-c\\n个是]{0,12}"
    ) {
        if let Ok(number) = read_number(&text) {
            prop_assert!(number.is_finite());
        }
    }

    #[test]
    fn digits_joined_to_a_number_never_leave_another(
        joint in "[-−–—±*/^_'’:;~×·+|=]{1,2}", first in 1..99u32, second in 1..99u32
    ) {
        let text = format!("{first}{joint}{second}");
        prop_assert_eq!(read_number(&text), Err(AnswerError::NumberForm), "{}", text);
    }
}
