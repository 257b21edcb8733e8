//! Pretraining of a vision tower by detecting objects, with a linear head on its tokens that is dropped afterwards.

use std::time::Instant;

use candle_core::Tensor;
use embodied_r_grpo::schedule::LrSchedule;
use embodied_r_grpo::settings::OptimizerSettings;
use embodied_r_grpo::{Error, Result};
use embodied_r_kernels::{AdamwStep, adamw, memory};
use embodied_r_vision::{Pixels, TrainableTower};

use crate::progress::StepProgress;

/// An image and its objects.
#[derive(Debug, Clone)]
pub(crate) struct DetectionExample {
    /// The image.
    pub(crate) pixels: Pixels,
    /// Its objects, at most one of a class per token.
    pub(crate) objects: Vec<DetectedObject>,
}

/// An object in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetectedObject {
    /// The token in which its middle is, in raster order.
    pub(crate) token: usize,
    /// Its class.
    pub(crate) class: usize,
    /// The bin of each coordinate of its position.
    pub(crate) bins: Vec<usize>,
}

/// Settings of detection training.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DetectionSettings {
    /// Number of object classes.
    pub(crate) classes: usize,
    /// Number of bins of each coordinate of a position; at least one coordinate.
    pub(crate) bins: Vec<usize>,
    /// Images per step.
    pub(crate) images_per_step: usize,
    /// The learning-rate schedule; its `total_steps` is the length of the run.
    pub(crate) schedule: LrSchedule,
    /// The hyperparameters of AdamW; the optimizer is always that.
    pub(crate) optimizer: OptimizerSettings,
}

/// Summary of the training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DetectionReport {
    /// Steps done.
    pub(crate) steps: u64,
    /// The loss of the last step.
    pub(crate) loss: f64,
    /// Share of the last steps' objects that were found: class, token and all bins.
    pub(crate) found: f64,
}

/// Weight of a step in the running share of objects found.
const FOUND_WEIGHT: f64 = 0.02;

/// Trains all tensors of `tower` on `examples`. For every token and class the head predicts whether the token has an
/// object of the class and the bin of its first coordinate, and of an object the bins of the others; the loss is the mean
/// over images of the sum of their cross-entropies.
///
/// # Errors
/// An example does not match the settings or the tower, or `progress` fails.
pub(crate) fn train(
    tower: &TrainableTower,
    examples: impl IntoIterator<Item = DetectionExample>,
    settings: &DetectionSettings,
    progress: &StepProgress<'_>,
) -> Result<DetectionReport> {
    let head = Head::new(tower, settings)?;
    let mut optimizer = Adamw::new(tower, &head)?;
    let mut examples = examples.into_iter();
    let total = settings.schedule.total_steps;
    progress.start(total);
    let mut report = DetectionReport { steps: 0, loss: f64::NAN, found: 0.0 };
    let began = Instant::now();
    while report.steps < total {
        let batch: Vec<DetectionExample> =
            examples.by_ref().take(settings.images_per_step).collect();
        if batch.is_empty() {
            break;
        }
        let pixels: Vec<&Pixels> = batch.iter().map(|example| &example.pixels).collect();
        let (embeddings, saved) = tower.forward(&pixels, usize::MAX)?;
        let pass = head.pass(&embeddings, &batch)?;
        let mut gradients = tower.zero_gradients()?;
        tower.backward(saved, &pass.d_embeddings, &mut gradients, &mut |_| {})?;
        let learning_rate = settings.schedule.at(report.steps);
        let of_tower = tower.parameters().map(|(name, parameter)| {
            let missing = || Error::Model { what: format!("has no gradient for `{name}`") };
            Ok((parameter, gradients.get(name).ok_or_else(missing)?))
        });
        let of_head = [(&head.weight, &pass.d_weight), (&head.bias, &pass.d_bias)];
        let pairs: Vec<_> = of_tower.chain(of_head.map(Ok)).collect::<Result<_>>()?;
        let norm = gradients.norm()?.hypot(pass.norm()?);
        optimizer.step(&pairs, settings.optimizer, learning_rate, norm)?;
        report.steps += 1;
        report.loss = pass.loss;
        report.found += (pass.found - report.found) * FOUND_WEIGHT.max(1.0 / report.steps as f64);
        let images = (report.steps as usize * batch.len()) as f64;
        let rate = images / began.elapsed().as_secs_f64().max(1e-9);
        let DetectionReport { loss, found, .. } = report;
        let status = format!("loss {loss:.4}, found {:.1} %, {rate:.0} images/s", 100.0 * found);
        progress.step(report.steps, &status)?;
    }
    Ok(report)
}

