//! Prompts: token ids, with image embeddings in place of the image placeholder tokens.

use std::hash::{Hash, Hasher};
use std::ops::Range;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A prompt: token ids, and the images in place of its placeholder tokens.
///
/// Prompts are equal if their tokens are, and their images by [`PromptImage::digest`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "StoredPrompt")]
pub struct Prompt {
    ids: Vec<u32>,
    images: Vec<PromptImage>,
    /// M-RoPE position of each token; empty for text, where all three components equal the token's index.
    #[serde(skip)]
    position_ids: Vec<MropePosition>,
    /// Part of the first token's key.
    #[serde(skip)]
    cache_salt: TokenKey,
}

/// A prompt as it is serialized: without positions, which follow from the images, and without embeddings.
#[derive(Deserialize)]
struct StoredPrompt {
    ids: Vec<u32>,
    #[serde(default)]
    images: Vec<PromptImage>,
}

impl TryFrom<StoredPrompt> for Prompt {
    type Error = Error;

    fn try_from(stored: StoredPrompt) -> Result<Self> {
        Self::with_images(stored.ids, stored.images)
    }
}

/// A token's 3-D position id: time, height and width.
pub type MropePosition = [usize; 3];

/// An image or a video in place of placeholder tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PromptImage {
    /// Its placeholder tokens, in order: one span, or several with text between the frames of a video.
    pub spans: Vec<ImageSpan>,
    /// Identifies pixels and positions, also for prefix caching: equal digests count as equal content.
    pub digest: u128,
    /// Its features (levels · tokens, hidden); `None` if a policy's [`ImageEmbedder`] has them. The first level has one
    /// embedding for each placeholder token. Level k + 1, if there is one, is added to the output of the decoder's layer k
    /// at these tokens (DeepStack; Meng et al., 2024).
    #[serde(skip)]
    pub embeddings: Option<Tensor>,
}

/// Consecutive placeholder tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpan {
    /// Index of the first one in the prompt.
    pub offset: usize,
    /// Position ids relative to the first one, one per placeholder token. The text after the span continues at the largest
    /// height or width + 1.
    pub position_ids: Vec<MropePosition>,
}

/// Has the features of a policy's images, which may change with the weights of its vision encoder.
pub trait ImageEmbedder: Send + Sync {
    /// The features of the image of that digest, on the device of the policy, as [`PromptImage::embeddings`].
    ///
    /// # Errors
    /// The image is unknown, or cannot be encoded.
    fn embeddings(&self, digest: u128) -> Result<Tensor>;

    /// The levels of the features.
    fn levels(&self) -> usize {
        1
    }
}

/// A token's identity for prefix caching: equal keys after equal prefixes have equal KV-cache entries.
pub(crate) type TokenKey = u128;

/// Set in the keys of image tokens, so that they never equal a token id.
const IMAGE_KEY: TokenKey = 1 << 127;

/// The key of a text token.
pub(crate) fn text_key(id: u32) -> TokenKey {
    TokenKey::from(id)
}

impl ImageSpan {
    /// The placeholder tokens' indices in the prompt.
    fn tokens(&self) -> Range<usize> {
        self.offset..self.offset + self.position_ids.len()
    }
}

impl PromptImage {
    /// An image in place of consecutive placeholder tokens.
    pub fn consecutive(offset: usize, position_ids: Vec<MropePosition>, digest: u128) -> Self {
        Self { spans: vec![ImageSpan { offset, position_ids }], digest, embeddings: None }
    }

    /// Index of the first placeholder token in the prompt.
    pub fn offset(&self) -> usize {
        self.spans.first().map_or(0, |span| span.offset)
    }

    /// The number of placeholder tokens.
    pub fn tokens(&self) -> usize {
        self.spans.iter().map(|span| span.position_ids.len()).sum()
    }

