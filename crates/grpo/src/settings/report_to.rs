//! Where a run logs its metrics in addition to `events.jsonl`.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Integrations that metrics are reported to: Hugging Face's `report_to`, a name or a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportTo {
    tensorboard: bool,
}

const TENSORBOARD: &str = "tensorboard";
const NONE: &str = "none";

impl ReportTo {
    /// No integration.
    pub const NONE: Self = Self { tensorboard: false };

    /// Whether metrics are written for TensorBoard.
    pub fn tensorboard(&self) -> bool {
        self.tensorboard
    }

    fn from_names<E: Error>(names: &[String]) -> Result<Self, E> {
        if let Some(name) = names.iter().find(|name| ![TENSORBOARD, NONE].contains(&name.as_str()))
        {
            return Err(E::custom(format!(
                "`{name}` is not supported; there are `tensorboard` and `none`; all metrics are in `events.jsonl`, which \
                 `python -m embodied_r.track RUN --to wandb|trackio --follow` sends to a tracker"
            )));
        }
        let tensorboard = names.iter().any(|name| name == TENSORBOARD);
        if tensorboard && names.iter().any(|name| name == NONE) {
            return Err(E::custom("combines `none` with `tensorboard`; keep one of them"));
        }
        Ok(Self { tensorboard })
    }
}

impl Default for ReportTo {
    /// TensorBoard: its event file is cheap.
    fn default() -> Self {
        Self { tensorboard: true }
    }
}

impl Serialize for ReportTo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = if self.tensorboard { [TENSORBOARD] } else { [NONE] };
        names.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ReportTo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = ReportTo;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`tensorboard`, `none`, or a list of them")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<ReportTo, E> {
        ReportTo::from_names(&[name.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ReportTo, A::Error> {
        let mut names: Vec<String> = Vec::new();
        while let Some(name) = list.next_element()? {
            names.push(name);
        }
        ReportTo::from_names(&names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<ReportTo, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_and_a_list_are_both_accepted() {
        for (given, tensorboard) in [
            (serde_json::json!("tensorboard"), true),
            (serde_json::json!(["tensorboard"]), true),
            (serde_json::json!("none"), false),
            (serde_json::json!(["none"]), false),
            (serde_json::json!([]), false),
        ] {
            assert_eq!(read(given.clone()).map(|to| to.tensorboard()), Ok(tensorboard), "{given}");
        }
    }

    #[test]
    fn unknown_and_contradictory_values_are_refused() {
        let unknown = read(serde_json::json!("wandb")).unwrap_err();
        assert!(unknown.contains("`wandb` is not supported; there are `tensorboard`"), "{unknown}");
        assert!(unknown.contains("python -m embodied_r.track RUN --to wandb"), "{unknown}");
        let both = read(serde_json::json!(["none", "tensorboard"])).unwrap_err();
        assert!(both.contains("keep one of them"), "{both}");
        assert!(read(serde_json::json!(3)).is_err());
    }

    #[test]
    fn it_round_trips_through_json() {
        for report_to in [ReportTo::default(), ReportTo::NONE] {
            let written = serde_json::to_value(report_to).unwrap();
            assert_eq!(read(written), Ok(report_to));
        }
    }
}
