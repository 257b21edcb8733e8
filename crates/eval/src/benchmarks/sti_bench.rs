//! STI-Bench: precise space and time in videos of desktops, rooms and streets.

use std::sync::LazyLock;

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};
use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::{easi, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::extract::pattern::{letter, pattern};
use crate::extract::python::strip;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;
use crate::published::{PublishedTable, measured};

/// STI-Bench's eight tasks; overall is the mean over questions, also those whose video is missing.
pub(super) static STI_BENCH: Benchmark = Benchmark {
    name: "sti-bench",
    title: "STI-Bench: precise space and time in videos, by task, mean over questions",
    categories: Categories::Any,
    detection: Detection::None,
    size: None,
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro(
        "official",
        "STI-Bench's own code if no video is missing: it leaves those questions out, which count as wrong here",
        official,
    ),
    other_scorers: &[Scorer::micro("easi", easi::COMPARABLE, easi::matched)],
    layout: Some(&Layout {
        source: "MINT-SJTU/STI-Bench",
        files: &["qa.parquet"],
        columns: &["Candidates", "time_start", "time_end"],
        prompts: &["official", EMBODIED_R_PROMPT],
        frames: &["linspace=30", "fps=2", "key"],
        question,
    }),
    published: Some(&PublishedTable {
        source: "STI-Bench's paper, and EASI's verification of its scores",
        caveat: "EASI's prompt says the rate at which frames are sampled",
        categories: &[],
        rows: &[
            measured("Qwen2.5-VL-72B (30 frames)", "paper", 40.7),
            measured("Qwen2.5-VL-72B (30 frames)", "VLMEvalKit", 42.1),
        ],
    }),
};

/// A record; its key is the video with the ID.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let text = annotation.text("Question")?;
    let options = candidates(annotation)?;
    let (start, end) = (annotation.scalar("time_start")?, annotation.scalar("time_end")?);
    let texts: Vec<String> = options.iter().map(|(_, text)| text.clone()).collect();
    let message = match prompt {
        EMBODIED_R_PROMPT => {
            reader::own_text(&format!("From {start} s to {end} s. {text}"), &texts)
        }
        _ => {
            let lines = options.iter().map(|(letter, text)| format!("({letter}) {text}\n"));
            format!(
                "From {start} s to {end} s. {text}\n{}Please output only the option letter!",
                lines.collect::<String>()
            )
        }
    };
    Ok(AnnotatedQuestion {
        category: annotation.text("Task")?.to_owned(),
        content: reader::video_first(message),
        answer: reader::answer_letter(annotation, "Answer", 'E')?,
        video: Some(format!("video/{}", annotation.scalar("Video")?)),
        ..reader::question(annotation, &["ID"])
    })
}

/// The options by their letters: an object, or its JSON.
fn candidates(annotation: &Annotation<'_>) -> embodied_r_data::Result<Vec<(String, String)>> {
    const COLUMN: &str = "Candidates";
    let invalid =
        || annotation.error(COLUMN, "must be an object of letters and texts, or its JSON");
    let parsed: Map<String, Value> = match annotation.value(COLUMN) {
        Some(Value::Object(fields)) => fields.clone(),
        Some(Value::String(text)) => serde_json::from_str(text).map_err(|_| invalid())?,
        _ => return Err(invalid()),
    };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        // A struct of parquet has all letters.
        Value::Null => None,
        _ => None,
    };
    let mut options: Vec<(String, String)> =
        parsed.iter().filter_map(|(letter, value)| Some((letter.clone(), text(value)?))).collect();
    options.sort();
    if options.is_empty() { Err(invalid()) } else { Ok(options) }
}

/// The letter of the first pattern that occurs, of the whole output; else its last character.
fn official(prediction: &Prediction) -> Result<Scored> {
    let found = prediction.output.answer().and_then(extracted);
    Ok(Scored::letter(found, prediction.solution.chars().next()))
}

fn extracted(answer: &str) -> Option<char> {
    static PATTERNS: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
        let patterns = [
            r"(?i)\(([a-e])\)",
            r#"(?i)Ans~=~['"]?([a-e])['"]?"#,
            r"(?i)Answer~[:=]~([a-e])",
            r"(?i)Opt[iİı]on[\s\x1c-\x1f]+([a-e])",
            r"(?i)‹([a-e])~(?:[iİı]s|was)~correct",
            r"(?im)‹([a-e])[.)]~$",
        ];
        patterns.map(pattern).into()
    });
    let matched = PATTERNS.iter().find_map(|pattern| letter(pattern, answer));
    let last = || strip(answer).chars().last().filter(|last| ('A'..='E').contains(last));
    matched.or_else(last)
}