    /// For each span its tokens' indices in the prompt, and among the image's tokens.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let mut end = 0;
        self.spans.iter().map(move |span| {
            let start = end;
            end += span.position_ids.len();
            (span.tokens(), start..end)
        })
    }

    /// Its features, or those of `embedder` (levels · tokens, hidden).
    ///
    /// # Errors
    /// There are none, or not the same number per token.
    pub(crate) fn embedded(&self, embedder: Option<&dyn ImageEmbedder>) -> Result<Tensor> {
        let embeddings = match (&self.embeddings, embedder) {
            (Some(embeddings), _) => embeddings.clone(),
            (None, Some(embedder)) => embedder.embeddings(self.digest)?,
            (None, None) => return Err(fault("an image has no embeddings".into())),
        };
        match self.fits(&embeddings) {
            Ok(()) => Ok(embeddings),
            Err(message) => Err(fault(message)),
        }
    }

    /// Whether features have as many rows as a number of levels needs.
    fn fits(&self, embeddings: &Tensor) -> Result<(), String> {
        let (rows, tokens) = (embeddings.dims2().map_or(0, |(rows, _)| rows), self.tokens());
        match rows > 0 && tokens > 0 && rows.is_multiple_of(tokens) {
            true => Ok(()),
            false => Err(format!("an image has {rows} embeddings for {tokens} tokens")),
        }
    }
}

fn fault(fault: String) -> Error {
    Error::Sequence { index: 0, fault }
}

impl PartialEq for Prompt {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&PromptImage, &PromptImage)| {
            let tokens = |image: &PromptImage| image.spans.iter().map(ImageSpan::tokens).collect();
            let [of_a, of_b]: [Vec<Range<usize>>; 2] = [a, b].map(tokens);
            a.digest == b.digest && of_a == of_b
        };
        self.ids == other.ids
            && self.cache_salt == other.cache_salt
            && self.images.len() == other.images.len()
            && self.images.iter().zip(&other.images).all(same)
    }
}

impl Eq for Prompt {}

impl Hash for Prompt {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ids.hash(state);
        self.images.iter().for_each(|image| image.digest.hash(state));
    }
}

impl Prompt {
    /// A prompt of `ids`, with `images` in ascending order of their offsets.
    ///
    /// # Errors
    /// [`Error::Sequence`] if images overlap, exceed the prompt, have no tokens, or features that do not fit them.
    pub fn with_images(ids: Vec<u32>, images: Vec<PromptImage>) -> Result<Self> {
        let mut end = 0;
        for image in &images {
            let of_embeddings = image.embeddings.as_ref().map(|it| image.fits(it));
            of_embeddings.unwrap_or(Ok(())).map_err(fault)?;
            let mut tokens = image.spans.iter().map(ImageSpan::tokens).peekable();
            if tokens.peek().is_none() {
                return Err(fault("an image has no tokens".into()));
            }
            for tokens in tokens {
                if tokens.is_empty() || tokens.start < end || tokens.end > ids.len() {
                    let what = "overlaps another or exceeds the prompt";
                    return Err(fault(format!("the image at tokens {tokens:?} {what}")));
                }
                end = tokens.end;
            }
        }
        let position_ids =
            if images.is_empty() { Vec::new() } else { position_ids(ids.len(), &images) };
        Ok(Self { ids, images, position_ids, cache_salt: 0 })
    }

    /// Separates the prompt from those with another salt in the prefix cache: how fast it is answered then tells
    /// nothing about them.
    #[must_use]
    pub fn with_cache_salt(self, salt: Option<&str>) -> Self {
        let hash = salt.map(|salt| blake3::hash(salt.as_bytes()));
        let key = hash.map_or(0, |hash| {
            let (bytes, _) = hash.as_bytes().split_at(size_of::<TokenKey>());
            bytes.iter().fold(0, |key, byte| key << 8 | TokenKey::from(*byte))
        });
        Self { cache_salt: key, ..self }
    }

    /// The same prompt with the embeddings of all images, those that it lacks from `embedder`.
    ///
    /// # Errors
    /// An image has no embeddings, or another number of them than tokens.
    pub fn embedded(&self, embedder: Option<&dyn ImageEmbedder>) -> Result<Self> {
        let mut prompt = self.clone();
        for image in &mut prompt.images {
            image.embeddings = Some(image.embedded(embedder)?);
        }
        Ok(prompt)
    }

