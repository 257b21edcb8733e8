//! The images and video frames of questions in requests, as JPEG files.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use embodied_r_data::multimodal::{MediaFile, Part, Role, SampleSet, Video};
use embodied_r_data::system_prompt::{Given, SystemPrompt};
use embodied_r_media::source::ImageSource;
use embodied_r_media::table::ImageTable;
use embodied_r_openai::{ChatCompletionMessage, ContentPart, Role as ChatRole};
use embodied_r_perception::jpeg;
use embodied_r_vision::{Frames, ImageLayout, Processor};
use indexmap::IndexMap;
use serde_json::{Map, Value};
use tokio::sync::{OnceCell, Semaphore};

use crate::asked::{Asked, SeenPrompt};
use crate::direct::Direct;

/// Bytes of encoded images that are kept, for other samples of a question and for other questions about the same video.
const KEPT_BYTES: usize = 1 << 28;

/// How a model on a server sees images and videos.
pub(super) struct RequestImages {
    direct: Direct,
    kept: Mutex<Kept>,
    /// Limits decoding to the cores.
    decoding: Semaphore,
}

/// An image or a video of a question.
#[derive(Debug, Clone)]
enum Medium {
    Image(MediaFile),
    Video(Video),
}

impl RequestImages {
    /// Images and frames as the options say; the latter are separate images.
    pub(super) fn new(direct: &Direct) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            direct: direct.on_server(),
            kept: Mutex::new(Kept::new(KEPT_BYTES)),
            decoding: Semaphore::new(cores),
        }
    }

    /// The settings that completions depend on, by name.
    pub(super) fn settings(&self) -> Map<String, Value> {
        self.direct.settings()
    }

    /// The questions of `set`, whose images and videos are decoded once as a check.
    ///
    /// # Errors
    /// As [`Direct::lay_out`].
    pub(super) fn lay_out(&self, set: SampleSet) -> anyhow::Result<Asked> {
        let table = self.direct.server_image_table().context("the limits on images are unknown")?;
        self.direct.lay_out(set, table)
    }

    /// The messages of a question with its images in their places; `system` is the system message unless it has its own.
    ///
    /// # Errors
    /// An image or a video is missing, broken, or not the one that was laid out.
    pub(super) async fn messages(
        &self,
        prompt: SeenPrompt<'_>,
        system: &SystemPrompt,
    ) -> anyhow::Result<Vec<ChatCompletionMessage>> {
        let SeenPrompt { question, images: table } = prompt;
        let media = &question.sample.media;
        let mut images = media.images.iter().zip(question.images.chunks(1));
        let mut videos = media.videos.iter().zip(&question.videos);
        let messages = question.sample.prompt();
        let mut all = Vec::with_capacity(messages.len() + 1);
        if !messages.iter().any(|message| message.role == Role::System) {
            let given = Given::of_sample(&question.sample);
            all.extend(system.text(given).map(ChatCompletionMessage::system));
        }
        for message in messages {
            let mut content = Vec::with_capacity(message.content.len());
            for part in &message.content {
                let (medium, layouts) = match part {
                    Part::Text(text) => {
                        content.push(ContentPart::Text(text.clone()));
                        continue;
                    }
                    Part::Image => match images.next() {
                        Some((file, layouts)) => (Medium::Image(file.clone()), layouts),
                        None => continue,
                    },
                    Part::Video => match videos.next() {
                        Some((video, layouts)) => (Medium::Video(video.clone()), &layouts[..]),
                        None => continue,
                    },
                };
                content.extend(self.parts(medium, layouts, table).await?.iter().cloned());
            }
            all.push(ChatCompletionMessage { role: role(message.role), content });
        }
        Ok(all)
    }

    /// The images of `medium`, which have these layouts.
    async fn parts(
        &self,
        medium: Medium,
        layouts: &[ImageLayout],
        table: &Arc<ImageTable>,
    ) -> anyhow::Result<Arc<[ContentPart]>> {
        let key: Key = layouts.iter().map(ImageLayout::digest).collect();
        let encoded = self.kept().get(&key);
        let encode = async || {
            // It is never closed.
            let _permit = self.decoding.acquire().await.ok();
            let (direct, layouts, table) = (self.direct.clone(), layouts.to_vec(), table.clone());
            let encoding =
                tokio::task::spawn_blocking(move || encode(&direct, &medium, &layouts, &table));
            let parts: Arc<[ContentPart]> = encoding.await??.into();
            self.kept().make_room(&key, bytes(&parts));
            anyhow::Ok(parts)
        };
        // Other requests with the same images wait meanwhile.
        encoded.get_or_try_init(encode).await.cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn role(role: Role) -> ChatRole {
    match role {
        Role::System => ChatRole::System,
        Role::User => ChatRole::User,
        Role::Assistant => ChatRole::Assistant,
    }
}

/// Decodes the images of `medium`, reduces them to the limits on pixels, and encodes them.
fn encode(
    direct: &Direct,
    medium: &Medium,
    layouts: &[ImageLayout],
    table: &ImageTable,
) -> anyhow::Result<Vec<ContentPart>> {
    let processor = table.processor().processor();
    let reader = direct.reader(processor)?;
    let sources = match medium {
        Medium::Image(file) => reader.image(file),
        Medium::Video(video) => reader.video(video).map_err(anyhow::Error::from_boxed)?,
    };
    let is_complete = sources.len() == layouts.len();
    let part = |(source, layout): (&Arc<dyn ImageSource>, &ImageLayout)| {
        let frames = source.read().map_err(anyhow::Error::from_boxed)?;
        match frames {
            Frames::Image(image)
                if is_complete && table.processor().image_layout(&image)? == *layout =>
            {
                let size = processor.kept_image_size(image.dimensions())?;
                Ok(ContentPart::jpeg(&jpeg::encode(&Processor::resized(image, size))?))
            }
            _ => {
                let path = source.paths().join(", ");
                anyhow::bail!("`{path}` has other pixels than at the start of the run")
            }
        }
    };
    sources.iter().zip(layouts).map(part).collect()
}

/// The digests of an image, or of the frames of a video.
type Key = Box<[u128]>;

/// An encoded image or video; empty until it is encoded.
type Encoded = Arc<OnceCell<Arc<[ContentPart]>>>;

/// Encoded images and videos; the oldest ones make room for new ones.
#[derive(Debug)]
struct Kept {
    most: usize,
    /// With their numbers of bytes.
    entries: IndexMap<Key, (Encoded, usize)>,
}

impl Kept {
    /// Up to `most` bytes.
    fn new(most: usize) -> Self {
        Self { most, entries: IndexMap::new() }
    }

    fn get(&mut self, key: &Key) -> Encoded {
        self.entries.entry(key.clone()).or_default().0.clone()
    }

    /// Makes room for an image or a video that has `bytes` bytes now.
    fn make_room(&mut self, key: &Key, bytes: usize) {
        if let Some((_, size)) = self.entries.get_mut(key) {
            *size = bytes;
        }
        let mut all: usize = self.entries.values().map(|(_, size)| size).sum();
        while all > self.most
            && let Some((_, (_, size))) = self.entries.shift_remove_index(0)
        {
            all -= size;
        }
    }
}

fn bytes(parts: &[ContentPart]) -> usize {
    let bytes = |part: &ContentPart| match part {
        ContentPart::Text(text) | ContentPart::Image(text) => text.len(),
    };
    parts.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_images_make_room_for_new_ones() {
        let mut kept = Kept::new(5);
        let keys: [Key; 4] = [[1].into(), [2].into(), [3, 4].into(), [5].into()];
        let add = |kept: &mut Kept, index: usize, bytes: usize| {
            let encoded = kept.get(&keys[index]);
            encoded.set(Arc::new([])).unwrap();
            kept.make_room(&keys[index], bytes);
        };
        let has = |kept: &mut Kept| -> Vec<bool> {
            keys.iter().map(|key| kept.entries.contains_key(key)).collect()
        };
        add(&mut kept, 0, 3);
        add(&mut kept, 1, 2);
        assert!(kept.get(&keys[0]).initialized());
        assert_eq!(has(&mut kept), [true, true, false, false]);
        add(&mut kept, 2, 1);
        assert_eq!(has(&mut kept), [false, true, true, false]);
        add(&mut kept, 3, 6);
        assert_eq!(has(&mut kept), [false; 4]);
    }
}
