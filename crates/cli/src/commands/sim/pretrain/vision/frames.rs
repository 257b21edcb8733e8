//! The frames of rooms: as examples of detection, and as images of text.

use std::path::Path;
use std::sync::Arc;

use embodied_r_data::progress::Progress;
use embodied_r_grpo::images::table::{ImageSource, ImageTable, ReadError};
use embodied_r_grpo::trainer::detection::{DetectedObject, DetectionExample};
use embodied_r_sim::views::{Sighted, VIEW_SIZE, Views, views};
use embodied_r_vision::{Frames, ImageLayout, VisionProcessor};
use image::RgbImage;
use rayon::prelude::*;

/// Bins of bearings: from right 40 to left 40, every 10 degrees.
pub(super) const BEARINGS: usize = 9;

/// A side of a merged token in pixels.
const TOKEN_PX: usize = 28;

/// A room with the layouts of its frames.
pub(super) struct Room {
    pub(super) views: Arc<Views>,
    pub(super) layouts: Vec<ImageLayout>,
}

/// A frame, which is rendered again whenever it is needed.
#[derive(Debug)]
struct Frame {
    views: Arc<Views>,
    index: usize,
}

impl Frame {
    fn pixels(&self) -> Option<Frames> {
        let (width, height) = VIEW_SIZE;
        let rgb = self.views.render(self.index);
        RgbImage::from_raw(width as u32, height as u32, rgb).map(Frames::Image)
    }
}

impl ImageSource for Frame {
    fn read(&self) -> Result<Frames, ReadError> {
        self.pixels().ok_or_else(|| "a rendered frame has another size".into())
    }

    fn paths(&self) -> Vec<String> {
        vec![format!("frame {}", self.index)]
    }
}

/// The frames of `count` rooms, as images of the model in `model`.
pub(super) fn frame_table(
    model: &Path,
    seed: u64,
    count: u64,
    progress: &dyn Progress,
) -> anyhow::Result<(ImageTable, Vec<Room>)> {
    let mut table = ImageTable::new(VisionProcessor::of_model(model, None)?);
    let rooms: Vec<Arc<Views>> =
        (0..count).into_par_iter().map(|index| Arc::new(views(seed, index))).collect();
    let sources: Vec<Arc<dyn ImageSource>> = rooms
        .iter()
        .flat_map(|views| (0..views.frames()).map(|index| Frame { views: views.clone(), index }))
        .map(|frame| Arc::new(frame) as Arc<dyn ImageSource>)
        .collect();
    progress.start("rendering frames", Some(sources.len() as u64));
    let mut layouts = table.add_all(&sources, &|| progress.advance(1)).into_iter();
    progress.finish();
    let room = |views: Arc<Views>| {
        let layouts = layouts.by_ref().take(views.frames()).collect::<Result<_, _>>();
        Ok(Room { layouts: layouts.map_err(|error| anyhow::anyhow!(error))?, views })
    };
    let rooms = rooms.into_iter().map(room).collect::<anyhow::Result<_>>()?;
    Ok((table, rooms))
}

/// An endless stream of frames with their objects; `batch` are rendered together.
pub(super) fn detection_examples(
    processor: VisionProcessor,
    seed: u64,
    batch: usize,
) -> impl Iterator<Item = DetectionExample> {
    let rooms_per_batch = batch.div_ceil(embodied_r_sim::views::FRAMES) as u64;
    (0..).flat_map(move |index: u64| {
        let rooms = index * rooms_per_batch..(index + 1) * rooms_per_batch;
        let examples: Vec<DetectionExample> = rooms
            .into_par_iter()
            .flat_map_iter(|room| {
                // Other rooms than those of the text.
                let views = Arc::new(views(seed.wrapping_add(1), room));
                (0..views.frames()).map(move |index| Frame { views: views.clone(), index })
            })
            .filter_map(|frame| example(&frame, &processor))
            .collect();
        examples
    })
}

fn example(frame: &Frame, processor: &VisionProcessor) -> Option<DetectionExample> {
    let pixels = processor.pixels(&frame.pixels()?).ok()?;
    let objects = frame.views.sighted(frame.index).iter().map(detected).collect();
    Some(DetectionExample { pixels, objects })
}

/// The token of an object's middle, and the bin of its bearing.
fn detected(sighted: &Sighted) -> DetectedObject {
    let (width, height) = VIEW_SIZE;
    let [across, down] = sighted.at;
    let cell = |part: f64, side: usize| (part * (side / TOKEN_PX) as f64) as usize;
    let token = cell(down, height) * (width / TOKEN_PX) + cell(across, width);
    let bin = (sighted.bearing_deg.clamp(-40, 40) + 40) / 10;
    DetectedObject { token, class: sighted.class, bins: vec![bin as usize] }
}
