//! The accuracy reward: is the answer in the `<answer>` tag correct?

use crate::answer_type::AnswerType;
use crate::answer_type::kind::Case;
use crate::error::Result;
use crate::pointing::PointingRewards;
use crate::reward::{Reward, RewardInput, Score, best_score};
pub use crate::solution::{Solution, alternatives};

/// 1 for the correct option letter, else 0; numeric answers score their mean relative accuracy. A question's
/// [`AnswerType`] can say otherwise.
///
/// Only the `<answer>` tag is parsed, by the rules of [`answer`](crate::answer); letters in the reasoning never
/// count.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Accuracy {
    /// Parameters of answer types that point into an image.
    pub pointing: PointingRewards,
}

impl Reward for Accuracy {
    fn name(&self) -> &str {
        "accuracy"
    }

    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>> {
        Ok(batch.iter().map(|input| best_score(input, |input| self.of(input))).collect())
    }
}

impl Accuracy {
    /// Why no completion of a question can be scored, if so: its reference answer is none of its type, or its columns name no
    /// grid.
    pub fn unscored(&self, input: &RewardInput<'_>) -> Option<String> {
        let score = best_score(input, |input| self.of(&RewardInput { completion: "", ..*input }));
        score.reason.filter(|_| score.value.is_none())
    }

