//! The frames of a world: as examples of detection, and as images of text.

use std::path::Path;
use std::sync::Arc;

use embodied_r_data::progress::Progress;
use embodied_r_media::source::{ImageSource, ReadError};
use embodied_r_media::table::ImageTable;
use embodied_r_vision::{Frames, ImageLayout, VisionProcessor};
use rayon::prelude::*;

use super::world::World;
use crate::detection::DetectionExample;

/// A place with the layouts of its frames.
pub(super) struct Shown<W: World> {
    pub(super) place: Arc<W::Place>,
    pub(super) layouts: Vec<ImageLayout>,
}

/// A frame, which is rendered again whenever it is needed.
#[derive(Debug)]
struct Frame<W: World> {
    place: Arc<W::Place>,
    index: usize,
}

impl<W: World> Frame<W> {
    fn pixels(&self) -> Option<Frames> {
        W::render(&self.place, self.index).map(Frames::Image)
    }

    /// All frames of a place.
    fn of(place: &Arc<W::Place>) -> impl Iterator<Item = Self> + use<W> {
        let place = place.clone();
        (0..W::FRAMES).map(move |index| Self { place: place.clone(), index })
    }
}

impl<W: World> ImageSource for Frame<W> {
    fn read(&self) -> Result<Frames, ReadError> {
        self.pixels().ok_or_else(|| "a rendered frame has another size".into())
    }

    fn paths(&self) -> Vec<String> {
        vec![format!("frame {}", self.index)]
    }
}

/// The frames of `count` places, as images of the model in `model`.
pub(super) fn frame_table<W: World>(
    model: &Path,
    seed: u64,
    count: u64,
    progress: &dyn Progress,
) -> anyhow::Result<(ImageTable, Vec<Shown<W>>)> {
    let mut table = ImageTable::new(VisionProcessor::of_model(model)?);
    let places: Vec<Arc<W::Place>> =
        (0..count).into_par_iter().map(|index| Arc::new(W::place(seed, index))).collect();
    let sources: Vec<Arc<dyn ImageSource>> = places
        .iter()
        .flat_map(Frame::<W>::of)
        .map(|frame| Arc::new(frame) as Arc<dyn ImageSource>)
        .collect();
    progress.start("rendering frames", Some(sources.len() as u64));
    let mut layouts = table.add_all(&sources, &|| progress.advance(1)).into_iter();
    progress.finish();
    let shown = |place: Arc<W::Place>| {
        let layouts = layouts.by_ref().take(W::FRAMES).collect::<Result<_, _>>();
        Ok(Shown { layouts: layouts.map_err(|error| anyhow::anyhow!(error))?, place })
    };
    let shown = places.into_iter().map(shown).collect::<anyhow::Result<_>>()?;
    Ok((table, shown))
}

/// An endless stream of frames with their objects; `batch` are rendered together.
pub(super) fn detection_examples<W: World>(
    processor: VisionProcessor,
    seed: u64,
    batch: usize,
) -> impl Iterator<Item = DetectionExample> {
    let places_per_batch = batch.div_ceil(W::FRAMES) as u64;
    (0..).flat_map(move |index: u64| {
        let places = index * places_per_batch..(index + 1) * places_per_batch;
        let examples: Vec<DetectionExample> = places
            .into_par_iter()
            // Other places than those of the text.
            .flat_map_iter(|place| Frame::<W>::of(&Arc::new(W::place(seed.wrapping_add(1), place))))
            .filter_map(|frame| example(&frame, &processor))
            .collect();
        examples
    })
}

fn example<W: World>(frame: &Frame<W>, processor: &VisionProcessor) -> Option<DetectionExample> {
    let pixels = processor.pixels(&frame.pixels()?).ok()?;
    Some(DetectionExample { pixels, objects: W::objects(&frame.place, frame.index) })
}
