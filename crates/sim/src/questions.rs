//! Questions about a room with ground-truth answers, balanced against guessing.
//!
//! The class of the answer (its side, its step, …) is drawn first, and rooms are sampled until one
//! has such an answer; object names are random and choices are shuffled. Hence neither the letter
//! nor the content nor any word of the question is correlated with the answer.

use embodied_r_data::Question;
use embodied_r_data::prompts::{CaptionStyle, FrameText, perceived_prompt};
use embodied_r_data::scene::{Pose, Scene, SceneObject};
use embodied_r_random::Rng;
use serde_json::{Map, Value};

use crate::caption_trace::CaptionTrace;
use crate::captions::captions_at;
use crate::geometry::{Octant, bearing_deg, closest_distance_m, turn_at_deg, wrap};
use crate::question_template::{
    Category, Moment, QuestionTemplate, letter, step_text, with_choices,
};
use crate::rationale::{Rationale, derive_rationale};
use crate::world::{draw, keyframes_by_pose, stops};

/// Rejection-sampling limit, after which a room may lack some of its questions.
const MAX_ATTEMPTS: u64 = 4000;

/// Least distance of an answer's bearing from the borders of its octant: captions round bearings to 10°.
const MIN_TO_BORDER_DEG: f64 = 7.5;

/// A room and its questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Room {
    /// The room and the camera trajectory; scene and video names are empty.
    pub scene: Scene,
    /// The questions.
    pub questions: Vec<RoomQuestion>,
}

/// A multiple-choice question about a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomQuestion {
    /// Its category.
    pub category: Category,
    /// The question without choices.
    pub stem: String,
    /// The choices, without their letters.
    pub options: Vec<String>,
    /// The correct letter.
    pub answer: char,
    /// `Question: …` and the choices, in the benchmarks' format.
    pub text: String,
}

/// A text-only question about a room without a video; its captions use [`keyframes_by_pose`].
#[derive(Debug, Clone, PartialEq)]
pub struct TextQuestion {
    /// The question.
    pub question: RoomQuestion,
    /// The captions.
    pub captions: Vec<FrameText>,
    /// The reasoning from the captions to the correct answer.
    pub rationale: Rationale,
}

impl TextQuestion {
    /// The record after perception, with captions and question in the prompt.
    pub fn perceived(&self) -> Question {
        self.perceived_with(&self.captions)
    }

    /// The record with other captions, such as those of another room for a blind control.
    pub fn perceived_with(&self, captions: &[FrameText]) -> Question {
        Question {
            question_id: Value::Null,
            video_id: None,
            question_category: self.question.category.name().to_owned(),
            question: perceived_prompt(captions, &self.question.text, CaptionStyle::Bearings),
            answer: self.question.answer.to_string(),
            scene_name: None,
            videos: None,
            content: None,
            extra: Map::new(),
        }
    }
}

/// Room `index` of `seed`, with `per_category` questions of each category.
///
/// In rare cases the sampling limit is reached and the room has fewer questions.
pub fn room(seed: u64, index: u64, categories: &[Category], per_category: usize) -> Room {
    let mut rng = Rng::new(&[seed, index, 1]);
    let requested: Vec<(Category, usize)> = categories
        .iter()
        .flat_map(|&category| std::iter::repeat_n(category, per_category))
        .map(|category| (category, rng.below(answer_classes(category))))
        .collect();
    let mut best: Option<Room> = None;
    for attempt in 0..MAX_ATTEMPTS {
        let scene = draw(&[seed, index, 2, attempt]);
        let mut rng = Rng::new(&[seed, index, 3, attempt]);
        let questions = generate_questions(&GroundTruth::new(&scene), &requested, &mut rng);
        if best.as_ref().is_none_or(|best| questions.len() > best.questions.len()) {
            let complete = questions.len() == requested.len();
            best = Some(Room { scene, questions });
            if complete {
                break;
            }
        }
    }
    best.unwrap_or_else(|| Room { scene: draw(&[seed, index, 2, 0]), questions: Vec::new() })
}

