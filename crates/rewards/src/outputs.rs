//! Scores of saved model outputs.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::Result;
use crate::prompt_end::whole_reply;
use crate::records::{self, Record};
use crate::{Accuracy, AnswerType, Consistency, Format, Judge, Reward, RewardInput, Score, answer};

/// One saved output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The prompt, or the question alone.
    pub question: String,
    /// The reference answer: an option letter or a number, or what `answer_type` says.
    pub solution: String,
    /// How the answer is compared with the reference answer, if the record says so.
    pub answer_type: Option<AnswerType>,
    /// The model's full output, with the `<think>` that its prompt opened.
    pub completion: String,
}

/// Reads a file of outputs, a JSON list or JSONL. Records have one of two formats:
///
/// - the official one: `question`, `answer` and `content`;
/// - `question`, `solution` and `completion`.
///
/// Either may have the columns of [`AnswerType::of_columns`].
///
/// # Errors
/// The file cannot be read, or a field is missing or has the wrong type; the error names the line
/// or record.
pub fn read(path: &Path) -> Result<Vec<Output>> {
    records::read(path)?.iter().map(output).collect()
}

fn output(record: &Record) -> Result<Output> {
    let official = record.has("content") || record.has("Question_id");
    let (solution, completion) =
        if official { ("answer", "content") } else { ("solution", "completion") };
    let question = record.text("question")?;
    // A prompt as text may have begun the reply; of messages, the template is not known.
    let prompt = record.fields().get("prompt").and_then(Value::as_str).unwrap_or(question);
    let output = Output {
        question: question.to_owned(),
        solution: record.answer(solution)?,
        answer_type: AnswerType::of_columns(record.fields()),
        completion: whole_reply(prompt, record.text(completion)?).into_owned(),
    };
    let kind = output.answer_type.filter(|kind| *kind != AnswerType::Choice);
    match kind.or_else(|| AnswerType::of_solution(&output.solution)) {
        Some(_) => Ok(output),
        None => Err(record.field_error(
            solution,
            "must be an option letter or a number, or the record needs an `answer_type`, such as `text`",
        )),
    }
}

/// The raw scores of one output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scorecard {
    /// The accuracy reward.
    pub accuracy: Option<f64>,
    /// The format reward.
    pub format: Option<f64>,
    /// The consistency reward; `None` without a judge, or if it does not apply.
    pub consistency: Option<f64>,
    /// The extracted answer: an option letter, a number as text, or a text.
    pub answer: Option<String>,
    /// Why points were lost.
    #[serde(rename = "why")]
    pub deductions: Deductions,
}

/// Why points were lost, per reward; `None` for a full score.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Deductions {
    /// Accuracy reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<String>,
    /// Format reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Consistency reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
}

/// Scores all outputs in order. Without a judge there is no consistency score.
///
/// # Errors
/// The judge is unusable.
pub fn score(outputs: &[Output], judge: Option<Box<dyn Judge>>) -> Result<Vec<Scorecard>> {
    let batch: Vec<RewardInput<'_>> = outputs
        .iter()
        .map(|Output { question, solution, answer_type, completion }| RewardInput {
            question,
            solution,
            answer_type: *answer_type,
            completion,
            ..RewardInput::default()
        })
        .collect();
    let accuracy = Accuracy.score(&batch)?;
    let format = Format::default().score(&batch)?;
    let consistency = match judge {
        Some(judge) => Consistency::new(judge).score(&batch)?,
        None => vec![Score { value: None, reason: None }; batch.len()],
    };
    Ok(batch
        .iter()
        .zip(accuracy)
        .zip(format)
        .zip(consistency)
        .map(|(((input, accuracy), format), consistency)| Scorecard {
            accuracy: accuracy.value,
            format: format.value,
            consistency: consistency.value,
            answer: extracted_answer(input),
            deductions: Deductions {
                accuracy: accuracy.reason,
                format: format.reason,
                consistency: consistency.reason,
            },
        })
        .collect())
}

