//! A bigram model with handwritten gradients, to test training in milliseconds.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use candle_core::{Device, Tensor};
use embodied_r_kernels::memory::update;
use embodied_r_policy::weights::{self, SaveOptions};
use embodied_r_random::stream;

use crate::error::{Error, Result};
use crate::model::{
    ActivationCacheOptions, ChatMessage, ChatTokenizer, CompletionOutput, FinishReason,
    GenerateOptions, GenerationPrompt, GenerationRequest, GradientReadyHook, Group, LayerHook,
    LoadOptions, Model, NamedGradients, RenderedChat, Samples, SamplingParams, TokenScores,
    TrainingPass, WriterRank,
};
use embodied_r_vision::{MultimodalMessage, MultimodalPart};

const WEIGHT: &str = "bigram.weight";
const BIAS: &str = "bigram.bias";

/// `logits(token | previous) = weight[previous][token] + bias[token]`.
pub(crate) struct Bigram {
    weight: Tensor,
    bias: Tensor,
    /// Time per sampled token.
    pause: Duration,
    /// Time per scored completion.
    scoring: Duration,
    on_layer: Option<LayerHook>,
    /// Whether saving fails for lack of disk space.
    disk_is_full: bool,
    context_length: usize,
}

impl std::fmt::Debug for Bigram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bigram").finish_non_exhaustive()
    }
}

