//! Whether positions can be those of a gripper in metres.

use super::list;
use crate::demonstration::Demonstration;

/// Farther from the origin than this, in metres, a table-top arm does not reach. No joint angle is larger in radians.
const REACH_M: f64 = 3.0;

/// What names of joints have.
const JOINTS: [&str; 7] = ["joint", "shoulder", "elbow", "wrist", "waist", "forearm", "motor"];

/// A warning if the names of the position's values, or without names the feature's key, are those of joints.
pub(super) fn joints(key: &str, dims: [usize; 3], names: Option<&[String]>) -> Option<String> {
    let names: Vec<&str> = match names {
        Some(names) => dims.iter().filter_map(|dim| names.get(*dim)).map(String::as_str).collect(),
        None => vec![key],
    };
    names.iter().any(|name| is_joint(name)).then(|| {
        format!(
            "the position is read from joints by their names: {} of `{key}`; name the gripper's position in metres with \
             `--state-key` and `--position-dims`",
            list(names)
        )
    })
}

/// Whether a name is one of a joint, and not of an axis of its position, such as `wrist.x`.
fn is_joint(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut parts = name.split(|c: char| !c.is_ascii_alphanumeric());
    JOINTS.iter().any(|joint| name.contains(joint))
        && !parts.any(|part| matches!(part, "x" | "y" | "z"))
}

/// A warning if a position is too far from the origin.
pub(super) fn far(key: &str, demonstrations: &[Demonstration]) -> Option<String> {
    let values = demonstrations.iter().flat_map(|it| &it.positions).flatten();
    let largest = values.fold(0.0, |largest: f64, value| largest.max(value.abs()));
    (largest > REACH_M).then(|| {
        format!(
            "positions of `{key}` are up to {largest:.1} m from the origin: if they are not in metres, convert them with \
             `--position-scale`, such as 0.001 for millimetres"
        )
    })
}

#[cfg(test)]
mod tests {
    use embodied_r_lerobot::TaskSpan;

    use super::*;

    #[test]
    fn joints_are_named_whether_the_values_or_the_feature_have_their_names() {
        let doubt = |key: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            joints(key, [0, 1, 2], (!names.is_empty()).then_some(&names))
        };
        let joint = doubt("observation.state", &["joint_0", "joint_1", "joint_2", "x"]).unwrap();
        assert!(
            joint.contains("`joint_0`, `joint_1`, `joint_2` of `observation.state`"),
            "{joint}"
        );
        assert!(doubt("s", &["shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos"]).is_some());
        assert!(doubt("observation.joint_position", &[]).is_some());
        assert_eq!(doubt("s", &["x", "y", "z", "joint_0"]), None);
        assert_eq!(doubt("s", &["wrist.x", "wrist.y", "wrist.z"]), None);
        assert_eq!(doubt("observation.state", &[]), None);
    }

    #[test]
    fn millimetres_are_too_far_from_the_origin_and_metres_are_not() {
        let at = |x: f64| Demonstration {
            episode: 0,
            tasks: vec![TaskSpan { start: 0, task: "push".to_owned() }],
            positions: vec![[0.0; 3], [0.3, x, 0.1]],
            gripper: Vec::new(),
            joint_speeds: Vec::new(),
            annotations: Vec::new(),
        };
        let doubt = far("s", &[at(0.4), at(-452.06)]).unwrap();
        assert!(doubt.contains("up to 452.1 m") && doubt.contains("`--position-scale`"), "{doubt}");
        assert_eq!(far("s", &[at(0.4), at(-1.6)]), None);
    }
}
