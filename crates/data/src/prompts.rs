//! Prompts of the language model and the judge.
//!
//! The structure follows the official code (think and answer tags, one line per frame, the question
//! last); the wording is our own.

use crate::vsi::question_text;

/// Marks the start of the question within a prompt.
const QUESTION: &str = "Question:";

/// What [`CaptionStyle::Bearings`] adds to the introduction of captions.
pub(crate) const BEARINGS: &str = "Bearings are in degrees, distances in metres.";

/// What captions are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptionStyle {
    /// Objects with bearings and distances, from annotations or a simulation.
    Bearings,
    /// The text of a vision-language model.
    Prose,
}

/// The caption of one key frame: the camera's movement and view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameText {
    /// The movement since the previous frame, such as `rotate left 60`; `None` if unknown.
    pub action: Option<String>,
    /// Description of the view.
    pub view: String,
}

/// One line per key frame: `Frame 0: Observe: …`, then `Frame 1: After rotate left 60, Observe: …`.
///
/// The first frame has no action; a later frame of unknown action has its view only.
pub fn frame_lines(frames: &[FrameText]) -> String {
    let line = |(index, FrameText { action, view }): (usize, &FrameText)| match action {
        Some(action) if index > 0 => format!("Frame {index}: After {action}, Observe: {view}"),
        _ => format!("Frame {index}: Observe: {view}"),
    };
    frames.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

/// A video as text: a short introduction and the [`frame_lines`] of its key frames, between `<` and
/// `>`.
pub fn video_prompt(frames: &[FrameText], style: CaptionStyle) -> String {
    let mut text = String::from(
        "You are the agent whose camera took this video. Video content:\n<\n\
         Frames are in time order. Frame 0 is the start, the last frame is now.",
    );
    if style == CaptionStyle::Bearings {
        text.push(' ');
        text.push_str(BEARINGS);
    }
    if !frames.is_empty() {
        text.push('\n');
        text.push_str(&frame_lines(frames));
    }
    text.push_str("\n>");
    text
}

/// The prompt of a perceived question: the [`video_prompt`], then the question after `Question:`.
pub fn perceived_prompt(frames: &[FrameText], question: &str, style: CaptionStyle) -> String {
    let question = question.trim();
    let question = question.strip_prefix(QUESTION).unwrap_or(question).trim_start();
    format!("{}\n{QUESTION} {question}", video_prompt(frames, style))
}

/// Question and choices in the other benchmarks' format: `Question: …`, `Choices:`, and one lettered
/// option per line.
pub fn multiple_choice_text(question: &str, options: &[&str]) -> String {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let options: Vec<String> = ('A'..='Z')
        .zip(options)
        .map(|(letter, option)| format!("{letter}. {}", one_line(option)))
        .collect();
    question_text(question, Some(&options))
}

/// The question within a prompt: from the last `Question:`, or the whole prompt without one.
pub fn question_part(prompt: &str) -> &str {
    prompt.rfind(QUESTION).map_or(prompt, |start| &prompt[start..])
}

/// A reply with this answer and an empty rationale, in the format that the
/// [system prompts](crate::system_prompt) ask for.
pub fn answer_alone(answer: &str) -> String {
    format!("<think></think><answer>{}</answer>", answer.trim())
}

/// The system prompt of the blind baseline, which answers without video or captions.
pub fn blind_system_prompt() -> &'static str {
    "You answer multiple-choice questions about videos that you cannot see. Take the option that is \
     most likely from the question alone. Reply with its letter between <answer> and </answer>."
}

/// The system prompt of the consistency judge.
pub fn judge_system_prompt() -> &'static str {
    "You read the reasoning about a question and tell which option it leads to."
}

/// The user prompt of the consistency judge: which option follows from the reasoning `think`?
/// `question` may be a whole prompt; only its [`question_part`] is included.
pub fn judge_user_prompt(question: &str, think: &str) -> String {
    format!(
        "Which option follows from the reasoning below? Reply with one letter from A to H and \
         nothing else.\n{}\nReasoning: {}\nLetter:",
        question_part(question).trim(),
        think.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::CaptionStyle::Bearings;
    use super::*;

    const QUESTION_TEXT: &str = "Question: Where is the lamp?\n\nChoices:\nA. Left\nB. Right";

    fn frame(action: Option<&str>, view: &str) -> FrameText {
        FrameText { action: action.map(str::to_owned), view: view.to_owned() }
    }

    #[test]
    fn an_answer_alone_has_the_format_that_the_system_prompt_asks_for() {
        assert_eq!(answer_alone(" B\n"), "<think></think><answer>B</answer>");
    }

    #[test]
    fn a_prompt_lists_its_frames_in_order_and_ends_with_the_question() {
        let frames = [
            frame(None, "chair left 30, 2 m"),
            frame(Some("rotate left 60"), "nothing"),
            frame(None, "lamp ahead, 4 m"),
        ];
        let prompt = perceived_prompt(&frames, QUESTION_TEXT, Bearings);
        let (introduction, rest) = prompt.split_once("\nFrame 0").unwrap();
        assert!(introduction.contains("time order"));
        assert_eq!(
            format!("Frame 0{rest}"),
            "Frame 0: Observe: chair left 30, 2 m\n\
             Frame 1: After rotate left 60, Observe: nothing\n\
             Frame 2: Observe: lamp ahead, 4 m\n>\n\
             Question: Where is the lamp?\n\nChoices:\nA. Left\nB. Right"
        );
    }

    #[test]
    fn the_first_frame_never_has_an_action() {
        let prompt = perceived_prompt(&[frame(Some("stay"), "a door")], "Why?", Bearings);
        assert!(prompt.contains("Frame 0: Observe: a door"));
    }

    #[test]
    fn the_question_part_of_a_prompt_is_the_question() {
        let prompt =
            perceived_prompt(&[frame(None, "a sign: Question: 7")], QUESTION_TEXT, Bearings);
        assert_eq!(question_part(&prompt), QUESTION_TEXT);
    }

    #[test]
    fn a_question_without_the_marker_gets_it() {
        let prompt = perceived_prompt(&[], "  Why?\n", Bearings);
        assert_eq!(question_part(&prompt), "Question: Why?");
    }

    #[test]
    fn a_text_without_the_marker_is_its_own_question_part() {
        assert_eq!(question_part("Why?"), "Why?");
    }

    #[test]
    fn the_judge_sees_question_and_reasoning_but_not_the_video() {
        let prompt = perceived_prompt(&[frame(None, "a purple elephant")], QUESTION_TEXT, Bearings);
        let task = judge_user_prompt(&prompt, " it is on the left ");
        assert!(!task.contains("elephant"));
        assert!(task.contains("\nQuestion: Where is the lamp?\n"));
        assert!(task.contains("\nReasoning: it is on the left\n"));
    }

    #[test]
    fn only_captions_with_bearings_are_said_to_have_them() {
        let has = |style| perceived_prompt(&[frame(None, "a")], "q", style).contains("Bearings");
        assert!(has(CaptionStyle::Bearings) && !has(CaptionStyle::Prose));
    }
}
