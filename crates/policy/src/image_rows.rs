//! Image features in the input of the decoder and after its first layers, and their gradients.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;
use embodied_r_kernels::{embedding, memory};
use indexmap::IndexMap;

use crate::error::{Error, Result, TensorContext as _};
use crate::prompt::PromptImage;

/// An image in a batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchImage {
    pub(crate) image: PromptImage,
    /// For each span its rows in the batch, and among the image's tokens.
    pub(crate) parts: Vec<(Range<usize>, Range<usize>)>,
}

impl BatchImage {
    /// The rows in the batch, in the order of the image's tokens.
    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().flat_map(|(rows, _)| rows.clone())
    }

    /// Whether a row of the batch is the image's.
    pub(crate) fn contains(&self, row: usize) -> bool {
        self.parts.iter().any(|(rows, _)| rows.contains(&row))
    }
}

/// The input of the first layer, and what is added to the outputs of the layers at rows with images.
pub(crate) struct Embedded {
    /// (tokens, hidden).
    pub(crate) x: Tensor,
    /// The rows with images.
    rows: Vec<usize>,
    /// For each layer from the first on, what is added to its output (rows with images, hidden).
    added: Vec<Tensor>,
}

impl From<Tensor> for Embedded {
    /// Without images.
    fn from(x: Tensor) -> Self {
        Self { x, rows: Vec::new(), added: Vec::new() }
    }
}

impl Embedded {
    /// The embeddings `x` of a batch's tokens (tokens, hidden) with those of `images`, whose features are given.
    ///
    /// # Errors
    /// The images have features of different levels or of another hidden size.
    pub(crate) fn new(x: Tensor, images: &[(&BatchImage, Tensor)]) -> Result<Self> {
        let levels = |(image, features): &(&BatchImage, Tensor)| {
            features.dims()[0] / image.image.tokens().max(1)
        };
        let count = images.first().map_or(1, levels);
        if images.iter().any(|image| levels(image) != count) {
            let fault = "the images of a batch have features of different levels".to_owned();
            return Err(Error::Sequence { index: 0, fault });
        }
        let (mut rows, mut added) = (Vec::new(), vec![Vec::new(); count - 1]);
        for (image, features) in images {
            for (rows, own) in &image.parts {
                insert(&x, rows.start, features, own.clone())?;
            }
            rows.extend(image.rows());
            let tokens = image.image.tokens();
            for (level, added) in added.iter_mut().enumerate() {
                let features = features.narrow(0, (level + 1) * tokens, tokens);
                added.push(features.context("take a level of image features")?);
            }
        }
        let joined = |parts: Vec<Tensor>| -> Result<Tensor> {
            let parts: Vec<Tensor> =
                parts.iter().map(|part| moved(part, &x)).collect::<Result<_>>()?;
            Ok(memory::concat_rows(&parts.iter().collect::<Vec<_>>())?)
        };
        let added = added.into_iter().map(joined).collect::<Result<_>>()?;
        Ok(Self { x, rows, added })
    }

    /// Adds to the output `y` of the layer `index` what the images add there; `output_rows` are the rows that `y` has, if not
    /// all.
    pub(crate) fn add_to(
        &self,
        index: usize,
        y: &Tensor,
        output_rows: Option<&[usize]>,
    ) -> Result<()> {
        match self.added.get(index) {
            Some(added) => add_rows(y, (&self.rows, added), output_rows),
            None => Ok(()),
        }
    }
}

/// Adds to the rows `rows` of a batch those of `values`, in order; `output_rows` are the rows that `y` has, if not all.
pub(crate) fn add_rows(
    y: &Tensor,
    (rows, values): (&[usize], &Tensor),
    output_rows: Option<&[usize]>,
) -> Result<()> {
    let Some(output_rows) = output_rows else {
        return Ok(embedding::scatter_add(y, rows, values)?);
    };
    let (taken, at) = within(rows, output_rows);
    match taken.is_empty() {
        true => Ok(()),
        false => Ok(embedding::scatter_add(y, &at, &embedding::gather(values, &taken)?)?),
    }
}

