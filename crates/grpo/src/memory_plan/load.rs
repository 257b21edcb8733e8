//! What a run's memory and time follow from.

use embodied_r_policy::Precision;
use embodied_r_policy::trainable::{Counts, Trainable};
use embodied_r_rewards::Schedule as Stages;

use super::layout::{Layout, SamplerWeights};
use crate::batches::room_behind;
use crate::optimizer::Optim;
use crate::scoring::needs_judge;
use crate::settings::{JudgeKind, Train};

/// What the memory of a step follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Numbers in the model.
    pub parameters: usize,
    /// Numbers that are trained.
    pub trainable: usize,
    /// Numbers of the frozen reference that it does not share with the policy.
    pub reference: usize,
    /// Which optimiser remembers what.
    pub optim: Optim,
    /// Prompts of a step.
    pub prompts: usize,
    /// Tokens of the longest prompt.
    pub prompt: usize,
    /// Completions of each prompt.
    pub completions: usize,
    /// Tokens of the longest completion.
    pub completion: usize,
    /// Tokens of a micro-batch.
    pub budget: usize,
    /// What products with weights are made of where completions are drawn; `None` where none are.
    pub rollout: Option<Precision>,
    /// Whether the update takes over what its rollout has computed.
    pub taping: Taping,
    /// Passes of the update over what was drawn; the tape serves the first.
    pub iterations: usize,
    /// What the numbers are held as, and over how many ranks; prompts and completions are those of one rank.
    pub layout: Layout,
}

/// Whether an update takes over what its rollout has computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taping {
    /// It would compute something else, or there is no rollout.
    Never,
    /// As memory allows.
    Open,
    /// As the run has begun: with so many layers, or not at all.
    Settled(Option<usize>),
}

