//! Tests of entire runs, on a bigram model that learns to generate `<think>t</think><answer>A</answer>`.

mod consistency;
mod learning;
mod mini_batches;
mod non_finite;
mod ranks;
mod resampling;
mod resume;
mod stages;
mod warnings;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use embodied_r_data::Question;
use embodied_r_data::system_prompt::SystemPrompt;
use embodied_r_rewards::Stage;
use embodied_r_rewards::stages::StageLength;

use super::*;
use crate::checkpoint::{Checkpoint, Checkpoints, State};
use crate::data::length_limit::{LengthLimit, TruncationStrategy};
use crate::data::questions::{Prompts, TokenizedQuestion, prompts};
use crate::error::{Error, Result};
use crate::events::{Event, Parquet, Sink};
use crate::model::WriterRank;
use crate::model::tests::toy::{Bigram, Words};
use crate::rewards::scoring::reward_names;
use crate::rollout::Rollout;
use crate::trainer::RunOutcome;
use crate::trainer::tests::{StopAfter, run_inputs};
use embodied_r_dist::ProcessGroup;

/// Questions whose answer is always A.
fn questions(n: usize) -> Vec<TokenizedQuestion> {
    let question = |i: usize| -> Question {
        serde_json::from_value(serde_json::json!({
            "Question_id": i,
            "question_category": if i.is_multiple_of(2) { "even" } else { "odd" },
            "question": "Question: x",
            "answer": "A",
        }))
        .unwrap()
    };
    let limit = LengthLimit::of_prompts(100, 100, TruncationStrategy::Delete);
    prompts((0..n).map(question).collect(), &Words::new(), &SystemPrompt::default(), &limit)
        .unwrap()
        .questions
}

fn stage(epochs: f64, format: f64, accuracy: f64) -> Stage {
    let weights = [("format".to_owned(), format), ("accuracy".to_owned(), accuracy)];
    Stage::new(StageLength::Epochs(epochs), weights.into())
}

/// Eight steps of two questions with four completions each.
fn settings(output: &Path) -> GrpoSettings {
    GrpoSettings::default().with(|s| {
        s.run.output = output.into();
        s.rollout.num_generations = 4;
        s.rollout.generation_batch_size = 8;
        s.loss.max_completion_length = 5;
        s.lr.learning_rate = 0.05;
        s.lr.warmup_ratio = 0.0;
        s.optimizer.weight_decay = 0.01;
        s.loss.beta = 0.01;
        s.stages.stage = vec![stage(1.0, 0.5, 0.5), stage(1.0, 0.2, 0.8)];
        s.evaluation.save_steps = 4;
        s.evaluation.eval_steps = 4;
    })
}

/// Collects the completions of the steps.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<Vec<Rollout>>>>);

impl Sink for Keep {
    fn event(&mut self, _: &Event) -> Result<()> {
        Ok(())
    }

    fn completions(&mut self, _: u64, rollouts: &[Rollout]) -> Result<()> {
        self.0.lock().unwrap().push(rollouts.to_vec());
        Ok(())
    }
}

/// Runs in `settings.run.output`, new or resumed, optionally stopped after a step.
fn run(settings: &GrpoSettings, stop_after: Option<u64>) -> Result<RunOutcome> {
    run_from(Bigram::new(6, 3), settings, stop_after)
}

fn run_from(model: Bigram, settings: &GrpoSettings, stop_after: Option<u64>) -> Result<RunOutcome> {
    let stop = AtomicBool::new(false);
    let sink = stop_after.map(|step| Box::new(StopAfter(step, &stop)) as Box<dyn Sink + '_>);
    run_until(model, settings, &stop, sink.into_iter().collect())
}

/// Runs with additional sinks.
fn run_with(
    model: Bigram,
    settings: &GrpoSettings,
    sinks: Vec<Box<dyn Sink + '_>>,
) -> Result<RunOutcome> {
    run_until(model, settings, &AtomicBool::new(false), sinks)
}

/// Eight questions, and two for evaluations.
fn data(settings: &GrpoSettings) -> Result<GrpoData> {
    let all = |n| Prompts { questions: questions(n), too_long: 0 };
    GrpoData::new(settings, all(8), all(2))
}

fn inputs<'a>(settings: &'a GrpoSettings, base: &'a Path, stop: &'a AtomicBool) -> GrpoInputs<'a> {
    GrpoInputs {
        settings,
        data: data(settings).unwrap(),
        judge: None,
        activation_cache: None,
        verify_packing: true,
        run: run_inputs(base, stop),
    }
}

fn run_until<'a>(
    model: Bigram,
    settings: &'a GrpoSettings,
    stop: &'a AtomicBool,
    mut sinks: Vec<Box<dyn Sink + 'a>>,
) -> Result<RunOutcome> {
    let base = settings.run.output.join("base");
    std::fs::create_dir_all(&base).unwrap();
    let last = Checkpoints::new(&settings.run.output, 1).last()?;
    if last.is_none() {
        model.save(&base, WriterRank::SINGLE).unwrap();
    }
    let names = reward_names(settings, &settings.stages().unwrap());
    sinks.insert(0, Box::new(Parquet::new(&settings.run.output, names, Vec::new())));
    data(settings)?;
    let inputs = inputs(settings, &base, stop);
    match last {
        Some(checkpoint) => GrpoTrainer::<Bigram>::resume(&checkpoint, inputs, sinks)?.run(),
        None => GrpoTrainer::start(model, inputs, sinks)?.run(),
    }
}

/// A new run of `model` with an external judge and additional sinks.
fn run_new(
    model: Bigram,
    settings: &GrpoSettings,
    judge: Option<Box<dyn Judge>>,
    sinks: Vec<Box<dyn Sink + '_>>,
) -> Result<RunOutcome> {
    let stop = AtomicBool::new(false);
    let mut inputs = GrpoInputs { judge, ..inputs(settings, &settings.run.output, &stop) };
    inputs.data.eval.questions.clear();
    GrpoTrainer::start(model, inputs, sinks)?.run()
}

/// The run's events without clock-dependent fields.
fn events(output: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(output.join("events.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
            let fields = event.as_object_mut().unwrap();
            crate::events::NONDETERMINISTIC_FIELDS
                .iter()
                .for_each(|name| drop(fields.remove(*name)));
            event
        })
        .collect()
}

fn of_kind(events: &[serde_json::Value], kind: &str) -> Vec<serde_json::Value> {
    events.iter().filter(|event| event["event"] == kind).cloned().collect()
}
