//! `--dry-run`: batch arithmetic, stages and memory of a run.

mod stages;

use std::fmt::Write as _;

use embodied_r_grpo::data::sampler::BatchSampler;
use embodied_r_grpo::estimate::memory_plan::{ActivationCachePolicy, MemoryPlan, Workload};
use embodied_r_grpo::rewards::scoring::needs_judge;
use embodied_r_grpo::rollout::partition::completions_per_rank;
use embodied_r_grpo::schedule::training_plan::TrainingPlan;
use embodied_r_grpo::settings::{GrpoSettings, JudgeKind};
use embodied_r_grpo::{Error, Result};
use embodied_r_policy::trainable::ParameterCounts;

use super::memory::{memory_summary, share};

/// The plan of a run as text; of `given` questions, `left` fit the prompt limit.
pub(super) fn text(
    settings: &GrpoSettings,
    trained: ParameterCounts,
    (memory, ranks): (&MemoryPlan, usize),
    longest_prompt: usize,
    (given, left): (usize, usize),
    (eval_given, eval_left): (usize, usize),
) -> Result<String> {
    let schedule = settings.stages().map_err(Error::Settings)?;
    let (completions, each) =
        (settings.rollout.generation_batch_size, settings.rollout.num_generations);
    let needed = settings.rollout.questions_per_step();
    let sampler = BatchSampler::new(left, needed, settings.run.seed);
    let sampler = sampler.ok_or(Error::TooFew { what: "questions", given, left, needed })?;
    let per_epoch = sampler.steps_per_epoch();
    let plan = TrainingPlan::new(settings, &schedule, per_epoch).map_err(Error::Settings)?;
    let iterations = settings.rollout.num_iterations as u64;
    let optimizer_steps = plan.total_steps * iterations;
    let scheduler = settings.lr.lr_scheduler_type;
    let warmup =
        scheduler.warmup_steps(settings.lr.warmup_steps, settings.lr.warmup_ratio, optimizer_steps);

    let mut out = String::new();
    let mut line = |name: &str, what: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<12} {what}");
    };
    line("model", settings.run.model.clone());
    line("trainable", trained.to_string());
    line("questions", format!("{given} in total, {} too long, {left} used", given - left));
    if eval_given > 0 {
        line(
            "evaluation",
            format!(
                "{eval_left} of {eval_given} questions every {} steps, before the first and after \
                 the last step",
                settings.evaluation.eval_steps
            ),
        );
    }
    line("step", format!("{completions} completions = {needed} questions x {each} completions"));
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
        format!("{warmup} steps to {:e}, then {}", settings.lr.learning_rate, scheduler.decay()),
    );
    let budget = settings.run.max_tokens_per_batch;
    line(
        "micro-batch",
        format!(
            "at most {budget} tokens, shared prompts counted once; for a prompt over {} tokens, twice its length",
            budget / 2
        ),
    );
    let never = ActivationCachePolicy::Never;
    let workload = Workload::for_training(settings, &schedule, trained, longest_prompt, never);
    let most = completions_per_rank(&workload.parts(ranks), ranks).into_iter().max().unwrap_or(0);
    let share = share(ranks, (most, completions, "completions"), settings.optimizer.optim);
    if let Some((name, what)) = share {
        line(name, what);
    }
    line("memory", memory_summary(memory, ranks));
    line("reference", reference(settings, needs_judge(settings, &schedule)));
    for (name, what) in stages::lines(&plan) {
        line(&name, what);
    }
    for (name, what) in stages::reward_lines(settings)? {
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
    use super::*;

    const TRAINED: ParameterCounts = ParameterCounts { trainable: 1500, total: 6000 };

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
        saved_layers: 1,
    };

    #[test]
    fn the_papers_run_over_its_training_set() {
        let settings = GrpoSettings::default().with(|s| {
            s.run.model = "Qwen/Qwen2.5-VL-3B-Instruct".into();
            s.run.output = "run".into();
        });
        assert_eq!(
            text(&settings, TRAINED, (&MEMORY, 1), 0, (4100, 4098), (0, 0)).unwrap(),
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
        let text = text(&settings, TRAINED, (&MEMORY, 1), 0, (4, 4), (0, 0)).unwrap();
        let line =
            "checkpoints  every 100 steps, keeps the last 3 and one every 0.5 epochs, in run\n";
        assert!(text.ends_with(line), "{text}");
    }

    #[test]
    fn too_few_questions_are_refused() {
        let error = text(&GrpoSettings::default(), TRAINED, (&MEMORY, 1), 0, (5, 3), (0, 0))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "3 of 5 questions are within the length limit, but a step needs 4");
    }
}
