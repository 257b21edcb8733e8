//! Questions as records of question files, and worked examples for SFT.

use embodied_r_data::Question;
use serde_json::{Map, Value, json};

use crate::demonstration::{AnnotationKind, Demonstration, Position};
use crate::kind::Kind;
use crate::prompt::{AnswerForm, LETTERS, PromptStyle, Prompts};
use crate::questions::{RobotQuestion, StartFrame};

/// How a worked example reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worked {
    /// The answer alone.
    Direct,
    /// Plan and subtask, if the demonstration has them, then the movement and the position.
    Reasoned,
}

/// The path of a frame's image, relative to the question files.
pub fn image_path(episode: usize, frame: usize) -> String {
    format!("images/episode_{episode:06}/frame_{frame:06}.png")
}

/// Writes the records of questions.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    /// How prompts are written.
    pub prompts: Prompts<'a>,
    /// Options or positions as answers.
    pub form: AnswerForm,
}

impl Records<'_> {
    /// The question as a record of this project's question files. Positions are in metres, rounded to micrometres.
    pub fn question(&self, question: &RobotQuestion, demonstration: &Demonstration) -> Question {
        let StartFrame { frame, key_point, state, target, movement, .. } = question.start;
        let episode = demonstration.episode;
        let kind = question.kind.name();
        let movement = movement.map(|it| it.text(self.prompts.robot, self.prompts.wording()));
        let mut extra = Map::from_iter([
            ("images".to_owned(), json!([image_path(episode, frame)])),
            ("kind".to_owned(), json!(kind)),
            ("task".to_owned(), json!(demonstration.task(frame))),
            ("episode_index".to_owned(), json!(episode)),
            ("frame_index".to_owned(), json!(frame)),
            ("keypoint_index".to_owned(), json!(key_point)),
            ("state".to_owned(), metres(state)),
            ("target".to_owned(), metres(target)),
            ("movement".to_owned(), json!(movement)),
        ]);
        match self.form {
            AnswerForm::MultipleChoice => {
                extra.insert("options".to_owned(), json!(question.options));
            }
            // As the rewards call it.
            AnswerForm::OpenEnded => {
                extra.insert("answer_type".to_owned(), json!("position"));
            }
        }
        Question {
            question_id: json!(format!("{kind}-{episode}-{frame}")),
            question_category: kind.to_owned(),
            question: self.prompt(question, demonstration),
            answer: self.answer(question),
            scene_name: Some(format!("episode_{episode:06}")),
            extra,
            ..Question::default()
        }
    }

    /// The prompt of a question.
    pub fn prompt(&self, question: &RobotQuestion, demonstration: &Demonstration) -> String {
        let RobotQuestion { kind, start, options, .. } = question;
        self.prompts.prompt(*kind, demonstration.task(start.frame), start.state, options)
    }

    /// The reference answer: a letter, or a position.
    fn answer(&self, question: &RobotQuestion) -> String {
        match (self.form, question.kind) {
            (AnswerForm::MultipleChoice, _) => {
                LETTERS.get(question.answer).map(char::to_string).unwrap_or_default()
            }
            (AnswerForm::OpenEnded, Kind::State) => self.prompts.bracketed(question.start.state),
            (AnswerForm::OpenEnded, _) => self.prompts.bracketed(question.start.target),
        }
    }

    /// The reference answer as the prompt asks for it: `[[A]]` in the paper's prompts.
    pub fn answer_as_asked(&self, question: &RobotQuestion) -> String {
        let answer = self.answer(question);
        match (self.form, self.prompts.style) {
            (AnswerForm::MultipleChoice, PromptStyle::Paper) => format!("[[{answer}]]"),
            _ => answer,
        }
    }

    /// The question with a completion, as a record with `messages` that `sft` reads.
    pub fn conversation(
        &self,
        question: &RobotQuestion,
        demonstration: &Demonstration,
        worked: Worked,
    ) -> Value {
        let StartFrame { frame, .. } = question.start;
        json!({
            "messages": [
                {"role": "user", "content": self.prompt(question, demonstration)},
                {"role": "assistant", "content": self.completion(question, demonstration, worked)},
            ],
            "images": [image_path(demonstration.episode, frame)],
            "solution": self.answer(question),
            "kind": question.kind.name(),
            "episode_index": demonstration.episode,
            "frame_index": frame,
        })
    }

    /// A correct completion.
    fn completion(
        &self,
        question: &RobotQuestion,
        demonstration: &Demonstration,
        worked: Worked,
    ) -> String {
        let thought = match worked {
            Worked::Direct => String::new(),
            Worked::Reasoned => self.reasoning(question, demonstration),
        };
        let answer = self.answer_as_asked(question);
        match self.prompts.style {
            PromptStyle::Paper => format!("<think> {thought} </think> <answer> {answer} </answer>"),
            PromptStyle::Compact => format!("<think>{thought}</think><answer>{answer}</answer>"),
        }
    }

    fn reasoning(&self, question: &RobotQuestion, demonstration: &Demonstration) -> String {
        let StartFrame { frame, state, target, movement, .. } = question.start;
        let mut parts = Vec::new();
        if question.kind != Kind::State {
            for (name, kind) in
                [("Plan", AnnotationKind::Plan), ("Subtask", AnnotationKind::Subtask)]
            {
                if let Some(text) = demonstration.annotation(kind, frame) {
                    parts.push(format!("{name}: {}", sentence(text)));
                }
            }
        }
        let state = format!("State: {}.", self.prompts.position(state));
        let target = format!("Next waypoint: {}.", self.prompts.position(target));
        let movement = movement.map(|movement| {
            let text = movement.text(self.prompts.robot, self.prompts.wording());
            format!("Move: {}", sentence(&text))
        });
        match question.kind {
            Kind::State => parts.push(state),
            Kind::Waypoint => {
                parts.extend(movement);
                parts.push(target);
            }
            Kind::Movement => {
                parts.extend([state, target]);
                parts.extend(movement);
            }
        }
        parts.join(" ")
    }
}

