//! Evaluation in the course of training: greedy, in a key space of its own.

use std::collections::BTreeMap;

use embodied_r_rewards::{Accuracy, Format, Reward, Scored};

use super::Trainer;
use crate::error::Result;
use crate::events::Metrics;
use crate::model::{Finish, Model, Sampling};
use crate::rollout;

impl<M: Model> Trainer<'_, M> {
    /// Answers all evaluation questions greedily and scores them: accuracy, over all and by
    /// category, and format.
    pub(super) fn evaluate(&self) -> Result<Metrics> {
        let questions: Vec<_> = self.eval.iter().enumerate().collect();
        let sampling = Sampling {
            max_new_tokens: self.settings.max_completion_length,
            stop_ids: self.text.stop_ids().to_vec(),
            ..Sampling::greedy()
        };
        let rollouts = rollout::sample(
            &self.policy,
            self.text.as_ref(),
            &questions,
            1,
            (&sampling, None),
            (self.settings.seed, 0),
            &|_| {},
        )?;
        let completions: Vec<_> = rollouts.iter().map(|rollout| &rollout.completions[0]).collect();
        let batch: Vec<Scored<'_>> = rollouts
            .iter()
            .zip(&completions)
            .map(|(rollout, completion)| Scored {
                question: &rollout.question,
                solution: &rollout.solution,
                completion: &completion.text,
                ..Scored::default()
            })
            .collect();
        let accuracy = values(&Accuracy, &batch)?;
        let format = values(&Format, &batch)?;

        let n = completions.len().max(1) as f64;
        let mut metrics = Metrics::new();
        metrics.insert("eval/accuracy".into(), accuracy.iter().sum::<f64>() / n);
        metrics.insert("eval/format".into(), format.iter().sum::<f64>() / n);
        let mut categories: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (prompted, score) in self.eval.iter().zip(&accuracy) {
            let entry = categories.entry(&prompted.question.question_category).or_default();
            *entry = (entry.0 + score, entry.1 + 1.0);
        }
        for (category, (sum, n)) in categories {
            metrics.insert(format!("eval/accuracy/{category}"), sum / n);
        }
        let tokens = completions.iter().map(|completion| completion.ids.len()).sum::<usize>();
        let cut = completions.iter().filter(|c| c.finish == Finish::Length).count();
        metrics.insert("eval/completions/mean_length".into(), tokens as f64 / n);
        metrics.insert("eval/completions/clipped_ratio".into(), cut as f64 / n);
        metrics.insert("eval/n".into(), completions.len() as f64);
        Ok(metrics)
    }
}

fn values(reward: &dyn Reward, batch: &[Scored<'_>]) -> Result<Vec<f64>> {
    let scores = reward.score(batch)?;
    Ok(scores.into_iter().map(|score| score.value.unwrap_or(0.0)).collect())
}