impl Load {
    /// A run that trains as many numbers as `counts` says, without prompts, on one CPU.
    pub fn new(counts: Counts, optim: Optim) -> Self {
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
            taping: Taping::Never,
            iterations: 1,
            layout: Layout::CPU,
        }
    }

    /// A GRPO run with prompts of at most `prompt` tokens, on one CPU.
    pub fn of_train(
        settings: &Train,
        stages: &Stages,
        counts: Counts,
        prompt: usize,
        taping: Taping,
    ) -> Self {
        let judges = settings.judge == JudgeKind::Reference && needs_judge(stages);
        let of_its_own = settings.beta > 0.0 || judges;
        Self {
            reference: match settings.trainable() {
                Trainable::Lora(_) => 0,
                _ if of_its_own => counts.trainable,
                _ => 0,
            },
            prompts: settings.questions_per_step(),
            prompt,
            completions: settings.num_generations,
            completion: settings.max_completion_length,
            budget: settings.max_tokens_per_batch,
            rollout: Some(settings.rollout_precision()),
            taping,
            iterations: settings.num_iterations,
            ..Self::new(counts, settings.optim)
        }
    }

    /// The load of the rank that has most of it, of `ranks` on CPUs: whole groups.
    pub fn on_ranks(self, ranks: usize) -> Self {
        let prompts = self.prompts.div_ceil(ranks.max(1));
        Self { prompts, layout: Layout::cpu(ranks.max(1)), ..self }
    }

    /// Numbers that the optimiser remembers for each that is trained.
    pub(crate) fn moments(&self) -> usize {
        match self.optim {
            Optim::Adamw => 2,
            // But for the embedding and the head.
            Optim::Muon => 1,
        }
    }

    /// Bytes of them on a rank.
    pub(super) fn moment_bytes(&self) -> usize {
        self.remembered(self.moments() * size_of::<f32>())
    }

    /// Bytes of the masters on a rank.
    pub(super) fn master_bytes(&self) -> usize {
        self.remembered(self.layout.master)
    }

    /// Bytes on a rank of what is remembered of each number that is trained: AdamW's is shared out.
    fn remembered(&self, bytes: usize) -> usize {
        let all = self.trainable * bytes;
        match self.optim {
            Optim::Adamw => self.layout.share(all),
            Optim::Muon => all,
        }
    }

    /// The load of the rank that has most of it, of `ranks` GPUs: whole groups while there are enough of them, else a
    /// prompt with a part of its completions.
    pub fn on_gpus(self, ranks: usize) -> Self {
        let ranks = ranks.max(1);
        let (prompts, completions) = match self.prompts >= ranks {
            true => (self.prompts.div_ceil(ranks), self.completions),
            false => (self.prompts.min(1), (self.prompts * self.completions).div_ceil(ranks)),
        };
        let layout = Layout { ranks, ..Layout::gpu(ranks) };
        let rollout = self.rollout.map(|_| Precision::Bf16);
        Self { prompts, completions, layout, rollout, taping: Taping::Never, ..self }
    }

    /// Tokens of a prompt's completions that a step computes: all but the last of each.
    fn own(&self) -> usize {
        self.completions * self.completion.saturating_sub(1)
    }

    /// Tokens that a step computes.
    pub fn tokens(&self) -> usize {
        self.prompts * (self.prompt + self.own())
    }

    /// Tokens of the largest micro-batch.
    pub fn tokens_together(&self) -> usize {
        // A prompt that is too long for the budget is there beside what goes behind it.
        let behind = room_behind(self.prompt, self.budget).max(self.completion).min(self.own());
        let cut = self.prompt + behind;
        self.tokens().min(self.budget.max(cut))
    }

    /// Bytes of the sampler's own copy of the weights.
    pub(super) fn sampler_bytes(&self) -> usize {
        match self.rollout {
            _ if self.layout.sampler == SamplerWeights::Shared => 0,
            Some(Precision::Bf16) => self.parameters * 2,
            Some(Precision::F32) if self.trainable == self.parameters => {
                self.parameters * size_of::<f32>()
            }
            // The weights themselves, of which but a part is trained, or no sampling at all.
            Some(Precision::F32) | None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(prompts: usize) -> Load {
        let counts = Counts { trainable: 10, total: 10 };
        Load { prompts, completions: 8, ..Load::new(counts, Optim::Adamw) }
    }

    fn dealt(prompts: usize, ranks: usize) -> (usize, usize) {
        let load = load(prompts).on_gpus(ranks);
        (load.prompts, load.completions)
    }

    #[test]
    fn groups_stay_whole_while_there_are_as_many_as_ranks() {
        assert_eq!(
            [dealt(4, 1), dealt(4, 2), dealt(5, 2), dealt(4, 4)],
            [(4, 8), (2, 8), (3, 8), (1, 8)]
        );
    }

    #[test]
    fn with_more_ranks_than_questions_a_group_is_split() {
        assert_eq!([dealt(4, 8), dealt(4, 32), dealt(4, 1024)], [(1, 4), (1, 1), (1, 1)]);
    }

    #[test]
    fn ranks_take_whole_groups_and_share_out_what_adamw_remembers() {
        let rank = |ranks: usize, optim: Optim| Load { optim, ..load(5) }.on_ranks(ranks);
        let of = |load: Load| (load.prompts, load.completions, load.moment_bytes());
        assert_eq!(of(rank(1, Optim::Adamw)), (5, 8, 80));
        assert_eq!(of(rank(2, Optim::Adamw)), (3, 8, 40));
        assert_eq!(of(rank(8, Optim::Adamw)), (1, 8, 10));
        assert_eq!(of(rank(8, Optim::Muon)), (1, 8, 40));
        assert_eq!(rank(1, Optim::Adamw).layout, Layout::CPU);
        let on_gpus = |optim| Load { layout: Layout::gpu(4), ..rank(4, optim) }.master_bytes();
        assert_eq!((on_gpus(Optim::Adamw), on_gpus(Optim::Muon)), (10, 40));
    }

    #[test]
    fn a_reference_is_there_for_the_divergence_or_the_judge_and_never_beside_an_adapter() {
        let counts = Counts { trainable: 10, total: 20 };
        let stages = Stages::default();
        let reference = |change: fn(&mut Train)| {
            let mut settings = Train::default();
            change(&mut settings);
            Load::of_train(&settings, &stages, counts, 1, Taping::Never).reference
        };
        assert_eq!(reference(|_| {}), 10);
        assert_eq!(reference(|train| train.beta = 0.0), 10, "the stages ask the judge");
        assert_eq!(
            reference(|train| {
                train.beta = 0.0;
                train.judge = JudgeKind::Http;
            }),
            0
        );
        assert_eq!(reference(|train| train.use_peft = true), 0);
    }
}
