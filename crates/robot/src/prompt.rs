//! Prompts: the sections of Robot-R1 in its order, in full or compact for small models, and worked completions.

use std::fmt::Write as _;

use crate::demonstration::Position;
use crate::kind::Kind;
use crate::movement::Wording;
use crate::robot::Robot;

/// The place of the image.
const IMAGE: &str = "<image>";

/// The letters of options.
pub const LETTERS: [char; 4] = ['A', 'B', 'C', 'D'];

/// How long prompts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptStyle {
    /// The sections of the paper.
    Paper,
    /// The same in at most 160 tokens of text, for small models.
    Compact,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerForm {
    /// One of four options.
    MultipleChoice,
    /// A position.
    OpenEnded,
}

/// How prompts are written.
#[derive(Debug, Clone, Copy)]
pub struct Prompts<'a> {
    /// The robot that they are about.
    pub robot: &'a Robot,
    /// How long they are.
    pub style: PromptStyle,
    /// Decimals of coordinates.
    pub decimals: usize,
}

impl Prompts<'_> {
    /// A position in text: `[0.265, -0.112, 1.154]`, or compact `0.265 -0.112 1.154`.
    pub fn position(&self, position: Position) -> String {
        match self.style {
            PromptStyle::Paper => self.bracketed(position),
            PromptStyle::Compact => self.coordinates(position).join(" "),
        }
    }

    /// A position in text as an open-ended answer gives it: `[0.265, -0.112, 1.154]`.
    pub fn bracketed(&self, position: Position) -> String {
        format!("[{}]", self.coordinates(position).join(", "))
    }

    fn coordinates(&self, position: Position) -> [String; 3] {
        let decimals = self.decimals;
        let coordinate = |value: f64| {
            let text = format!("{value:.decimals$}");
            match text.strip_prefix('-') {
                Some(zero) if zero.chars().all(|c| matches!(c, '0' | '.')) => zero.to_owned(),
                _ => text,
            }
        };
        position.map(coordinate)
    }

    /// A position as it is read back from its text.
    pub fn rounded(&self, position: Position) -> Position {
        let scale = 10f64.powi(self.decimals as i32);
        position.map(|value| {
            let text = format!("{value:.*}", self.decimals);
            // What is formatted as a number is one; adding 0 makes -0 positive.
            text.parse().unwrap_or((value * scale).round() / scale) + 0.0
        })
    }

    /// How movements are worded.
    pub fn wording(&self) -> Wording {
        match self.style {
            PromptStyle::Paper => Wording::Sentence,
            PromptStyle::Compact => Wording::Compact,
        }
    }

    /// The prompt of a question about one image, with options A to D unless it is open-ended. `state` is the current
    /// position.
    pub fn prompt(&self, kind: Kind, task: &str, state: Position, options: &[String]) -> String {
        match self.style {
            PromptStyle::Paper => self.paper(kind, task, state, options),
            PromptStyle::Compact => self.compact(kind, task, state, options),
        }
    }

    fn paper(&self, kind: Kind, task: &str, state: Position, options: &[String]) -> String {
        let robot = self.robot;
        let mut text =
            format!("# You are {} Assistant: Task Planning and Execution System\n\n", robot.name);
        let heading = match kind {
            Kind::State => "Robot Task description",
            Kind::Waypoint | Kind::Movement => "Task description",
        };
        push(&mut text, &format!("## {heading}\n{task}\n\n"));
        push(
            &mut text,
            &format!(
                "## Visual Input\nYou will receive a single image for scene understanding:\n- {IMAGE}: {}\n\n",
                robot.view
            ),
        );
        push(
            &mut text,
            "## Coordinate System\nThe world coordinate frame follows these conventions:\n",
        );
        if let Some(note) = robot.view_note.as_ref().filter(|_| kind != Kind::Movement) {
            push(&mut text, &format!("- {note}\n"));
        }
        for (name, axis) in ["X", "Y", "Z"].iter().zip(&robot.axes) {
            let (positive, negative) = (&axis.positive, &axis.negative);
            push(
                &mut text,
                &format!("- {name}-axis: {negative} (negative) to {positive} (positive)\n"),
            );
        }
        if kind != Kind::Movement {
            let [x, y, z] = robot.origin;
            let place = &robot.origin_place;
            push(&mut text, &format!("- World origin [{x}, {y}, {z}] is at {place}\n"));
            let [width, length, height] = robot.gripper.size;
            let fingers = robot.gripper.finger_length;
            push(
                &mut text,
                &format!(
                    "\n## Robot Specifications\n- Gripper dimensions: {width}m width (x-direction) × {length}m length \
                     (y-direction) × {height}m height (z-direction), with fingers {fingers}m in length\n"
                ),
            );
        }
        if kind == Kind::Waypoint {
            let state = self.position(state);
            push(&mut text, &format!("\n## Current Robot State\nPosition: {state}\n"));
        }
        self.paper_question(&mut text, kind, options);
        text
    }

    fn paper_question(&self, text: &mut String, kind: Kind, options: &[String]) {
        let is_open = options.is_empty();
        let question = match kind {
            Kind::Waypoint => {
                "Based on the provided image and the current robot state, predict the next waypoint position [x, y, z]."
            }
            Kind::State => "Predict the current robot state [x, y, z] from the image.",
            Kind::Movement => {
                "What movements are needed to get to the next keypoint to perform the task?"
            }
        };
        let heading = if is_open { "Question" } else { "Choice Question" };
        push(text, &format!("\n### {heading}\n{question}"));
        if !is_open {
            push(text, " Choose the most accurate option:");
        }
        for (letter, option) in LETTERS.iter().zip(options) {
            push(text, &format!("\n- [[{letter}]] {option}"));
        }
        let answer = if is_open { "[x, y, z]" } else { "[[A]]" };
        push(
            text,
            &format!(
                "\n\n## Output Format\nFirst think about the reasoning process as an internal monologue, then give the \
                 final answer. The reasoning process must be within <think> </think> tags, the final answer within \
                 <answer> </answer> tags.\nExample output format: <think> [detailed reasoning process] </think> \
                 <answer> {answer} </answer>"
            ),
        );
    }

    fn compact(&self, kind: Kind, task: &str, state: Position, options: &[String]) -> String {
        let robot = self.robot;
        let mut text = format!("{IMAGE}\nTask: {task}\n");
        let axes = ["x", "y", "z"].iter().zip(&robot.axes);
        let axes = axes.map(|(name, axis)| format!("{name} {} to {}", axis.backward, axis.forward));
        push(&mut text, &format!("Axes: {}\n", axes.collect::<Vec<_>>().join(", ")));
        if kind != Kind::Movement {
            let origin = self.position(robot.origin);
            let size = self.position(robot.gripper.size);
            push(&mut text, &format!("Origin: {origin}\nGripper: {size}\n"));
        }
        if kind == Kind::Waypoint {
            push(&mut text, &format!("State: {}\n", self.position(state)));
        }
        push(
            &mut text,
            match kind {
                Kind::Waypoint => "Next waypoint?",
                Kind::State => "Current state?",
                Kind::Movement => "Next movement?",
            },
        );
        for (letter, option) in LETTERS.iter().zip(options) {
            push(&mut text, &format!("\n{letter} {option}"));
        }
        let answer = if options.is_empty() { "[x, y, z]" } else { "letter" };
        push(&mut text, &format!("\nReply: <think>reasoning</think><answer>{answer}</answer>"));
        text
    }
}

