//! Settings of the judge of the consistency reward.

use embodied_r_rewards::check_base_url;
use embodied_r_rewards::service::base_urls;
use serde::{Deserialize, Serialize};

use super::faults::Faults;

/// The judge of the `consistency` reward: does the reasoning lead to the answer?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgeKind {
    /// The frozen reference model, in process.
    #[default]
    Reference,
    /// An OpenAI-compatible server.
    Http,
}

/// The judge and where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeSettings {
    /// Judge of the `consistency` reward: `reference` (in process) or `http`. Default: `reference`.
    pub judge: JudgeKind,
    /// Base URL of the judge's OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`; required by `judge =
    /// "http"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_base_url: Option<String>,
    /// Model name that the judge's server expects; required by `judge = "http"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge_model: Option<String>,
}

impl Default for JudgeSettings {
    fn default() -> Self {
        Self { judge: JudgeKind::Reference, judge_base_url: None, judge_model: None }
    }
}

impl JudgeSettings {
    pub(super) fn add_faults(&self, faults: &mut Faults) {
        let http = self.judge == JudgeKind::Http;
        faults.unless(!http || self.judge_base_url.is_some(), "judge_base_url", || {
            "is required by `judge = \"http\"`".into()
        });
        for url in self.judge_base_url.iter().flat_map(|urls| base_urls(urls)) {
            if let Err(error) = check_base_url(url) {
                faults.unless(false, "judge_base_url", || error.to_string());
            }
        }
        faults.unless(!http || self.judge_model.is_some(), "judge_model", || {
            "is required by `judge = \"http\"`".into()
        });
    }
}
