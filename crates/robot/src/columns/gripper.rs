//! Where the gripper's opening is.

use std::collections::BTreeMap;

use embodied_r_lerobot::Feature;
use serde::Serialize;

use super::{fault, is_number, list};
use crate::error::Result;

const KEY: &str = "--gripper-key";
const DIM: &str = "--gripper-dim";

/// Where the gripper's opening is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GripperColumn {
    /// Names say so: of the state, or else of another feature.
    #[default]
    ByName,
    /// At this index of the state.
    Dim(usize),
    /// In the feature `key`, at the index `dim`, or where names say so.
    Key {
        /// The feature.
        key: String,
        /// The index.
        dim: Option<usize>,
    },
    /// Nowhere: the gripper never changes.
    Absent,
}

/// A value of a feature: the gripper's opening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gripper {
    /// The feature.
    pub key: String,
    /// The index of the value in the feature.
    pub dim: usize,
}

/// Whether a name is one of a gripper's opening.
fn is_gripper(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("gripper") && !name.contains("vel")
}

/// Whether a feature can hold a gripper's opening.
fn is_opening(feature: &Feature) -> bool {
    is_number(feature) || feature.dtype.starts_with("bool")
}

/// Where the gripper's opening is, if it is recorded.
pub(super) fn gripper(
    features: &BTreeMap<String, Feature>,
    state_key: &str,
    wanted: &GripperColumn,
) -> Result<Option<Gripper>> {
    let (key, dim) = match wanted {
        GripperColumn::Absent => return Ok(None),
        GripperColumn::Dim(dim) => (state_key, Some(*dim)),
        GripperColumn::Key { key, dim } => (key.as_str(), *dim),
        GripperColumn::ByName => (by_name(features, state_key)?, None),
    };
    let feature = features.get(key).filter(|feature| is_opening(feature)).ok_or_else(|| {
        let all = features.iter().filter(|(_, feature)| is_opening(feature));
        let all = list(all.map(|(key, _)| key.as_str()));
        fault(KEY, format!("names no feature of numbers or booleans: `{key}`; there are {all}"))
    })?;
    let width = feature.width();
    let dim = match dim {
        Some(dim) if dim < width => dim,
        Some(_) => {
            let reason = format!("must be an index below {width}, the width of `{key}`");
            return Err(fault(DIM, reason));
        }
        None if width == 1 => 0,
        None => dim_by_name(key, feature)?,
    };
    Ok(Some(Gripper { key: key.to_owned(), dim }))
}

/// The feature whose key or names say `gripper`: the state, then one that is observed, then an action; by key before names.
fn by_name<'a>(features: &'a BTreeMap<String, Feature>, state_key: &'a str) -> Result<&'a str> {
    let names = |key: &str| features.get(key).and_then(|it| it.names.as_deref()).unwrap_or(&[]);
    let is_named = |key: &str| names(key).iter().any(|name| is_gripper(name));
    if is_named(state_key) {
        return Ok(state_key);
    }
    let openings: Vec<&str> = features
        .iter()
        .filter(|(_, feature)| is_opening(feature))
        .map(|(key, _)| key.as_str())
        .collect();
    for is_observed in [true, false] {
        let of_kind = |key: &&str| key.starts_with("observation.") == is_observed;
        let rules: [&dyn Fn(&str) -> bool; 2] = [&is_gripper, &is_named];
        for rule in rules {
            let found = openings.iter().copied().filter(of_kind).filter(|key| rule(key));
            match found.collect::<Vec<_>>().as_slice() {
                [] => {}
                [key] => return Ok(key),
                keys => {
                    let keys = list(keys.iter().copied());
                    return Err(fault(KEY, format!("must name one of the grippers: {keys}")));
                }
            }
        }
    }
    Err(fault(
        KEY,
        format!(
            "is needed, or `--gripper-dim none`: no key and no names of a feature have `gripper`; there are {}",
            list(openings)
        ),
    ))
}

