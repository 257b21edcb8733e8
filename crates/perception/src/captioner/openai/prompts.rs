//! What the vision-language model is told to do.
//!
//! The first frame is described as a whole, each later one by what changed since the frame before:
//! the movement, what has come into view, and what concerns the question, as three numbered parts.

/// The movements that a reply may name.
pub(super) const ACTIONS: [&str; 10] = [
    "move forward",
    "move backward",
    "move left",
    "move right",
    "move upward",
    "move downward",
    "rotate left",
    "rotate right",
    "tilt downward",
    "tilt upward",
];

/// For the first key frame, shown alone.
pub(super) fn first_view(question: &str) -> String {
    format!(
        "This picture is the first view from the camera of an agent that is about to move through \
         the scene. Describe the scene to someone who cannot see it: name the things by colour and \
         shape, and say where each one is as seen from the agent, such as to the left, ahead to the \
         right, or below. If anything that the question below mentions is in view, describe it and \
         say where it is. Do not answer the question, and do not say which choice is right. Be \
         brief.\n\nThe question, only so that you know what matters:\n{}",
        question.trim()
    )
}

/// For every other key frame, shown after the one before it.
pub(super) fn next_view(question: &str) -> String {
    format!(
        "These two pictures are consecutive views from the camera of a moving agent: the first one \
         from before its latest movement, the second one from after it. Reply with a numbered list \
         of exactly three items and nothing else:\n\
         1. The movement that leads from the first view to the second. Write only one of: {}.\n\
         2. What the second view shows about the space that the first one did not: things that have \
         come into view or become clearer, by colour and shape, and where each one is as seen from \
         the agent.\n\
         3. Which of the things that the question below mentions are in the second view, and where \
         they are as seen from the agent. Do not answer the question, and do not say which choice \
         is right.\n\
         Be brief.\n\nThe question, only so that you know what matters:\n{}",
        ACTIONS.join(", "),
        question.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_prompts_carry_the_question_and_forbid_its_answer() {
        for prompt in [first_view("Question: where?\n"), next_view("Question: where?\n")] {
            assert!(prompt.ends_with("\nQuestion: where?"), "{prompt}");
            assert!(prompt.contains("Do not answer the question"));
        }
    }

    #[test]
    fn the_second_prompt_asks_for_three_parts_and_names_every_movement() {
        let prompt = next_view("q");
        for part in ["\n1. ", "\n2. ", "\n3. "].into_iter().chain(ACTIONS) {
            assert!(prompt.contains(part), "{part}");
        }
    }
}
