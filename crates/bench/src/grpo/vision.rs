//! A vision-language model for benchmarks, whose images are new in every run.

use std::path::Path;
use std::sync::Arc;

use embodied_r_grpo::estimate::memory_plan::{MemoryPlan, PromptImages, VisionLoad};
use embodied_r_grpo::images::{ReferenceTower, RunImages, TowerTraining};
use embodied_r_grpo::model::{GenerationRequest, LoadOptions, Model as _, VisionPolicy};
use embodied_r_grpo::settings::VisionSettings;
use embodied_r_media::Error;
use embodied_r_media::source::{ImageSource, ReadError};
use embodied_r_media::store::{ImageStore, StoreOptions};
use embodied_r_media::table::ImageTable;
use embodied_r_policy::Trainable;
use embodied_r_random::{Stream, stream};
use embodied_r_vision::{Frames, ImageLayout, VisionProcessor};
use image::imageops::FilterType;
use image::{Rgb, RgbImage};

use super::Options;
use crate::error::Result;
use crate::work::Work;

/// The images of the prompts, and the vision encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageOptions {
    /// Side of the square image of each prompt, in pixels.
    pub side: u32,
    /// What is trained.
    pub vision: VisionSettings,
}

/// Side of the random image that is enlarged.
const GRAIN: u32 = 18;

/// An image that depends on a seed.
#[derive(Debug)]
struct Synthetic {
    side: u32,
    seed: u64,
}

impl ImageSource for Synthetic {
    fn read(&self) -> std::result::Result<Frames, ReadError> {
        let stream = Stream::new(self.seed, 0);
        let at = |x: u32, y: u32, channel: u64| {
            (255.0 * stream.uniform(u64::from(y * GRAIN + x) * 3 + channel)) as u8
        };
        let small =
            RgbImage::from_fn(GRAIN, GRAIN, |x, y| Rgb([0, 1, 2].map(|channel| at(x, y, channel))));
        let filter = FilterType::Triangle;
        Ok(Frames::Image(image::imageops::resize(&small, self.side, self.side, filter)))
    }

    fn paths(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The model in `folder`, and its images: one for each prompt of each run.
pub(super) struct VisionWork {
    pub(super) policy: VisionPolicy,
    layouts: Vec<ImageLayout>,
    processor: VisionProcessor,
}

impl VisionWork {
    pub(super) fn load(
        folder: &Path,
        options: &Options,
        images: &ImageOptions,
        plan: &MemoryPlan,
    ) -> Result<Self> {
        let (work, vision) = (&options.work, &images.vision);
        let processor = VisionProcessor::of_model(folder)?;
        let processor = processor.with_pixels(vision.pixels());
        let mut table = ImageTable::new(processor.clone());
        let source = |index: u64| -> Arc<dyn ImageSource> {
            Arc::new(Synthetic { side: images.side, seed: stream(&[index]) })
        };
        let sources: Vec<_> = (0..images_of_data(work) as u64).map(source).collect();
        let layouts = table.add_all(&sources, &|| ()).into_iter().map(|layout| {
            let unread = |error: ReadError| Error::ChangedImage {
                path: "synthetic".into(),
                reason: error.to_string(),
            };
            layout.map_err(unread)
        });
        let layouts = layouts.collect::<embodied_r_media::Result<_>>();
        let layouts = layouts.map_err(embodied_r_grpo::Error::from)?;
        let store = StoreOptions {
            model: folder.to_owned(),
            format: options.precision.into(),
            device: options.device.clone(),
            memory_bytes: (vision.image_cache_gb * 1e9) as usize,
            disk: None,
        };
        let training = vision.frozen_parts().map(|frozen| TowerTraining {
            frozen,
            learning_rate_scale: 1.0,
            activation_bytes: plan.tower_activations,
            reference: ReferenceTower::Base,
        });
        let frozen = Arc::new(ImageStore::new(Arc::new(table), store));
        let load_options = LoadOptions {
            base: folder,
            precision: options.precision,
            activation_bytes: plan.saved_activations,
            trainable: Trainable::All,
            seed: 0,
            device: options.device.clone(),
            images: Some(Arc::new(RunImages { frozen, training })),
        };
        let policy = VisionPolicy::load(folder, &load_options)?;
        Ok(Self { policy, layouts, processor })
    }

    /// The prompts of a run: an image that no other run has, and random text.
    pub(super) fn requests(&self, work: &Work, run: usize) -> Result<Vec<GenerationRequest>> {
        self.with_images(work, run, run * work.groups)
    }

    /// As [`Self::requests`], with the images of the first run.
    pub(super) fn repeated(&self, work: &Work, run: usize) -> Result<Vec<GenerationRequest>> {
        self.with_images(work, run, 0)
    }

    fn with_images(&self, work: &Work, run: usize, first: usize) -> Result<Vec<GenerationRequest>> {
        let placeholder = self.processor.image_token_id();
        let requests = work.requests(placeholder as usize, run).into_iter();
        let with_image = |(request, layout): (GenerationRequest, &ImageLayout)| {
            let ids = [&[placeholder], request.prompt.ids()].concat();
            let prompt = self.processor.prompt(&ids, std::slice::from_ref(layout))?;
            Ok(GenerationRequest { prompt, ..request })
        };
        requests.zip(&self.layouts[first..]).map(with_image).collect()
    }
}

/// The tokens of a prompt with an image, and the load of the vision encoder.
pub(super) fn load_of_prompts(
    folder: &Path,
    work: &Work,
    images: &ImageOptions,
) -> Result<(usize, VisionLoad)> {
    let processor = VisionProcessor::of_model(folder)?;
    let processor = processor.with_pixels(images.vision.pixels());
    let grid = processor.processor().image_grid((images.side, images.side))?;
    let config = processor.config();
    let tokens = grid.tokens(config.spatial_merge_size);
    let of_data = images_of_data(work) * tokens;
    let of_prompt = PromptImages { grid, count: 1, tokens_of_data: Some(of_data) };
    Ok((work.prompt + tokens, VisionLoad::new(config, of_prompt, &images.vision)))
}

/// An image for each prompt of each step, the warmup's included.
fn images_of_data(work: &Work) -> usize {
    (work.runs + 1) * work.groups
}