/// The indices of those of `rows` that are among `output_rows`, and their indices there.
fn within(rows: &[usize], output_rows: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let at = |row: &usize| output_rows.iter().position(|output| output == row);
    rows.iter().enumerate().filter_map(|(index, row)| Some((index, at(row)?))).unzip()
}

/// On the device of `x` and in its dtype.
fn moved(values: &Tensor, x: &Tensor) -> Result<Tensor> {
    let moved = memory::to_device(values, x.device())?;
    moved.to_dtype(x.dtype()).context("insert image embeddings")
}

/// Replaces the rows of `x` from `row` on by the rows `range` of image features.
///
/// # Shapes
/// `x` (tokens, hidden), `features` (levels · tokens of the image, hidden).
pub(crate) fn insert(x: &Tensor, row: usize, features: &Tensor, range: Range<usize>) -> Result<()> {
    let features = features.to_device(x.device()).and_then(|it| it.to_dtype(x.dtype()));
    Ok(memory::copy_rows(x, row, &features.context("insert image embeddings")?, range)?)
}

/// The gradients of image features, summed over the prompts with that image.
#[derive(Debug)]
pub struct ImageGradients {
    levels: usize,
    of_images: Mutex<IndexMap<u128, Tensor>>,
}

impl ImageGradients {
    /// None yet, of features with so many levels.
    pub(crate) fn new(levels: usize) -> Self {
        Self { levels, of_images: Mutex::default() }
    }

    /// Adds the gradient of a level of an image's features, from the gradient `dx` of what it was added to; `output_rows` are
    /// the rows that `dx` has, if not all.
    ///
    /// # Shapes
    /// `dx` (rows, hidden).
    pub(crate) fn add(
        &self,
        image: &BatchImage,
        level: usize,
        dx: &Tensor,
        output_rows: Option<&[usize]>,
    ) -> Result<()> {
        if level >= self.levels {
            return Ok(());
        }
        let tokens = image.image.tokens();
        let gradient = match (output_rows, &image.parts[..]) {
            (None, [(rows, _)]) => memory::rows(dx, rows.clone())?,
            (None, _) => embedding::gather(dx, &image.rows().collect::<Vec<_>>())?,
            (Some(output_rows), _) => {
                let (taken, at) = within(&image.rows().collect::<Vec<_>>(), output_rows);
                if taken.is_empty() {
                    return Ok(());
                }
                let gradient = memory::zero_rows(tokens, dx)?;
                embedding::scatter_add(&gradient, &taken, &embedding::gather(dx, &at)?)?;
                gradient
            }
        };
        let mut of_images = self.of_images.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = image.image.digest;
        if self.levels == 1 && !of_images.contains_key(&digest) {
            of_images.insert(digest, gradient);
            return Ok(());
        }
        let sum = match of_images.get(&digest) {
            Some(sum) => sum.clone(),
            None => {
                let sum = memory::zero_rows(self.levels * tokens, dx)?;
                of_images.insert(digest, sum.clone());
                sum
            }
        };
        let of_level = sum.narrow(0, level * tokens, tokens).context("take a level's gradient")?;
        Ok(memory::add(&of_level, &gradient)?)
    }

    /// Takes the gradients by digest (levels · tokens, hidden), in the order of the first backward passes.
    #[must_use]
    pub fn take(&self) -> IndexMap<u128, Tensor> {
        std::mem::take(&mut *self.of_images.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a backward pass adds the gradients of image features.
#[derive(Clone, Copy)]
pub(crate) struct ImageBackward<'a> {
    pub(crate) gradients: &'a ImageGradients,
    pub(crate) images: &'a [BatchImage],
}

impl ImageBackward<'_> {
    /// Adds the gradients of what was added to the output of the layer `index`, from the output's gradient `dx`;
    /// `output_rows` are the rows that it has, if not all.
    pub(crate) fn add(
        self,
        index: usize,
        dx: &Tensor,
        output_rows: Option<&[usize]>,
    ) -> Result<()> {
        let Self { gradients, images } = self;
        images.iter().try_for_each(|image| gradients.add(image, index + 1, dx, output_rows))
    }
}
