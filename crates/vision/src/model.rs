//! A vision-language model: its decoder as text models are sampled, and what turns pictures into its tokens.

use std::path::Path;
use std::sync::Arc;

use embodied_r_policy::tokenizer::{Generation, Tokenizer};
use embodied_r_policy::{InferenceModel, Placement, Prompt, TensorParallel, WeightFormat};
use image::RgbImage;

use crate::config::{PictureTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::grid::Grid;
use crate::message::Message;
use crate::processor::{Pixels, Processor};
use crate::seen::{Kind, Seen, digest, image_digest};
use crate::source::Source;
use crate::tower::Tower;

/// A Qwen2.5-VL model for sampling. A clone shares the weights.
#[derive(Clone)]
pub struct VisionLanguageModel {
    decoder: Arc<InferenceModel>,
    eyes: Arc<Eyes>,
}

/// How a vision-language model is loaded.
#[derive(Debug, Clone)]
pub struct VisionOptions {
    /// What the matrices of decoder and tower are held as, and where; those of GGUF files stay as they are.
    pub placement: Placement,
    /// Pictures of more pixels are reduced to so many; none: what the model's processor says.
    pub max_pixels: Option<usize>,
}

impl From<WeightFormat> for VisionOptions {
    fn from(format: WeightFormat) -> Self {
        Self { placement: format.into(), max_pixels: None }
    }
}

/// Whether the model in `dir`, a folder or a GGUF file, is a vision-language model. Of a GGUF file a tower lies beside
/// it, whole or not.
#[must_use]
pub fn can_see(dir: &Path) -> bool {
    Source::is_there(dir)
}

/// Patches that keep all threads busy.
const PATCHES_TOGETHER: usize = 1024;

/// What turns pictures into a decoder's tokens.
pub struct Eyes {
    tower: Tower,
    processor: Processor,
    tokens: PictureTokens,
}

impl VisionLanguageModel {
    /// Reads the model in `dir`, a folder in Hugging Face's layout or a GGUF file with its tower's beside it.
    ///
    /// # Errors
    /// [`Error::NoVision`], [`Error::NoProcessor`] and [`Error::NoMmproj`] for a text model, and those of [`InferenceModel::load`].
    pub fn load(dir: &Path, options: &VisionOptions) -> Result<Self> {
        Self::load_part(dir, options, &TensorParallel::alone())
    }

    /// As [`Self::load`], with the decoder's part of the rank `ranks` and all of the tower: pictures are dealt to the
    /// ranks ([`Eyes::images_over`]).
    ///
    /// # Errors
    /// As [`Self::load`], and those of [`InferenceModel::load_part`].
    pub fn load_part(dir: &Path, options: &VisionOptions, ranks: &TensorParallel) -> Result<Self> {
        // What is small comes first, so that what is missing is told at once.
        let eyes = Eyes::load(dir, options)?;
        let decoder = InferenceModel::load_part(dir, options.placement.clone(), ranks)?;
        let (found, want) = (eyes.config().out_hidden_size, decoder.config().hidden_size);
        if found != want {
            return Err(Error::Widths { dir: dir.to_owned(), found, want });
        }
        Ok(Self { decoder: Arc::new(decoder), eyes: Arc::new(eyes) })
    }

    /// The decoder, for an engine.
    #[must_use]
    pub fn decoder(&self) -> &Arc<InferenceModel> {
        &self.decoder
    }

    /// What turns pictures into its tokens.
    #[must_use]
    pub fn eyes(&self) -> &Arc<Eyes> {
        &self.eyes
    }
}

impl Eyes {
    /// Reads those of the model in `dir`, a folder in Hugging Face's layout or a GGUF file with its tower's beside it.
    ///
    /// # Errors
    /// As [`VisionLanguageModel::load`].
    pub fn load(dir: &Path, options: &VisionOptions) -> Result<Self> {
        let VisionOptions { placement, max_pixels } = options;
        let source = Source::of_model(dir)?;
        let (config, tokens) = source.config()?;
        let processor = Processor::of_source(&source)?;
        let processor = match max_pixels {
            Some(max_pixels) => processor.with_max_pixels(*max_pixels),
            None => processor,
        };
        let patch = processor.patch();
        let fits = patch.side == config.patch_size
            && patch.frames == config.temporal_patch_size
            && patch.merge == config.spatial_merge_size;
        if !fits {
            let told = format!("the processor cuts {patch:?}, the tower takes others");
            return Err(Error::Patches(told));
        }
        let tower = Tower::new(config, source.weights(placement)?.as_ref())?;
        Ok(Self { tower, processor, tokens })
    }

    /// The tower's shape.
    #[must_use]
    pub fn config(&self) -> &VisionConfig {
        self.tower.config()
    }

    /// How pictures become patches.
    #[must_use]
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Tokens that an image of so many pixels takes.
    ///
    /// # Errors
    /// [`Error::Proportions`].
    pub fn image_tokens(&self, size: (u32, u32)) -> Result<usize> {
        Ok(self.processor.image_grid(size)?.tokens(self.config().spatial_merge_size))
    }

    /// Looks at images. What one becomes does not depend on the others, to the bit.
    ///
    /// # Errors
    /// [`Error::Proportions`].
    pub fn images(&self, pictures: &[&RgbImage]) -> Result<Vec<Seen>> {
        let mut seen = Vec::with_capacity(pictures.len());
        let mut left = pictures;
        while !left.is_empty() {
            let (together, rest) = left.split_at(self.together(left)?);
            let pixels = together.iter().map(|picture| self.processor.image(picture));
            let pixels: Vec<Pixels> = pixels.collect::<Result<_>>()?;
            let embeddings = self.tower.forward(&pixels.iter().collect::<Vec<_>>())?;
            let parts = pixels.iter().zip(embeddings).zip(together);
            seen.extend(parts.map(|((pixels, embeddings), picture)| Seen {
                kind: Kind::Image,
                grid: pixels.grid,
                embeddings,
                digest: image_digest(picture),
            }));
            left = rest;
        }
        Ok(seen)
    }

    /// As [`Self::images`], on ranks that all ask for the same: each looks at its share, and all get what all saw. The
    /// tower is whole on every rank: split as the decoder is, it would send a picture's patches twice in every block,
    /// and this sends its tokens once.
    ///
    /// # Errors
    /// As [`Self::images`], and when a rank is lost.
    pub fn images_over(&self, pictures: &[&RgbImage], ranks: &TensorParallel) -> Result<Vec<Seen>> {
        if ranks.is_alone() {
            return self.images(pictures);
        }
        let grids = pictures.iter().map(|picture| self.processor.image_grid(picture.dimensions()));
        let grids: Vec<Grid> = grids.collect::<Result<_>>()?;
        let is_own = |index: usize| index % ranks.size() == ranks.rank();
        let own: Vec<&RgbImage> =
            (0..pictures.len()).filter(|i| is_own(*i)).map(|i| pictures[i]).collect();
        let mut own = self.images(&own)?.into_iter();
        let VisionConfig { spatial_merge_size: merge, out_hidden_size: width, .. } = *self.config();
        let parts = grids.iter().enumerate().map(|(index, grid)| {
            let seen = if is_own(index) { own.next() } else { None };
            ((grid.tokens(merge), width), seen.map(|seen| seen.embeddings))
        });
        let embeddings = ranks.exchanged(parts.collect())?;
        let seen = embeddings.into_iter().zip(grids).zip(pictures);
        let seen = seen.map(|((embeddings, grid), picture)| Seen {
            kind: Kind::Image,
            grid,
            embeddings,
            digest: image_digest(picture),
        });
        Ok(seen.collect())
    }

    /// How many of the first pictures the tower takes together: as few as have patches enough for its threads, so
    /// that memory does not grow with the number of pictures.
    fn together(&self, pictures: &[&RgbImage]) -> Result<usize> {
        let mut patches = 0;
        for (index, picture) in pictures.iter().enumerate() {
            patches += self.processor.image_grid(picture.dimensions())?.patches();
            if patches >= PATCHES_TOGETHER {
                return Ok(index + 1);
            }
        }
        Ok(pictures.len())
    }

    /// Looks at one image: [`Self::images`] for one.
    ///
    /// # Errors
    /// [`Error::Proportions`].
    pub fn image(&self, picture: &RgbImage) -> Result<Seen> {
        let pixels = self.processor.image(picture)?;
        let embeddings = self.tower.forward(&[&pixels])?.pop();
        let embeddings = embeddings.ok_or(Error::Places { places: 1, pictures: 0 })?;
        let digest = image_digest(picture);
        Ok(Seen { kind: Kind::Image, grid: pixels.grid, embeddings, digest })
    }

    /// Looks at a video of one frame or more, `seconds` apart.
    ///
    /// # Errors
    /// [`Error::Proportions`].
    pub fn video(&self, frames: &[RgbImage], seconds: f64) -> Result<Seen> {
        let pixels = self.processor.video(frames)?;
        let mut embeddings = self.tower.forward(&[&pixels])?;
        let per_patch = seconds * self.processor.patch().frames as f64;
        let kind = Kind::Video { interval: per_patch * self.config().tokens_per_second };
        let embeddings = embeddings.pop().ok_or(Error::Places { places: 1, pictures: 0 })?;
        Ok(Seen { kind, grid: pixels.grid, embeddings, digest: digest(frames, kind) })
    }

    /// The prompt of a conversation: rendered by the model's template, and each place for a picture filled with the
    /// next of `seen`. Its last turn is the model's, to be gone on with.
    ///
    /// # Errors
    /// [`Error::Places`] unless there is a picture for each place, and those of [`Tokenizer::render`].
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        seen: &[Seen],
    ) -> Result<Prompt> {
        let text = tokenizer.render(messages, Generation::Prompt)?;
        self.filled(&tokenizer.encode(&text)?, seen)
    }

    /// The prompt of `ids`, with as many tokens in each place for a picture as the next of `seen` has.
    ///
    /// # Errors
    /// [`Error::Places`] unless there is a picture for each place.
    pub fn filled(&self, ids: &[u32], seen: &[Seen]) -> Result<Prompt> {
        let PictureTokens { image_token_id, video_token_id } = self.tokens;
        let is_place = |id: &&u32| [image_token_id, video_token_id].contains(id);
        let places = ids.iter().filter(is_place).count();
        if places != seen.len() {
            return Err(Error::Places { places, pictures: seen.len() });
        }
        let merge = self.config().spatial_merge_size;
        let (mut filled, mut inserts, mut seen) = (Vec::new(), Vec::new(), seen.iter());
        for id in ids {
            match Some(id).filter(is_place).and_then(|_| seen.next()) {
                None => filled.push(*id),
                Some(picture) => {
                    let insert = picture.insert(filled.len(), merge);
                    filled.extend(std::iter::repeat_n(*id, insert.places.len()));
                    inserts.push(insert);
                }
            }
        }
        Ok(Prompt::with_inserts(filled, inserts)?)
    }
}