/// A string takes all that is written to it.
fn push(text: &mut String, more: &str) {
    let _ = text.write_str(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: Position = [0.265, -0.112, 1.1541];

    fn prompts(robot: &Robot, style: PromptStyle) -> Prompts<'_> {
        let decimals = if style == PromptStyle::Paper { 3 } else { 2 };
        Prompts { robot, style, decimals }
    }

    fn options(style: PromptStyle) -> Vec<String> {
        let robot = Robot::default();
        let prompts = prompts(&robot, style);
        [
            [0.072, 0.243, 0.996],
            [-0.07, 0.247, 0.937],
            [0.254, -0.197, 0.894],
            [0.187, -0.065, 1.144],
        ]
        .map(|position| prompts.position(position))
        .to_vec()
    }

    #[test]
    fn the_waypoint_prompt_has_the_papers_sections_in_order() {
        let robot = Robot::default();
        let prompts = prompts(&robot, PromptStyle::Paper);
        let text =
            prompts.prompt(Kind::Waypoint, "pick up the cup", STATE, &options(PromptStyle::Paper));
        let expected = "\
# You are Franka Robot Assistant: Task Planning and Execution System

## Task description
pick up the cup

## Visual Input
You will receive a single image for scene understanding:
- <image>: front view of the workspace

## Coordinate System
The world coordinate frame follows these conventions:
- This is based on the front view. (In a wrist view, the Y-axis is mirrored.)
- X-axis: back of table (negative) to front of table (positive)
- Y-axis: left (negative) to right (positive)
- Z-axis: down toward floor (negative) to up toward ceiling (positive)
- World origin [0.25, 0, 0.752] is at the center of the table surface

## Robot Specifications
- Gripper dimensions: 0.06m width (x-direction) × 0.2m length (y-direction) × 0.09m height (z-direction), with fingers \
0.04m in length

## Current Robot State
Position: [0.265, -0.112, 1.154]

### Choice Question
Based on the provided image and the current robot state, predict the next waypoint position [x, y, z]. Choose the most \
accurate option:
- [[A]] [0.072, 0.243, 0.996]
- [[B]] [-0.070, 0.247, 0.937]
- [[C]] [0.254, -0.197, 0.894]
- [[D]] [0.187, -0.065, 1.144]

## Output Format
First think about the reasoning process as an internal monologue, then give the final answer. The reasoning process must \
be within <think> </think> tags, the final answer within <answer> </answer> tags.
Example output format: <think> [detailed reasoning process] </think> <answer> [[A]] </answer>";
        assert_eq!(text, expected);
    }

    #[test]
    fn only_the_waypoint_prompt_has_the_state() {
        let robot = Robot::default();
        for style in [PromptStyle::Paper, PromptStyle::Compact] {
            let prompts = prompts(&robot, style);
            let state = prompts.position(STATE);
            for kind in Kind::ALL {
                let text = prompts.prompt(kind, "push the button", STATE, &options(style));
                assert_eq!(text.contains(&state), kind == Kind::Waypoint, "{text}");
                assert_eq!(text.matches("<image>").count(), 1, "{text}");
            }
        }
    }

    #[test]
    fn the_movement_prompt_has_neither_origin_nor_gripper() {
        let robot = Robot::default();
        for style in [PromptStyle::Paper, PromptStyle::Compact] {
            for kind in Kind::ALL {
                let text = prompts(&robot, style).prompt(kind, "push", STATE, &options(style));
                for word in ["rigin", "Gripper"] {
                    assert_eq!(text.contains(word), kind != Kind::Movement, "{text}");
                }
            }
        }
    }

    #[test]
    fn an_open_ended_prompt_has_no_options() {
        let robot = Robot::default();
        let text = prompts(&robot, PromptStyle::Paper).prompt(Kind::Waypoint, "push", STATE, &[]);
        assert!(text.contains("<answer> [x, y, z] </answer>"), "{text}");
        assert!(!text.contains("[[A]]") && !text.contains("option"), "{text}");
    }

    #[test]
    fn a_compact_prompt_is_short() {
        let robot = Robot::default();
        let text = prompts(&robot, PromptStyle::Compact).prompt(
            Kind::Waypoint,
            "pick up the cup",
            STATE,
            &options(PromptStyle::Compact),
        );
        let expected = "<image>\nTask: pick up the cup\n\
            Axes: x backward to forward, y left to right, z down to up\n\
            Origin: 0.25 0.00 0.75\nGripper: 0.06 0.20 0.09\nState: 0.27 -0.11 1.15\nNext waypoint?\n\
            A 0.07 0.24 1.00\nB -0.07 0.25 0.94\nC 0.25 -0.20 0.89\nD 0.19 -0.07 1.14\n\
            Reply: <think>reasoning</think><answer>letter</answer>";
        assert_eq!(text, expected);
    }

    /// Tokens of a text in which every digit, sign, word and line feed is one, as in tokenizers with single digits that
    /// know the words.
    fn tokens(text: &str) -> usize {
        let mut count = 0;
        let mut in_word = false;
        for c in text.chars() {
            let is_letter = c.is_alphabetic();
            count += usize::from(c != ' ' && !(is_letter && in_word));
            in_word = is_letter;
        }
        count
    }

    #[test]
    fn a_compact_prompt_has_at_most_160_tokens_of_text() {
        let robot = Robot::default();
        let prompts = prompts(&robot, PromptStyle::Compact);
        let state = [-0.265, -0.112, 1.154];
        let waypoints: Vec<String> = (0..4).map(|_| prompts.position(state)).collect();
        let movements = vec!["slightly backward, slightly right, down".to_owned(); 4];
        for (kind, options) in
            [(Kind::Waypoint, &waypoints), (Kind::State, &waypoints), (Kind::Movement, &movements)]
        {
            let text = prompts.prompt(kind, "throw the rubbish into the bin", state, options);
            let tokens = tokens(text.trim_start_matches("<image>"));
            assert!(tokens <= 160, "{kind:?}: {tokens} tokens in\n{text}");
        }
    }

    #[test]
    fn zero_has_no_sign() {
        let robot = Robot::default();
        let prompts = prompts(&robot, PromptStyle::Paper);
        assert_eq!(prompts.position([-0.0004, -0.0, -0.0006]), "[0.000, 0.000, -0.001]");
        assert!(prompts.rounded([-0.0004; 3]).iter().all(|value| value.is_sign_positive()));
        assert_eq!(prompts.rounded([0.1234, 2.0, -0.0006]), [0.123, 2.0, -0.001]);
    }
}
