//! Questions with true answers about a room, balanced so that none can be guessed.
//!
//! What the answer shall be (its side, its step, …) is drawn first and the room is drawn again
//! until it has such an answer; names are given to objects at random and choices are shuffled.
//! Hence neither letter nor content nor any word of the question tells anything about the answer.

use embodied_r_data::Question;
use embodied_r_data::prompts::{FrameText, perceived};
use embodied_r_data::scene::{Pose, Scene, SceneObject};
use serde_json::{Map, Value};

use crate::ask::{Ask, Category, Moment, letter, step_text, with_choices};
use crate::captions::captions_at;
use crate::geometry::{bearing_deg, closest_distance_m, turn_at_deg, wrap};
use crate::rationale::{Quadrant, Rationale, reason};
use crate::rng::Rng;
use crate::trace::Trace;
use crate::world::{draw, keyframes_by_pose, stops};

/// How often a room is drawn anew before one is taken that lacks some of its questions.
const MOST_DRAWS: u64 = 4000;

/// A room and what is asked about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Room {
    /// The room and the camera's path; names are left empty.
    pub scene: Scene,
    /// What is asked.
    pub questions: Vec<RoomQuestion>,
}

/// A multiple-choice question about a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomQuestion {
    /// Its kind.
    pub category: Category,
    /// The question alone.
    pub stem: String,
    /// The choices, without their letters.
    pub options: Vec<String>,
    /// The right letter.
    pub answer: char,
    /// `Question: …` and the choices, as the benchmarks put them.
    pub text: String,
}

/// A question about a room that was never filmed, with captions by [`keyframes_by_pose`].
#[derive(Debug, Clone, PartialEq)]
pub struct TextQuestion {
    /// The question.
    pub question: RoomQuestion,
    /// What the captions say.
    pub captions: Vec<FrameText>,
    /// The reasoning that leads from the captions to the right answer.
    pub rationale: Rationale,
}

impl TextQuestion {
    /// The record as it is after perception: the prompt holds the captions and the question.
    pub fn perceived(&self) -> Question {
        self.perceived_with(&self.captions)
    }

