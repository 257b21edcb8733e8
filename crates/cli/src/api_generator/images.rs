//! The images and video frames of questions in requests, as JPEG files.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use embodied_r_data::multimodal::{MediaFile, Part, Role, SampleSet, Video};
use embodied_r_grpo::images::table::{ImageSource, ImageTable};
use embodied_r_openai::{ChatCompletionMessage, ContentPart, Role as ChatRole};
use embodied_r_perception::jpeg;
use embodied_r_vision::{Frames, ImageLayout, Processor};
use indexmap::IndexMap;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::asked::Asked;
use crate::batch_generator::SeenPrompt;
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
        system: &str,
    ) -> anyhow::Result<Vec<ChatCompletionMessage>> {
        let SeenPrompt { question, images: table } = prompt;
        let media = &question.sample.media;
        let mut images = media.images.iter().zip(question.images.chunks(1));
        let mut videos = media.videos.iter().zip(&question.videos);
        let messages = question.sample.prompt();
        let mut all = Vec::with_capacity(messages.len() + 1);
        if !messages.iter().any(|message| message.role == Role::System) {
            all.push(ChatCompletionMessage::system(system));
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
        // Before it is looked up, so that requests about one video wait for the first of them. It is never closed.
        let _permit = self.decoding.acquire().await.ok();
        let key: Box<[u128]> = layouts.iter().map(ImageLayout::digest).collect();
        if let Some(parts) = self.kept().get(&key) {
            return Ok(parts);
        }
        let (direct, layouts, table) = (self.direct.clone(), layouts.to_vec(), table.clone());
        let encoding =
            tokio::task::spawn_blocking(move || encode(&direct, &medium, &layouts, &table));
        let parts: Arc<[ContentPart]> = encoding.await??.into();
        self.kept().insert(key, parts.clone());
        Ok(parts)
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
        Medium::Video(video) => reader.video(video)?,
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

/// Encoded images and videos by the digests of their pixels; the oldest ones make room for new ones.
#[derive(Debug)]
struct Kept {
    most: usize,
    bytes: usize,
    entries: IndexMap<Box<[u128]>, Arc<[ContentPart]>>,
}

impl Kept {
    /// Up to `most` bytes.
    fn new(most: usize) -> Self {
        Self { most, bytes: 0, entries: IndexMap::new() }
    }

    fn get(&self, key: &[u128]) -> Option<Arc<[ContentPart]>> {
        self.entries.get(key).cloned()
    }

    fn insert(&mut self, key: Box<[u128]>, parts: Arc<[ContentPart]>) {
        self.bytes += bytes(&parts);
        if let Some(replaced) = self.entries.insert(key, parts) {
            self.bytes -= bytes(&replaced);
        }
        while self.bytes > self.most
            && let Some((_, oldest)) = self.entries.shift_remove_index(0)
        {
            self.bytes -= bytes(&oldest);
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
        let parts =
            |text: &str| -> Arc<[ContentPart]> { Arc::new([ContentPart::Image(text.into())]) };
        let mut kept = Kept::new(5);
        kept.insert([1].into(), parts("aaa"));
        kept.insert([2].into(), parts("bb"));
        kept.insert([2].into(), parts("bb"));
        assert_eq!((kept.get(&[1]), kept.get(&[2])), (Some(parts("aaa")), Some(parts("bb"))));
        kept.insert([3, 4].into(), parts("c"));
        assert_eq!((kept.get(&[1]), kept.get(&[3, 4])), (None, Some(parts("c"))));
        kept.insert([5].into(), parts("too long"));
        assert_eq!((kept.get(&[3, 4]), kept.get(&[5]), kept.bytes), (None, None, 0));
    }
}