/// Question `index` of `seed`, cycling through the categories. `None` without categories.
pub fn text_question(seed: u64, index: u64, categories: &[Category]) -> Option<TextQuestion> {
    let turn = index.checked_rem(categories.len() as u64)?;
    let category = *categories.get(turn as usize)?;
    let answer_class = Rng::new(&[seed, index, 4]).below(answer_classes(category));
    (0..).find_map(|attempt: u64| {
        let scene = draw(&[seed, index, 5, attempt]);
        let truth = GroundTruth::new(&scene);
        let question =
            truth.question(category, answer_class, &mut Rng::new(&[seed, index, 6, attempt]))?;
        let rationale = derive_rationale(&question.0, &question.1.options, &truth.key_trace)?;
        let captions = captions_at(&scene, &keyframes_by_pose(&scene));
        Some(TextQuestion { question: question.1, captions, rationale })
    })
}

/// Generates the requested questions, skipping those that this room does not support.
fn generate_questions(
    truth: &GroundTruth<'_>,
    requested: &[(Category, usize)],
    rng: &mut Rng,
) -> Vec<RoomQuestion> {
    let mut questions: Vec<RoomQuestion> = Vec::with_capacity(requested.len());
    for &(category, answer_class) in requested {
        // A room's questions of one category must differ.
        let fresh = (0..4).find_map(|_| {
            let (_, question) = truth.question(category, answer_class, rng)?;
            questions.iter().all(|other| other.stem != question.stem).then_some(question)
        });
        questions.extend(fresh);
    }
    questions
}

/// Number of answer classes of a category to balance.
pub(crate) fn answer_classes(category: Category) -> usize {
    match category {
        Category::LandmarkPosition | Category::ActionGeneration => Octant::ALL.len(),
        // The last completed step.
        Category::ProgressEvaluation => 4,
        // Start or end, left or right.
        Category::Counterfactual => 4,
        Category::RelativeDirection => 2,
        Category::AppearanceOrder | Category::RelativeDistance => 1,
    }
}

/// A question before its choices are shuffled.
struct QuestionDraft {
    template: QuestionTemplate,
    right: String,
    wrong: Vec<String>,
}

/// A room's ground truth and its parsed captions.
pub(crate) struct GroundTruth<'a> {
    scene: &'a Scene,
    /// The options of questions about a direction.
    octants: &'a [Octant],
    /// The poses at full seconds.
    stops: Vec<Pose>,
    /// Ground-truth bearings by object and stop.
    bearings: Vec<Vec<f64>>,
    key_trace: CaptionTrace,
    stop_trace: CaptionTrace,
}

impl<'a> GroundTruth<'a> {
    fn new(scene: &'a Scene) -> Self {
        Self::of_frames(scene, &keyframes_by_pose(scene), &Octant::ALL)
    }

    /// The ground truth for prompts with the captions of `key_frames`; `octants` are the options of questions about a
    /// direction.
    pub(crate) fn of_frames(scene: &'a Scene, key_frames: &[usize], octants: &'a [Octant]) -> Self {
        let frames = stops(scene);
        let poses: Vec<Pose> = frames.iter().map(|&frame| scene.camera[frame]).collect();
        let along = |object: &SceneObject| poses.iter().map(|p| bearing_deg(p, object)).collect();
        let bearings = scene.objects.iter().map(along).collect();
        let trace = |frames: &[usize]| {
            CaptionTrace::from_captions(&captions_at(scene, frames))
                .unwrap_or(CaptionTrace { frames: Vec::new() })
        };
        let (key_trace, stop_trace) = (trace(key_frames), trace(&frames));
        Self { scene, octants, stops: poses, bearings, key_trace, stop_trace }
    }

    /// The captions of the key frames.
    pub(crate) fn trace(&self) -> &CaptionTrace {
        &self.key_trace
    }

