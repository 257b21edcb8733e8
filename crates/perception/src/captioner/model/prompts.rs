//! The vision-language model's prompts.
//!
//! The first frame is described as a whole, each later one by its changes since the previous frame:
//! the movement, what has come into view, and what concerns the question, as three numbered parts.

/// The movements that a response may name.
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

/// Prompt for the first key frame, shown alone; `None` for captions that serve all questions.
pub(super) fn first_view(question: Option<&str>) -> String {
    let (readers, wanted) = match question {
        Some(_) => (
            "",
            "below. If anything that the question below mentions is in view, describe \
                         it and say where it is. Do not answer the question, and do not say which \
                         choice is right.",
        ),
        None => (
            " and will be asked about places, directions, distances and the order of things",
            "below, and how far away.",
        ),
    };
    let prompt = format!(
        "This picture is the first view from the camera of an agent that is about to move through \
         the scene. Describe the scene to someone who cannot see it{readers}: name the things by \
         colour and shape, and say where each one is as seen from the agent, such as to the left, \
         ahead to the right, or {wanted} Be brief."
    );
    with_question(prompt, question)
}

/// Prompt for every other key frame, shown after its predecessor; `question` as in [`first_view`].
pub(super) fn next_view(question: Option<&str>) -> String {
    let third = match question {
        Some(_) => {
            "Which of the things that the question below mentions are in the second view, and \
             where they are as seen from the agent. Do not answer the question, and do not say \
             which choice is right."
        }
        None => {
            "Which things of the first view are still in the second, and where they are now as \
             seen from the agent."
        }
    };
    let prompt = format!(
        "These two pictures are consecutive views from the camera of a moving agent: the first one \
         from before its latest movement, the second one from after it. Reply with a numbered list \
         of exactly three items and nothing else:\n\
         1. The movement that leads from the first view to the second. Write only one of: {}.\n\
         2. What the second view shows about the space that the first one did not: things that have \
         come into view or become clearer, by colour and shape, and where each one is as seen from \
         the agent.\n\
         3. {third}\n\
         Be brief.",
        ACTIONS.join(", ")
    );
    with_question(prompt, question)
}

fn with_question(prompt: String, question: Option<&str>) -> String {
    let Some(question) = question else { return prompt };
    let question = question.trim();
    format!("{prompt}\n\nThe question, only so that you know what matters:\n{question}")
}

/// Retry prompt after a malformed response to [`next_view`].
pub(super) fn format_reminder() -> String {
    format!(
        "That is not the numbered list that was asked for. Reply again, with exactly three items \
         that begin with \"1.\", \"2.\" and \"3.\", each on its own line, and nothing else. Item 1 is \
         only one of: {}.",
        ACTIONS.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_prompts_carry_the_question_and_forbid_its_answer() {
        for prompt in [first_view, next_view].map(|view| view(Some("Question: where?\n"))) {
            assert!(prompt.ends_with("\nQuestion: where?"), "{prompt}");
            assert!(prompt.contains("Do not answer the question"));
        }
    }

    #[test]
    fn the_second_prompt_requests_three_parts_and_names_every_movement() {
        for prompt in [next_view(Some("q")), next_view(None)] {
            for part in ["\n1. ", "\n2. ", "\n3. "].into_iter().chain(ACTIONS) {
                assert!(prompt.contains(part), "{part}");
            }
        }
    }

    #[test]
    fn without_a_question_none_is_mentioned() {
        for prompt in [first_view(None), next_view(None)] {
            assert!(!prompt.to_lowercase().contains("question"), "{prompt}");
        }
    }
}
