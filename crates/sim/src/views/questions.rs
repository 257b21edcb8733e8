//! Questions that frames alone answer.
//!
//! Every question has a room of its own. Its camera path, its category and the class of its answer are drawn before the room
//! is furnished, and furniture is sampled until the answer is of that class. The options about a direction are those that
//! the path shows. Hence the text of the prompt does not give the answer away.

use embodied_r_random::Rng;

use super::{ATTEMPTS, Views, texture_seed};
use crate::geometry::Octant;
use crate::question_template::Category;
use crate::questions::{GroundTruth, RoomQuestion, answer_classes};
use crate::rationale::{Rationale, derive_rationale};
use crate::world::path::Path;

/// The categories that a few frames answer.
pub const VIEW_CATEGORIES: [Category; 3] =
    [Category::LandmarkPosition, Category::ActionGeneration, Category::ProgressEvaluation];

/// Options about a direction.
const OPTIONS: usize = 4;

/// Least angle between the views of questions about a route, so that each can face another object.
const HEADINGS_APART_DEG: f64 = 25.0;

/// A question about a room seen in a few frames.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewQuestion {
    /// The frames.
    pub views: Views,
    /// The question.
    pub question: RoomQuestion,
    /// The reasoning from truthful captions of the frames to the correct answer.
    pub rationale: Rationale,
}

/// Question `index` of `seed`, cycling through the categories. `None` without categories or for one that a few frames do
/// not answer.
pub fn view_question(seed: u64, index: u64, categories: &[Category]) -> Option<ViewQuestion> {
    let turn = index.checked_rem(categories.len() as u64)?;
    let category = *categories.get(turn as usize)?;
    if !VIEW_CATEGORIES.contains(&category) {
        return None;
    }
    (0..).find_map(|round: u64| {
        let (path, octants, class) = plan(category, &mut Rng::new(&[seed, index, 32, round]));
        (0..ATTEMPTS).find_map(|attempt| {
            let mut rng = Rng::new(&[seed, index, 33, round, attempt]);
            let scene = path.furnish(&mut rng)?;
            let frames: Vec<usize> = (0..scene.camera.len()).collect();
            let truth = GroundTruth::of_frames(&scene, &frames, &octants);
            let (template, question) = truth.question(category, class, &mut rng)?;
            let rationale = derive_rationale(&template, &question.options, truth.trace())?;
            let views = Views { scene, seed: texture_seed(seed, index) };
            Some(ViewQuestion { views, question, rationale })
        })
    })
}

/// A path, the possible directions, and the class of the answer.
fn plan(category: Category, rng: &mut Rng) -> (Path, Vec<Octant>, usize) {
    loop {
        let path = Path::draw(rng);
        let octants = path.seen_octants();
        let about_a_direction = category != Category::ProgressEvaluation;
        match about_a_direction {
            true if octants.len() >= OPTIONS => {
                let octant = octants[rng.below(octants.len())];
                let class = Octant::ALL.iter().position(|other| *other == octant).unwrap_or(0);
                return (path, octants, class);
            }
            false if path.headings_differ(HEADINGS_APART_DEG) => {
                return (path, octants, rng.below(answer_classes(category)));
            }
            _ => {}
        }
    }
}
