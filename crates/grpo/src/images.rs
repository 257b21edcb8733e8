//! The images and videos of a run's prompts, and their embeddings.
//!
//! [`ImageTable`] knows every image of the data by a digest of its pixels, and its place in a prompt. [`ImageStore`] has
//! the embeddings under a frozen vision tower: an image is encoded once per run. [`TrainedImages`] has them under a tower
//! that is trained: an image is encoded once per step.
//!
//! [`ImageTable`]: table::ImageTable
//! [`ImageStore`]: store::ImageStore
//! [`TrainedImages`]: trained::TrainedImages

pub mod disk_cache;
pub mod files;
mod kept_frames;
mod prefetch;
pub mod store;
pub mod table;
pub mod trained;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embodied_r_policy::Prompt;
use embodied_r_vision::FrozenParts;

use store::ImageStore;
use table::ImageTable;

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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The distinct images of `prompts`, in order.
fn digests<'a>(prompts: impl IntoIterator<Item = &'a Prompt>) -> Vec<u128> {
    let mut digests = Vec::new();
    for image in prompts.into_iter().flat_map(Prompt::images) {
        if !digests.contains(&image.digest) {
            digests.push(image.digest);
        }
    }
    digests
}