/// The completion's answer, read as the solution is.
fn extracted_answer(input: &RewardInput<'_>) -> Option<String> {
    let known = input.answer_type.filter(|kind| *kind != AnswerType::Choice);
    match known.or_else(|| AnswerType::of_solution(input.solution))? {
        AnswerType::Choice => answer::letter(input.completion).ok().map(String::from),
        AnswerType::Number | AnswerType::Regression => {
            answer::number(input.completion).ok().map(|number| number.to_string())
        }
        AnswerType::Ocr | AnswerType::FreeForm | AnswerType::Text | AnswerType::Position => {
            answer::text(input.completion).ok().map(str::to_owned)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JudgePrompt;

    fn read_text(text: &str) -> Result<Vec<Output>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outputs");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    fn output(solution: &str, completion: &str) -> Output {
        Output {
            question: "Question: where?".to_owned(),
            solution: solution.to_owned(),
            answer_type: None,
            completion: completion.to_owned(),
        }
    }

    fn json(cards: &[Scorecard]) -> Vec<String> {
        cards.iter().map(|card| serde_json::to_string(card).unwrap()).collect()
    }

    struct SaysB;

    impl Judge for SaysB {
        fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
            Ok(vec![Some("B".to_owned()); prompts.len()])
        }
    }

    #[test]
    fn both_formats_give_the_same_output() {
        let lines = r#"{"question": "Question: where?", "solution": "B", "completion": "x"}"#;
        let official = r#"[{"Question_id": 1, "question": "Question: where?", "answer": "B",
                            "content": "x", "response": null}]"#;
        assert_eq!(read_text(lines).unwrap(), [output("B", "x")]);
        assert_eq!(read_text(official).unwrap(), [output("B", "x")]);
    }

    #[test]
    fn an_invalid_record_is_reported_with_its_field() {
        for (text, field) in [
            (r#"{"question": "q", "solution": "B"}"#, "`completion` in line 1 of"),
            (r#"{"question": "q", "solution": "left", "completion": ""}"#, "`solution` in line 1"),
            (r#"[{"Question_id": 1, "question": "q", "answer": "B"}]"#, "`content` in record 1"),
            (r#"{"solution": "B", "completion": ""}"#, "`question` in line 1"),
        ] {
            let message = read_text(text).unwrap_err().to_string();
            assert!(message.starts_with(field), "{message}");
        }
    }

    #[test]
    fn a_record_may_say_how_its_answer_is_scored() {
        let record = |kind: &str, solution: &str, answer: &str| {
            let completion = format!("<think>so</think><answer>{answer}</answer>");
            let record = serde_json::json!({
                "question": "q", "solution": solution, "completion": completion, "problem_type": kind,
            });
            let outputs = read_text(&record.to_string()).unwrap();
            json(&score(&outputs, Some(Box::new(SaysB))).unwrap()).remove(0)
        };
        assert_eq!(
            record("regression", "4", "3"),
            r#"{"accuracy":0.75,"format":1.0,"consistency":null,"answer":"3","why":{"accuracy":"answered 3, expected 4","consistency":"not applicable to numeric questions"}}"#
        );
        assert_eq!(
            record("OCR", "exit only", "exit"),
            r#"{"accuracy":0.5,"format":1.0,"consistency":null,"answer":"exit","why":{"accuracy":"answered `exit`, expected `exit only`","consistency":"not applicable to questions with texts as answers"}}"#
        );
    }

    #[test]
    fn a_prompt_that_opens_the_reasoning_is_a_part_of_the_reply() {
        let record = serde_json::json!({
            "prompt": "assistant\n<think>\n", "question": "q", "solution": "B", "completion": "so</think><answer>B</answer>",
        });
        let outputs = read_text(&record.to_string()).unwrap();
        assert_eq!(outputs[0].completion, "<think>\nso</think><answer>B</answer>");
    }

    #[test]
    fn without_a_judge_consistency_is_null_and_needs_no_reason() {
        let right = output("B", "<think>so</think><answer>B</answer>");
        assert_eq!(
            json(&score(&[right], None).unwrap()),
            [r#"{"accuracy":1.0,"format":1.0,"consistency":null,"answer":"B","why":{}}"#]
        );
    }

    #[test]
    fn every_lost_point_has_a_reason() {
        let outputs = [
            output("B", "<answer>A. x</answer>"),
            output("A", "<think>so</think><answer>A</answer>"),
            output("10", "<think>so</think><answer>9 m</answer>"),
        ];
        assert_eq!(
            json(&score(&outputs, Some(Box::new(SaysB))).unwrap()),
            [
                r#"{"accuracy":0.0,"format":0.0,"consistency":0.0,"answer":"A","why":{"accuracy":"answered A, expected B","format":"`<think>` is missing","consistency":"the answer is wrong"}}"#,
                r#"{"accuracy":1.0,"format":1.0,"consistency":0.0,"answer":"A","why":{"consistency":"the judge chose B, the answer is A"}}"#,
                r#"{"accuracy":0.9,"format":1.0,"consistency":null,"answer":"9","why":{"accuracy":"answered 9, expected 10","consistency":"not applicable to numeric questions"}}"#,
            ]
        );
    }
}
