//! Scores of saved model outputs.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::embodied_r15::{self, ProblemType};
use crate::error::Result;
use crate::pointing::{Grid, PointingRewards};
use crate::prompt_end::whole_reply;
use crate::records::{self, Record};
use crate::{Accuracy, AnswerType, Consistency, Format, Judge, Reward, RewardInput, Score};

/// One saved output.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The prompt, or the question alone.
    pub question: String,
    /// The reference answer: an option letter or a number, or what `answer_type` says.
    pub solution: String,
    /// How the answer is compared with the reference answer, if the record says so.
    pub answer_type: Option<AnswerType>,
    /// The model's full output, with the `<think>` that its prompt opened.
    pub completion: String,
    /// All columns of the record.
    pub columns: Map<String, Value>,
    /// What it is scored by.
    pub rules: Rules,
}

/// What an output is scored by.
#[derive(Debug, Clone, PartialEq)]
pub enum Rules {
    /// The trainer's rewards.
    Trainer,
    /// Embodied-R1.5's rewards of a question with this `problem_type`.
    EmbodiedR15(ProblemType),
}

/// Reads a file of outputs, a JSON list or JSONL. Records have one of two formats:
///
/// - the official one: `question`, `answer` and `content`;
/// - `question`, `solution` and `completion`;
/// - Embodied-R1.5's: `problem`, `problem_type` and `answer` (or `ground_truth`), with a `completion`.
///
/// The first two may have the columns of [`AnswerType::of_columns`] and of [`Grid::of_columns`].
///
/// # Errors
/// The file cannot be read, or a field is missing or has the wrong type; the error names the line
/// or record.
pub fn read(path: &Path) -> Result<Vec<Output>> {
    records::read(path)?.iter().map(output).collect()
}

fn output(record: &Record) -> Result<Output> {
    if record.has("problem") && record.has("problem_type") && !record.has("solution") {
        return embodied_r15_output(record);
    }
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
        columns: record.fields().clone(),
        rules: Rules::Trainer,
    };
    let kind = output.answer_type.filter(|kind| *kind != AnswerType::Choice);
    let named = record.optional_text("answer_type")?;
    if let (Some(_), None) = (named, output.answer_type) {
        let known = format!("must be one of {}", AnswerType::names());
        return Err(record.field_error("answer_type", known));
    }
    if kind.or_else(|| AnswerType::of_solution(&output.solution)).is_none() {
        return Err(record.field_error(
            solution,
            "must be an option letter or a number, or the record needs an `answer_type`, such as `text`",
        ));
    }
    if output.points() {
        Grid::of_columns(Some(record.fields())).map_err(|reason| {
            record.field_error("coordinates", format!("cannot be used: {reason}"))
        })?;
        let unscored = Accuracy::default().unscored(&input(&output));
        if let Some(reason) = unscored {
            return Err(record.field_error(solution, format!("cannot be scored: {reason}")));
        }
    }
    Ok(output)
}

fn embodied_r15_output(record: &Record) -> Result<Output> {
    let solution = if record.has("answer") { "answer" } else { "ground_truth" };
    let problem_type = record.text("problem_type")?;
    let problem_type = ProblemType::parse(problem_type).ok_or_else(|| {
        record.field_error("problem_type", format!("must be one of {}", ProblemType::names()))
    })?;
    Ok(Output {
        question: record.text("problem")?.to_owned(),
        solution: record.answer(solution)?,
        answer_type: AnswerType::of_columns(record.fields()),
        completion: record.text("completion")?.to_owned(),
        columns: record.fields().clone(),
        rules: Rules::EmbodiedR15(problem_type),
    })
}

impl Output {
    /// Whether the answer points into an image.
    fn points(&self) -> bool {
        self.answer_type.is_some_and(AnswerType::is_drawn)
    }
}

fn input(output: &Output) -> RewardInput<'_> {
    RewardInput {
        question: &output.question,
        solution: &output.solution,
        answer_type: output.answer_type,
        completion: &output.completion,
        columns: Some(&output.columns),
        ..RewardInput::default()
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
    /// Why points were lost, in one text, of an answer that points and of Embodied-R1.5's records: of `format`, else of `accuracy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Option<String>>,
    /// Embodied-R1.5's reward as a whole, of its records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overall: Option<f64>,
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
    let batch: Vec<RewardInput<'_>> = outputs.iter().map(input).collect();
    let accuracy = Accuracy::default().score(&batch)?;
    let format = Format::default().score(&batch)?;
    let consistency = match judge {
        Some(judge) => Consistency::new(judge).score(&batch)?,
        None => vec![Score { value: None, reason: None }; batch.len()],
    };
    let trained = accuracy.into_iter().zip(format).zip(consistency);
    Ok(outputs
        .iter()
        .zip(&batch)
        .zip(trained)
        .map(|((output, input), ((accuracy, format), consistency))| match &output.rules {
            Rules::Trainer => {
                let answer = extracted_answer(input);
                let card = scorecard(answer, accuracy, format, consistency);
                let reason = output.points().then(|| card.deductions.first());
                Scorecard { reason, ..card }
            }
            Rules::EmbodiedR15(problem_type) => {
                let rewards = PointingRewards::default();
                let scores = problem_type.scores(&output.completion, &output.solution, &rewards);
                let answer = embodied_r15::answer(&output.completion).map(str::to_owned);
                let overall = scores.overall();
                let card = scorecard(answer, scores.accuracy, scores.format, consistency);
                Scorecard { reason: Some(card.deductions.first()), overall, ..card }
            }
        })
        .collect())
}