    /// The token ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The images, in order.
    pub fn images(&self) -> &[PromptImage] {
        &self.images
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether the prompt has no images.
    pub fn is_text(&self) -> bool {
        self.images.is_empty()
    }

    /// Hidden size of the image embeddings, if there are images.
    pub(crate) fn image_hidden_size(&self) -> Option<usize> {
        let embeddings = self.images.first()?.embeddings.as_ref()?;
        embeddings.dims().last().copied()
    }

    /// The M-RoPE position of the token at `index`, which may be past the prompt's end.
    pub fn position(&self, index: usize) -> MropePosition {
        let Some(last) = self.position_ids.len().checked_sub(1) else { return [index; 3] };
        match self.position_ids.get(index) {
            Some(position) => *position,
            None => [self.end() + index - last - 1; 3],
        }
    }

    /// The position of the first token after the prompt.
    fn end(&self) -> usize {
        let last = self.images.last().and_then(|image| image.spans.last());
        match last.map(ImageSpan::tokens) {
            Some(tokens) if tokens.end == self.ids.len() => {
                next_position(&self.position_ids[tokens])
            }
            _ => self.position_ids.last().map_or(0, |position| position[0] + 1),
        }
    }

    /// Each token's key for prefix caching.
    pub(crate) fn keys(&self) -> Vec<TokenKey> {
        let mut keys: Vec<TokenKey> = self.ids.iter().map(|id| text_key(*id)).collect();
        for image in &self.images {
            for (tokens, rows) in image.parts() {
                for (row, key) in rows.zip(&mut keys[tokens]) {
                    *key = image.digest.wrapping_add(row as TokenKey) | IMAGE_KEY;
                }
            }
        }
        if let Some(first) = keys.first_mut() {
            *first ^= self.cache_salt;
        }
        keys
    }

    /// The image tokens within `range`: for each span of an image their indices relative to the start of the range, among
    /// the image's tokens, and the image.
    pub(crate) fn image_rows(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, Range<usize>, &PromptImage)> {
        let spans = self.images.iter().flat_map(|image| image.parts().map(move |it| (it, image)));
        spans.filter_map(move |((tokens, rows), image)| {
            let (start, end) = (tokens.start.max(range.start), tokens.end.min(range.end));
            let within = |index: usize| Some(rows.start + index.checked_sub(tokens.start)?);
            let rows = within(start)?..within(end)?;
            let overlaps = start < end;
            overlaps.then(|| (start - range.start..end - range.start, rows, image))
        })
    }
}

impl From<Vec<u32>> for Prompt {
    /// A text prompt.
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, ..Self::default() }
    }
}

/// The position of text after an image or a video with these positions: past its longer side, whatever its length in time
/// (`get_rope_index` of `transformers` 5; up to version 4, and in vLLM, text after a long video starts past its last time).
fn next_position(position_ids: &[MropePosition]) -> usize {
    let sides = position_ids.iter().map(|[_, height, width]| height.max(width));
    sides.max().map_or(0, |position| position + 1)
}

