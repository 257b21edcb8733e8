//! A video in words, for commands that ask about one at a time.

use std::path::Path;
use std::sync::Arc;

use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_perception::captioner::{
    Asked, Caption, Captioner, ChatModel, Decoders, Footage, LocalModel, LocalOptions,
    ModelCaptions, ModelOptions, Refused, Remote, SceneCaptions,
};
use embodied_r_perception::keyframes;
use embodied_r_policy::hub;
use embodied_r_vision::{VisionLanguageModel, VisionOptions};
use tokio::runtime::Runtime;

use crate::args::model::{StoredModel, WeightArgs};
use crate::args::perceive::KeyFrameArgs;
use crate::args::perceiver::PerceiverArgs;
use crate::exit::Usage;
use crate::progress::Bar;

/// Longest side of the pictures, as for `perceive`.
const IMAGE_SIDE: u32 = 1280;

/// Requests on their way at the same time.
const CONCURRENCY: usize = 16;

/// Memory for a video's keys and values, and for its pictures, in bytes.
const KV_CACHE_BYTES: usize = 2 << 30;

/// Describes videos.
pub(crate) struct Perceiver {
    captioner: Box<dyn Captioner>,
    keyframes: keyframes::Options,
    runtime: Runtime,
    /// Where replies are kept if nobody wants to keep them.
    _scratch: Option<tempfile::TempDir>,
}

/// How key frames are chosen.
pub(crate) fn key_frames(args: &KeyFrameArgs) -> keyframes::Options {
    keyframes::Options {
        threshold: args.threshold,
        min_frames: args.min_frames,
        max_frames: args.max_frames,
        ..keyframes::Options::default()
    }
}

fn local_options(weights: &WeightArgs, max_pixels: Option<usize>) -> anyhow::Result<LocalOptions> {
    Ok(LocalOptions {
        vision: VisionOptions { placement: weights.placement()?, max_pixels },
        kv_cache_bytes: KV_CACHE_BYTES,
        ..LocalOptions::default()
    })
}

impl Perceiver {
    /// The perceiver that the arguments name.
    ///
    /// # Errors
    /// They name none, or it cannot be loaded.
    pub(crate) fn open(
        args: &PerceiverArgs,
        weights: &WeightArgs,
        frames: &KeyFrameArgs,
    ) -> anyhow::Result<Self> {
        let keyframes = key_frames(frames);
        keyframes.check().map_err(|error| Usage(error.to_string()))?;
        if let Some(scenes) = &args.scenes {
            let captioner = Box::new(SceneCaptions::open(scenes, keyframes.max_frames)?);
            return Self::new(captioner, keyframes, None);
        }
        let missing = || {
            Usage(
                "name a vision-language model (`--perceiver`), or annotations (`--scenes`)".into(),
            )
        };
        let name = args.perceiver.clone().ok_or_else(missing)?;
        match args.base_url.as_slice() {
            [] => {
                let options = local_options(weights, args.max_pixels)?;
                let model = LocalModel::load(&hub::resolve(&name, None)?, &options)?;
                Self::asking(model, name, args, keyframes)
            }
            urls => {
                let client = ClientOptions {
                    api_key: ApiKey::from_env("OPENAI_API_KEY"),
                    concurrency: CONCURRENCY,
                    ..ClientOptions::new(urls.to_vec())
                };
                Self::asking(Remote::new(&client)?, name, args, keyframes)
            }
        }
    }

    /// A model that is loaded already, as `args` and its `stored` weights say.
    ///
    /// # Errors
    /// The options cannot be, or there is no room for the keys and values.
    pub(crate) fn of_model(
        model: &VisionLanguageModel,
        stored: &StoredModel,
        args: &PerceiverArgs,
        frames: &KeyFrameArgs,
    ) -> anyhow::Result<Self> {
        let keyframes = key_frames(frames);
        keyframes.check().map_err(|error| Usage(error.to_string()))?;
        let folder = hub::resolve(&stored.model, stored.revision.as_deref())?;
        let options = local_options(&stored.weights, args.max_pixels)?;
        let model = LocalModel::of(&folder, model, &options)?;
        Self::asking(model, stored.model.clone(), args, keyframes)
    }

    /// Asks `chat`, known as `name`.
    fn asking<M: ChatModel + 'static>(
        chat: M,
        name: String,
        args: &PerceiverArgs,
        keyframes: keyframes::Options,
    ) -> anyhow::Result<Self> {
        let scratch = match args.cache {
            Some(_) => None,
            None => Some(tempfile::tempdir()?),
        };
        let kept = args.cache.as_deref().or(scratch.as_ref().map(tempfile::TempDir::path));
        let kept = kept.unwrap_or(Path::new("."));
        let asked = ModelOptions {
            model: name,
            concurrency: CONCURRENCY,
            temperature: None,
            max_tokens: args.caption_tokens,
            cache: kept.join("replies"),
            usage: kept.join("usage.jsonl"),
            prices: None,
            max_cost: None,
            refused: Refused::Keep,
            stop: Arc::default(),
        };
        let captioner = Box::new(ModelCaptions::open(chat, asked, &Bar::default())?);
        Self::new(captioner, keyframes, scratch)
    }

    fn new(
        captioner: Box<dyn Captioner>,
        keyframes: keyframes::Options,
        scratch: Option<tempfile::TempDir>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { captioner, keyframes, runtime, _scratch: scratch })
    }

    /// The video at `path`; nothing is read yet.
    pub(crate) fn footage(&self, path: &Path) -> Footage {
        let path = Ok(path.to_owned());
        Footage::new(path, &self.keyframes, Some(IMAGE_SIDE), &Decoders::default())
    }

    /// The key frames in words, as far as they matter for the question.
    ///
    /// # Errors
    /// The video cannot be read, or the frames cannot be described.
    pub(crate) fn captions(
        &self,
        footage: &Footage,
        video: &Path,
        question: &str,
    ) -> anyhow::Result<Vec<Caption>> {
        let asked = Asked {
            text: Some(question),
            category: None,
            scene_name: None,
            video_stem: video.file_stem().and_then(|stem| stem.to_str()),
        };
        Ok(self.runtime.block_on(self.captioner.caption(asked, footage))?)
    }

    /// The key frames as JPEG files, in order.
    ///
    /// # Errors
    /// The video cannot be read.
    pub(crate) fn pictures(&self, footage: &Footage) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(self.runtime.block_on(footage.jpegs())?.to_vec())
    }
}