/// A text with a full stop at its end.
fn sentence(text: &str) -> String {
    format!("{}.", text.trim().trim_end_matches('.'))
}

/// A position in metres, to the micrometre.
fn metres(position: Position) -> Value {
    json!(position.map(|value| (value * 1e6).round() / 1e6 + 0.0))
}

#[cfg(test)]
mod tests {
    use embodied_r_lerobot::TaskSpan;

    use super::*;
    use crate::demonstration::Annotation;
    use crate::movement::Movement;
    use crate::robot::Robot;
    use crate::split::Split;

    fn demonstration() -> Demonstration {
        let note = |kind, text: &str| Annotation { frame: 0, kind, text: text.to_owned() };
        Demonstration {
            episode: 12,
            tasks: vec![TaskSpan { start: 0, task: "pick up the cup".to_owned() }],
            positions: Vec::new(),
            gripper: Vec::new(),
            joint_speeds: Vec::new(),
            annotations: vec![
                note(AnnotationKind::Plan, "1. Reach the cup. 2. Lift it."),
                note(AnnotationKind::Subtask, "Reach the cup"),
            ],
        }
    }

    fn question(kind: Kind) -> RobotQuestion {
        let (state, target) = ([0.265, -0.112, 1.154], [0.254, -0.197, 0.894]);
        RobotQuestion {
            kind,
            split: Split::Train,
            start: StartFrame {
                source: 0,
                frame: 30,
                key_point: 41,
                state,
                target,
                movement: Movement::between(state, target, 0.005),
            },
            options: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
            answer: 2,
        }
    }

    fn with_records<T>(style: PromptStyle, use_records: impl Fn(Records<'_>) -> T) -> T {
        let robot = Robot::default();
        let decimals = if style == PromptStyle::Paper { 3 } else { 2 };
        let prompts = Prompts { robot: &robot, style, decimals };
        use_records(Records { prompts, form: AnswerForm::MultipleChoice })
    }

    #[test]
    fn a_record_has_the_facts_of_its_frame() {
        let record = with_records(PromptStyle::Paper, |records| {
            records.question(&question(Kind::Waypoint), &demonstration())
        });
        let mut record = serde_json::to_value(record).unwrap();
        let prompt = record.as_object_mut().unwrap().remove("question").unwrap();
        assert!(prompt.as_str().unwrap().contains("- [[C]] c\n"));
        let expected = json!({
            "Question_id": "waypoint-12-30",
            "question_category": "waypoint",
            "answer": "C",
            "scene_name": "episode_000012",
            "images": ["images/episode_000012/frame_000030.png"],
            "kind": "waypoint",
            "task": "pick up the cup",
            "episode_index": 12,
            "frame_index": 30,
            "keypoint_index": 41,
            "state": [0.265, -0.112, 1.154],
            "target": [0.254, -0.197, 0.894],
            "movement": "slightly move backward, slightly move left, and move down",
            "options": ["a", "b", "c", "d"],
        });
        assert_eq!(record, expected);
    }

    #[test]
    fn worked_examples_reason_to_the_answer() {
        let reasoned = |style, kind| {
            with_records(style, |it| {
                it.completion(&question(kind), &demonstration(), Worked::Reasoned)
            })
        };
        assert_eq!(
            reasoned(PromptStyle::Paper, Kind::Waypoint),
            "<think> Plan: 1. Reach the cup. 2. Lift it. Subtask: Reach the cup. Move: slightly move backward, slightly \
             move left, and move down. Next waypoint: [0.254, -0.197, 0.894]. </think> <answer> [[C]] </answer>"
        );
        assert_eq!(
            reasoned(PromptStyle::Compact, Kind::State),
            "<think>State: 0.27 -0.11 1.15.</think><answer>C</answer>"
        );
        let movement = reasoned(PromptStyle::Compact, Kind::Movement);
        let end = "State: 0.27 -0.11 1.15. Next waypoint: 0.25 -0.20 0.89. Move: slightly backward, slightly \
             left, down.</think><answer>C</answer>";
        assert!(movement.ends_with(end), "{movement}");
    }

    #[test]
    fn a_direct_example_has_the_answer_alone() {
        let direct = with_records(PromptStyle::Compact, |it| {
            it.conversation(&question(Kind::State), &demonstration(), Worked::Direct)
        });
        assert_eq!(direct["messages"][1]["content"], "<think></think><answer>C</answer>");
        assert_eq!(direct["solution"], "C");
    }

    #[test]
    fn an_open_ended_answer_is_a_position() {
        let robot = Robot::default();
        let prompts = Prompts { robot: &robot, style: PromptStyle::Paper, decimals: 3 };
        let records = Records { prompts, form: AnswerForm::OpenEnded };
        let of = |kind| {
            let open = RobotQuestion { options: Vec::new(), ..question(kind) };
            records.question(&open, &demonstration())
        };
        assert_eq!(of(Kind::Waypoint).answer, "[0.254, -0.197, 0.894]");
        assert_eq!(of(Kind::State).answer, "[0.265, -0.112, 1.154]");
        assert!(!of(Kind::State).extra.contains_key("options"));
        assert_eq!(of(Kind::State).extra["answer_type"], "position");
    }
}
