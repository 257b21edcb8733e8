//! The images and videos of a run's prompts, and their embeddings.
//!
//! [`ImageStore`] has the embeddings under a frozen vision tower: an image is encoded once per run. [`TrainedImages`] has
//! them under a tower that is trained: an image is encoded once per step.
//!
//! [`TrainedImages`]: trained::TrainedImages

pub mod trained;

use std::sync::Arc;

use embodied_r_media::store::ImageStore;
use embodied_r_media::table::ImageTable;
use embodied_r_vision::FrozenParts;

/// The images of a run, and how its models encode them.
#[derive(Debug, Clone)]
pub struct RunImages {
    /// The embeddings under the base model's vision tower.
    pub frozen: Arc<ImageStore>,
    /// What of the vision encoder is trained; nothing if `None`.
    pub training: Option<TowerTraining>,
}

/// How a vision tower is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TowerTraining {
    /// The parts that are not trained.
    pub frozen: FrozenParts,
    /// Learning rate of the tower over that of the decoder.
    pub learning_rate_scale: f64,
    /// Bytes of activations that the tower's forward pass may save.
    pub activation_bytes: usize,
    /// The vision tower of the reference model.
    pub reference: ReferenceTower,
}

/// The vision tower of the reference model of a run that trains its tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReferenceTower {
    /// That of the base model, which stays.
    #[default]
    Base,
    /// One of its own: the reference follows the policy.
    Own,
}

impl RunImages {
    /// The images.
    #[must_use]
    pub fn table(&self) -> &Arc<ImageTable> {
        self.frozen.table()
    }
}