    /// A question with an answer of `answer_class`, if the room has one that its captions support.
    pub(crate) fn question(
        &self,
        category: Category,
        answer_class: usize,
        rng: &mut Rng,
    ) -> Option<(QuestionTemplate, RoomQuestion)> {
        let draft = match category {
            Category::AppearanceOrder => self.order(rng),
            Category::LandmarkPosition => self.position(
                answer_class,
                rng,
                |name| QuestionTemplate::Position { name },
                Octant::direction,
            ),
            Category::ActionGeneration => self.position(
                answer_class,
                rng,
                |name| QuestionTemplate::Action { name },
                Octant::action,
            ),
            Category::ProgressEvaluation => self.progress(answer_class + 1, rng),
            Category::Counterfactual => self.counterfactual(answer_class, rng),
            Category::RelativeDirection => self.direction(answer_class, rng),
            Category::RelativeDistance => self.distance(rng),
        }?;
        let mut options = draft.wrong;
        options.push(draft.right.clone());
        rng.shuffle(&mut options);
        let answer = letter(options.iter().position(|option| *option == draft.right)?);
        let supported = [&self.key_trace, &self.stop_trace].into_iter().all(|trace| {
            derive_rationale(&draft.template, &options, trace)
                .is_some_and(|found| found.answer == answer)
        });
        if !supported {
            return None;
        }
        let text = with_choices(&draft.template, &options);
        let question =
            RoomQuestion { category, stem: draft.template.text(), options, answer, text };
        Some((draft.template, question))
    }

