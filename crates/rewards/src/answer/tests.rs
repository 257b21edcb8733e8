use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn several(letters: &str) -> Result<char, AnswerError> {
    Err(AnswerError::AmbiguousLetters(letters.chars().collect()))
}

/// Asserts that every text is parsed as `expected`.
fn all_parse_as(expected: Result<char, AnswerError>, texts: &[&str]) {
    for text in texts {
        assert_eq!(read_letter(text), expected, "`{text}`");
    }
}

#[test]
fn a_sole_letter_counts_in_either_case() {
    all_parse_as(
        Ok('B'),
        &[
            "B",
            "b",
            " B\n",
            "B.",
            "b.",
            "(B)",
            "(b)",
            "[B]",
            "B)",
            "B:",
            "\"B\"",
            "-B-",
            "'B'",
            "“B”",
            "B!",
            "<B>",
            "B<br>",
            "B\u{200b}",
            "\u{a0}B",
        ],
    );
}

#[test]
fn markup_around_a_letter_is_dropped() {
    all_parse_as(
        Ok('B'),
        &[
            r"$\boxed{B}$",
            r"$\boxed{b}$",
            r"\boxed{B}",
            r"$\boxed{\text{B}}$",
            r"\(\boxed{B}\)",
            r"\[ \boxed{\mathrm{B}} \]",
            r"$\boxed{B. Left}$",
            "**B**",
            "**B.** the chair",
            "**B**: the chair",
            "`B`",
            "_B_",
        ],
    );
}

#[test]
fn framing_words_are_ignored() {
    all_parse_as(
        Ok('B'),
        &[
            "option B",
            "Option B",
            "Option b.",
            "OPTION (B)",
            "Answer: B",
            "The answer is B",
            "The correct answer is b.",
            "the best option is: B",
            "Final answer: (B)",
            "My choice is B!",
        ],
    );
}

#[test]
fn a_label_introduces_the_options_text() {
    all_parse_as(
        Ok('A'),
        &[
            "A. When I reach the halfway circle, I turn left and go down, flying towards the red \
             roof of the smaller building next to the one I climbed over.",
            "\nA. When I reach the halfway circle.\n",
            "A) I go up",
            "(A) I go up",
            "[A] I go up",
            "A: I go up",
            "A.I go up",
            "A．I go up",
            "Option A: I go up",
            "The answer is A. I go up and turn right.",
        ],
    );
}

#[test]
fn articles_and_names_in_an_options_text_are_no_options() {
    all_parse_as(Ok('A'), &["A. A tree.", "A. A \"Keep Out\" sign by the river."]);
    all_parse_as(
        Ok('B'),
        &[
            "B. A tree.",
            "B. A tree, A house and A lake",
            "B. A \"WELCOME\" sign by the river.",
            "B. Turn to building A.",
            "B. a, b and c",
            "B. the C-shaped roof",
            "B. C Street",
            "B. It is in between D and the lamp",
            "B. E's house",
        ],
    );
}

#[test]
fn letters_in_a_sentence_count_when_upper_case() {
    all_parse_as(Ok('B'), &["I choose B", "B is right", "B because it is left", "B - the chair"]);
    all_parse_as(Ok('A'), &["I choose A", "A is right", "A I go up", "A, because it is near"]);
}

#[test]
fn a_letter_counts_in_any_width_and_enclosed() {
    all_parse_as(
        Ok('B'),
        &[
            "Ｂ",
            "ｂ",
            "（ｂ）",
            "Ｂ．灯",
            "Ｂ：灯",
            "［Ｂ］",
            "𝐁",
            "𝒃",
            "Ⓑ",
            "ⓑ",
            "⒝",
            "🅱",
            "Ⓑ a lamp",
            "ＯＰＴＩＯＮ Ｂ",
        ],
    );
    all_parse_as(Ok('A'), &["Ⓐ tree", "Ａ．A tree"]);
    all_parse_as(several("AB"), &["Ａ Ｂ", "Ａ、Ｂ", "ⒶⒷ", "Ａ or B", "Ａ/Ｂ"]);
    all_parse_as(Err(AnswerError::NoLetter), &["ＡＢ", "ＡＢＣＤ", "Ｚ", "Ｂ２", "Ｉ"]);
}

#[test]
fn a_letter_counts_beside_any_script() {
    all_parse_as(
        Ok('B'),
        &[
            "B。",
            "答案：B",
            "答案是B",
            "答案是 B。",
            "选B",
            "选项B",
            "选择 B",
            "选项B正确",
            "我选B",
            "故选：B．",
            "B、灯",
            "（B）灯",
            "【B】",
            "【B】灯",
            "「B」",
            "《B》",
            "B是正确的",
            "B项",
            "B灯",
            "正确答案为Ｂ",
            "答案是b",
            "选b。",
            "正确答案是B. 灯",
            "Bです",
            "答えはBです。",
            "正解はB",
            "정답은 B입니다",
            "정답은B",
            "답: B",
            "B번",
            "b입니다",
            "ОтветB",
            "Ответ: B",
            "Правильный ответ: b",
            "الجوابB",
            "η απάντηση είναι B",
            "คำตอบB",
            "उत्तर B है",
            "B。灯",
        ],
    );
    all_parse_as(
        Ok('A'),
        &["A 灯", "A です", "答案是A", "A是一棵树", "选A。A tree", "A “灯”", "A лампа"],
    );
    all_parse_as(
        Ok('B'),
        &["B. C形灯", "B．灯在C", "B、A座", "答案是B. 在A楼的左边", "B. в C", "B. 灯泡，A tree"],
    );
}

