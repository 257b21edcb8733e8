//! The workload that memory and time estimates depend on.

use embodied_r_policy::trainable::{ParameterCounts, Trainable};
use embodied_r_policy::{EngineOptions, Precision};
use embodied_r_rewards::RewardSchedule as Stages;

use super::layout::{MemoryLayout, Placement, SamplerWeights};
use super::vision::VisionLoad;
use crate::rewards::scoring::needs_judge;
use crate::rollout::partition::{GroupPart, partition, whole};
use crate::settings::{GrpoSettings, JudgeKind, Optim, SftSettings};
use crate::update::packing::{GroupLengths, completion_budget};
use crate::update::supervised::Example;

/// The workload of a step on one rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    /// Parameters of the model.
    pub parameters: usize,
    /// Trainable parameters.
    pub trainable: usize,
    /// Parameters of the frozen reference that are not shared with the policy.
    pub reference: usize,
    /// The optimizer.
    pub optim: Optim,
    /// Prompts per step.
    pub prompts: usize,
    /// Maximum prompt length in tokens.
    pub prompt: usize,
    /// Completions per prompt.
    pub completions: usize,
    /// Maximum completion length in tokens.
    pub completion: usize,
    /// Token budget of a micro-batch.
    pub budget: usize,
    /// Matmul precision of the rollout; `None` without one.
    pub rollout: Option<Precision>,
    /// Whether the update reuses the rollout's activations.
    pub activation_cache: ActivationCachePolicy,
    /// Iterations over each batch of completions; the first uses the activation cache.
    pub iterations: usize,
    /// Mini-batches of each iteration, with an optimizer step each.
    pub mini_batches: usize,
    /// Whether groups are split over ranks where that balances better, as `train` does.
    pub split_groups: bool,
    /// The vision encoder and its images, if the model sees.
    pub vision: Option<VisionLoad>,
    /// Number formats and sharding; prompts and completions are those of one rank.
    pub layout: MemoryLayout,
}

/// Whether the update reuses the rollout's activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationCachePolicy {
    /// Never: the update computes something else, or there is no rollout.
    Never,
    /// As memory allows.
    Auto,
    /// For this number of layers, as fixed when the run started; `None` disables the cache.
    Fixed(Option<usize>),
}

impl Workload {
    /// A run with these parameter counts, without prompts, on one CPU.
    pub fn new(counts: ParameterCounts, optim: Optim) -> Self {
        Self {
            parameters: counts.total,
            trainable: counts.trainable,
            reference: 0,
            optim,
            prompts: 0,
            prompt: 0,
            completions: 0,
            completion: 0,
            budget: 0,
            rollout: None,
            activation_cache: ActivationCachePolicy::Never,
            iterations: 1,
            mini_batches: 1,
            split_groups: true,
            vision: None,
            layout: MemoryLayout::CPU,
        }
    }

    /// A GRPO run with prompts of at most `prompt` tokens, on one CPU.
    pub fn for_training(
        settings: &GrpoSettings,
        stages: &Stages,
        counts: ParameterCounts,
        prompt: usize,
        activation_cache: ActivationCachePolicy,
    ) -> Self {
        let judges = settings.judge.judge == JudgeKind::Reference && needs_judge(settings, stages);
        let needs_copy = settings.loss.beta > 0.0 || judges;
        Self {
            reference: match settings.trainable() {
                Trainable::Lora(_) => 0,
                _ if needs_copy => counts.trainable,
                _ => 0,
            },
            prompts: settings.rollout.questions_per_step(),
            prompt,
            completions: settings.rollout.num_generations,
            completion: settings.loss.max_completion_length,
            budget: settings.run.max_tokens_per_batch,
            rollout: Some(settings.rollout_precision()),
            activation_cache,
            iterations: settings.rollout.num_iterations,
            mini_batches: settings.rollout.num_mini_batches,
            ..Self::new(counts, settings.optimizer.optim)
        }
    }

    /// A supervised run over `examples`, on one CPU.
    pub fn for_sft(settings: &SftSettings, counts: ParameterCounts, examples: &[Example]) -> Self {
        let longest = |part: fn(&Example) -> usize| examples.iter().map(part).max().unwrap_or(0);
        Self {
            prompts: settings.supervised.train_batch_size,
            prompt: longest(|example| example.prompt.len()),
            completions: 1,
            completion: longest(|example| example.completion.len()),
            budget: settings.run.max_tokens_per_batch,
            ..Self::new(counts, settings.optimizer.optim)
        }
    }

