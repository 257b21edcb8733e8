//! One completion as text.

use embodied_r_data::prompts::question_part;
use embodied_r_report::Sample;

use super::paint::{Paint, Style};
use crate::terminal::escaped;

/// Maximum length of a question.
const QUESTION_CHARS: usize = 600;
const INDENT: &str = "  ";
const TAGS: [&str; 4] = ["<think>", "</think>", "<answer>", "</answer>"];

/// How much of a prompt is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prompts {
    /// The question and its choices.
    Short,
    /// All of it.
    Whole,
}

/// The completion with its scores, below its question if `prompts` is given.
pub(super) fn card(sample: &Sample, prompts: Option<Prompts>, paint: Paint) -> String {
    let mut text = String::new();
    if let Some(prompts) = prompts {
        let id = escaped(&sample.question_id);
        let solution = escaped(&sample.solution);
        text.push_str(&format!(
            "\n{}\n",
            paint.bold(&format!("question {id}, solution {solution}"))
        ));
        text.push_str(&indented(&question_text(&sample.prompt, prompts), paint));
    }
    text.push('\n');
    text.push_str(&paint.bold(&totals(sample)));
    text.push('\n');
    let scores = scores(sample, paint);
    if !scores.is_empty() {
        text.push_str(&scores);
        text.push('\n');
    }
    text.push_str(&painted(sample, paint));
    text.push('\n');
    if let Some(drawn) = &sample.drawn {
        text.push_str("o reference answer, x answer\n");
        text.push_str(&drawn.characters(&sample.solution, &sample.completion));
    }
    text
}

fn question_text(prompt: &str, prompts: Prompts) -> String {
    let whole = escaped(prompt);
    if prompts == Prompts::Whole {
        return whole.trim().to_owned();
    }
    let question = question_part(&whole).trim();
    match question.char_indices().nth(QUESTION_CHARS) {
        Some((end, _)) => format!("{} …", &question[..end]),
        None => question.to_owned(),
    }
}

/// Indented and dimmed lines.
fn indented(text: &str, paint: Paint) -> String {
    let line = |line: &str| match line {
        "" => "\n".to_owned(),
        line => format!("{INDENT}{}\n", paint.styled(Style::Dim, line)),
    };
    text.lines().map(line).collect()
}

fn totals(sample: &Sample) -> String {
    let mut parts = Vec::new();
    let reward = sample.score("reward").map_or_else(|| "–".to_owned(), format_score);
    parts.push(format!("reward {reward}"));
    if let Some(advantage) = sample.score("advantage") {
        let sign = if advantage > 0.0 { "+" } else { "" };
        parts.push(format!("advantage {sign}{}", format_score(advantage)));
    }
    if let Some(length) = sample.score("length") {
        parts.push(format!("{length} tokens"));
    }
    match sample.finish_reason.as_str() {
        "" => {}
        "length" => parts.push("truncated".to_owned()),
        reason => parts.push(escaped(reason).into_owned()),
    }
    format!("── {}", parts.join(", "))
}

/// The raw rewards with their reasons.
fn scores(sample: &Sample, paint: Paint) -> String {
    let part = |name: &String| {
        let value = sample.score(name);
        let text =
            format!("{} {}", escaped(name), value.map_or_else(|| "–".to_owned(), format_score));
        let text = match value {
            Some(1.0) => paint.styled(Style::Good, &text),
            Some(0.0) => paint.styled(Style::Bad, &text),
            _ => text,
        };
        match sample.reason(name) {
            Some(reason) => format!("{INDENT}{text} ({})", escaped(reason)),
            None => format!("{INDENT}{text}"),
        }
    };
    sample.rewards.iter().map(part).collect::<Vec<_>>().join("\n")
}

/// The text with dimmed reasoning, highlighted tags, and the answer colored by correctness.
fn painted(sample: &Sample, paint: Paint) -> String {
    let answer = match sample.score("accuracy") {
        Some(accuracy) if accuracy > 0.0 => Style::Good,
        Some(_) => Style::Bad,
        None => Style::Bold,
    };
    let text = escaped(&sample.completion);
    let mut rest = text.trim();
    let mut style: Option<Style> = None;
    let mut shown = String::new();
    loop {
        let next = TAGS.iter().filter_map(|tag| Some((rest.find(tag)?, *tag))).min();
        let (before, tag) = match next {
            Some((at, tag)) => (&rest[..at], tag),
            None => (rest, ""),
        };
        match style {
            Some(style) => shown.push_str(&paint.styled(style, before)),
            None => shown.push_str(before),
        }
        if tag.is_empty() {
            break;
        }
        shown.push_str(&paint.styled(Style::Tag, tag));
        rest = &rest[before.len() + tag.len()..];
        style = match tag {
            "<think>" => Some(Style::Dim),
            "<answer>" => Some(answer),
            _ => None,
        };
    }
    shown.lines().map(|line| format!("{INDENT}{line}\n")).collect()
}

/// Up to three decimals.
fn format_score(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let score = |name: &str, value| (name.to_owned(), value);
        Sample {
            drawn: None,
            step: 3,
            question_id: "q7".to_owned(),
            prompt: "Frame 0: a lamp\nQuestion: where?\nA. left".to_owned(),
            completion: "<think>so</think>\n<answer>B</answer>".to_owned(),
            solution: "A".to_owned(),
            finish_reason: "stop".to_owned(),
            scores: vec![
                score("length", 12.0),
                score("reward", 0.7),
                score("advantage", 0.25),
                score("accuracy", 0.0),
                score("format", 1.0),
            ],
            rewards: ["accuracy", "format", "consistency"].map(str::to_owned).to_vec(),
            reasons: vec![("accuracy".to_owned(), "answered B, expected A".to_owned())],
        }
    }

    #[test]
    fn a_card_shows_question_scores_reasons_and_text() {
        assert_eq!(
            card(&sample(), Some(Prompts::Short), Paint::Plain),
            "\nquestion q7, solution A\n  Question: where?\n  A. left\n\n\
             ── reward 0.7, advantage +0.25, 12 tokens, stop\n  \
             accuracy 0 (answered B, expected A)\n  format 1\n  consistency –\n  \
             <think>so</think>\n  <answer>B</answer>\n\n"
        );
    }

    #[test]
    fn a_prompt_is_shown_in_full_or_not_at_all() {
        assert!(card(&sample(), Some(Prompts::Whole), Paint::Plain).contains("Frame 0: a lamp"));
        assert!(!card(&sample(), None, Paint::Plain).contains("where?"));
    }

    #[test]
    fn reasoning_is_dim_and_a_wrong_answer_red() {
        let text = painted(&sample(), Paint::Colors);
        assert_eq!(
            text,
            "  \u{1b}[36m<think>\u{1b}[0m\u{1b}[2mso\u{1b}[0m\u{1b}[36m</think>\u{1b}[0m\n  \
             \u{1b}[36m<answer>\u{1b}[0m\u{1b}[1;31mB\u{1b}[0m\u{1b}[36m</answer>\u{1b}[0m\n"
        );
    }

    #[test]
    fn a_text_without_tags_is_shown_unchanged() {
        let sample =
            Sample { completion: " just\n\u{1b}[31mthis ".to_owned(), ..Sample::default() };
        assert_eq!(painted(&sample, Paint::Colors), "  just\n  \\u001b[31mthis\n");
    }

    #[test]
    fn scores_are_short() {
        assert_eq!(
            [0.7, 1.0, 0.0, -0.0001, 1.23456, 100.0].map(format_score),
            ["0.7", "1", "0", "0", "1.235", "100"]
        );
    }
}
