//! `--dry-run`: batch arithmetic, stages and memory of a run.

mod stages;

use std::fmt::Write as _;

use embodied_r_grpo::Result;
use embodied_r_grpo::estimate::memory_plan::{MemoryPlan, Workload};
use embodied_r_grpo::rewards::scoring::needs_judge;
use embodied_r_grpo::rollout::partition::completions_per_rank;
use embodied_r_grpo::settings::{GrpoSettings, JudgeKind};
use embodied_r_grpo::trainer::grpo::GrpoData;

use super::memory::{StepShare, memory_summary, share_line};
use stages::{lines, reward_lines};

/// What a dry run reports.
pub(super) struct DryRun<'a> {
    pub(super) settings: &'a GrpoSettings,
    pub(super) data: &'a GrpoData,
    pub(super) load: &'a Workload,
    pub(super) memory: &'a MemoryPlan,
    pub(super) ranks: usize,
}

impl DryRun<'_> {
    /// The plan of the run as text.
    ///
    /// # Errors
    /// A reward's program does not exist or its URL is invalid.
    pub(super) fn text(&self) -> Result<String> {
        let Self { settings, data, load, memory, ranks } = *self;
        let (stages, plan, eval) = (data.stages(), data.plan(), data.eval());
        let (given, left) = (data.questions().given(), data.questions().questions.len());
        let (completions, each) =
            (settings.rollout.generation_batch_size, settings.rollout.num_generations);
        let needed = settings.rollout.questions_per_step();
        let per_epoch = plan.steps_per_epoch;
        let iterations = settings.rollout.optimizer_steps() as u64;
        let lr = settings.lr.schedule(plan.total_steps * iterations);

        let mut out = String::new();
        let mut line = |name: &str, what: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name:<12} {what}");
        };
        line("model", settings.run.model.clone());
        line("trainable", load.counts().to_string());
        line("questions", format!("{given} in total, {} too long, {left} used", given - left));
        if eval.given() > 0 {
            line(
                "evaluation",
                format!(
                    "{} of {} questions every {} steps, before the first and after the last step",
                    eval.questions.len(),
                    eval.given(),
                    settings.evaluation.eval_steps
                ),
            );
        }
        line(
            "step",
            format!("{completions} completions = {needed} questions x {each} completions"),
        );
        line(
            "epoch",
            format!(
                "{per_epoch} steps = {left} questions / {needed}, {} dropped",
                left as u64 - per_epoch * needed as u64
            ),
        );
        line(
            "run",
            format!(
                "{} steps x {iterations} optimizer step{}, {} completions of at most {} tokens",
                plan.total_steps,
                if iterations == 1 { "" } else { "s" },
                plan.total_steps * completions as u64,
                settings.loss.max_completion_length
            ),
        );
        line(
            "warmup",
            format!("{} steps to {:e}, then {}", lr.warmup_steps, lr.peak, lr.kind.decay()),
        );
        let budget = settings.run.max_tokens_per_batch;
        line(
            "micro-batch",
            format!(
                "at most {budget} tokens, shared prompts counted once; for a prompt over {} tokens, twice its length",
                budget / 2
            ),
        );
        let most = completions_per_rank(&load.parts(ranks), ranks).into_iter().max().unwrap_or(0);
        let share = StepShare { most, of: completions, items: "completions" };
        let share = share_line(ranks, share, settings.optimizer.optim);
        if let Some((name, what)) = share {
            line(name, what);
        }
        line("memory", memory_summary(memory, ranks));
        line("reference", reference(settings, needs_judge(settings, stages)));
        for (name, what) in lines(plan) {
            line(&name, what);
        }
        for (name, what) in reward_lines(settings)? {
            line(name, what);
        }
        let for_good = settings.run.keep_every_epochs;
        let for_good = for_good.map(|epochs| format!(" and one every {epochs} epochs"));
        line(
            "checkpoints",
            format!(
                "every {} steps, keeps the last {}{}, in {}",
                settings.evaluation.save_steps,
                settings.run.save_total_limit,
                for_good.unwrap_or_default(),
                settings.run.output.display()
            ),
        );
        Ok(out)
    }
}

