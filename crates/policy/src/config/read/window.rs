//! Parses the sliding windows.

use serde_json::Value;

use super::{Fields, display};
use crate::config::{ConfigFault, SlidingWindow};

/// Default window size in tokens.
const DEFAULT_WINDOW: usize = 4_096;

impl Fields<'_> {
    /// Sliding windows as in `Qwen2Config` and `Qwen2_5_VLTextConfig` of `transformers`: the layers of
    /// `layer_types`, else the layers from `max_window_layers` on.
    pub(super) fn sliding_window(&mut self, layers: usize) -> Option<SlidingWindow> {
        let window = self.window_size();
        let sliding = match self.get("layer_types") {
            Some(kinds) => self.sliding_among(kinds, layers),
            None if window.is_some() => {
                let first = self.first_sliding();
                (first..layers).collect()
            }
            None => Vec::new(),
        };
        if sliding.is_empty() {
            return None;
        }
        if !self.family.has_windows {
            let (field, found) = match self.get("layer_types") {
                Some(_) => ("layer_types", Value::from("sliding_attention")),
                None => ("use_sliding_window", Value::from(true)),
            };
            self.reject(field, &found, "this family has full attention in every layer");
            return None;
        }
        let Some(tokens) = window else {
            let want = "`full_attention` unless `use_sliding_window` and `sliding_window` are set";
            self.faults.push(ConfigFault::wrong("layer_types", "sliding_attention", want));
            return None;
        };
        Some(SlidingWindow { tokens, layers: sliding })
    }

    /// The window size, if sliding windows are enabled.
    fn window_size(&mut self) -> Option<usize> {
        match self.get("use_sliding_window") {
            None | Some(Value::Bool(false)) => return None,
            Some(Value::Bool(true)) => {}
            Some(found) => {
                let (found, want) = (display(found), "`true` or `false`");
                self.faults.push(ConfigFault::wrong("use_sliding_window", found, want));
                return None;
            }
        }
        let none = self.text.get("sliding_window").is_some_and(Value::is_null);
        (!none).then(|| self.count("sliding_window", Some(DEFAULT_WINDOW)).max(1))
    }

    fn first_sliding(&mut self) -> usize {
        let Some(value) = self.get("max_window_layers") else {
            return self.source.first_window;
        };
        match value.as_u64().and_then(|first| usize::try_from(first).ok()) {
            Some(first) => first,
            None => {
                let want = "a layer index";
                self.faults.push(ConfigFault::wrong("max_window_layers", display(value), want));
                usize::MAX
            }
        }
    }

    /// The layers that `layer_types` marks as sliding.
    fn sliding_among(&mut self, kinds: &Value, layers: usize) -> Vec<usize> {
        let Value::Array(kinds) = kinds else {
            let want = "a list with one type per layer";
            self.faults.push(ConfigFault::wrong("layer_types", display(kinds), want));
            return Vec::new();
        };
        // An invalid `num_hidden_layers` is reported separately.
        if layers > 0 && kinds.len() != layers {
            let found = format!("a list of {}", kinds.len());
            let want = "a list of `num_hidden_layers` types";
            self.faults.push(ConfigFault::wrong("layer_types", found, want));
        }
        let mut sliding = Vec::new();
        for (layer, kind) in kinds.iter().enumerate() {
            match kind.as_str() {
                Some("full_attention") => {}
                Some("sliding_attention") => sliding.push(layer),
                _ => {
                    let why = "use `full_attention` or `sliding_attention`";
                    self.reject("layer_types", kind, why);
                    return Vec::new();
                }
            }
        }
        sliding
    }
}
