//! Decodes the images of a coming step while the current one goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use embodied_r_vision::Pixels;
use rayon::prelude::*;

use super::locked;
use super::table::ImageTable;
use crate::error::Result;

/// The patches of images, cut on a thread of its own.
#[derive(Debug, Default)]
pub(super) struct Prefetch(Mutex<Option<JoinHandle<Cut>>>);

/// The patches of images by digest.
type Cut = HashMap<u128, Result<Pixels>>;

impl Prefetch {
    /// Starts to cut the images of these digests, unless others are being cut.
    pub(super) fn start(&self, table: &Arc<ImageTable>, digests: Vec<u128>) {
        let mut running = locked(&self.0);
        if digests.is_empty() || running.is_some() {
            return;
        }
        let table = table.clone();
        *running = Some(std::thread::spawn(move || {
            digests.into_iter().map(|digest| (digest, table.pixels(digest))).collect()
        }));
    }

    /// The patches of images: those that were cut, and the others on all cores.
    ///
    /// # Errors
    /// An image file has changed.
    pub(super) fn take(&self, table: &ImageTable, digests: &[u128]) -> Result<Vec<Pixels>> {
        let running = locked(&self.0).take();
        let mut cut = match running.map(JoinHandle::join) {
            Some(Ok(cut)) => cut,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => HashMap::new(),
        };
        let found: Vec<(u128, Option<Result<Pixels>>)> =
            digests.iter().map(|digest| (*digest, cut.remove(digest))).collect();
        let pixels = |(digest, cut): (u128, Option<Result<Pixels>>)| match cut {
            Some(cut) => cut,
            None => table.pixels(digest),
        };
        found.into_par_iter().map(pixels).collect()
    }
}