fn reference(settings: &GrpoSettings, consistency: bool) -> String {
    let kl = settings.loss.beta > 0.0;
    let judge = consistency && settings.judge.judge == JudgeKind::Reference;
    match (kl, judge) {
        (true, true) => format!("for the KL term (beta {}) and as the judge", settings.loss.beta),
        (true, false) => format!("for the KL term (beta {})", settings.loss.beta),
        (false, true) => "as the judge".to_owned(),
        (false, false) => "not loaded".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_data::Question;
    use embodied_r_grpo::data::questions::{Prompts, TokenizedQuestion};
    use embodied_r_grpo::estimate::memory_plan::{ActivationCachePolicy, VisionMemory};
    use embodied_r_policy::Prompt;
    use embodied_r_policy::trainable::ParameterCounts;

    use super::*;

    const COUNTS: ParameterCounts = ParameterCounts { trainable: 1500, total: 6000 };

    const MEMORY: MemoryPlan = MemoryPlan {
        base: 96 << 20,
        masters: 0,
        weights: 12_000_000_000,
        reference: 0,
        gradients: 6_000_000_000,
        moments: 0,
        rollout: 1_000_000_000,
        kv_cache: 0,
        sampler_weights: 0,
        cached_activations: 0,
        activation_cache: None,
        update: 2_500_000_000,
        saved_activations: 800_000_000,
        vision: VisionMemory::NONE,
        saved_layers: 1,
        tower_activations: 0,
        staging: 0,
    };

    fn text(settings: &GrpoSettings, given: usize, left: usize) -> Result<String> {
        let question = TokenizedQuestion {
            question: Question { answer: "A".into(), ..Question::default() },
            prompt: Prompt::default(),
            images: Vec::new(),
        };
        let questions = Prompts { questions: vec![question; left], too_long: given - left };
        let eval = Prompts { questions: Vec::new(), too_long: 0 };
        let data = GrpoData::new(settings, questions, eval)?;
        let never = ActivationCachePolicy::Never;
        let load = Workload::for_training(settings, data.stages(), COUNTS, 0, never);
        DryRun { settings, data: &data, load: &load, memory: &MEMORY, ranks: 1 }.text()
    }

    #[test]
    fn the_papers_run_over_its_training_set() {
        let settings = GrpoSettings::default().with(|s| {
            s.run.model = "Qwen/Qwen2.5-VL-3B-Instruct".into();
            s.run.output = "run".into();
        });
        assert_eq!(
            text(&settings, 4100, 4098).unwrap(),
            "\
model        Qwen/Qwen2.5-VL-3B-Instruct
trainable    1500 of 6000 parameters (25.00 %)
questions    4100 in total, 2 too long, 4098 used
step         32 completions = 4 questions x 8 completions
epoch        1024 steps = 4098 questions / 4, 2 dropped
run          12288 steps x 1 optimizer step, 393216 completions of at most 2048 tokens
warmup       615 steps to 5e-7, then cosine
micro-batch  at most 2048 tokens, shared prompts counted once; for a prompt over 1024 tokens, twice its length
memory       about 20.60 GB: weights 12.00 + rollout 1.00 + gradients 6.00 + update 2.50 (of the rollout and the update with its gradients, the larger counts); 1 layer not recomputed
reference    for the KL term (beta 0.001) and as the judge
stage 1      steps 1 to 2048, 2 epochs: accuracy 0.3, format 0.7
stage 2      steps 2049 to 4096, 2 epochs: accuracy 0.7, format 0.3
stage 3      steps 4097 to 12288, 8 epochs: accuracy 0.7, consistency 0.2, format 0.1
checkpoints  every 100 steps, keeps the last 3, in run
"
        );
    }

    #[test]
    fn permanent_checkpoints_are_listed() {
        let settings = GrpoSettings::default().with(|s| {
            s.run.output = "run".into();
            s.run.keep_every_epochs = Some(0.5);
        });
        let text = text(&settings, 4, 4).unwrap();
        let line =
            "checkpoints  every 100 steps, keeps the last 3 and one every 0.5 epochs, in run\n";
        assert!(text.ends_with(line), "{text}");
    }

    #[test]
    fn too_few_questions_are_refused() {
        let error = text(&GrpoSettings::default(), 5, 3).unwrap_err().to_string();
        assert_eq!(error, "3 of 5 questions are within the length limit, but a step needs 4");
    }
}
