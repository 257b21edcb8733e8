//! EmbSpatial-Bench: spatial relations in views of embodied agents.

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};

use super::{easi, leading_letter, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scorer,
};
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::published::{PublishedTable, measured};

/// EmbSpatial-Bench by data source; overall is the mean over questions.
pub(super) static EMBSPATIAL: Benchmark = Benchmark {
    name: "embspatial",
    title: "EmbSpatial-Bench: spatial relations in views of embodied agents, mean over questions",
    categories: Categories::listed(&["mp3d", "ai2thor", "scannet"]),
    detection: Detection::None,
    size: Some(3640),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro("official", "lmms-eval", leading_letter::official),
    other_scorers: &[Scorer::micro("easi", easi::COMPARABLE, easi::matched)],
    layout: Some(&Layout {
        source: "FlagEval/EmbSpatial-Bench",
        files: &["data/test-*.parquet", "test-*.parquet", "*.parquet"],
        columns: &["answer_options", "relation", "data_source"],
        prompts: &["official", "easi", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: Some(&PublishedTable {
        source: "Qwen3-VL's report, and EASI's verification of its scores",
        caveat: "overall is the mean over questions",
        categories: &[],
        rows: &[
            measured("Qwen3-VL-4B", "own report", 79.6),
            measured("Qwen3-VL-4B", "VLMEvalKit", 78.7),
            measured("Qwen3-VL-4B", "lmms-eval", 76.8),
            measured("Qwen3-VL-8B", "own report", 78.5),
            measured("Qwen3-VL-8B", "VLMEvalKit", 77.7),
            measured("Qwen3-VL-8B", "lmms-eval", 77.4),
        ],
    }),
};

/// A record, whose answer is the index of an option.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let (text, options) = (annotation.text("question")?, annotation.texts("answer_options")?);
    let message = match prompt {
        EMBODIED_R_PROMPT => reader::own_text(text, &options),
        "easi" => format!(
            "Question: {text}\nOptions:\n{}\nGive me the answer letter directly. The best answer is:",
            reader::lettered(&options, ": ").join("\n")
        ),
        _ => format!(
            "Note: You only need to respond with A, B, C, D without providing any additional information.\n{text}\n{}",
            reader::lettered(&options, ") ").join("\n")
        ),
    };
    Ok(AnnotatedQuestion {
        category: annotation.text("data_source")?.to_owned(),
        content: reader::images_first(annotation.images("image"), message),
        answer: reader::answer_at(annotation, "answer", options.len())?,
        ..reader::question(annotation, &["question_id"])
    })
}
