use std::sync::{Arc, Mutex};

use super::*;

const QUESTION: &str = "Frame 0: Observe: a purple elephant\n>\nQuestion: Where is the lamp?\n\n\
                        Choices:\nA. Left\nB. Right";

/// Returns scripted replies and records its prompts.
#[derive(Clone, Default)]
struct Scripted {
    replies: Vec<Option<&'static str>>,
    prompts: Arc<Mutex<Vec<JudgePrompt>>>,
}

impl Judge for Scripted {
    fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
        self.prompts.lock().unwrap().extend_from_slice(prompts);
        Ok(self.replies.iter().map(|reply| reply.map(str::to_owned)).collect())
    }
}

fn run(
    replies: &[Option<&'static str>],
    batch: &[(&str, &str)],
) -> (Result<Vec<Score>>, Vec<JudgePrompt>) {
    let judge = Scripted { replies: replies.to_vec(), ..Scripted::default() };
    let batch: Vec<RewardInput<'_>> = batch
        .iter()
        .map(|&(solution, completion)| RewardInput {
            question: QUESTION,
            solution,
            completion,
            ..RewardInput::default()
        })
        .collect();
    let scores = Consistency::new(Box::new(judge.clone())).score(&batch);
    let prompts = judge.prompts.lock().unwrap().clone();
    (scores, prompts)
}

/// The score of one right completion to which the judge replies `reply`.
fn judged(reply: Option<&'static str>) -> Score {
    let completion = "<think>It is to the right.</think><answer>B</answer>";
    run(&[reply], &[("B", completion)]).0.unwrap().remove(0)
}

#[test]
fn a_judge_that_chooses_the_same_answer_scores_one() {
    for reply in ["B", "b", "B.", " B\n", "(B)", "The answer is B", "B. Right"] {
        assert_eq!(judged(Some(reply)), Score::full(), "`{reply}`");
    }
}

#[test]
fn a_judge_that_chooses_another_answer_scores_zero() {
    assert_eq!(judged(Some("A")), Score::zero("the judge chose A, the answer is B"));
}

#[test]
fn a_reply_without_a_unique_option_scores_zero() {
    for reply in ["", "A or B", "I cannot tell"] {
        assert_eq!(judged(Some(reply)).value, Some(0.0), "`{reply}`");
    }
}

#[test]
fn a_missing_reply_gives_no_score() {
    assert_eq!(judged(None), Score::absent("the judge did not respond"));
}

#[test]
fn a_wrong_answer_is_never_sent_to_the_judge() {
    let (scores, prompts) = run(&[], &[("B", "<think>It is left.</think><answer>A</answer>")]);
    assert_eq!(scores.unwrap(), [Score::zero("the answer is wrong")]);
    assert!(prompts.is_empty());
}

#[test]
fn empty_or_unclosed_reasoning_is_never_sent_to_the_judge() {
    let (scores, prompts) = run(
        &[],
        &[("B", "<think> \n</think><answer>B</answer>"), ("B", "<think>so <answer>B</answer>")],
    );
    let values: Vec<_> = scores.unwrap().into_iter().map(|score| score.value).collect();
    assert_eq!(values, [Some(0.0), Some(0.0)]);
    assert!(prompts.is_empty());
}

#[test]
fn the_judge_sees_question_and_reasoning_but_neither_video_nor_answer() {
    let completion = "<think>Past the door.</think><answer>B. Right, surely</answer>";
    let (_, prompts) = run(&[Some("B")], &[("B", completion)]);
    let text = format!("{}\n{}", prompts[0].system, prompts[0].user);
    assert!(text.contains("Where is the lamp?") && text.contains("Past the door."));
    assert!(!text.contains("elephant") && !text.contains("surely"));
}

#[test]
fn replies_are_matched_to_their_completions() {
    let (scores, prompts) = run(
        &[Some("A"), Some("B")],
        &[
            ("B", "<think>one</think><answer>B</answer>"),
            ("B", "<think>two</think><answer>A</answer>"),
            ("10", "<think>three</think><answer>10</answer>"),
            ("B", "<think>four</think><answer>B</answer>"),
        ],
    );
    let values: Vec<_> = scores.unwrap().into_iter().map(|score| score.value).collect();
    assert_eq!(values, [Some(0.0), Some(0.0), None, Some(1.0)]);
    assert_eq!(prompts.len(), 2);
}

#[test]
fn a_wrong_number_of_replies_is_an_error() {
    let (scores, _) = run(&[], &[("B", "<think>so</think><answer>B</answer>")]);
    assert!(matches!(scores, Err(Error::ReplyCount { expected: 1, got: 0 })));
}