/// The index of the only name that says `gripper`.
fn dim_by_name(key: &str, feature: &Feature) -> Result<usize> {
    let names = feature.names.as_deref().unwrap_or_default();
    let found: Vec<usize> = (0..names.len()).filter(|dim| is_gripper(&names[*dim])).collect();
    match found.as_slice() {
        [dim] => Ok(*dim),
        _ => {
            let count = if found.is_empty() { "no name" } else { "more than one name" };
            let names = list(names.iter().map(String::as_str));
            let reason = format!("is needed, or `none`: {count} of `{key}` has `gripper`: {names}");
            Err(fault(DIM, reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{feature, reason};
    use super::*;

    fn features(of: &[(&str, &[&str])]) -> BTreeMap<String, Feature> {
        of.iter().map(|(key, names)| ((*key).to_owned(), feature(names))).collect()
    }

    fn found(of: &[(&str, &[&str])], wanted: &GripperColumn) -> Option<(String, usize)> {
        gripper(&features(of), "state", wanted).unwrap().map(|it| (it.key, it.dim))
    }

    fn refusal(of: &[(&str, &[&str])], wanted: &GripperColumn) -> String {
        reason(gripper(&features(of), "state", wanted))
    }

    fn place(key: &str, dim: usize) -> Option<(String, usize)> {
        Some((key.to_owned(), dim))
    }

    fn key(key: &str, dim: Option<usize>) -> GripperColumn {
        GripperColumn::Key { key: key.to_owned(), dim }
    }

    const XYZ: (&str, &[&str]) = ("state", &["x", "y", "z"]);

    #[test]
    fn the_gripper_is_found_by_the_names_of_the_state_or_left_out() {
        let state: &[(&str, &[&str])] =
            &[("state", &["x", "Gripper_open"]), ("observation.gripper", &["a"])];
        assert_eq!(found(state, &GripperColumn::ByName), place("state", 1));
        assert_eq!(found(state, &GripperColumn::Dim(0)), place("state", 0));
        assert_eq!(found(state, &GripperColumn::Absent), None);
        assert!(refusal(state, &GripperColumn::Dim(2)).contains("must be an index below 2"));
        let two = &[("state", &["gripper.left", "gripper.right"][..])];
        let error = refusal(two, &GripperColumn::ByName);
        assert!(error.contains("`--gripper-dim` is needed, or `none`"), "{error}");
    }

    #[test]
    fn a_gripper_in_a_feature_of_its_own_is_found_by_key_then_by_names_and_observed_before_actions()
    {
        // The layout of DROID.
        let droid: &[(&str, &[&str])] = &[
            XYZ,
            ("action.gripper_position", &["gripper"]),
            ("observation.state", &["joint_0", "gripper"]),
            ("observation.state.gripper_position", &["gripper"]),
            ("observation.state.gripper_velocity", &["gripper"]),
        ];
        let own = place("observation.state.gripper_position", 0);
        assert_eq!(found(droid, &GripperColumn::ByName), own);
        assert_eq!(found(&droid[..3], &GripperColumn::ByName), place("observation.state", 1));
        assert_eq!(found(&droid[..2], &GripperColumn::ByName), place(droid[1].0, 0));
        let twice: &[(&str, &[&str])] =
            &[XYZ, ("observation.gripper_left", &["a"]), ("observation.gripper_right", &["a"])];
        let error = refusal(twice, &GripperColumn::ByName);
        assert!(error.contains("`--gripper-key` must name one of the grippers"), "{error}");
        assert!(error.contains("`observation.gripper_left`, `observation.gripper_right`"));
        let error = refusal(&[XYZ], &GripperColumn::ByName);
        assert!(error.contains("`--gripper-key` is needed, or `--gripper-dim none`"), "{error}");
    }

    #[test]
    fn a_key_is_of_any_feature_and_the_index_one_of_it() {
        let of: &[(&str, &[&str])] = &[XYZ, ("action", &["dx", "dy", "gripper"])];
        assert_eq!(found(of, &key("action", None)), place("action", 2));
        assert_eq!(found(of, &key("action", Some(1))), place("action", 1));
        let error = refusal(of, &key("action", Some(3)));
        assert!(error.contains("below 3, the width of `action`"), "{error}");
        let error = refusal(of, &key("grip", None));
        assert!(error.contains("`--gripper-key` names no feature") && error.contains("`action`"));
        let mut boolean = features(of);
        boolean.insert("open".to_owned(), Feature { dtype: "bool".to_owned(), ..feature(&["a"]) });
        let own = gripper(&boolean, "state", &key("open", None)).unwrap();
        assert_eq!(own, Some(Gripper { key: "open".to_owned(), dim: 0 }));
    }
}