fn scorecard(
    answer: Option<String>,
    accuracy: Score,
    format: Score,
    consistency: Score,
) -> Scorecard {
    Scorecard {
        accuracy: accuracy.value,
        format: format.value,
        consistency: consistency.value,
        answer,
        deductions: Deductions {
            accuracy: accuracy.reason,
            format: format.reason,
            consistency: consistency.reason,
        },
        reason: None,
        overall: None,
    }
}

impl Deductions {
    /// What was wrong with the format, or else with the answer.
    fn first(&self) -> Option<String> {
        self.format.clone().or_else(|| self.accuracy.clone())
    }
}

/// The completion's answer, read as the solution is.
fn extracted_answer(input: &RewardInput<'_>) -> Option<String> {
    let known = input.answer_type.filter(|kind| *kind != AnswerType::Choice);
    known.or_else(|| AnswerType::of_solution(input.solution))?.answer(input.completion)
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
            columns: Map::new(),
            rules: Rules::Trainer,
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
        for text in [lines, official] {
            let found = read_text(text).unwrap().remove(0);
            assert_eq!(Output { columns: Map::new(), ..found }, output("B", "x"));
        }
    }

    #[test]
    fn an_invalid_record_is_reported_with_its_field() {
        for (text, field) in [
            (r#"{"question": "q", "solution": "B"}"#, "`completion` in line 1 of"),
            (r#"{"question": "q", "solution": "left", "completion": ""}"#, "`solution` in line 1"),
            (r#"[{"Question_id": 1, "question": "q", "answer": "B"}]"#, "`content` in record 1"),
            (r#"{"solution": "B", "completion": ""}"#, "`question` in line 1"),
            (
                r#"{"question": "q", "solution": "B", "completion": "", "answer_type": "polygon"}"#,
                "`answer_type` in line 1",
            ),
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

    /// The first output's scores.
    fn scored(record: serde_json::Value) -> serde_json::Value {
        let outputs = read_text(&record.to_string()).unwrap();
        serde_json::to_value(&score(&outputs, None).unwrap()[0]).unwrap()
    }

    #[test]
    fn an_answer_that_points_has_one_reason() {
        let record = |answer: &str| {
            serde_json::json!({
                "question": "Where is the mug?", "solution": [{"point_2d": [320, 240]}], "answer_type": "point",
                "coordinates": "pixels", "width": 640, "height": 480,
                "completion": format!("<think>so</think><answer>{answer}</answer>"),
            })
        };
        let right = scored(record("(320, 240)"));
        assert_eq!((&right["accuracy"], &right["format"]), (&1.0.into(), &1.0.into()));
        assert_eq!(right["reason"], Value::Null);
        assert!(right.as_object().unwrap().contains_key("reason"));
        let outside = scored(record("(320, 500)"));
        assert_eq!(outside["accuracy"], 0.0);
        assert_eq!(outside["reason"], "a coordinate is outside of the image: (320, 500)");
        let mut pixels = record("(320, 240)");
        pixels.as_object_mut().unwrap().remove("height");
        let message = read_text(&pixels.to_string()).unwrap_err().to_string();
        assert!(message.starts_with("`coordinates` in line 1 of"), "{message}");
        assert!(message.contains("`height` must be"), "{message}");
        let mut letter = record("(320, 240)");
        letter["solution"] = "B".into();
        let message = read_text(&letter.to_string()).unwrap_err().to_string();
        assert!(message.contains("cannot be scored: the solution `B` is neither"), "{message}");
    }

    #[test]
    fn embodied_r15s_records_are_scored_by_its_rules() {
        let record = |kind: &str| {
            serde_json::json!({
                "problem": "Where is the mug?", "problem_type": kind, "answer": {"boxes": [0, 0, 10, 10]},
                "completion": "so <answer>{\"boxes\": [0, 0, 10, 20]}</answer>",
            })
        };
        let found = scored(record("spatial grounding"));
        assert_eq!((&found["accuracy"], &found["format"]), (&0.5.into(), &1.0.into()));
        assert!((found["overall"].as_f64().unwrap() - 0.55).abs() < 1e-12);
        assert_eq!(found["reason"], "an intersection over union of 0.500");
        let message = read_text(&record("segmentation").to_string()).unwrap_err().to_string();
        assert!(message.contains("must be one of `multiple choice`"), "{message}");
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