#[test]
fn several_letters_beside_any_script_are_ambiguous() {
    all_parse_as(
        several("AB"),
        &[
            "A或B",
            "A和B",
            "A、B",
            "答案是A、B",
            "选A或者选B",
            "A. 灯或B",
            "A. 灯，或者B",
            "A. 灯，也可能是B",
            "A または B",
            "AまたはB",
            "A 또는 B",
            "A또는B",
            "A или B",
            "A. дом или B",
            "選A還是B",
        ],
    );
    all_parse_as(
        Err(AnswerError::NoLetter),
        &["答案是AB", "选项", "没有", "一个b灯", "答案是Ä", "정답은 없음", "Ответ", "B2号"],
    );
}

#[test]
fn a_letter_that_is_denied_leaves_no_option() {
    all_parse_as(
        Err(AnswerError::NoLetter),
        &["not B but A", "not B", "It isn't B", "不是B而是A", "不选B", "答案不是B", "не B"],
    );
    all_parse_as(Ok('B'), &["B. not the lamp", "B. It is not A Street", "B, not the lamp"]);
}

#[test]
fn letters_that_look_latin_are_none() {
    // The second letters of the Greek and, as a third one, of the Russian alphabet.
    all_parse_as(Err(AnswerError::NoLetter), &["В", "Β", "Ответ: В", "Б", "Α", "С"]);
    all_parse_as(Ok('B'), &["B. В углу", "B. С улицы"]);
}

#[test]
fn several_different_letters_are_ambiguous() {
    all_parse_as(
        several("AB"),
        &[
            "A or B",
            "A, B",
            "A/B",
            "A B",
            "A and B.",
            "A. B.",
            "A. or B.",
            "A., B.",
            "(A) (B)",
            "(A)(B)",
            "A) and B)",
            "A. I go up. B. I go down.",
            "A. I go up, B. I go down",
            "A. I go up (or B)",
            "A. I go up or B",
            "A. I go up. It could be B.",
            "A. I go up; option B is possible too",
            "Either A or B",
            r"$\boxed{A}$ or $\boxed{B}$",
            "Option A, option B",
            "A: up\nB: down",
        ],
    );
    all_parse_as(
        several("ABCD"),
        &["A B C D", "A, B, C or D", "A. B. C. D.", "(A)\n(B)\n(C)\n(D)"],
    );
}

#[test]
fn one_letter_named_twice_is_one_answer() {
    all_parse_as(Ok('B'), &["B B", "B. The answer is B.", "(B) B", "B\nB", r"B. $\boxed{B}$"]);
}

#[test]
fn texts_without_an_option_letter_are_errors() {
    all_parse_as(
        Err(AnswerError::NoLetter),
        &[
            "I rise directly.",
            "I",
            "Z",
            "AB",
            "a tree",
            "A tree",
            "A \"Keep Out\" sign",
            "b or c",
            "turn left at the c-shaped roof",
            "none of them",
            "3",
            "B2",
            "A's",
            "Ä",
            "...",
            "Option",
        ],
    );
    all_parse_as(Err(AnswerError::Empty), &["", " \n\t"]);
}

#[test]
fn only_the_answer_tag_is_parsed() {
    let text = "<think>The answer based on A. is wrong, so B.</think><answer>C</answer>";
    assert_eq!(letter(text), Ok('C'));
    assert_eq!(letter("<think>B</think> B"), Err(AnswerError::NoTag));
    assert_eq!(letter("<think>x</think><answer>B"), Err(AnswerError::Unclosed));
    assert_eq!(letter("<answer> </answer>"), Err(AnswerError::Empty));
}

#[test]
fn the_tag_is_parsed_in_malformed_outputs_too() {
    assert_eq!(letter("so\n<answer>A. A tree.</answer>"), Ok('A'));
    assert_eq!(letter("<answer>B</answer><think>x</think>"), Ok('B'));
    assert_eq!(letter("<think>x <answer>B</answer></think>"), Ok('B'));
    assert_eq!(letter("<answer>B</answer> Or C."), Ok('B'));
}

#[test]
fn tags_inside_the_reasoning_are_ignored() {
    let text = "<think>I must use <answer> tags, say <answer>A</answer>.</think><answer>B</answer>";
    assert_eq!(letter(text), Ok('B'));
    assert_eq!(answer_tag("<answer>The <answer>B</answer>"), Some("B"));
}

