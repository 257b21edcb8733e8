//! Worked examples of robot questions about simulated demonstrations.

use embodied_r_data::question::Question;
use embodied_r_sim::arm::{AskedFrame, WorkedAnswer, WrittenArm, worked_answer};

use super::Example;

/// The question with an answer that follows from the simulated scene, if that is the correct one.
pub(super) fn example<'a>(
    question: &'a Question,
    demonstrations: &WrittenArm,
) -> Option<Example<'a>> {
    let number = |field: &str| question.extra.get(field)?.as_u64();
    let index = |field: &str| usize::try_from(number(field)?).ok();
    let kind = question.extra.get("kind")?.as_str()?;
    let options: Vec<String> =
        serde_json::from_value(question.extra.get("options")?.clone()).ok()?;
    let asked = AskedFrame {
        kind,
        frame: index("frame_index")?,
        key_point: index("keypoint_index")?,
        options: &options,
    };
    let demonstration = demonstrations.demonstration(number("episode_index")?)?;
    let WorkedAnswer { completion, letter, subtask } = worked_answer(&demonstration, &asked)?;
    let is_right = question.answer.trim() == letter.to_string();
    is_right.then(|| Example { question, completion, group: [kind.to_owned(), subtask] })
}