    fn of(&self, input: &RewardInput<'_>) -> Score {
        let &RewardInput { completion, solution, columns, .. } = input;
        // A sentence is no option, but its score says so.
        let shown = || AnswerType::of_solution(solution).unwrap_or(AnswerType::Choice);
        let answer_type = input.answer_type.unwrap_or_else(shown);
        answer_type.score(&Case { completion, solution, columns, pointing: &self.pointing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(solution: &str, completion: &str) -> Score {
        let input = RewardInput { solution, completion, ..RewardInput::default() };
        Accuracy::default().score(&[input]).unwrap().remove(0)
    }

    #[test]
    fn the_correct_letter_scores_one() {
        assert_eq!(score("B", "<think>A or C</think><answer>b</answer>"), Score::full());
        assert_eq!(score(" b ", "<answer>B. A tree</answer>"), Score::full());
    }

    /// The forms that Robot-R1's questions and their answers have.
    #[test]
    fn a_letter_counts_in_double_brackets_with_or_without_its_option() {
        for answer in [
            "[[B]]",
            " [[B]] ",
            "[[b]]",
            "(B)",
            "B",
            "[B]",
            "Option [[B]].",
            "[[B]] [-0.07, 0.247, 0.937]",
            "[[B]]: slightly move front, slightly move left, and move down",
            "B. [-0.07, 0.247, 0.937]",
            "[[B]]\n[[B]]",
        ] {
            for solution in ["B", "[[B]]", "(B)"] {
                let completion = format!("<think>[[A]]</think>\n<answer>{answer}</answer>");
                assert_eq!(score(solution, &completion), Score::full(), "{answer}");
            }
        }
        for hedged in
            ["[[A]] [[B]]", "[[A]] or [[B]]", "[[A]], [[B]], [[C]], [[D]]", "[[AB]]", "[[]]"]
        {
            let completion = format!("<answer>{hedged}</answer>");
            assert_eq!(score("B", &completion).value, Some(0.0), "{hedged}");
        }
    }

    #[test]
    fn a_wrong_letter_scores_zero_and_reports_both() {
        assert_eq!(score("B", "<answer>C</answer>"), Score::zero("answered C, expected B"));
    }

    #[test]
    fn hedging_scores_zero() {
        assert_eq!(score("B", "<answer>A or B</answer>").value, Some(0.0));
        assert_eq!(score("B", "<answer>A</answer><answer>B</answer>").value, Some(0.0));
    }

    #[test]
    fn a_letter_outside_the_tag_scores_zero() {
        assert_eq!(
            score("B", "<think>B</think> The answer is B."),
            Score::zero("no `<answer>` tag")
        );
    }

    #[test]
    fn a_number_scores_its_mean_relative_accuracy() {
        assert_eq!(score("10", "<answer>10 chairs</answer>"), Score::full());
        assert_eq!(
            score("10", "<answer>9.0</answer>"),
            Score { value: Some(0.9), reason: Some("answered 9, expected 10".to_owned()) }
        );
        assert_eq!(score("10", "<answer>ten</answer>").value, Some(0.0));
    }

    #[test]
    fn a_solution_counts_in_any_form() {
        for (solution, answer) in [
            ("−3", "-3"),
            ("－３", "–3"),
            ("1,200", "1200 cm"),
            ("<answer>3</answer>", "3个"),
            ("Ｂ", "答案是B"),
            ("答案：B", "b"),
            ("<answer>B</answer>", "B．灯"),
            ("B. 3 lamps", "B"),
        ] {
            assert_eq!(score(solution, &format!("<answer>{answer}</answer>")), Score::full());
        }
        for (solution, answer) in [("3", "−3"), ("10", "10^3"), ("1", "1/2"), ("-3", "± 3")] {
            let found = score(solution, &format!("<answer>{answer}</answer>"));
            assert_eq!(found.value, Some(0.0), "{answer}");
        }
    }

    #[test]
    fn any_of_several_solutions_counts() {
        for (solution, answer, value) in [
            (r#"["3", "three"]"#, "3", Some(1.0)),
            (r#"["10", "20"]"#, "18", Some(0.9)),
            (r#"["B", "C"]"#, "c", Some(1.0)),
            (r#"["B", "C"]"#, "A", Some(0.0)),
            (r#"["B", "C"]"#, "B or C", Some(0.0)),
            (r#"["left", "right"]"#, "left", None),
        ] {
            let found = score(solution, &format!("<answer>{answer}</answer>"));
            assert_eq!(found.value, value, "{answer} of {solution}");
        }
        assert_eq!(typed(AnswerType::Text, r#"["sofa", "couch"]"#, "Couch."), Score::full());
        let positions = r#"["[0, 0, 0]", "[1, 1, 1]"]"#;
        assert_eq!(typed(AnswerType::Position, positions, "[1, 1, 1]"), Score::full());
        assert_eq!(typed(AnswerType::Position, "[1, 1, 1]", "[1, 1, 1]"), Score::full());
        assert_eq!(Solution::parse(r#"["three", "3"]"#), Some(Solution::Number(3.0)));
        assert_eq!(alternatives("[1, 2, 3]"), None);
        assert_eq!(alternatives("[[B]]"), None);
        assert_eq!(alternatives("[]"), None);
    }

    #[test]
    fn a_solution_that_is_neither_letter_nor_number_gives_no_score() {
        assert_eq!(score("left", "<answer>B</answer>").value, None);
    }

    fn typed(answer_type: AnswerType, solution: &str, answer: &str) -> Score {
        let completion = format!("<think>x</think><answer>{answer}</answer>");
        let answer_type = Some(answer_type);
        let completion = completion.as_str();
        let input = RewardInput { solution, completion, answer_type, ..RewardInput::default() };
        Accuracy::default().score(&[input]).unwrap().remove(0)
    }

    #[test]
    fn a_choice_is_scored_as_without_a_type() {
        assert_eq!(typed(AnswerType::Choice, "B", "B. right"), Score::full());
        assert_eq!(typed(AnswerType::Choice, "left", "left").value, None);
    }

    #[test]
    fn the_type_says_how_a_number_is_scored() {
        assert_eq!(typed(AnswerType::Number, "10", "9").value, Some(0.9));
        assert_eq!(typed(AnswerType::Number, "1,000 m", "1000"), Score::full());
        let found = typed(AnswerType::Regression, "4", "3 m");
        assert_eq!(found.value, Some(0.75));
        assert_eq!(found.reason.as_deref(), Some("answered 3, expected 4"));
        assert_eq!(typed(AnswerType::Regression, "4", "three").value, Some(0.0));
        assert_eq!(
            typed(AnswerType::Regression, "far", "3"),
            Score::absent("the solution `far` is not a number")
        );
    }

    #[test]
    fn a_text_is_scored_if_the_type_says_so() {
        assert_eq!(typed(AnswerType::Text, "the red door", " The red door."), Score::full());
        let found = typed(AnswerType::Text, "the red door", "the door");
        assert_eq!(found, Score::zero("answered `the door`, expected `the red door`"));
        // A letter is a text like any other.
        assert_eq!(typed(AnswerType::Text, "A", "A. yes").value, Some(0.0));
        assert_eq!(typed(AnswerType::Text, " ", "x").value, None);
        assert_eq!(typed(AnswerType::Text, "x", " ").value, Some(0.0));
    }

    #[test]
    fn a_transcription_scores_one_minus_its_word_error_rate() {
        assert_eq!(typed(AnswerType::Ocr, "exit only", "exit only"), Score::full());
        assert_eq!(typed(AnswerType::Ocr, "exit only", "exit").value, Some(0.5));
        assert_eq!(typed(AnswerType::Ocr, "exit", "no exit on this side").value, Some(0.0));
        assert_eq!(typed(AnswerType::Ocr, "EXIT", "exit").value, Some(0.0));
    }

    #[test]
    fn a_free_form_answer_scores_its_rouge() {
        let found =
            typed(AnswerType::FreeForm, "The cat is sitting on the mats", "cats sit on a mat");
        // rouge_score: 2/3, 1/5 and 2/3.
        assert!((found.value.unwrap() - (2.0 / 3.0 + 0.2 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!(typed(AnswerType::FreeForm, "Turn left.", "turn left"), Score::full());
    }

    #[test]
    fn a_position_scores_one_minus_its_distance() {
        let found = typed(AnswerType::Position, "[0.1, 0.2, 1]", "(0.1, 0.3, 0.8)");
        assert!((found.value.unwrap() - 0.7).abs() < 1e-12, "{found:?}");
        assert_eq!(typed(AnswerType::Position, "[0.1, 0.2, 1]", "A").value, Some(0.0));
        assert_eq!(typed(AnswerType::Position, "A", "[0.1, 0.2, 1]").value, None);
    }

    #[test]
    fn answers_that_differ_are_no_answer() {
        let completion = "<answer>red</answer><answer>blue</answer>";
        let answer_type = Some(AnswerType::Text);
        let input =
            RewardInput { solution: "red", completion, answer_type, ..RewardInput::default() };
        let score = Accuracy::default().score(&[input]).unwrap().remove(0);
        assert_eq!(score, Score::zero("there are several answers"));
    }

    #[test]
    fn scores_keep_the_order_of_the_batch() {
        let completion = "<answer>A</answer>";
        let input = |solution| RewardInput { solution, completion, ..RewardInput::default() };
        let scores = Accuracy::default().score(&[input("A"), input("B"), input("A")]).unwrap();
        let values: Vec<_> = scores.into_iter().map(|score| score.value).collect();
        assert_eq!(values, [Some(1.0), Some(0.0), Some(1.0)]);
    }
}