/// The M-RoPE positions of a prompt (Wang et al., Qwen2-VL, 2024): text increments all three components by one, an
/// image has its own positions relative to its first token.
fn position_ids(tokens: usize, images: &[PromptImage]) -> Vec<MropePosition> {
    let mut position_ids = Vec::with_capacity(tokens);
    let mut next = 0;
    let text = |position_ids: &mut Vec<MropePosition>, next: &mut usize, until: usize| {
        let count = until - position_ids.len();
        position_ids.extend((*next..*next + count).map(|position| [position; 3]));
        *next += count;
    };
    for ImageSpan { offset, position_ids: of_span } in images.iter().flat_map(|it| &it.spans) {
        text(&mut position_ids, &mut next, *offset);
        position_ids.extend(of_span.iter().map(|position| position.map(|axis| next + axis)));
        next += next_position(of_span);
    }
    text(&mut position_ids, &mut next, tokens);
    position_ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn with_positions(
        offset: usize,
        position_ids: Vec<MropePosition>,
        digest: u128,
    ) -> PromptImage {
        let embeddings = Tensor::zeros((position_ids.len(), 3), DType::F32, &Device::Cpu).unwrap();
        let image = PromptImage::consecutive(offset, position_ids, digest);
        PromptImage { embeddings: Some(embeddings), ..image }
    }

    /// An image of 2 × 3 tokens.
    fn image(offset: usize) -> PromptImage {
        let position_ids = (0..6).map(|i| [0, i / 3, i % 3]).collect();
        with_positions(offset, position_ids, 1000)
    }

    #[test]
    fn text_after_an_image_starts_past_its_longer_side() {
        let prompt = Prompt::with_images(vec![5; 10], vec![image(2)]).unwrap();
        let position_ids: Vec<MropePosition> =
            (0..12).map(|index| prompt.position(index)).collect();
        assert_eq!(position_ids[..2], [[0; 3], [1; 3]]);
        assert_eq!(
            position_ids[2..8],
            [[2, 2, 2], [2, 2, 3], [2, 2, 4], [2, 3, 2], [2, 3, 3], [2, 3, 4]]
        );
        assert_eq!(position_ids[8..], [[5; 3], [6; 3], [7; 3], [8; 3]]);
    }

    #[test]
    fn text_after_a_long_video_starts_past_its_longer_side() {
        let times = (0..12).map(|i| [4 * (i / 6), i / 3 % 2, i % 3]).collect();
        let prompt = Prompt::with_images(vec![5; 14], vec![with_positions(1, times, 7)]).unwrap();
        assert_eq!([prompt.position(12), prompt.position(13)], [[5, 2, 3], [4; 3]]);
        assert_eq!(prompt.position(14), [5; 3]);
    }

    #[test]
    fn a_completion_after_a_final_image_starts_past_it() {
        let prompt = Prompt::with_images(vec![5; 8], vec![image(2)]).unwrap();
        assert_eq!([prompt.position(8), prompt.position(9)], [[5; 3], [6; 3]]);
        let text = Prompt::from(vec![1, 2]);
        assert_eq!([text.position(1), text.position(7)], [[1; 3], [7; 3]]);
    }

    #[test]
    fn image_tokens_have_keys_of_their_image() {
        let keys = |digest| {
            let image = PromptImage { digest, ..image(1) };
            Prompt::with_images(vec![7; 8], vec![image]).unwrap().keys()
        };
        assert_eq!(keys(1000), keys(1000));
        assert!(keys(1000)[1..7].iter().all(|key| !keys(2000).contains(key)));
        assert_eq!((keys(1000)[0], keys(1000)[7]), (text_key(7), text_key(7)));
    }

    #[test]
    fn a_chunk_of_the_prompt_gets_its_rows_of_an_image() {
        let prompt = Prompt::with_images(vec![5; 20], vec![image(2), image(10)]).unwrap();
        let parts = |range| -> Vec<_> {
            prompt.image_rows(range).map(|(tokens, rows, _)| (tokens, rows)).collect()
        };
        assert_eq!(parts(0..20), [(2..8, 0..6), (10..16, 0..6)]);
        assert_eq!(parts(4..12), [(0..4, 2..6), (6..8, 0..2)]);
        assert_eq!(parts(8..10), []);
        assert_eq!(parts(30..31), []);
    }

    #[test]
    fn images_that_do_not_fit_the_prompt_are_rejected() {
        let message = |images| match Prompt::with_images(vec![5; 10], images) {
            Err(error) => error.to_string(),
            Ok(_) => String::new(),
        };
        assert!(message(vec![image(5)]).contains("exceeds the prompt"));
        assert!(message(vec![image(0), image(3)]).contains("overlaps"));
        assert!(message(vec![with_positions(0, vec![], 1)]).contains("0 embeddings"));
        let four = PromptImage::consecutive(0, vec![[0; 3]; 4], 1);
        let short = PromptImage { embeddings: image(0).embeddings, ..four };
        assert!(message(vec![short]).contains("6 embeddings for 4 tokens"));
        let none = PromptImage { spans: Vec::new(), digest: 1, embeddings: None };
        assert!(message(vec![none]).contains("no tokens"));
    }

    /// A video of two blocks of 1 × 2 tokens with a token of text between them.
    fn two_spans(digest: u128) -> PromptImage {
        let span = |offset| ImageSpan { offset, position_ids: (0..2).map(|x| [0, 0, x]).collect() };
        PromptImage { spans: vec![span(2), span(5)], digest, embeddings: None }
    }

    #[test]
    fn text_between_the_spans_of_a_video_has_positions_of_its_own() {
        let prompt = Prompt::with_images(vec![5; 8], vec![two_spans(3)]).unwrap();
        let positions: Vec<MropePosition> = (0..9).map(|index| prompt.position(index)).collect();
        assert_eq!(positions[2..4], [[2, 2, 2], [2, 2, 3]]);
        assert_eq!(positions[4], [4; 3]);
        assert_eq!(positions[5..7], [[5, 5, 5], [5, 5, 6]]);
        assert_eq!(positions[7..], [[7; 3], [8; 3]]);
        let rows: Vec<_> = prompt.image_rows(3..6).map(|(at, rows, _)| (at, rows)).collect();
        assert_eq!(rows, [(0..1, 1..2), (2..3, 2..3)]);
        let keys = prompt.keys();
        assert_eq!(keys[4], text_key(5));
        assert_eq!([keys[3] - keys[2], keys[5] - keys[3], keys[6] - keys[5]], [1; 3]);
        assert_ne!(prompt, Prompt::with_images(vec![5; 8], vec![two_spans(4)]).unwrap());
    }
}
