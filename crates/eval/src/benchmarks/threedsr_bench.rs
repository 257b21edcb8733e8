//! 3DSRBench: 3-D spatial reasoning, each question with its options rotated.

use std::sync::LazyLock;

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation, Content};
use fancy_regex::Regex;
use serde_json::Value;

use super::{easi, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Mean, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::extract::pattern::{letter, pattern};
use crate::extract::reasoning::without_reasoning;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;

/// 3DSRBench's four groups; overall is circular: the share of questions of which all rotations are right.
pub(super) static THREEDSR_BENCH: Benchmark = Benchmark {
    name: "3dsrbench",
    title: "3DSRBench: 3-D spatial reasoning, right if all rotations of a question's options are",
    categories: Categories::Listed { names: &GROUPS, levels: &TASKS },
    detection: Detection::None,
    size: None,
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer {
        overall: Mean::Groups,
        group: Some(rotations),
        ..Scorer::micro(
            "official",
            "lmms-eval's `3dsrbench_circular` (`circular_accuracy`)",
            official,
        )
    },
    other_scorers: &[Scorer {
        overall: Mean::Groups,
        group: Some(rotations),
        ..Scorer::micro("easi", "VLMEvalKit (`circ_eval`)", easi::inferred)
    }],
    layout: Some(&Layout {
        source: "ccvl/3DSRBench, as parquet oscarqjh/3DSRBench_lmmseval (3dsr_circular)",
        files: &["3dsr_circular/test-*.parquet", "*circular*.parquet", "data/test-*.parquet"],
        columns: &["index", "A", "B", "answer", "category", "image"],
        prompts: &["official", "easi", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: None,
};

const GROUPS: [&str; 4] = ["height", "location", "orientation", "multi_object"];

const TASKS: [(&str, &str); 12] = [
    ("height_higher", "height"),
    ("location_above", "location"),
    ("location_closer_to_camera", "location"),
    ("location_next_to", "location"),
    ("orientation_in_front_of", "orientation"),
    ("orientation_on_the_left", "orientation"),
    ("orientation_viewpoint", "orientation"),
    ("multi_object_closer_to", "multi_object"),
    ("multi_object_facing", "multi_object"),
    ("multi_object_viewpoint_towards_object", "multi_object"),
    ("multi_object_parallel", "multi_object"),
    ("multi_object_same_direction", "multi_object"),
];

/// A record; options are in the columns A to D, as far as it has them. Both harnesses have the same prompt.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let is_option = |text: &String| !text.eq_ignore_ascii_case("nan");
    let options: Vec<String> = ["A", "B", "C", "D"]
        .into_iter()
        .filter(|column| annotation.value(column).is_some())
        .map(|column| annotation.scalar(column))
        .collect::<embodied_r_data::Result<Vec<_>>>()?
        .into_iter()
        .filter(is_option)
        .collect();
    let text = annotation.text("question")?;
    let message = match prompt {
        EMBODIED_R_PROMPT => reader::own_text(text, &options),
        _ => format!(
            "Question: {text}\nOptions:\n{}\nPlease select the correct answer from the options above. \n",
            reader::lettered(&options, ". ").join("\n")
        ),
    };
    let id = annotation.id(&["index"]);
    let group = match annotation.value("qid") {
        Some(_) => annotation.scalar("qid")?,
        None => id.as_str().map_or_else(|| id.to_string(), str::to_owned),
    };
    let columns = [reader::options_column(&options), ("qid".to_owned(), Value::String(group))];
    Ok(AnnotatedQuestion {
        category: annotation.text("category")?.to_owned(),
        content: reader::images_first(vec![Content::Image("image", 0)], message),
        answer: reader::answer_letter(annotation, "answer", 'D')?,
        columns: columns.into_iter().collect(),
        id,
        ..reader::question(annotation, &[])
    })
}

/// What the rotations of a question have in common: the first characters of `qid`.
fn rotations(prediction: &Prediction) -> String {
    let qid = prediction.columns.get("qid").and_then(Value::as_str).unwrap_or(&prediction.id);
    let length = if qid.contains("-flip") { 13 } else { 8 };
    qid.chars().take(length).collect()
}

/// The letter of the first pattern that occurs, at its first place. Reasoning is removed.
fn official(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().map(without_reasoning);
    let found = answer.as_deref().and_then(extracted);
    Ok(Scored::letter(found, prediction.solution.chars().next()))
}

fn extracted(text: &str) -> Option<char> {
    static PATTERNS: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
        let patterns = [
            r"\A([A-D])[.\s\x1c-\x1f)]",
            r"\A([A-D])\z",
            r"[Aa]nswer[:\s\x1c-\x1f]+([A-D])",
            r"[Tt]he answer is[:\s\x1c-\x1f]+([A-D])",
            r"[Mm]y answer is[:\s\x1c-\x1f]+([A-D])",
            r"\(([A-D])\)",
            r"([A-D])\.",
            "‹([A-D])›",
        ];
        patterns.map(pattern).into()
    });
    PATTERNS.iter().find_map(|pattern| letter(pattern, text))
}