/// The linear head: for every class, a logit of its absence and one per bin of each coordinate.
struct Head {
    /// (classes × (1 + all bins), hidden size)
    weight: Tensor,
    /// (classes × (1 + all bins))
    bias: Tensor,
    classes: usize,
    /// Bins of each coordinate.
    bins: Vec<usize>,
}

/// A forward and a backward pass of the head.
struct HeadPass {
    loss: f64,
    /// Share of objects whose bins have the largest logits.
    found: f64,
    d_weight: Tensor,
    d_bias: Tensor,
    /// Of each image.
    d_embeddings: Vec<Tensor>,
}

impl HeadPass {
    fn norm(&self) -> Result<f64> {
        let squares = |tensor: &Tensor| -> Result<f64> {
            Ok(f64::from(tensor.sqr()?.sum_all()?.to_scalar::<f32>()?))
        };
        Ok((squares(&self.d_weight)? + squares(&self.d_bias)?).sqrt())
    }
}

impl Head {
    /// A head of zeros, which finds every bin equally likely.
    fn new(tower: &TrainableTower, settings: &DetectionSettings) -> Result<Self> {
        let (classes, bins) = (settings.classes, settings.bins.clone());
        if bins.is_empty() {
            return Err(Error::Model {
                what: "cannot detect positions without coordinates".into(),
            });
        }
        let outputs = classes * (1 + bins.iter().sum::<usize>());
        let hidden = tower.config().out_hidden_size;
        let zeros = |dims: &[usize]| memory::zeros(dims, tower.device());
        Ok(Self { weight: zeros(&[outputs, hidden])?, bias: zeros(&[outputs])?, classes, bins })
    }

    /// Replaces a token's logits of one class by the gradient of `scale` times the loss; returns the loss and whether
    /// all bins of the object have the largest logits.
    fn gradients(
        &self,
        mut logits: &mut [f32],
        label: Option<&[usize]>,
        scale: f32,
    ) -> (f64, bool) {
        let (mut loss, mut found) = (0.0, label.is_some());
        for (coordinate, bins) in self.bins.iter().enumerate() {
            // The first coordinate decides with absence, which is its class 0.
            let absence = usize::from(coordinate == 0);
            let (own, others) = logits.split_at_mut(bins + absence);
            logits = others;
            let target = match label.and_then(|bins| bins.get(coordinate)) {
                Some(bin) => bin + absence,
                None if coordinate == 0 => 0,
                None => {
                    own.fill(0.0);
                    continue;
                }
            };
            let best = (0..own.len()).max_by(|a, b| own[*a].total_cmp(&own[*b]));
            found &= best == Some(target);
            loss -= f64::from(to_gradient(own, target, scale));
        }
        (loss, found)
    }

