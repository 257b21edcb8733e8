//! Question categories and templates.

use std::fmt;
use std::str::FromStr;

use embodied_r_data::Benchmark;

/// A question category, named as in its benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// VSI-Bench's `obj_appearance_order`.
    AppearanceOrder,
    /// UrbanVideo-Bench's `Landmark Position`.
    LandmarkPosition,
    /// UrbanVideo-Bench's `Action Generation`.
    ActionGeneration,
    /// UrbanVideo-Bench's `Progress Evaluation`.
    ProgressEvaluation,
    /// UrbanVideo-Bench's `Counterfactual`.
    Counterfactual,
    /// VSI-Bench's `object_rel_direction_easy`.
    RelativeDirection,
    /// VSI-Bench's `object_rel_distance`.
    RelativeDistance,
}

impl Category {
    /// All categories.
    pub const ALL: [Self; 7] = [
        Self::AppearanceOrder,
        Self::LandmarkPosition,
        Self::ActionGeneration,
        Self::ProgressEvaluation,
        Self::Counterfactual,
        Self::RelativeDirection,
        Self::RelativeDistance,
    ];

    /// The official name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AppearanceOrder => "obj_appearance_order",
            Self::LandmarkPosition => "Landmark Position",
            Self::ActionGeneration => "Action Generation",
            Self::ProgressEvaluation => "Progress Evaluation",
            Self::Counterfactual => "Counterfactual",
            Self::RelativeDirection => "object_rel_direction_easy",
            Self::RelativeDistance => "object_rel_distance",
        }
    }

    /// The category's benchmark.
    pub fn benchmark(self) -> Benchmark {
        match self {
            Self::AppearanceOrder | Self::RelativeDirection | Self::RelativeDistance => {
                Benchmark::Vsi
            }
            _ => Benchmark::Urban,
        }
    }

    /// Number of options; chance accuracy is its reciprocal.
    pub fn options(self) -> usize {
        match self {
            Self::RelativeDirection => 2,
            Self::Counterfactual => 3,
            _ => 4,
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An unknown category name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown category `{0}`; available: {list}", list = Category::ALL.map(Category::name).join(", "))]
pub struct UnknownCategory(pub String);

impl FromStr for Category {
    type Err = UnknownCategory;

    fn from_str(name: &str) -> Result<Self, UnknownCategory> {
        Self::ALL
            .into_iter()
            .find(|category| category.name() == name)
            .ok_or_else(|| UnknownCategory(name.to_owned()))
    }
}

/// When a counterfactual rotation would happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Start,
    End,
}

/// A question without its choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QuestionTemplate {
    /// The order of first appearance of `names`.
    Order { names: Vec<String> },
    /// Where `name` is relative to the final pose.
    Position { name: String },
    /// The next action towards `name` from the final pose.
    Action { name: String },
    /// The last completed step `face the …` of a route.
    Progress { route: Vec<String> },
    /// The object ahead after a hypothetical rotation.
    Counterfactual { moment: Moment, turn_deg: i32 },
    /// The side of `target` when standing at `stand` and facing `face`.
    Direction { stand: String, face: String, target: String },
    /// The object of `among` closest to `to`.
    Distance { to: String, among: Vec<String> },
}

const START: &str = "If you had rotated ";
const NOW: &str = "If you now rotated ";
const NEAREST: &str = ", which of these objects would be nearest to straight ahead?";

