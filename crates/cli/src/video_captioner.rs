//! Captions of a single video, for `ask` and `chat`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::hub;
use embodied_r_inference::{Model, VisionEngineOptions};
use embodied_r_keyframes as keyframes;
use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_perception::captioner::{
    self, Caption, CaptionRequest, Captioner, ChatModel, DecodeLimit, LocalModel, ModelCaptioner,
    ModelOptions, RefusalPolicy, RemoteModel, SceneCaptioner, VideoFrames,
};
use embodied_r_vision::{PixelOptions, VisionOptions};
use tokio::runtime::Runtime;

use crate::args::captioner::CaptionerArgs;
use crate::args::model::{StoredModel, WeightArgs};
use crate::args::perceive::KeyFrameArgs;
use crate::exit::Usage;
use crate::progress::Bar;

/// Longest side of a frame in pixels, as in `perceive`.
const IMAGE_SIDE: u32 = 1280;

/// Maximum number of concurrent requests.
const CONCURRENCY: usize = 16;

/// Size of the KV cache.
const KV_CACHE_BYTES: usize = 2 << 30;

/// Captions videos.
pub(crate) struct VideoCaptioner {
    captioner: Box<dyn Captioner>,
    keyframes: keyframes::KeyFrameOptions,
    /// Stops decoding.
    stop: Arc<AtomicBool>,
    runtime: Runtime,
    /// The completion cache if the user gave none; removed at the end.
    _scratch: Option<tempfile::TempDir>,
}

/// The options of key-frame selection.
pub(crate) fn key_frames(args: &KeyFrameArgs) -> keyframes::KeyFrameOptions {
    let defaults = keyframes::KeyFrameOptions::default();
    keyframes::KeyFrameOptions {
        threshold: args.threshold,
        min_frames: args.min_frames,
        max_frames: args.max_frames.unwrap_or(defaults.max_frames),
        ..defaults
    }
}

impl VideoCaptioner {
    /// Opens the captioner of the options; if they name none, `chat_model`, which is loaded already. Once `stop` is true,
    /// videos are no longer decoded and no request is sent.
    ///
    /// # Errors
    /// There is none, it cannot be loaded, or its KV cache does not fit in memory.
    pub(crate) fn open(
        args: &CaptionerArgs,
        weights: &WeightArgs,
        frames: &KeyFrameArgs,
        stop: &Arc<AtomicBool>,
        chat_model: Option<(&StoredModel, &Model)>,
    ) -> anyhow::Result<Self> {
        let keyframes = key_frames(frames);
        keyframes.check().map_err(|error| Usage(error.to_string()))?;
        if let Some(scenes) = &args.scenes {
            let captioner = Box::new(SceneCaptioner::open(scenes, keyframes.max_frames)?);
            return Self::new(captioner, (keyframes, stop), None);
        }
        let missing = || {
            Usage("give a vision-language model (`--captioner`) or annotations (`--scenes`)".into())
        };
        let loaded = chat_model.filter(|_| args.captioner.is_none());
        let name = args.captioner.as_ref().or(loaded.map(|(stored, _)| &stored.model));
        let name = name.ok_or_else(missing)?.clone();
        if !args.captioner_base_url.is_empty() {
            let client = ClientOptions {
                api_key: ApiKey::from_env("OPENAI_API_KEY"),
                concurrency: CONCURRENCY,
                ..ClientOptions::new(args.captioner_base_url.clone())
            };
            return Self::with_model(RemoteModel::new(&client)?, name, args, (keyframes, stop));
        }
        let options = VisionEngineOptions {
            vision: VisionOptions {
                placement: weights.placement()?,
                pixels: PixelOptions::at_most(args.max_pixels),
            },
            kv_cache_bytes: KV_CACHE_BYTES,
            ..VisionEngineOptions::default()
        };
        let revision = loaded.and_then(|(stored, _)| stored.revision.as_deref());
        let folder = hub::with_vision_encoder(&name, revision)?;
        let model = match loaded {
            Some((_, model)) => model.clone(),
            None => Model::load_with_vision(&folder, &options.vision)?,
        };
        let model = LocalModel::from_model(&folder, model, &options)?;
        Self::with_model(model, name, args, (keyframes, stop))
    }

    /// Captions with `chat`, which has `name` in the completion cache.
    fn with_model<M: ChatModel + 'static>(
        chat: M,
        name: String,
        args: &CaptionerArgs,
        (keyframes, stop): (keyframes::KeyFrameOptions, &Arc<AtomicBool>),
    ) -> anyhow::Result<Self> {
        let scratch = match args.cache {
            Some(_) => None,
            None => Some(tempfile::tempdir()?),
        };
        let cache = args.cache.as_deref().or(scratch.as_ref().map(tempfile::TempDir::path));
        let cache = cache.unwrap_or(Path::new("."));
        let options = ModelOptions {
            model: name,
            concurrency: CONCURRENCY,
            temperature: None,
            max_tokens: args.caption_tokens,
            cache: cache.join("replies"),
            usage: cache.join("usage.jsonl"),
            prices: None,
            max_cost: None,
            refusal_policy: RefusalPolicy::Keep,
            stop: Arc::clone(stop),
        };
        let captioner = Box::new(ModelCaptioner::open(chat, options, &Bar::default())?);
        Self::new(captioner, (keyframes, stop), scratch)
    }

    fn new(
        captioner: Box<dyn Captioner>,
        (keyframes, stop): (keyframes::KeyFrameOptions, &Arc<AtomicBool>),
        scratch: Option<tempfile::TempDir>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let stop = Arc::clone(stop);
        Ok(Self { captioner, keyframes, stop, runtime, _scratch: scratch })
    }

    /// The video at `path`, which is decoded when it is first needed.
    pub(crate) fn video(&self, path: &Path) -> VideoFrames {
        let path = Ok(path.to_owned());
        let limit = DecodeLimit::default().with_stop(&self.stop);
        VideoFrames::new(path, &self.keyframes, Some(IMAGE_SIDE), &limit)
    }

    /// Captions of the key frames, guided by the question.
    ///
    /// # Errors
    /// The video cannot be decoded, or captioning fails.
    pub(crate) fn captions(
        &self,
        frames: &VideoFrames,
        video: &Path,
        question: &str,
    ) -> anyhow::Result<Vec<Caption>> {
        let request = CaptionRequest {
            text: Some(question),
            category: None,
            scene_name: None,
            video_stem: video.file_stem().and_then(|stem| stem.to_str()),
        };
        Ok(self.runtime.block_on(self.captioner.caption(request, frames))?)
    }

    /// The language model's prompt: the captions as text, then the question.
    pub(crate) fn prompt(&self, captions: &[Caption], question: &str) -> String {
        captioner::prompt(captions, question, captioner::style(&self.captioner.settings()))
    }

    /// The key frames as JPEG files, in order.
    ///
    /// # Errors
    /// The video cannot be decoded.
    pub(crate) fn images(&self, frames: &VideoFrames) -> anyhow::Result<Vec<Vec<u8>>> {
        let images = self.runtime.block_on(frames.images())?;
        Ok(images.iter().map(|image| image.jpeg().map(<[u8]>::to_vec)).collect::<Result<_, _>>()?)
    }
}