    /// The model's parameters and the trainable ones, with those of a vision encoder of which something is trained.
    #[must_use]
    pub fn counts(&self) -> ParameterCounts {
        let vision = self.vision.filter(|vision| vision.trainable > 0);
        let (trainable, total) = vision.map_or((0, 0), |it| (it.trainable, it.parameters));
        ParameterCounts { trainable: self.trainable + trainable, total: self.parameters + total }
    }

    /// The parts of the groups, all of maximum length, on `ranks` ranks.
    pub fn parts(&self, ranks: usize) -> Vec<GroupPart> {
        let completions = vec![self.completion; self.completions];
        let groups = vec![GroupLengths { prompt: self.prompt, completions }; self.prompts];
        match self.split_groups {
            true => partition(&groups, ranks),
            false => whole(&groups, ranks),
        }
    }

    /// The share of the busiest of `ranks` ranks. Parts of groups count as equally long ones, rounded up.
    fn of_busiest(self, ranks: usize) -> Self {
        let parts = self.parts(ranks);
        let share = |rank: usize| {
            let own = parts.iter().filter(|part| part.rank == rank);
            let prompts = own.clone().count();
            (prompts, own.map(|part| part.completions.len()).sum::<usize>())
        };
        let tokens = |(prompts, completions): &(usize, usize)| {
            (prompts * self.prompt + completions * self.completion, *completions)
        };
        let (prompts, completions) = (0..ranks).map(share).max_by_key(tokens).unwrap_or_default();
        Self { prompts, completions: completions.div_ceil(prompts.max(1)), ..self }
    }

    /// The workload of the busiest rank of a run that computes in `precision`.
    pub fn on(self, placement: Placement, precision: Precision) -> Self {
        let layout = MemoryLayout::new(placement, precision);
        Self { layout, ..self.of_busiest(placement.ranks()) }
    }

    /// Completions that the rollout samples at once, at most.
    pub(super) fn concurrent_sequences(&self) -> usize {
        (self.prompts * self.completions).min(EngineOptions::default().max_num_seqs)
    }

    /// Optimizer steps per step.
    pub(crate) fn optimizer_steps(&self) -> usize {
        self.iterations * self.mini_batches
    }

    /// Moments per trainable parameter.
    pub(crate) fn moments(&self) -> usize {
        match self.optim {
            Optim::Adamw => 2,
            // Ignoring embedding and LM head, which AdamW updates.
            Optim::Muon => 1,
        }
    }

    /// Bytes of the moments on one rank.
    pub(super) fn moment_bytes(&self) -> usize {
        self.state_bytes(self.trainable, self.moments() * size_of::<f32>())
    }

    /// Bytes of the master weights on one rank.
    pub(super) fn master_bytes(&self) -> usize {
        self.state_bytes(self.trainable, self.layout.master)
    }

    /// Bytes of the moments and master weights of `trainable` parameters on one rank.
    pub(super) fn optimizer_bytes(&self, trainable: usize) -> usize {
        self.state_bytes(trainable, self.moments() * size_of::<f32>() + self.layout.master)
    }

    /// Trainable parameters, those of the vision encoder included.
    pub(crate) fn all_trainable(&self) -> usize {
        self.trainable + self.vision.map_or(0, |vision| vision.trainable)
    }

    /// Bytes of optimizer state of `trainable` parameters on one rank, given the bytes of each: AdamW's is sharded.
    fn state_bytes(&self, trainable: usize, bytes: usize) -> usize {
        let all = trainable * bytes;
        match self.optim {
            Optim::Adamw => self.layout.shard(all),
            Optim::Muon => all,
        }
    }

    /// Completion tokens per prompt that go through the model: all but the last of each.
    fn completion_tokens(&self) -> usize {
        self.completions * self.completion.saturating_sub(1)
    }

    /// Tokens per step that go through the model.
    pub fn tokens(&self) -> usize {
        self.prompts * (self.prompt + self.completion_tokens())
    }