impl QuestionTemplate {
    /// The question text, without `Question:` and choices.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Order { names } => format!(
                "What will be the first-time appearance order of the following categories in the \
                 video: {}?",
                names.join(", ")
            ),
            Self::Position { name } => {
                format!("When you reach the current location, where is the {name} relative to you?")
            }
            Self::Action { name } => {
                format!("You are asked to navigate to the {name}. What is your next action?")
            }
            Self::Progress { route } => {
                let steps: Vec<_> = route.iter().map(|name| step_text(name)).collect();
                format!(
                    "You are asked to follow this route: {}. Which step have you done last?",
                    steps.join(", ")
                )
            }
            Self::Counterfactual { moment, turn_deg } => {
                let side = if *turn_deg > 0 { "left" } else { "right" };
                let degrees = turn_deg.abs();
                match moment {
                    Moment::Start => {
                        format!("{START}{side} {degrees} at the start instead{NEAREST}")
                    }
                    Moment::End => format!("{NOW}{side} {degrees}{NEAREST}"),
                }
            }
            Self::Direction { stand, face, target } => format!(
                "If I am standing by the {stand} and facing the {face}, is the {target} to the \
                 left or the right of the {face}?"
            ),
            Self::Distance { to, among } => format!(
                "Measuring from the closest point of each object, which of these objects ({}) is \
                 the closest to the {to}?",
                among.join(", ")
            ),
        }
    }

    /// Parses [`QuestionTemplate::text`]; `None` for any other question.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let template = Self::parse_names(text).or_else(|| Self::parse_counterfactual(text))?;
        // Reject similar questions with a different wording.
        (template.text() == text).then_some(template)
    }

    fn parse_names(text: &str) -> Option<Self> {
        let list = |names: &str| names.split(", ").map(str::to_owned).collect::<Vec<_>>();
        let within = |before: &str, after: &str| text.strip_prefix(before)?.strip_suffix(after);
        if let Some(names) = within(
            "What will be the first-time appearance order of the following categories in the \
             video: ",
            "?",
        ) {
            return Some(Self::Order { names: list(names) });
        }
        if let Some(name) =
            within("When you reach the current location, where is the ", " relative to you?")
        {
            return Some(Self::Position { name: name.to_owned() });
        }
        if let Some(name) =
            within("You are asked to navigate to the ", ". What is your next action?")
        {
            return Some(Self::Action { name: name.to_owned() });
        }
        if let Some(steps) =
            within("You are asked to follow this route: ", ". Which step have you done last?")
        {
            let names = list(steps);
            let route: Option<Vec<_>> =
                names.iter().map(|step| Some(named_in_step(step)?.to_owned())).collect();
            return Some(Self::Progress { route: route? });
        }
        if let Some(rest) = within("If I am standing by the ", "?") {
            let (stand, rest) = rest.split_once(" and facing the ")?;
            let (face, rest) = rest.split_once(", is the ")?;
            let (target, _) = rest.split_once(" to the left or the right")?;
            let [stand, face, target] = [stand, face, target].map(str::to_owned);
            return Some(Self::Direction { stand, face, target });
        }
        let rest = within(
            "Measuring from the closest point of each object, which of these objects (",
            "?",
        )?;
        let (among, to) = rest.split_once(") is the closest to the ")?;
        Some(Self::Distance { to: to.to_owned(), among: list(among) })
    }

    fn parse_counterfactual(text: &str) -> Option<Self> {
        let rest = text.strip_suffix(NEAREST)?;
        let (moment, rotation) = match rest.strip_prefix(NOW) {
            Some(rotation) => (Moment::End, rotation),
            None => {
                (Moment::Start, rest.strip_prefix(START)?.strip_suffix(" at the start instead")?)
            }
        };
        let (side, degrees) = rotation.split_once(' ')?;
        let degrees: i32 = degrees.parse().ok().filter(|degrees| (1..=180).contains(degrees))?;
        let turn_deg = if side == "left" { degrees } else { -degrees };
        Some(Self::Counterfactual { moment, turn_deg })
    }
}

/// A step of a route.
pub fn step_text(name: &str) -> String {
    format!("face the {name}")
}

/// The object of [`step_text`].
pub fn named_in_step(step: &str) -> Option<&str> {
    step.strip_prefix("face the ")
}

/// The letter of the option at `index`.
pub fn letter(index: usize) -> char {
    char::from(b'A'.saturating_add(index.min(25) as u8))
}

/// A question with its choices in the benchmarks' format: `Question: …`, an empty line, `Choices:`,
/// then a line `A. …` per option.
pub(crate) fn with_choices(template: &QuestionTemplate, options: &[String]) -> String {
    format!("Question: {}\n\n{}", template.text(), choices(options))
}

/// `Choices:`, then a line `A. …` per option.
pub fn choices(options: &[String]) -> String {
    let mut text = "Choices:".to_owned();
    for (index, option) in options.iter().enumerate() {
        text.push_str(&format!("\n{}. {option}", letter(index)));
    }
    text
}

/// Parses [`with_choices`]; `None` for any other text.
pub(crate) fn parse_with_choices(text: &str) -> Option<(QuestionTemplate, Vec<String>)> {
    let text = text.trim().strip_prefix("Question:").unwrap_or(text);
    let (question, choices) = text.split_once("Choices:")?;
    let options = choices.trim().lines().enumerate().map(|(index, line)| {
        Some(line.trim().strip_prefix(letter(index))?.strip_prefix(". ")?.to_owned())
    });
    Some((QuestionTemplate::parse(question)?, options.collect::<Option<Vec<_>>>()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn every_question_round_trips_through_its_text() {
        let options = names(&["bed, lamp, sofa", "left"]);
        for template in [
            QuestionTemplate::Order { names: names(&["bed", "lamp", "sofa"]) },
            QuestionTemplate::Position { name: "bed".into() },
            QuestionTemplate::Action { name: "bed".into() },
            QuestionTemplate::Progress { route: names(&["bed", "lamp", "sofa", "desk"]) },
            QuestionTemplate::Counterfactual { moment: Moment::Start, turn_deg: 90 },
            QuestionTemplate::Counterfactual { moment: Moment::End, turn_deg: -60 },
            QuestionTemplate::Direction {
                stand: "bed".into(),
                face: "lamp".into(),
                target: "sofa".into(),
            },
            QuestionTemplate::Distance { to: "bed".into(), among: names(&["lamp", "sofa"]) },
        ] {
            let text = with_choices(&template, &options);
            assert_eq!(parse_with_choices(&text), Some((template, options.clone())), "{text}");
        }
    }

    #[test]
    fn a_question_with_another_wording_is_rejected() {
        assert_eq!(QuestionTemplate::parse("Where is the bed?"), None);
        assert_eq!(QuestionTemplate::parse("If you now rotated up 30, which?"), None);
    }

    #[test]
    fn a_category_is_parsed_from_its_official_name_only() {
        for category in Category::ALL {
            assert_eq!(category.name().parse(), Ok(category));
        }
        let error = "Landmark position".parse::<Category>().unwrap_err();
        assert!(error.to_string().contains("`Landmark position`"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "\\PC{0,80}") {
            parse_with_choices(&format!("Question: {text}\n\nChoices:\nA. {text}"));
        }
    }
}
