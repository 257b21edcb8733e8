//! How the model is asked to answer.

use super::question::QuestionType;

/// What all answers must keep to. The rules are the paper's in other words.
const RULES: &str = "\
You answer questions about a robot arm's actions and about where things are in its workspace.
Rules:
1. Answer what is asked and nothing else.
2. Do not explain why an action is done or what it is good for.
3. Be brief: a few words or one sentence, unless a plan is asked for.
4. Directions are those of the camera: forward is toward the camera, backward is away from it, left and right are the \
camera's left and right.
5. Up is away from the ground, down is toward it.
6. Describe what is in the image and do not assume anything else.";

/// The system prompt of a question of this type: the rules of all answers, and of the type.
pub fn system_prompt(kind: QuestionType) -> String {
    let guideline = match kind {
        QuestionType::Planning => {
            "Give the remaining steps of the task in order as a numbered list, from the state in the image to the end of \
             the task."
        }
        QuestionType::HighLevelAction => {
            "Name the one action that the robot is to do next, with the object that it is about, and no movement of the \
             arm."
        }
        QuestionType::Movement => {
            "Name the directions in which the gripper is to move: forward or backward, left or right, up or down. Leave \
             out a direction in which it need not move, and say \"slightly\" for one that is short beside the others."
        }
        QuestionType::Spatial => {
            "Say where one thing is relative to the other with words such as left, right, in front of, behind, above, \
             below, inside or on."
        }
    };
    format!("{RULES}\nFor this question: {guideline}")
}

/// The answer in a completion: what is in its last `<answer>` tag, or all of it without one, and without reasoning in
/// `<think>`.
pub fn answer_of(completion: &str) -> &str {
    let after = completion.rsplit_once("</think>").map_or(completion, |(_, after)| after);
    let tag = |text: &'_ str| -> Option<(usize, usize)> {
        let start = text.rfind("<answer>")? + "<answer>".len();
        let end = text[start..].find("</answer>").map_or(text.len(), |end| start + end);
        Some((start, end))
    };
    match tag(after) {
        Some((start, end)) => after[start..end].trim(),
        None => after.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_a_guideline_of_its_own() {
        let prompts = QuestionType::ALL.map(system_prompt);
        for (index, prompt) in prompts.iter().enumerate() {
            assert!(prompt.starts_with(RULES));
            assert!(!prompts[..index].contains(prompt));
        }
    }

    #[test]
    fn the_answer_is_in_the_tag_if_there_is_one() {
        for (completion, expected) in [
            ("<think> left? </think> <answer> Move up. </answer>", "Move up."),
            ("<think> <answer>no</answer> </think>Move up.", "Move up."),
            ("Move up.\n", "Move up."),
            ("<answer>Move", "Move"),
            ("<answer>a</answer> then <answer>b</answer>", "b"),
            ("", ""),
        ] {
            assert_eq!(answer_of(completion), expected, "{completion}");
        }
    }
}