impl Bigram {
    pub(crate) fn new(vocabulary: usize, seed: u64) -> Self {
        let value =
            |i: usize| ((stream(&[seed, i as u64]) >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.4;
        let weight: Vec<f32> = (0..vocabulary * vocabulary).map(value).collect();
        let bias: Vec<f32> = (0..vocabulary).map(|i| value(i + 1_000_000)).collect();
        Self {
            weight: Tensor::from_vec(weight, (vocabulary, vocabulary), &Device::Cpu).unwrap(),
            bias: Tensor::from_vec(bias, vocabulary, &Device::Cpu).unwrap(),
            pause: Duration::ZERO,
            scoring: Duration::ZERO,
            on_layer: None,
            disk_is_full: false,
            context_length: usize::MAX,
        }
    }

    /// The same model with another context length.
    pub(crate) fn with_context_length(self, context_length: usize) -> Self {
        Self { context_length, ..self }
    }

    /// The same model, slower to sample each token.
    pub(crate) fn slow(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// The same model, slower to score each completion.
    pub(crate) fn slow_to_score(self, scoring: Duration) -> Self {
        Self { scoring, ..self }
    }

    /// The same model on a full disk.
    pub(crate) fn on_a_full_disk(self) -> Self {
        Self { disk_is_full: true, ..self }
    }

    /// A model that starts every completion with the token 1, after which its logits overflow: its gradients are NaN.
    pub(crate) fn poisoned(vocabulary: usize) -> Self {
        let mut weight = vec![vec![0f32; vocabulary]; vocabulary];
        weight[4][1] = 1e38;
        weight[1] = vec![2e38; vocabulary];
        Self::with_large_logits(weight)
    }

    /// A model whose logits overflow after every token. Its weights are finite.
    pub(crate) fn overflowing(vocabulary: usize) -> Self {
        Self::with_large_logits(vec![vec![2e38; vocabulary]; vocabulary])
    }

    fn with_large_logits(weight: Vec<Vec<f32>>) -> Self {
        let vocabulary = weight.len();
        let bias = Tensor::full(2e38f32, vocabulary, &Device::Cpu).unwrap();
        let weight = Tensor::new(weight, &Device::Cpu).unwrap();
        Self { weight, bias, ..Self::new(vocabulary, 1) }
    }

    /// A model with a weight of NaN.
    pub(crate) fn with_a_nan(vocabulary: usize) -> Self {
        let mut bias = vec![0f32; vocabulary];
        bias[vocabulary - 1] = f32::NAN;
        let bias = Tensor::from_vec(bias, vocabulary, &Device::Cpu).unwrap();
        Self { bias, ..Self::new(vocabulary, 1) }
    }

    /// A model that often follows the format and has no preference between the answers.
    pub(crate) fn thinking(vocabulary: usize) -> Self {
        let mut weight = vec![vec![0f32; vocabulary]; vocabulary];
        for (previous, token) in [(4, 1), (1, 2), (1, 3), (2, 0), (3, 0)] {
            weight[previous][token] = 2.0;
        }
        Self { weight: Tensor::new(weight, &Device::Cpu).unwrap(), ..Self::new(vocabulary, 1) }
    }

    /// A model that generates `tokens` after the question mark, then repeats the last one.
    pub(crate) fn saying(vocabulary: usize, tokens: &[u32]) -> Self {
        let mut weight = vec![vec![0f32; vocabulary]; vocabulary];
        let mut previous = 4;
        for &token in tokens {
            weight[previous as usize][token as usize] = 9.0;
            previous = token;
        }
        Self { weight: Tensor::new(weight, &Device::Cpu).unwrap(), ..Self::new(vocabulary, 1) }
    }

    /// A model that never generates the stop token.
    pub(crate) fn endless(vocabulary: usize) -> Self {
        let mut bias = vec![0f32; vocabulary];
        bias[0] = -1e6;
        let bias = Tensor::from_vec(bias, vocabulary, &Device::Cpu).unwrap();
        Self { bias, ..Self::new(vocabulary, 1) }
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        let mut all = self.weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        all.extend(self.bias.to_vec1::<f32>().unwrap());
        all
    }

    /// Log-probabilities of all tokens after `previous`.
    fn distribution(
        &self,
        weight: &[Vec<f32>],
        bias: &[f32],
        previous: u32,
        temperature: f64,
    ) -> Vec<f64> {
        let row = &weight[previous as usize];
        let logits: Vec<f64> =
            row.iter().zip(bias).map(|(w, b)| f64::from(w + b) / temperature).collect();
        let top = logits.iter().copied().fold(f64::MIN, f64::max);
        let total = top + logits.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
        logits.into_iter().map(|x| x - total).collect()
    }

    /// Calls `each` with (previous, token, log-probabilities) for every completion token.
    fn walk(&self, groups: &[Group], temperature: f64, mut each: impl FnMut(u32, u32, &[f64])) {
        let (weight, bias) = (self.weight.to_vec2().unwrap(), self.bias.to_vec1().unwrap());
        for group in groups {
            for completion in &group.completions {
                std::thread::sleep(self.scoring);
                if let Some(on_layer) = &self.on_layer {
                    on_layer();
                }
                let mut previous = *group.prompt.ids().last().unwrap();
                for &token in completion {
                    let logps = self.distribution(&weight, &bias, previous, temperature);
                    each(previous, token, &logps);
                    previous = token;
                }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct BigramGradients(HashMap<String, Tensor>);

impl NamedGradients for BigramGradients {
    fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    fn norm(&self) -> Result<f64> {
        let mut squares = 0.0;
        for name in [WEIGHT, BIAS] {
            let values = self.0[name].flatten_all()?.to_vec1::<f32>()?;
            squares += values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        }
        Ok(squares.sqrt())
    }
}

impl Model for Bigram {
    type Gradients = BigramGradients;
    type ActivationCache = ();

    fn zero_gradients(&self) -> Result<Self::Gradients> {
        let zeros = [(WEIGHT, &self.weight), (BIAS, &self.bias)]
            .map(|(name, tensor)| (name.to_owned(), tensor.zeros_like().unwrap()));
        Ok(BigramGradients(zeros.into()))
    }

    fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores> {
        let mut scores = TokenScores { logps: Vec::new(), entropies: Vec::new() };
        self.walk(groups, temperature, |_, token, logps| {
            scores.logps.push(logps[token as usize] as f32);
            scores.entropies.push(-logps.iter().map(|p| p.exp() * p).sum::<f64>() as f32);
        });
        Ok(scores)
    }

    fn backward(
        &self,
        groups: &[Group],
        &TrainingPass { temperature, .. }: &TrainingPass<'_, ()>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(&TokenScores) -> Result<Vec<f32>>,
        on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        let derivative = derivative(&self.score(groups, temperature)?)?;
        let mut weight = gradients.0[WEIGHT].to_vec2::<f32>()?;
        let mut bias = gradients.0[BIAS].to_vec1::<f32>()?;
        let mut derivative = derivative.into_iter();
        self.walk(groups, temperature, |previous, token, logps| {
            let d = f64::from(derivative.next().unwrap()) / temperature;
            for (other, logp) in logps.iter().enumerate() {
                let hit = f64::from(u8::from(other == token as usize));
                let gradient = (d * (hit - logp.exp())) as f32;
                weight[previous as usize][other] += gradient;
                bias[other] += gradient;
            }
        });
        // The bias comes after the weight, and is final first.
        update(&gradients.0[BIAS], "toy", |values| values.copy_from_slice(&bias))?;
        on_final(self.weight.elem_count());
        let weight = weight.concat();
        update(&gradients.0[WEIGHT], "toy", |values| values.copy_from_slice(&weight))?;
        on_final(0);
        Ok(())
    }

    fn with_layer_hook(self, on_layer: LayerHook) -> Self {
        Self { on_layer: Some(on_layer), ..self }
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn activation_cache(&self, _: ActivationCacheOptions) {}

    fn generate(
        &self,
        requests: &[GenerationRequest],
        sampling: &SamplingParams,
        _: GenerateOptions<()>,
        on_step: &dyn Fn(),
    ) -> Result<(Samples, Option<()>)> {
        let (weight, bias) = (self.weight.to_vec2().unwrap(), self.bias.to_vec1().unwrap());
        let temperature = if sampling.temperature > 0.0 { sampling.temperature } else { 1.0 };
        let draw = |request: &GenerationRequest, sample: usize| {
            let mut ids: Vec<u32> = Vec::new();
            let mut sampled = Vec::new();
            let sample = (request.first_sample + sample) as u64;
            while ids.len() < sampling.max_new_tokens {
                std::thread::sleep(self.pause);
                on_step();
                let previous = *ids.last().or(request.prompt.ids().last()).unwrap();
                let logps = self.distribution(&weight, &bias, previous, temperature);
                let random = stream(&[request.stream, sample, ids.len() as u64]);
                let id = match sampling.temperature > 0.0 {
                    true => pick(&logps, (random >> 11) as f64 / (1u64 << 53) as f64),
                    false => argmax(&logps),
                };
                ids.push(id);
                sampled.push(logps[id as usize] as f32);
                if sampling.stop_ids.contains(&id) {
                    return CompletionOutput {
                        ids,
                        logps: sampled,
                        finish_reason: FinishReason::Stop,
                    };
                }
            }
            CompletionOutput { ids, logps: sampled, finish_reason: FinishReason::Length }
        };
        let group =
            |request: &GenerationRequest| (0..request.samples).map(|s| draw(request, s)).collect();
        Ok((requests.iter().map(group).collect(), None))
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        vec![(WEIGHT.into(), self.weight.clone()), (BIAS.into(), self.bias.clone())]
    }

    fn frozen_copy(&self) -> Result<Self> {
        let Self { pause, scoring, ref on_layer, .. } = *self;
        let (weight, bias) = (self.weight.copy()?, self.bias.copy()?);
        Ok(Self { weight, bias, pause, scoring, on_layer: on_layer.clone(), ..Self::new(1, 0) })
    }

    fn load_frozen(&self, dir: &Path) -> Result<Self> {
        Self::read(dir)
    }

    fn save(&self, dir: &Path, share: WriterRank) -> Result<()> {
        if self.disk_is_full {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(Error::io("write", dir)(full));
        }
        let tensors = self.parameters();
        let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        Ok(weights::save_sharded(dir, tensors, &SaveOptions::default(), share)?)
    }

    fn load(dir: &Path, _: &LoadOptions<'_>) -> Result<Self> {
        Self::read(dir)
    }
}

impl Bigram {
    /// The model that was saved in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let mut tensors = HashMap::new();
        for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
            let path = entry.map_err(Error::io("read", dir))?.path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("model") && name.ends_with(".safetensors") {
                tensors.extend(candle_core::safetensors::load(path, &Device::Cpu)?);
            }
        }
        let mut take = |name: &str| {
            let missing = || Error::Model { what: format!("lacks `{name}`") };
            tensors.remove(name).ok_or_else(missing)
        };
        Ok(Self { weight: take(WEIGHT)?, bias: take(BIAS)?, ..Self::new(1, 0) })
    }
}

fn pick(logps: &[f64], random: f64) -> u32 {
    let mut left = random;
    for (token, logp) in logps.iter().enumerate() {
        left -= logp.exp();
        if left < 0.0 {
            return token as u32;
        }
    }
    logps.len() as u32 - 1
}

fn argmax(logps: &[f64]) -> u32 {
    let best = logps.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as u32)
}

/// Words as tokens; the first is the stop token.
#[derive(Debug)]
pub(crate) struct Words(pub(crate) Vec<&'static str>);

impl Words {
    /// The toy's vocabulary: tags as single tokens, letters, and a filler.
    pub(crate) fn new() -> Self {
        Self(vec![
            "<end>",
            "<think>t</think>",
            "<answer>A</answer>",
            "<answer>B</answer>",
            "?",
            "x",
        ])
    }
}

impl ChatTokenizer for Words {
    fn apply_chat_template(
        &self,
        messages: &[ChatMessage],
        generation: GenerationPrompt,
    ) -> Result<RenderedChat> {
        let mut text = String::new();
        for message in messages.iter().filter(|message| message.role != "system") {
            text.push_str(&format!("{} ", message.content.trim()));
            if message.role == "assistant" {
                text.push_str("<end> ");
            }
        }
        if generation == GenerationPrompt::Append {
            text.push_str("? ");
        } else if let Some(last) = messages.last().filter(|last| last.role == "assistant") {
            let tail = format!("{} <end> ", last.content.trim());
            text.truncate(text.len() - tail.len());
            text.push_str(&format!("? {tail}"));
        }
        Ok(text.into())
    }

    fn apply_multimodal_template(
        &self,
        messages: &[MultimodalMessage],
        generation: GenerationPrompt,
    ) -> Result<RenderedChat> {
        let text = |part: &MultimodalPart| match part {
            MultimodalPart::Text { text } => text.clone(),
            MultimodalPart::Image | MultimodalPart::Video => String::new(),
        };
        let plain = |message: &MultimodalMessage| ChatMessage {
            role: message.role.clone(),
            content: message.content.iter().map(text).collect(),
        };
        self.apply_chat_template(&messages.iter().map(plain).collect::<Vec<_>>(), generation)
    }

    fn plain(&self, text: &str) -> RenderedChat {
        text.to_owned().into()
    }

    fn encode(&self, chat: &RenderedChat) -> Result<Vec<u32>> {
        let unknown = self.0.len() as u32 - 1;
        let id = |word| self.0.iter().position(|known| *known == word);
        let words = chat.text().split_whitespace();
        Ok(words.map(|word| id(word).map_or(unknown, |i| i as u32)).collect())
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(ids.iter().map(|id| self.0[*id as usize]).collect())
    }

    fn stop_ids(&self) -> &[u32] {
        &[0]
    }

    fn save(&self, dir: &Path) -> Result<()> {
        std::fs::write(dir.join("words.txt"), self.0.join("\n"))
            .map_err(Error::io("write", dir.join("words.txt")))
    }
}