    /// The objects' indices in random order.
    fn shuffled(&self, rng: &mut Rng) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..self.scene.objects.len()).collect();
        rng.shuffle(&mut indices);
        indices
    }

    fn name(&self, object: usize) -> String {
        self.scene.objects[object].name.clone()
    }

    /// The stop at which an object first comes into view, if it is well inside the view then and
    /// well outside before.
    fn clear_first_sight(&self, object: usize) -> Option<usize> {
        let half = self.scene.horizontal_fov_deg / 2.0;
        let bearings = &self.bearings[object];
        let first = bearings.iter().position(|bearing| bearing.abs() <= half)?;
        let clear = bearings[first].abs() <= half - 4.0
            && bearings[..first].iter().all(|bearing| bearing.abs() >= half + 4.0);
        clear.then_some(first)
    }

    /// Three objects that first come into view at different stops.
    fn order(&self, rng: &mut Rng) -> Option<QuestionDraft> {
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        for object in self.shuffled(rng) {
            let Some(stop) = self.clear_first_sight(object) else { continue };
            if chosen.iter().all(|(other, _)| *other != stop) {
                chosen.push((stop, object));
            }
        }
        chosen.truncate(3);
        let names: Vec<_> = chosen.iter().map(|(_, object)| self.name(*object)).collect();
        chosen.sort_unstable();
        let right: Vec<_> = chosen.iter().map(|(_, object)| self.name(*object)).collect();
        let [a, b, c] = right.as_slice() else { return None };
        let others = [[a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]];
        let wrong = rng.sample(&others.map(|names| names.map(String::as_str).join(", ")), 3);
        Some(QuestionDraft {
            template: QuestionTemplate::Order { names },
            right: right.join(", "),
            wrong,
        })
    }

    /// An object in the octant `answer_class` of the final pose, not close to its borders.
    fn position(
        &self,
        answer_class: usize,
        rng: &mut Rng,
        template: fn(String) -> QuestionTemplate,
        option: fn(Octant) -> &'static str,
    ) -> Option<QuestionDraft> {
        let octant = *Octant::ALL.get(answer_class)?;
        let object = self.shuffled(rng).into_iter().find(|&object| {
            let Some(&bearing) = self.bearings[object].last() else { return false };
            Octant::of(bearing) == octant
                && Octant::to_border_deg(bearing) >= MIN_TO_BORDER_DEG
                && self.key_trace.last_sight(&self.scene.objects[object].name).is_some()
        })?;
        let others: Vec<Octant> = self.octants.iter().copied().filter(|o| *o != octant).collect();
        let wrong = rng.sample(&others, 3).into_iter().map(|other| option(other).to_owned());
        Some(QuestionDraft {
            template: template(self.name(object)),
            right: option(octant).to_owned(),
            wrong: wrong.collect(),
        })
    }

    /// A route of four objects, of which only the first `done` were faced, in this order.
    fn progress(&self, done: usize, rng: &mut Rng) -> Option<QuestionDraft> {
        let (mut faced, mut never) = (Vec::new(), Vec::new());
        for object in self.shuffled(rng) {
            let bearings = &self.bearings[object];
            if bearings.iter().any(|bearing| (12.0..20.0).contains(&bearing.abs())) {
                continue;
            }
            match bearings.iter().rposition(|bearing| bearing.abs() < 12.0) {
                Some(stop) if faced.iter().all(|(other, _)| *other != stop) => {
                    faced.push((stop, object));
                }
                Some(_) => {}
                None => never.push(object),
            }
        }
        if faced.len() < done || never.len() < 4 - done {
            return None;
        }
        faced.truncate(done);
        faced.sort_unstable();
        let steps = faced.iter().map(|(_, object)| *object).chain(never);
        let route: Vec<_> = steps.take(4).map(|object| self.name(object)).collect();
        let right = step_text(route.get(done - 1)?);
        let steps = route.iter().map(|name| step_text(name));
        let wrong = steps.filter(|step| *step != right).collect();
        Some(QuestionDraft { template: QuestionTemplate::Progress { route }, right, wrong })
    }

    /// A rotation at the start or the end that would bring one object ahead and leave two aside.
    fn counterfactual(&self, answer_class: usize, rng: &mut Rng) -> Option<QuestionDraft> {
        let moment = if answer_class.is_multiple_of(2) { Moment::Start } else { Moment::End };
        let degrees = *rng.pick(&[60, 90, 120])?;
        let turn_deg = if answer_class / 2 == 0 { degrees } else { -degrees };
        let stop = if moment == Moment::Start { 0 } else { self.stops.len() - 1 };
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for object in self.shuffled(rng) {
            let name = self.name(object);
            // All choices were seen, so that being mentioned gives no hint.
            if self.key_trace.first_sight(&name).is_none() {
                continue;
            }
            match wrap(self.bearings[object][stop] - f64::from(turn_deg)).abs() {
                off if off <= 20.0 => near.push(name),
                off if off >= 50.0 => far.push(name),
                _ => {}
            }
        }
        far.truncate(2);
        if far.len() < 2 {
            return None;
        }
        let right = near.into_iter().next()?;
        Some(QuestionDraft {
            template: QuestionTemplate::Counterfactual { moment, turn_deg },
            right,
            wrong: far,
        })
    }

    /// Standing at one object and facing another across the room, a third is clearly to one side.
    fn direction(&self, answer_class: usize, rng: &mut Rng) -> Option<QuestionDraft> {
        let objects = &self.scene.objects;
        let side = if answer_class == 0 { 1.0 } else { -1.0 };
        for stand in self.shuffled(rng) {
            for face in self.shuffled(rng) {
                let apart = wrap(self.bearings[stand][0] - self.bearings[face][0]).abs();
                if apart < 150.0 {
                    continue;
                }
                let target = self.shuffled(rng).into_iter().find(|&target| {
                    target != stand && target != face && {
                        let turn = turn_at_deg(&objects[stand], &objects[face], &objects[target]);
                        (20.0..160.0).contains(&(turn * side))
                    }
                });
                let Some(target) = target else { continue };
                let [stand, face, target] = [stand, face, target].map(|object| self.name(object));
                let (right, wrong) =
                    if answer_class == 0 { ("left", "right") } else { ("right", "left") };
                let template = QuestionTemplate::Direction { stand, face, target };
                return Some(QuestionDraft {
                    template,
                    right: right.to_owned(),
                    wrong: vec![wrong.to_owned()],
                });
            }
        }
        None
    }

    /// An object and four others, of which one is clearly the closest.
    fn distance(&self, rng: &mut Rng) -> Option<QuestionDraft> {
        let objects = &self.scene.objects;
        let order = self.shuffled(rng);
        let (&to, among) = order.split_first()?;
        let among = among.get(..4)?;
        let mut by_distance: Vec<(f64, usize)> = among
            .iter()
            .map(|&object| (closest_distance_m(&objects[to], &objects[object]), object))
            .collect();
        by_distance.sort_by(|a, b| a.0.total_cmp(&b.0));
        if by_distance[1].0 - by_distance[0].0 < 0.7 {
            return None;
        }
        let right = self.name(by_distance[0].1);
        let among: Vec<_> = among.iter().map(|&object| self.name(object)).collect();
        let wrong = among.iter().filter(|name| **name != right).cloned().collect();
        Some(QuestionDraft {
            template: QuestionTemplate::Distance { to: self.name(to), among },
            right,
            wrong,
        })
    }
}

#[cfg(test)]
mod tests;
