//! The batch of a step that had to be left out, written down so that it can be looked into.

use std::path::PathBuf;

use embodied_r_data::write::write_atomic;
use serde_json::{Value, json};

use super::Trainer;
use super::step::MicroBatch;
use crate::error::{Error, Result};
use crate::model::Model;

/// Folder of the dumps in a run's folder.
const FOLDER: &str = "skipped";

impl<M: Model> Trainer<'_, M> {
    /// Writes the micro-batches of step `step` (from 0) as JSON; gives the file.
    pub(super) fn dump(&self, step: u64, batches: &[MicroBatch]) -> Result<PathBuf> {
        let path = self.settings.output.join(FOLDER).join(format!("step-{:06}.json", step + 1));
        let groups: Vec<Value> = batches.iter().flat_map(groups).collect();
        let bytes = serde_json::to_vec(&json!({ "groups": groups })).map_err(Error::json(&path))?;
        write_atomic(&path, &bytes)?;
        Ok(path)
    }
}

fn groups(batch: &MicroBatch) -> Vec<Value> {
    let mut completions = batch.completions();
    let mut start = 0;
    batch
        .groups
        .iter()
        .map(|group| {
            let completions: Vec<Value> = group
                .completions
                .iter()
                .zip(&mut completions)
                .map(|(ids, (length, advantage))| {
                    let tokens = start..start + length;
                    start += length;
                    let mut value = json!({ "ids": ids, "advantage": advantage });
                    for (name, logps) in
                        [("old_logps", &batch.old), ("ref_logps", &batch.reference)]
                    {
                        if let Some(logps) = logps.get(tokens.clone()) {
                            value[name] = json!(logps);
                        }
                    }
                    value
                })
                .collect();
            json!({ "prompt_ids": group.prompt, "completions": completions })
        })
        .collect()
}