#[test]
fn several_answer_tags_must_agree() {
    assert_eq!(letter("<answer>A</answer><answer>B</answer>"), several("AB"));
    assert_eq!(letter("<answer>B</answer>\n<answer>b</answer>"), Ok('B'));
    assert_eq!(answer_tag("<answer>A</answer><answer> B</answer>"), Some(" B"));
    assert_eq!(number("<answer>1</answer><answer>2</answer>"), Err(AnswerError::AmbiguousNumbers));
}

#[test]
fn a_position_is_three_finite_numbers_and_nothing_else() {
    for text in ["[0.25, -1, 7e-1]", "(0.25 -1 .7)", " 0.25,-1,0.7\n"] {
        assert_eq!(read_position(text), Ok([0.25, -1.0, 0.7]), "`{text}`");
    }
    for text in [
        "[０．２５，－１，7e−1]",
        "（0.25、−1、0.7）",
        "【0.25, –1, +.7】",
        "[0.25 \u{2011}1\u{3000}٠.٧]",
    ] {
        assert_eq!(read_position(text), Ok([0.25, -1.0, 0.7]), "`{text}`");
    }
    for text in [
        "[10^3, 0, 0]",
        "[1/2, 0, 0]",
        "[½, 0, 0]",
        "[±1, 0, 0]",
        "[--1, 0, 0]",
        "[- 1, 0, 0]",
        "[1e-999, 0, 0]",
        "[1−2, 0, 0]",
        "[10³, 0, 0]",
        "[1e, 0, 0]",
        "[1 2, 0, 0]",
        "[0x1, 0, 0]",
        "[1,200, 0, 0]",
    ] {
        assert_eq!(read_position(text), Err(AnswerError::NoPosition), "`{text}`");
    }
    for text in ["[1e999, 0, 0]", "[inf, 0, 0]", "[0, 0]", "[0, 0, 0, 0]", "[0, 0, 0] m", "A"] {
        assert_eq!(read_position(text), Err(AnswerError::NoPosition), "`{text}`");
    }
    assert_eq!(read_position(" "), Err(AnswerError::Empty));
    assert_eq!(
        position("<answer>[1, 2, 3]</answer><answer>[3, 2, 1]</answer>"),
        Err(AnswerError::AmbiguousTexts)
    );
}

#[test]
fn the_reasoning_is_the_text_of_a_closed_think_tag() {
    assert_eq!(think_tag("x<think> so </think><answer>"), Some(" so "));
    assert_eq!(think_tag("<think></think>"), Some(""));
    assert_eq!(think_tag("<think>so <answer>B</answer>"), None);
    assert_eq!(think_tag("so</think>"), None);
}

#[test]
fn an_error_names_the_letters_found() {
    let letters = BTreeSet::from(['A', 'C']);
    assert_eq!(
        AnswerError::AmbiguousLetters(letters).to_string(),
        "the answer names several options: A, C"
    );
}

proptest! {
    #[test]
    fn any_text_gives_an_option_letter_it_contains_or_none(text in ".{0,60}") {
        let letter = option_letter(&text);
        prop_assert!(letter.is_none_or(|letter| ('A'..='H').contains(&letter)));
        // The parsed letter occurs in the text, in either case.
        prop_assert!(letter.is_none_or(|l| fold(&text).to_ascii_uppercase().contains(l)));
    }

    #[test]
    fn texts_made_of_significant_tokens_never_break_the_parser(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "A", "b", ".", ")", "(", " ", "\n", "or", "option", "\\boxed{", "}", "$", "tree",
                "’", "-", "é", "1", ",", "e", "^", "<answer>", "</answer>", "<think>", "</think>",
            ]),
            0..20,
        )
    ) {
        let text = parts.concat();
        if let Ok(letter) = letter(&text) {
            prop_assert!(matches!(letter, 'A' | 'B' | 'E'));
        }
        if let Ok(number) = number(&text) {
            prop_assert!(number.is_finite());
        }
    }

    #[test]
    fn every_wrapper_gives_the_letter_it_wraps(
        letter in prop::char::range('A', 'H'),
        lower in any::<bool>(),
        wrapper in prop::sample::select(vec![
            "@", " @ ", "@.", "(@)", "option @", "Option @.", "$\\boxed{@}$", "**@**", "The answer is @",
        ]),
    ) {
        let typed = if lower { letter.to_ascii_lowercase() } else { letter };
        let tag = format!("<answer>{}</answer>", wrapper.replace('@', &typed.to_string()));
        prop_assert_eq!(super::letter(&tag), Ok(letter));
    }

    #[test]
    fn a_label_gives_its_letter_before_any_lower_case_text(
        letter in prop::char::range('A', 'H'),
        text in "[a-z ,']{0,40}",
    ) {
        prop_assert_eq!(read_letter(&format!("{letter}. {text}")), Ok(letter));
    }

    #[test]
    fn the_reasoning_never_changes_the_letter(think in "[^<]{0,60}") {
        let text = format!("<think>{think}</think><answer>D</answer>");
        prop_assert_eq!(letter(&text), Ok('D'));
    }
}