    /// Tokens of the largest micro-batch.
    pub fn micro_batch_tokens(&self) -> usize {
        // A prompt over the budget comes on top of its completion tokens.
        let completion_tokens = completion_budget(self.prompt, self.budget)
            .max(self.completion)
            .min(self.completion_tokens());
        let tokens = self.prompt + completion_tokens;
        self.tokens().min(self.budget.max(tokens))
    }

    /// Bytes of the sampler's copy of the weights.
    pub(super) fn sampler_bytes(&self) -> usize {
        match self.rollout {
            _ if self.layout.sampler_weights == SamplerWeights::Shared => 0,
            Some(Precision::Bf16) => self.parameters * 2,
            Some(Precision::F32) if self.trainable == self.parameters => {
                self.parameters * size_of::<f32>()
            }
            // Shared weights, of which only a part is trained, or no rollout.
            Some(Precision::F32) | None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(prompts: usize) -> Workload {
        let counts = ParameterCounts { trainable: 10, total: 10 };
        Workload { prompts, completions: 8, ..Workload::new(counts, Optim::Adamw) }
    }

    fn per_rank(prompts: usize, ranks: usize) -> (usize, usize) {
        let workload = workload(prompts).on(Placement::Gpus(ranks), Precision::Bf16);
        (workload.prompts, workload.completions)
    }

    #[test]
    fn groups_stay_whole_where_their_number_divides() {
        assert_eq!(
            [per_rank(4, 1), per_rank(4, 2), per_rank(4, 4), per_rank(64, 8)],
            [(4, 8), (2, 8), (1, 8), (8, 8)]
        );
    }

    #[test]
    fn an_odd_group_is_split_unless_groups_stay_whole() {
        // 20 of 40 completions, of three groups.
        assert_eq!(per_rank(5, 2), (3, 7));
        let whole = Workload { split_groups: false, ..workload(5) };
        let share = |ranks| {
            let workload = whole.on(Placement::Cpu(ranks), Precision::F32);
            (workload.prompts, workload.completions)
        };
        assert_eq!([share(2), share(8)], [(3, 8), (1, 8)]);
    }

    #[test]
    fn with_more_ranks_than_questions_a_group_is_split() {
        assert_eq!([per_rank(4, 8), per_rank(4, 32), per_rank(4, 1024)], [(1, 4), (1, 1), (1, 1)]);
    }

    #[test]
    fn ranks_shard_the_state_of_adamw() {
        let rank = |ranks: usize, optim: Optim| {
            Workload { optim, ..workload(5) }.on(Placement::Cpu(ranks), Precision::F32)
        };
        let of =
            |workload: Workload| (workload.prompts, workload.completions, workload.moment_bytes());
        assert_eq!(of(rank(1, Optim::Adamw)), (5, 8, 80));
        assert_eq!(of(rank(2, Optim::Adamw)), (3, 7, 40));
        assert_eq!(of(rank(8, Optim::Adamw)), (2, 3, 10));
        assert_eq!(of(rank(8, Optim::Muon)), (2, 3, 40));
        assert_eq!(rank(1, Optim::Adamw).layout, MemoryLayout::CPU);
        let on_gpus =
            |optim| Workload { layout: MemoryLayout::gpu(4), ..rank(4, optim) }.master_bytes();
        assert_eq!((on_gpus(Optim::Adamw), on_gpus(Optim::Muon)), (10, 40));
    }

    #[test]
    fn a_reference_is_loaded_for_kl_or_the_judge_and_never_with_an_adapter() {
        let counts = ParameterCounts { trainable: 10, total: 20 };
        let stages = Stages::default();
        let reference = |change: fn(&mut GrpoSettings)| {
            let mut settings = GrpoSettings::default();
            change(&mut settings);
            Workload::for_training(&settings, &stages, counts, 1, ActivationCachePolicy::Never)
                .reference
        };
        assert_eq!(reference(|_| {}), 10);
        assert_eq!(reference(|train| train.loss.beta = 0.0), 10, "the stages need the judge");
        assert_eq!(
            reference(|train| {
                train.loss.beta = 0.0;
                train.judge.judge = JudgeKind::Http;
            }),
            0
        );
        assert_eq!(reference(|train| train.trainable.use_peft = true), 0);
    }
}