    /// The same with other captions, such as those of another room: what a blind guess is given.
    pub fn perceived_with(&self, captions: &[FrameText]) -> Question {
        Question {
            question_id: Value::Null,
            video_id: None,
            question_category: self.question.category.name().to_owned(),
            question: perceived(captions, &self.question.text),
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
/// The rare room that does not allow all of them, after many draws, has fewer.
pub fn room(seed: u64, index: u64, categories: &[Category], per_category: usize) -> Room {
    let mut rng = Rng::new(&[seed, index, 1]);
    let wanted: Vec<(Category, usize)> = categories
        .iter()
        .flat_map(|&category| std::iter::repeat_n(category, per_category))
        .map(|category| (category, rng.below(aims(category))))
        .collect();
    let mut best: Option<Room> = None;
    for attempt in 0..MOST_DRAWS {
        let scene = draw(&[seed, index, 2, attempt]);
        let mut rng = Rng::new(&[seed, index, 3, attempt]);
        let questions = ask_all(&Facts::new(&scene), &wanted, &mut rng);
        if best.as_ref().is_none_or(|best| questions.len() > best.questions.len()) {
            let complete = questions.len() == wanted.len();
            best = Some(Room { scene, questions });
            if complete {
                break;
            }
        }
    }
    best.unwrap_or_else(|| Room { scene: draw(&[seed, index, 2, 0]), questions: Vec::new() })
}

/// Question `index` of `seed`; the categories take turns. `None` for no categories.
pub fn text_question(seed: u64, index: u64, categories: &[Category]) -> Option<TextQuestion> {
    let turn = index.checked_rem(categories.len() as u64)?;
    let category = *categories.get(turn as usize)?;
    let aim = Rng::new(&[seed, index, 4]).below(aims(category));
    (0..).find_map(|attempt: u64| {
        let scene = draw(&[seed, index, 5, attempt]);
        let facts = Facts::new(&scene);
        let question = facts.ask(category, aim, &mut Rng::new(&[seed, index, 6, attempt]))?;
        let rationale = reason(&question.0, &question.1.options, &facts.key_trace)?;
        let captions = captions_at(&scene, &keyframes_by_pose(&scene));
        Some(TextQuestion { question: question.1, captions, rationale })
    })
}

/// Asks what is wanted; leaves out what this room does not allow.
fn ask_all(facts: &Facts<'_>, wanted: &[(Category, usize)], rng: &mut Rng) -> Vec<RoomQuestion> {
    let mut questions: Vec<RoomQuestion> = Vec::with_capacity(wanted.len());
    for &(category, aim) in wanted {
        // A room's second question of a category must not be its first one again.
        let fresh = (0..4).find_map(|_| {
            let (_, question) = facts.ask(category, aim, rng)?;
            questions.iter().all(|other| other.stem != question.stem).then_some(question)
        });
        questions.extend(fresh);
    }
    questions
}

/// How many kinds of answers a category has that the room must be drawn for.
fn aims(category: Category) -> usize {
    match category {
        Category::LandmarkPosition | Category::ActionGeneration => 4,
        // The step done last.
        Category::ProgressEvaluation => 4,
        // Start or end, left or right.
        Category::Counterfactual => 4,
        Category::RelativeDirection => 2,
        Category::AppearanceOrder | Category::RelativeDistance => 1,
    }
}

/// A question before its choices are shuffled.
struct Draft {
    ask: Ask,
    right: String,
    wrong: Vec<String>,
}

/// What is true of a room, and what its captions say.
struct Facts<'a> {
    scene: &'a Scene,
    /// The poses at the full seconds.
    stops: Vec<Pose>,
    /// True bearings by object and stop.
    bearings: Vec<Vec<f64>>,
    key_trace: Trace,
    stop_trace: Trace,
}

impl<'a> Facts<'a> {
    fn new(scene: &'a Scene) -> Self {
        let frames = stops(scene);
        let poses: Vec<Pose> = frames.iter().map(|&frame| scene.camera[frame]).collect();
        let along = |object: &SceneObject| poses.iter().map(|p| bearing_deg(p, object)).collect();
        let bearings = scene.objects.iter().map(along).collect();
        let trace = |frames: &[usize]| {
            Trace::from_captions(&captions_at(scene, frames))
                .unwrap_or(Trace { frames: Vec::new() })
        };
        let (key_trace, stop_trace) = (trace(&keyframes_by_pose(scene)), trace(&frames));
        Self { scene, stops: poses, bearings, key_trace, stop_trace }
    }

    /// A question whose answer is of the kind `aim`, if the room has one that the captions answer.
    fn ask(&self, category: Category, aim: usize, rng: &mut Rng) -> Option<(Ask, RoomQuestion)> {
        let draft = match category {
            Category::AppearanceOrder => self.order(rng),
            Category::LandmarkPosition => {
                self.position(aim, rng, |name| Ask::Position { name }, Quadrant::place)
            }
            Category::ActionGeneration => {
                self.position(aim, rng, |name| Ask::Action { name }, Quadrant::action)
            }
            Category::ProgressEvaluation => self.progress(aim + 1, rng),
            Category::Counterfactual => self.counterfactual(aim, rng),
            Category::RelativeDirection => self.direction(aim, rng),
            Category::RelativeDistance => self.distance(rng),
        }?;
        let mut options = draft.wrong;
        options.push(draft.right.clone());
        rng.shuffle(&mut options);
        let answer = letter(options.iter().position(|option| *option == draft.right)?);
        let supported = [&self.key_trace, &self.stop_trace].into_iter().all(|trace| {
            reason(&draft.ask, &options, trace).is_some_and(|found| found.answer == answer)
        });
        if !supported {
            return None;
        }
        let text = with_choices(&draft.ask, &options);
        let question = RoomQuestion { category, stem: draft.ask.text(), options, answer, text };
        Some((draft.ask, question))
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

    /// The stop at which an object comes into view, clear of the border of the view then and
    /// before.
    fn clear_first_sight(&self, object: usize) -> Option<usize> {
        let half = self.scene.horizontal_fov_deg / 2.0;
        let bearings = &self.bearings[object];
        let first = bearings.iter().position(|bearing| bearing.abs() <= half)?;
        let clear = bearings[first].abs() <= half - 4.0
            && bearings[..first].iter().all(|bearing| bearing.abs() >= half + 4.0);
        clear.then_some(first)
    }

    /// Three objects that come into view at different stops.
    fn order(&self, rng: &mut Rng) -> Option<Draft> {
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
        Some(Draft { ask: Ask::Order { names }, right: right.join(", "), wrong })
    }

    /// An object in the quadrant `aim` at the end, 15° or more from the quadrant's borders.
    fn position(
        &self,
        aim: usize,
        rng: &mut Rng,
        ask: fn(String) -> Ask,
        option: fn(Quadrant) -> &'static str,
    ) -> Option<Draft> {
        let wanted = *Quadrant::ALL.get(aim)?;
        let object = self.shuffled(rng).into_iter().find(|&object| {
            let Some(&bearing) = self.bearings[object].last() else { return false };
            let from_border = (bearing.abs() - 45.0).abs().min((bearing.abs() - 135.0).abs());
            Quadrant::of(bearing) == wanted
                && from_border >= 15.0
                && self.key_trace.last_sight(&self.scene.objects[object].name).is_some()
        })?;
        let wrong = Quadrant::ALL.into_iter().filter(|quadrant| *quadrant != wanted);
        Some(Draft {
            ask: ask(self.name(object)),
            right: option(wanted).to_owned(),
            wrong: wrong.map(|quadrant| option(quadrant).to_owned()).collect(),
        })
    }

    /// A route of four objects of which the first `done` were faced, in this order, and the others
    /// never.
    fn progress(&self, done: usize, rng: &mut Rng) -> Option<Draft> {
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
        Some(Draft { ask: Ask::Progress { route }, right, wrong })
    }

    /// A turn at the start or the end that would bring one object ahead and leave two aside.
    fn counterfactual(&self, aim: usize, rng: &mut Rng) -> Option<Draft> {
        let moment = if aim.is_multiple_of(2) { Moment::Start } else { Moment::End };
        let degrees = *rng.pick(&[60, 90, 120])?;
        let turn_deg = if aim / 2 == 0 { degrees } else { -degrees };
        let stop = if moment == Moment::Start { 0 } else { self.stops.len() - 1 };
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for object in self.shuffled(rng) {
            let name = self.name(object);
            // Choices are of what was seen, so that being mentioned is no hint.
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
        Some(Draft { ask: Ask::Counterfactual { moment, turn_deg }, right, wrong: far })
    }

    /// Stand at one object, face another across the room: the third is clearly to one side.
    fn direction(&self, aim: usize, rng: &mut Rng) -> Option<Draft> {
        let objects = &self.scene.objects;
        let side = if aim == 0 { 1.0 } else { -1.0 };
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
                let (right, wrong) = if aim == 0 { ("left", "right") } else { ("right", "left") };
                let ask = Ask::Direction { stand, face, target };
                return Some(Draft { ask, right: right.to_owned(), wrong: vec![wrong.to_owned()] });
            }
        }
        None
    }

    /// An object, and four others one of which is clearly closest to it.
    fn distance(&self, rng: &mut Rng) -> Option<Draft> {
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
        Some(Draft { ask: Ask::Distance { to: self.name(to), among }, right, wrong })
    }
}

#[cfg(test)]
#[path = "questions_tests.rs"]
mod tests;