    fn pass(&self, embeddings: &[Tensor], batch: &[DetectionExample]) -> Result<HeadPass> {
        let tokens = Tensor::cat(embeddings, 0)?;
        let logits = tokens.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?;
        let dims = logits.dims2()?;
        let mut values = logits.flatten_all()?.to_vec1::<f32>()?;
        let labels = self.labels(embeddings, batch)?;
        let scale = 1.0 / batch.len() as f32;
        let (mut loss, mut found, mut objects) = (0.0, 0, 0);
        let outputs = 1 + self.bins.iter().sum::<usize>();
        for (logits, label) in values.chunks_exact_mut(outputs).zip(labels) {
            let (of_class, is_found) = self.gradients(logits, label, scale);
            loss += of_class;
            objects += usize::from(label.is_some());
            found += usize::from(is_found);
        }
        let d_logits = memory::tensor(values, dims)?.to_device(tokens.device())?;
        let d_tokens = d_logits.matmul(&self.weight)?;
        let (mut first, mut d_embeddings) = (0, Vec::with_capacity(embeddings.len()));
        for image in embeddings {
            let count = image.dims()[0];
            d_embeddings.push(d_tokens.narrow(0, first, count)?.contiguous()?);
            first += count;
        }
        Ok(HeadPass {
            loss: loss / batch.len() as f64,
            found: f64::from(found as u32) / f64::from(objects.max(1) as u32),
            d_weight: d_logits.t()?.contiguous()?.matmul(&tokens)?,
            d_bias: d_logits.sum(0)?,
            d_embeddings,
        })
    }

    /// For every token and class the bins of its object.
    fn labels<'a>(
        &self,
        embeddings: &[Tensor],
        batch: &'a [DetectionExample],
    ) -> Result<Vec<Option<&'a [usize]>>> {
        let mut labels = Vec::new();
        for (image, example) in embeddings.iter().zip(batch) {
            let (first, tokens) = (labels.len(), image.dims()[0]);
            labels.resize(first + tokens * self.classes, None);
            for DetectedObject { token, class, bins } in &example.objects {
                let fits = bins.len() == self.bins.len()
                    && bins.iter().zip(&self.bins).all(|(bin, bins)| bin < bins);
                if *token >= tokens || *class >= self.classes || !fits {
                    let what = format!(
                        "cannot detect class {class} in bins {bins:?} of token {token}: there are {} classes, bins {:?} \
                         and {tokens} tokens",
                        self.classes, self.bins
                    );
                    return Err(Error::Model { what });
                }
                labels[first + token * self.classes + class] = Some(bins.as_slice());
            }
        }
        Ok(labels)
    }
}

/// Replaces logits by the gradient of `scale` times the cross-entropy with `label`; returns the log-probability of it.
fn to_gradient(logits: &mut [f32], label: usize, scale: f32) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - most).exp()).sum();
    let log_sum = most + sum.ln();
    let logp = logits[label] - log_sum;
    for (index, logit) in logits.iter_mut().enumerate() {
        let target = if index == label { 1.0 } else { 0.0 };
        *logit = scale * ((*logit - log_sum).exp() - target);
    }
    logp
}

/// AdamW over the tower's and the head's tensors.
struct Adamw {
    moments: Vec<[Tensor; 2]>,
    steps: u64,
}

impl Adamw {
    fn new(tower: &TrainableTower, head: &Head) -> Result<Self> {
        let tensors = tower.parameters().map(|(_, tensor)| tensor);
        let zeros = |tensor: &Tensor| -> Result<[Tensor; 2]> {
            let zeros = || memory::zeros(tensor.dims(), tensor.device());
            Ok([zeros()?, zeros()?])
        };
        let moments =
            tensors.chain([&head.weight, &head.bias]).map(zeros).collect::<Result<_>>()?;
        Ok(Self { moments, steps: 0 })
    }

    fn step(
        &mut self,
        pairs: &[(&Tensor, &Tensor)],
        settings: OptimizerSettings,
        lr: f64,
        norm: f64,
    ) -> Result<()> {
        self.steps += 1;
        let bound = settings.max_grad_norm;
        let grad_scale = if norm > bound { bound / (norm + 1e-6) } else { 1.0 };
        for ((parameter, gradient), [first, second]) in pairs.iter().zip(&self.moments) {
            let step = AdamwStep {
                lr,
                beta1: settings.adam_beta1,
                beta2: settings.adam_beta2,
                eps: settings.adam_epsilon,
                weight_decay: if parameter.rank() > 1 { settings.weight_decay } else { 0.0 },
                step: self.steps,
                grad_scale,
            };
            adamw(parameter, gradient, first, second, &step)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
