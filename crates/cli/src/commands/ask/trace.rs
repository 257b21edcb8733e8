//! The trace of an answer: frames, captions, reasoning.

use std::path::Path;

use anyhow::Context as _;
use embodied_r_files::write_atomic;
use embodied_r_perception::captioner::Caption;
use embodied_r_report::escape;
use embodied_r_rewards::answer::{answer_tag, letter, think_tag};
use serde::Serialize;

/// The answer to a question about a video, with all intermediate results.
#[derive(Debug, Serialize)]
pub(super) struct AnswerTrace {
    pub(super) video: String,
    pub(super) question: String,
    pub(super) keyframes: Vec<Caption>,
    pub(super) prompt: String,
    /// `None` until the policy has answered, as is all that follows from it.
    pub(super) completion: Option<String>,
    pub(super) think: Option<String>,
    /// The letter of an option, or the content of the answer tag.
    pub(super) answer: Option<String>,
    /// The text of the chosen option.
    pub(super) option: Option<String>,
    pub(super) perceive_s: f64,
    pub(super) reason_s: Option<f64>,
}

impl AnswerTrace {
    /// Adds the completion and its answer; `options` are those of the question.
    pub(super) fn answered(&mut self, completion: String, options: &[String]) {
        let chosen = (!options.is_empty()).then(|| letter(&completion).ok()).flatten();
        let index = chosen.and_then(|letter| (letter as usize).checked_sub('A' as usize));
        self.think = think_tag(&completion).map(str::to_owned);
        self.answer = match options.is_empty() {
            true => answer_tag(&completion).map(|answer| answer.trim().to_owned()),
            false => chosen.map(String::from),
        };
        self.option = index.and_then(|index| options.get(index).cloned());
        self.completion = Some(completion);
    }
}

/// The HTML page.
pub(super) const PAGE: &str = "index.html";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;\
    color:#222;background:#fff}figure{display:flex;gap:1rem;margin:1rem 0}img{width:16rem;height:auto;\
    align-self:start}figcaption{min-width:0}figcaption small{color:#666}\
    h1,pre,figcaption,p{overflow-wrap:anywhere}pre{white-space:pre-wrap;background:#f5f5f5;padding:1rem}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#242424}}";

/// Writes the frames, the JSON object and the page, over those of an earlier stage.
///
/// # Errors
/// A file cannot be written.
pub(super) fn save(
    folder: &Path,
    answered: &AnswerTrace,
    images: &[Vec<u8>],
) -> anyhow::Result<()> {
    let frames = folder.join("frames");
    std::fs::create_dir_all(&frames)
        .with_context(|| format!("cannot create `{}`", frames.display()))?;
    for (index, image) in images.iter().enumerate() {
        write_atomic(&frames.join(name(index)), image)?;
    }
    write_atomic(&folder.join("trace.json"), &serde_json::to_vec_pretty(answered)?)?;
    Ok(write_atomic(&folder.join(PAGE), page(answered, images.len()).as_bytes())?)
}

fn name(index: usize) -> String {
    format!("{index:03}.jpg")
}

fn page(answered: &AnswerTrace, images: usize) -> String {
    let AnswerTrace { video, question, keyframes, completion, think, answer, option, .. } =
        answered;
    let mut frames = String::new();
    for (index, caption) in keyframes.iter().enumerate() {
        let image = match index < images {
            true => format!("<img src=\"frames/{}\" alt=\"frame {index}\">", name(index)),
            false => String::new(),
        };
        let time = caption.time_s.map(|time| format!(" at {time:.1} s")).unwrap_or_default();
        let after = caption.action.iter().map(|action| format!(", after {}", escape(action)));
        let (after, view) = (after.collect::<String>(), escape(&caption.view));
        frames.push_str(&format!(
            "<figure>{image}<figcaption><small>Frame {index}{time}{after}</small><br>{view}\
             </figcaption></figure>\n"
        ));
    }
    let answer = match (answer, option) {
        (Some(answer), Some(option)) => format!("{}. {}", escape(answer), escape(option)),
        (Some(answer), None) => escape(answer),
        (None, _) if completion.is_none() => "none yet".to_owned(),
        (None, _) => "none could be parsed".to_owned(),
    };
    let (video, question) = (escape(video), escape(question));
    let reasoning = match (think, completion) {
        (Some(text), _) | (None, Some(text)) => escape(text.trim()),
        (None, None) => "the language model has not answered".to_owned(),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{video}</title>\n\
         <style>{STYLE}</style>\n<h1>{video}</h1>\n<pre>{question}</pre>\n<h2>Key frames</h2>\n{frames}\
         <h2>Reasoning</h2>\n<pre>{reasoning}</pre>\n<h2>Answer</h2>\n<p>{answer}</p>\n</html>\n"
    )
}
