//! The images and video frames of the planned run's questions.

use std::path::Path;

use embodied_r_grpo::estimate::memory_plan::{PromptImages, VisionLoad};
use embodied_r_grpo::settings::{FrameUse, GrpoSettings};
use embodied_r_keyframes::KeyFrameOptions;
use embodied_r_media::sampled_video::FrameSelection;
use embodied_r_vision::{Grid, VisionConfig, VisionProcessor};

use super::shape::tower;
use crate::args::plan::PlanArgs;
use crate::exit::Usage;

/// Tokens of an image, and of a frame of a video, where nothing limits them: the defaults of `qwen-vl-utils` for frames,
/// and of Qwen2.5-VL's examples for images.
const IMAGE_TOKENS: usize = 1280;
const FRAME_TOKENS: usize = 768;

/// The images of each question, and the load of the vision encoder.
pub(super) struct QuestionImages {
    pub(super) load: VisionLoad,
    /// Parameters of the encoder, all of them.
    pub(super) config: VisionConfig,
    /// Images and videos of a question.
    pub(super) count: usize,
    /// Tokens of all images and videos of a question.
    pub(super) tokens: usize,
}

impl QuestionImages {
    /// Those of the options, or of a run that shows videos (`direct = true`); `None` without any.
    ///
    /// # Errors
    /// The model does not see, or the images take more tokens than a prompt may have.
    pub(super) fn of(args: &PlanArgs, settings: &GrpoSettings) -> anyhow::Result<Option<Self>> {
        let images = args.images.unwrap_or(0);
        let frames = match args.video_frames {
            Some(frames) => frames,
            None if args.images.is_none() && settings.media.direct == Some(true) => {
                most_frames(settings.media.frames.parse()?)
            }
            None => 0,
        };
        if images + frames == 0 {
            let what = "`--image-pixels` needs `--images` or `--video-frames`";
            anyhow::ensure!(args.image_pixels.is_none(), Usage(what.into()));
            return Ok(None);
        }
        let config = tower(&settings.run.model)?;
        let processor = processor(&settings.run.model)?;
        let processor = processor.with_pixels(settings.vision.pixels());
        let side = |tokens| {
            let pixels = tokens * (config.patch_size * config.spatial_merge_size).pow(2);
            let pixels = args.image_pixels.unwrap_or(pixels);
            (pixels as f64).sqrt().round().max(1.0) as u32
        };
        let (image, frame) = (side(IMAGE_TOKENS), side(FRAME_TOKENS));
        let image_grid = |side| processor.processor().image_grid((side, side));
        let mut grids = vec![image_grid(image)?; images];
        match settings.media.frame_use {
            _ if frames == 0 => {}
            FrameUse::Video => grids.push(processor.video_grid(frames, (frame, frame))?),
            FrameUse::Images => {
                let grid = image_grid(frame)?;
                grids.extend(std::iter::repeat_n(grid, frames));
            }
        }
        let tokens: usize = grids.iter().map(|grid| grid.tokens(config.spatial_merge_size)).sum();
        let most = settings.rollout.max_prompt_length;
        anyhow::ensure!(
            tokens < most,
            Usage(format!(
                "the images of a question take {tokens} tokens, but `max_prompt_length` is {most}: raise it, or lower \
                 `--images`, `--video-frames` or `--image-pixels`"
            ))
        );
        Ok(Self::new(config, &grids, tokens, (args, settings)))
    }

    fn new(
        config: VisionConfig,
        grids: &[Grid],
        tokens: usize,
        (args, settings): (&PlanArgs, &GrpoSettings),
    ) -> Option<Self> {
        let tokens_of_data = args.questions.map(|questions| questions * tokens);
        let images = PromptImages { tokens_of_data, ..PromptImages::of_grids(grids)? };
        let load = VisionLoad::new(&config, images, &settings.vision);
        Some(Self { load, config, count: grids.len(), tokens })
    }
}

/// The most frames of a video.
fn most_frames(selection: FrameSelection) -> usize {
    match selection {
        FrameSelection::Key => KeyFrameOptions::default().max_frames,
        FrameSelection::Uniform(frames) | FrameSelection::Linspace(frames) => frames,
        FrameSelection::Fps { max_frames, .. } => max_frames,
    }
}

/// The image processor of the model, from its files, or that of the published models.
fn processor(model: &str) -> anyhow::Result<VisionProcessor> {
    let path = Path::new(model);
    if path.exists() {
        return VisionProcessor::of_model(path).map_err(|error| Usage(error.to_string()).into());
    }
    let none = || Usage(format!("the image processor of `{model}` is not known"));
    VisionProcessor::published(model).ok_or_else(|| none().into())
}
