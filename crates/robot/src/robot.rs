//! What prompts say about a robot and its world: the metadata M of Robot-R1.

use std::path::Path;

use embodied_r_files::read_text;
use serde::{Deserialize, Serialize};

use crate::demonstration::Position;
use crate::error::{Error, Result};

/// A robot and its world. Lengths are in metres.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Robot {
    /// Its name, such as `Franka Robot`.
    pub name: String,
    /// What the camera shows.
    pub view: String,
    /// Said about the coordinate system before the axes.
    #[serde(default)]
    pub view_note: Option<String>,
    /// The fixed reference point.
    pub origin: Position,
    /// Where the reference point is.
    pub origin_place: String,
    /// The axes x, y and z.
    #[serde(rename = "axis")]
    pub axes: [Axis; 3],
    /// The constant object that gives the image a scale.
    pub gripper: Gripper,
    /// The box of positions that the gripper reaches.
    pub workspace: Workspace,
}

/// An axis of the world frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// Where coordinates are largest.
    pub positive: String,
    /// Where coordinates are smallest.
    pub negative: String,
    /// The direction of a movement towards larger coordinates.
    pub forward: String,
    /// The direction of a movement towards smaller coordinates.
    pub backward: String,
}

/// The size of a gripper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gripper {
    /// Its extent along the axes.
    pub size: [f64; 3],
    /// The length of its fingers.
    pub finger_length: f64,
}

/// A box of positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// The smallest coordinates.
    pub min: Position,
    /// The largest coordinates.
    pub max: Position,
}

impl Default for Robot {
    /// The Franka Panda of RLBench, as in the paper: that of `configs/robots/franka-rlbench.toml`.
    fn default() -> Self {
        let axis = |[positive, negative, forward, backward]: [&str; 4]| Axis {
            positive: positive.to_owned(),
            negative: negative.to_owned(),
            forward: forward.to_owned(),
            backward: backward.to_owned(),
        };
        let note = "This is based on the front view. (In a wrist view, the Y-axis is mirrored.)";
        Self {
            name: "Franka Robot".to_owned(),
            view: "front view of the workspace".to_owned(),
            view_note: Some(note.to_owned()),
            origin: [0.25, 0.0, 0.752],
            origin_place: "the center of the table surface".to_owned(),
            axes: [
                axis(["front of table", "back of table", "forward", "backward"]),
                axis(["right", "left", "right", "left"]),
                axis(["up toward ceiling", "down toward floor", "up", "down"]),
            ],
            gripper: Gripper { size: [0.06, 0.2, 0.09], finger_length: 0.04 },
            workspace: Workspace { min: [-0.3, -0.5, 0.6], max: [0.7, 0.5, 1.6] },
        }
    }
}

impl Robot {
    /// Reads a robot from a TOML file.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, lacks a field or has an unknown one, or a number is out of range.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let robot: Self = toml::from_str(&text)
            .map_err(|source| Error::Toml { path: path.into(), source: Box::new(source) })?;
        robot.check().map_err(|(field, reason)| Error::Robot {
            path: path.into(),
            field,
            reason,
        })?;
        Ok(robot)
    }

    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        let positive =
            |values: &[f64]| values.iter().all(|value| value.is_finite() && *value > 0.0);
        if !finite(&self.origin) {
            return Err(("origin", "must be finite"));
        }
        if !positive(&self.gripper.size) {
            return Err(("gripper.size", "must be above 0"));
        }
        if !positive(&[self.gripper.finger_length]) {
            return Err(("gripper.finger_length", "must be above 0"));
        }
        let Workspace { min, max } = &self.workspace;
        if !finite(min) || !finite(max) || min.iter().zip(max).any(|(min, max)| min >= max) {
            return Err(("workspace", "must have each `min` below its `max`"));
        }
        let words = |axis: &Axis| axis.forward.trim().is_empty() || axis.forward == axis.backward;
        if self.axes.iter().any(words) {
            return Err(("axis", "must have different words for `forward` and `backward`"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRANKA_RLBENCH: &str = include_str!("../../../configs/robots/franka-rlbench.toml");

    #[test]
    fn the_default_is_the_shipped_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("robot.toml");
        std::fs::write(&path, FRANKA_RLBENCH).unwrap();
        assert_eq!(Robot::read(&path).unwrap(), Robot::default());
    }

    #[track_caller]
    fn fails(from: &str, to: &str, expected: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("robot.toml");
        let text = FRANKA_RLBENCH.replace(from, to);
        assert_ne!(text, FRANKA_RLBENCH);
        std::fs::write(&path, text).unwrap();
        let error = Robot::read(&path).unwrap_err().to_string();
        assert!(error.contains("robot.toml") && error.contains(expected), "{error}");
    }

    #[test]
    fn faults_name_the_file_and_the_field() {
        fails("finger_length = 0.04", "finger_length = -1", "`gripper.finger_length`");
        fails("size = [0.06, 0.2, 0.09]", "size = [0.06, 0.2]", "size");
        fails("max = [0.7", "max = [-0.7", "`workspace`");
        fails("name = ", "nome = ", "nome");
        fails("forward = \"up\"", "forward = \"down\"", "`axis`");
        fails("origin = [0.25", "origin = [nan", "`origin`");
    }
}
